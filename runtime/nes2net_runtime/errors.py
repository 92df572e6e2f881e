"""Errors that a caller may want to tell apart. A message is one line: which file, what is wrong, what to do.

Nes2NetError
├── AudioError        a file or waveform that can't be scored
│   └── NoAudioError  a folder that holds none
├── BundleError       a bundle that is missing, damaged, newer, or can't be written
├── CheckpointError   not a detector's checkpoint, or one that does not fit
├── ProviderError     an execution provider or ONNX Runtime itself that is not there
├── DeviceError       a sound device
├── ProtocolError     a list of trials; each of its problems has a line of its own
└── ParityError       a verification that failed
"""


class Nes2NetError(Exception):
    """Base of all errors that this toolkit raises on purpose."""


class AudioError(Nes2NetError, ValueError):
    """Audio that can't be read or scored."""


class NoAudioError(AudioError):
    """A folder without audio files."""


class BundleError(Nes2NetError):
    """A bundle that can't be trusted, read or written."""


class CheckpointError(Nes2NetError, ValueError):
    """A file that is not a usable checkpoint, or options that do not fit it."""


class ProviderError(Nes2NetError, RuntimeError):
    """ONNX Runtime or an execution provider that is not there, or that did not really run."""


class DeviceError(Nes2NetError, OSError):
    """A sound device that is not there or went away."""


class ProtocolError(Nes2NetError, ValueError):
    """A list of labelled trials that can't be used."""


class ParityError(Nes2NetError):
    """A result past its bound; nothing was written."""
