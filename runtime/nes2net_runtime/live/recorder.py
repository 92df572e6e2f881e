"""Keeps the audio of a stream as the detector heard it: 16 kHz FLAC of 24 bits.

Scored again with `--segment windows`, it gives the stream's scores. A gap begins a new file (NAME-2.flac,
NAME-3.flac …), since no audio is invented and windows begin anew after it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.errors import AudioError
from nes2net_runtime.live.loop import Event
from nes2net_runtime.results import Outage


class Recorder:
    """Writes a stream's audio; what is beyond full scale is clipped, since FLAC can't hold it."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Raises AudioError where the file can't be written."""
        self._path, self._say, self._files, self._clipped = path, say, 0, 0
        self._failed = False
        self._file: soundfile.SoundFile | None = self._open()

    def audio(self, samples: Samples) -> None:
        """Write the next samples. Where that fails the recording stops, and the stream goes on."""
        if not len(samples) or self._failed:
            return
        try:
            file = self._file = self._file or self._open()
            file.write(samples)
        except (AssertionError, AudioError, soundfile.LibsndfileError) as error:  # full disk
            self._failed = True
            self._say(f"warning: {self._path}: recording has stopped ({error or 'is the disk full?'})")
        self._clipped += int(np.count_nonzero(np.abs(samples) > 1.0))

    def event(self, event: Event) -> None:
        """A gap: what follows goes into another file."""
        if isinstance(event, Outage):
            self._finish()

    def close(self) -> None:
        """Finish, and say what could not be kept."""
        self._finish()
        if self._clipped:
            self._say(f"warning: {self._path}: {self._clipped} samples beyond full scale were clipped")

    def _finish(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> soundfile.SoundFile:
        self._files += 1
        suffix = "" if self._files == 1 else f"-{self._files}"
        path = self._path.with_name(f"{self._path.stem}{suffix}{self._path.suffix}")
        try:
            return soundfile.SoundFile(path, "w", SAMPLE_RATE, 1, "PCM_24", format="FLAC")
        except (OSError, soundfile.LibsndfileError) as error:
            raise AudioError(f"{path}: can't be written ({error})") from error
