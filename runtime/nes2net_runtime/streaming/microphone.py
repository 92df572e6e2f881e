"""A sound device as a source that survives its troubles.

PortAudio's callback only copies into a ring. Devices fail in silence (seen with PulseAudio): a stream ends
without an exception, or stays active and gives nothing, and the sound server may be restarted. So `read`
watches the time since the last block; where none came for a second the device is closed, PortAudio is started
anew (it knows only the devices of its start) and the device opened again, until blocks come. The audio in
between is reported as lost, with its length by the clock. A shorter silence shows in the times of the blocks.
Where a sound server moves the stream to another source it goes on, and nobody can notice.
"""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from nes2net_runtime.audio import Samples
from nes2net_runtime.errors import DeviceError
from nes2net_runtime.streaming.ring import Lost, Ring
from nes2net_runtime.streaming.sources import BACKLOG, BLOCK, Gap, unread

RATES = (48_000, 44_100, 16_000)  # tried in turn: resampling is better done here than in a sound server
BLOCKS_PER_SECOND = 50
STALL = 1.0  # seconds without a block
PATIENCE = 5.0  # seconds that an opened device may take to give a block, at most
HICCUP = 0.2  # seconds that may be missing between two blocks; the times of blocks are exact to 0.02

NO_AUDIO = "no audio from the device"

Device = int | str | None  # index, part of a name, the system's default


@dataclass(frozen=True)
class InputDevice:
    """A sound device that can record."""

    index: int
    name: str
    host: str  # API: ALSA, Core Audio, …
    channels: int
    rates: tuple[int, ...]  # of RATES, that it accepts
    default: bool


def import_sounddevice() -> ModuleType:
    """Import sounddevice; raises DeviceError with the remedy."""
    try:
        with _quiet():
            import sounddevice
    except ModuleNotFoundError as error:
        raise DeviceError("sounddevice is not installed: pip install 'nes2net-edge[mic]'") from error
    except OSError as error:
        raise DeviceError(
            "PortAudio is not installed: apt-get install libportaudio2 (Debian, Ubuntu), "
            "dnf install portaudio (Fedora)"
        ) from error
    module: ModuleType = sounddevice
    return module


def input_devices() -> list[InputDevice]:
    """All sound devices that can record; raises DeviceError where PortAudio is missing."""
    sounddevice = import_sounddevice()
    hosts, default = sounddevice.query_hostapis(), sounddevice.default.device[0]
    return [
        InputDevice(
            index=device["index"],
            name=device["name"],
            host=hosts[device["hostapi"]]["name"],
            channels=device["max_input_channels"],
            rates=tuple(rate for rate in RATES if _accepts(sounddevice, device["index"], 1, rate)),
            default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def device_lines(devices: Sequence[InputDevice]) -> list[str]:
    """The devices for people; * is the one taken without --device."""
    if not devices:
        return ["no microphone: PortAudio finds no device that can record (is the sound server running?)"]
    width = max(len(device.name) for device in devices)
    return [f"{'':2}{'':>3}  {'name':{width}}  {'host':10}  channels  Hz"] + [
        f"{'*' if d.default else ' ':2}{d.index:3}  {d.name:{width}}  {d.host:10}  {d.channels:8}  "
        + (", ".join(map(str, d.rates)) or "none of " + ", ".join(map(str, RATES)))
        for d in devices
    ]


class Microphone:
    """A source that gives what a device records; `channel` counts from 1."""

    seconds: float | None = None

    def __init__(self, device: Device = None, rate: int | None = None, channel: int = 1) -> None:
        """Find a rate that the device accepts; raises DeviceError."""
        self.name = "microphone" if device is None else f"microphone {device}"
        self.warnings: list[str] = []
        self._device, self._channel = device, channel
        self._sounddevice = import_sounddevice()
        self._stream: Any = None
        self.sample_rate = self._find_rate(rate)
        self._ring = Ring(round(BACKLOG * self.sample_rate))
        self._last: float | None = None  # time of the last block
        self._opened = 0.0  # time when the device was opened last
        self._patience = STALL  # seconds that it may take to give a block
        self._fresh = False  # opened, and no block came yet
        self._next_adc: float | None = None  # time, by the device, of the next block's first sample

    def open(self) -> None:
        try:
            self._start()
        except self._sounddevice.PortAudioError as error:
            raise DeviceError(f"{self.name}: can't be opened ({_reason(error)})") from error
        self._last = time.monotonic()

    def read(self) -> Samples | Gap | None:
        piece = self._ring.read(round(BLOCK * self.sample_rate), BLOCK)
        if isinstance(piece, Lost):
            return Gap(piece.samples / self.sample_rate, piece.cause)
        if not len(piece):
            self._watch()
        return piece

    def waiting(self) -> float | None:
        return self._ring.waiting / self.sample_rate

    def close(self) -> Gap | None:
        self._stop()
        silent = 0.0 if self._last is None else time.monotonic() - self._last
        return unread(self._ring, self.sample_rate, silent if silent > STALL else 0.0)

    def _find_rate(self, wanted: int | None) -> int:
        for rate in (wanted,) if wanted else RATES:
            if _accepts(self._sounddevice, self._device, self._channel, rate):
                return rate
        try:
            with _quiet():
                found = self._sounddevice.query_devices(self._device, "input")
        except (ValueError, OverflowError, self._sounddevice.PortAudioError) as error:
            there = "nes2net-run --list-devices shows what is there"
            if self._device is None:
                raise DeviceError(
                    f"no microphone: the system has no default input device; {there}"
                ) from error
            raise DeviceError(f"{self.name}: {_reason(error)}; {there}") from error
        if self._channel > found["max_input_channels"]:
            raise DeviceError(f"{self.name}: has {found['max_input_channels']} channels, no {self._channel}")
        rates = f"{wanted} Hz" if wanted else " or ".join(f"{rate}" for rate in RATES) + " Hz"
        raise DeviceError(
            f"{self.name}: does not record at {rates}; --capture-rate takes another "
            f"(its own is {found['default_samplerate']:.0f})"
        )

    def _start(self) -> None:
        self._fresh, self._next_adc = True, None
        with _quiet():
            self._stream = self._sounddevice.InputStream(
                samplerate=self.sample_rate,
                blocksize=self.sample_rate // BLOCKS_PER_SECOND,  # 0 gives ragged blocks
                device=self._device,
                channels=self._channel,
                dtype="float32",
                callback=self._callback,
            )
            self._stream.start()

    def _stop(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with _quiet(), suppress(self._sounddevice.PortAudioError):
                stream.abort()
                stream.close()

    def _callback(self, block: Samples, frames: int, times: Any, status: Any) -> None:
        """In PortAudio's thread: copy, and account for what did not come."""
        now = time.monotonic()
        silent = 0.0 if self._last is None else now - self._last - frames / self.sample_rate
        late = 0.0 if self._next_adc is None else times.inputBufferAdcTime - self._next_adc
        if self._fresh and silent > STALL / 2:
            self._lose(silent, NO_AUDIO)
        elif status.input_overflow:
            self._lose(max(frames / self.sample_rate, late), "the sound system lost audio")
        elif min(silent, late) > HICCUP:  # a busy machine is silent alone, a clock that is set is late alone
            self._lose(min(silent, late), NO_AUDIO)
        self._fresh, self._last = False, now
        self._next_adc = times.inputBufferAdcTime + frames / self.sample_rate
        self._ring.write(block[:, self._channel - 1])

    def _lose(self, seconds: float, cause: str) -> None:
        self._ring.lose(Lost(round(seconds * self.sample_rate), cause))

    def _watch(self) -> None:
        """No block came: open the device again where that has lasted too long."""
        now = time.monotonic()
        assert self._last is not None
        if now - self._last < STALL:
            self._patience = STALL
            return
        if now - max(self._last, self._opened) < self._patience:
            return
        if self._opened < self._last:
            self.warnings.append("no audio from the device; opening it again")
        self._stop()
        self._opened = now
        try:
            with _quiet():  # PortAudio knows only the devices that were there when it was started
                self._sounddevice._terminate()
                self._sounddevice._initialize()
            self._start()
            self._patience = min(2 * self._patience, PATIENCE)  # it may be slow to give its first block
        except self._sounddevice.PortAudioError:
            self._stop()
            self._patience = STALL


def _accepts(sounddevice: ModuleType, device: Device, channels: int, rate: int) -> bool:
    try:
        with _quiet():
            sounddevice.check_input_settings(device, channels, "float32", samplerate=rate)
    except (ValueError, OverflowError, sounddevice.PortAudioError):
        return False
    return True


def _reason(error: Exception) -> str:
    return str(error.args[0]) if error.args else str(error)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what ALSA and PortAudio write to the process's stderr beside their error codes."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
