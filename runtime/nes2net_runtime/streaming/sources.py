"""Where a stream's audio comes from: a file, raw PCM from a pipe, either of them in real time.

A source gives mono blocks at its own rate, or says that audio was lost. microphone.py is another one.
"""

import os
import select
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO, Protocol

import numpy as np

from nes2net_runtime.audio import RATES, SAMPLE_RATE, Samples, audio_info, read_blocks
from nes2net_runtime.errors import AudioError
from nes2net_runtime.streaming.ring import Lost, Ring

BLOCK = 0.1  # seconds that a source gives at once, where it can
PIPE = "pipe raw PCM into it: arecord -f S16_LE -r 16000 | nes2net-run -"
BACKLOG = 10.0  # seconds of live audio that may wait for a slow detector; then some is lost, and reported

# name -> numpy type and the value of full scale, as ffmpeg and arecord name them
FORMATS = {
    "s16le": ("<i2", 32768.0),
    "s32le": ("<i4", 2147483648.0),
    "f32le": ("<f4", 1.0),
    "u8": ("u1", 128.0),
}


@dataclass(frozen=True)
class Gap:
    """Audio that is missing."""

    seconds: float
    cause: str


class Source(Protocol):
    """Mono audio, block by block."""

    name: str  # as records have it
    sample_rate: int
    seconds: float | None  # how long it is, where that is known
    warnings: list[str]  # what was wrong; whoever shows them empties the list

    def open(self) -> None:
        """Begin; raises AudioError or DeviceError."""

    def read(self) -> Samples | Gap | None:
        """The next block, of no samples where none came for a while; None: the end."""

    def waiting(self) -> float | None:
        """Seconds that came and were not read yet; None where the source waits for its reader."""

    def close(self) -> Gap | None:
        """End, for good; what was being lost at that moment."""


class FileSource:
    """An audio file, as fast as it is read."""

    sample_rate = SAMPLE_RATE

    def __init__(self, path: Path, channel: int | None = None) -> None:
        self.name = str(path)
        self.warnings: list[str] = []
        self.seconds: float | None = None
        self._path, self._channel = path, channel
        self._blocks: Iterator[Samples] = iter(())

    def open(self) -> None:
        self.seconds = audio_info(self._path).seconds or None
        self._blocks = pieces(read_blocks(self._path, self._channel, self.warnings))

    def read(self) -> Samples | Gap | None:
        return next(self._blocks, None)

    def waiting(self) -> float | None:
        return None

    def close(self) -> Gap | None:
        self._blocks = iter(())
        return None


def pieces(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """Blocks of BLOCK seconds at most, so that what is live is seen at once."""
    size = round(BLOCK * SAMPLE_RATE)
    for block in blocks:
        for at in range(0, len(block), size):
            yield block[at : at + size]


@dataclass(frozen=True)
class RawFormat:
    """Headerless PCM, as `s16le:16000:1` says it."""

    encoding: str
    sample_rate: int
    channels: int

    @classmethod
    def parse(cls, text: str) -> "RawFormat":
        """Raises ValueError, in words for the command's user."""
        encoding, *numbers = text.split(":")
        if encoding not in FORMATS or len(numbers) > 2 or not all(n.isdecimal() for n in numbers):
            raise ValueError(f"{text!r} is not ENCODING:RATE:CHANNELS; encodings: {', '.join(FORMATS)}")
        rate, channels = (*map(int, numbers), *(SAMPLE_RATE, 1)[len(numbers) :])
        if rate not in RATES or not 1 <= channels <= 64:
            raise ValueError(f"{text!r}: {RATES.start} to {RATES.stop - 1} Hz and 1 to 64 channels are read")
        return cls(encoding, rate, channels)

    def decode(self, data: bytes, channel: int | None = None) -> Samples:
        """Whole frames -> mono float32; `channel` counts from 1, None averages."""
        kind, full_scale = FORMATS[self.encoding]
        frames = np.frombuffer(data, kind).astype(np.float32).reshape(-1, self.channels)
        if self.encoding == "u8":
            frames -= 128
        with np.errstate(over="ignore", invalid="ignore"):  # f32le may hold anything; the stream finds it
            frames /= full_scale
            mono: Samples = frames.mean(axis=1) if channel is None else frames[:, channel - 1]
        return np.ascontiguousarray(mono, np.float32)


class PipeSource:
    """Raw PCM on a pipe: `ffmpeg … -f s16le - | nes2net-run - --raw s16le:16000:1`."""

    seconds: float | None = None

    def __init__(self, format: RawFormat, channel: int | None = None, pipe: BinaryIO | None = None) -> None:
        if channel is not None and channel > format.channels:
            raise AudioError(f"stdin: has {format.channels} channels, no channel {channel}")
        if pipe is None and sys.stdin is None:
            raise AudioError(f"stdin: is closed; {PIPE}")
        self.name = "-"
        self.sample_rate = format.sample_rate
        self.warnings: list[str] = []
        self._format, self._channel = format, channel
        self._pipe = pipe or sys.stdin.buffer
        self._frame = np.dtype(FORMATS[format.encoding][0]).itemsize * format.channels
        self._rest = b""

    def open(self) -> None:
        if self._pipe.isatty():
            raise AudioError(f"stdin: is a terminal; {PIPE}")

    def read(self) -> Samples | Gap | None:
        if not select.select([self._pipe], [], [], BLOCK)[0]:
            return np.zeros(0, np.float32)
        try:
            data = os.read(self._pipe.fileno(), self._frame * max(1, round(BLOCK * self.sample_rate)))
        except OSError as error:
            raise AudioError(f"stdin: can't be read ({error.strerror})") from error
        if not data:
            if self._rest:
                self.warnings.append(f"ends within a frame: {len(self._rest)} bytes are left over")
            return None
        data = self._rest + data
        whole = len(data) // self._frame * self._frame
        self._rest = data[whole:]
        return self._format.decode(data[:whole], self._channel)

    def waiting(self) -> float | None:
        return None

    def close(self) -> Gap | None:
        self._rest = b""
        return None


def unread(ring: Ring, sample_rate: int, silent: float = 0.0) -> Gap | None:
    """What is scored no more, where that is more than what always waits; `silent`: seconds without audio."""
    seconds = ring.unread() / sample_rate + silent
    cause = "no audio from the device" if silent else "ended before it was scored"
    return Gap(seconds, cause) if seconds > 2 * BLOCK else None


class LiveSource:
    """Another source in real time, as a microphone would give it: a block when its time has come.

    A pipe is read at once, so that whoever writes into it never waits. A slow reader finds a gap, as there.
    """

    def __init__(self, source: FileSource | PipeSource) -> None:
        self.name, self.sample_rate, self.warnings = source.name, source.sample_rate, source.warnings
        self.seconds: float | None = None
        self._source = source
        self._ring = Ring(round(BACKLOG * source.sample_rate))
        self._ended = Event()
        self._error: Exception | None = None
        self._thread = Thread(target=self._copy, name="live source", daemon=True)

    def open(self) -> None:
        self._source.open()
        self.seconds = self._source.seconds
        self._thread.start()

    def read(self) -> Samples | Gap | None:
        ended = self._ended.is_set()
        piece = self._ring.read(round(BLOCK * self.sample_rate), 0 if ended else BLOCK)
        if isinstance(piece, Lost):
            return Gap(piece.samples / self.sample_rate, piece.cause)
        if ended and not len(piece):
            if self._error is not None:
                raise self._error
            return None
        return piece

    def waiting(self) -> float | None:
        return self._ring.waiting / self.sample_rate

    def close(self) -> Gap | None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * BLOCK)
        self._source.close()
        return unread(self._ring, self.sample_rate)

    def _copy(self) -> None:
        paced = isinstance(self._source, FileSource)
        due = time.monotonic()
        try:
            while not self._ended.is_set() and (block := self._source.read()) is not None:
                assert not isinstance(block, Gap)
                due += len(block) / self.sample_rate
                if paced:
                    time.sleep(max(0.0, due - time.monotonic()))
                if len(block):
                    self._ring.write(block)
        except Exception as error:  # raised in the reader's thread, once it has read what is before
            self._error = error
        self._ended.set()
