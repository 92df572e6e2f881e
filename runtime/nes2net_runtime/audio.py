"""Audio files as float32 mono blocks at 16 kHz, with bounded memory whatever the file's length.

The order is that of the official scripts (librosa.load): channels are averaged, then resampled (soxr HQ).
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from nes2net_runtime.errors import AudioError, NoAudioError

Samples = NDArray[np.float32]
Channels = Literal["mix", "each"] | int

SAMPLE_RATE: Final = 16_000
BLOCK_SECONDS = 2
MAX_CHANNELS = 64
OGG_PAGE = 65_307  # bytes, the largest
RATES = range(1_000, 768_001)
SUFFIXES = frozenset(
    {".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".aifc", ".au", ".snd"}
    | {".caf", ".w64", ".rf64", ".sph", ".nist", ".voc"}
)


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says."""

    sample_rate: int
    channels: int
    frames: int  # at sample_rate, 0 where the header does not tell

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def find_audio(paths: Sequence[str | os.PathLike[str]]) -> Iterator[tuple[Path, AudioError | None]]:
    """Files as they are named, folders searched for audio by suffix, in sorted order.

    A missing path, an unreadable folder or a folder without audio comes with an AudioError.
    """
    for path in map(Path, paths):
        try:
            if not path.is_dir():
                yield path, None if path.exists() else AudioError(f"{path}: no such file or folder")
                continue
        except OSError as error:  # a name too long, a folder on the way that is locked
            yield path, AudioError(f"{path}: can't be read ({error.strerror})")
            continue
        yield from _search(path)


def _search(top: Path) -> Iterator[tuple[Path, AudioError | None]]:
    errors: list[OSError] = []
    found = 0
    for folder, subfolders, names in os.walk(top, onerror=errors.append):
        subfolders.sort()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in SUFFIXES:
                found += 1
                yield Path(folder, name), None
    for error in errors:
        yield Path(error.filename), AudioError(f"{error.filename}: folder can't be read ({error.strerror})")
    if not found and not errors:
        yield top, NoAudioError(f"{top}: no audio files in this folder")


def open_audio(path: Path) -> soundfile.SoundFile:
    """Open a file whose header is within bounds; raises AudioError."""
    try:
        if not path.exists():
            raise AudioError(f"{path}: no such file")
        if not path.is_file():
            raise AudioError(f"{path}: not a file")
        if path.stat().st_size == 0:
            raise AudioError(f"{path}: empty file")
        with path.open("rb"):
            pass
        # bytes: soundfile can't encode a name that is not UTF-8
        file = soundfile.SoundFile(os.fsencode(path) if os.name == "posix" else path)
    except OSError as error:
        raise AudioError(f"{path}: can't be read ({error.strerror})") from error
    except TypeError as error:  # soundfile wants a rate for headerless formats
        raise AudioError(f"{path}: raw audio has no header; convert it to WAV first") from error
    except soundfile.LibsndfileError as error:
        raise AudioError(
            f"{path}: not audio that libsndfile reads ({_reason(error)}); "
            f"convert it first: ffmpeg -i {path.name} -ar 16000 {path.stem}-16k.wav"
        ) from error
    if file.channels > MAX_CHANNELS or file.samplerate not in RATES:
        file.close()
        raise AudioError(
            f"{path}: {file.channels} channels at {file.samplerate} Hz; "
            f"at most {MAX_CHANNELS} channels and {RATES.start} to {RATES.stop - 1} Hz are read"
        )
    return file


def audio_info(path: Path) -> AudioInfo:
    """Rate, channels and length from the header; raises AudioError."""
    with open_audio(path) as file:
        return AudioInfo(file.samplerate, file.channels, _promised(file))


def read_blocks(path: Path, channel: int | None, warnings: list[str]) -> Iterator[Samples]:
    """Decode a file block by block: float32 mono at 16 kHz.

    `channel` counts from 1; None averages all. Audio that ends before its header says so, or is damaged after
    some of it was decoded, goes to `warnings`. Raises AudioError for what can't be decoded at all, holds no
    audio, NaN or infinity.
    """
    with open_audio(path) as file:
        if channel is not None and channel > file.channels:
            raise AudioError(f"{path}: has {file.channels} channels, no channel {channel}")
        file.seekable = lambda: False  # soundfile seeks after each read, which garbles MP3 where blocks meet
        rate = file.samplerate
        resample = resampler(rate)
        promised, damage, read = _promised(file), _cut_header(file.extra_info) or _cut_ogg(file, path), 0
        while True:
            try:
                block: Samples = file.read(BLOCK_SECONDS * rate, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                damage = _reason(error)
                break
            if not len(block):
                break
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is found below
                mono = block.mean(axis=1, dtype=np.float32) if channel is None else block[:, channel - 1]
            if not np.isfinite(mono).all():
                at = (read + int(np.flatnonzero(~np.isfinite(mono))[0])) / rate
                raise AudioError(f"{path}: holds NaN or infinity (first at {at:.3f} s)")
            read += len(mono)
            yield resample(np.ascontiguousarray(mono), False)
        if read == 0:
            raise AudioError(f"{path}: {f'damaged ({damage})' if damage else 'holds no audio (0 samples)'}")
        yield resample(np.zeros(0, np.float32), True)
        if damage or read < promised:
            reason = damage or f"the header promises {promised / rate:.1f} s"
            warnings.append(
                f"truncated or damaged after {read / rate:.1f} s ({reason}): scored what is before"
            )


def _reason(error: soundfile.LibsndfileError) -> str:
    text: str = error.error_string
    return text.removeprefix("Error : ").rstrip(".")


def _cut_header(log: str) -> str | None:
    """libsndfile's note that a WAV or AIFF holds less than its header says ("data : 64000 (should be 1600)").

    Headers written to a pipe promise the largest number there is; that is no damage.
    """
    match = re.search(r"(?:data|SSND)\s*:\s*(\d+) \(should be", log)
    return "its header promises more" if match and int(match[1]) < 0x7FFF_0000 else None


def _cut_ogg(file: soundfile.SoundFile, path: Path) -> str | None:
    """An Ogg stream says in the flags of its last page (byte 5, bit 4) that it ends there."""
    if file.format != "OGG":
        return None
    with path.open("rb") as stream:
        stream.seek(-min(path.stat().st_size, OGG_PAGE), os.SEEK_END)
        tail = stream.read()
    last = tail.rfind(b"OggS")
    return None if last >= 0 and tail[last + 5 : last + 6] >= b"\x04" else "its last page is missing"


def _promised(file: soundfile.SoundFile) -> int:
    """Frames by the header; 0 where it does not tell (libsndfile: the largest number there is)."""
    return int(file.frames) if 0 <= file.frames < 1 << 62 else 0


def resampler(sample_rate: int) -> Callable[[Samples, bool], Samples]:
    """A function (samples, last) -> samples at 16 kHz that keeps its state from block to block."""
    if sample_rate == SAMPLE_RATE:
        return lambda samples, last: samples
    stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    return lambda samples, last: stream.resample_chunk(samples, last=last)


def normalize(batch: Samples) -> Samples:
    """Each row to zero mean and unit (biased) variance, epsilon 1e-5 (s3prl's layer norm)."""
    mean = batch.mean(axis=1, keepdims=True, dtype=np.float64)
    variance = batch.var(axis=1, keepdims=True, dtype=np.float64)
    normal: Samples = ((batch - mean) / np.sqrt(variance + 1e-5)).astype(np.float32)
    return normal
