"""What channels do to audio: codecs, narrow bands and noise, the same for human and synthetic speech.

Each condition takes a mono signal at 16 kHz and gives one of the same length at 16 kHz; those of telephones
delay it by up to 5 ms, as they do in life. Codecs are libsndfile's own; AMR needs an encoder of the system.

| name | what it is |
| --- | --- |
| clean | the audio as it is |
| telephony | 300 to 3400 Hz, 8 kHz, G.711 mu-law: a call over the fixed network |
| 8khz | 8 kHz and back: no band above 4 kHz, nothing else |
| gsm | 8 kHz, GSM 06.10 full rate, 13 kbit/s |
| amr | 8 kHz, AMR narrow-band, 12.2 kbit/s: a mobile call |
| opus | Ogg Opus, about 16 kbit/s: a call over the internet |
| mp3 | MP3, 40 kbit/s, constant |
| noise-N | white noise N dB below the signal (its root mean square), from 0 to 60 |

Noise is drawn anew for each signal, from its own samples: every run and every detector hears the same.
"""

import hashlib
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from scipy.signal import butter, sosfilt

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.errors import ProviderError

CLEAN = "clean"
NARROW = 8_000  # Hz
BAND = (300.0, 3400.0)  # Hz, of telephone channels
RECIPE = 1  # goes up when a condition sounds different: scores kept under another one are not taken
OPUS_LEVEL, MP3_LEVEL = 0.97, 0.8  # libsndfile's compression levels: about 16, and 40 kbit/s at 16 kHz mono
NOISE = re.compile(r"noise-(\d\d?)")
LOUDEST_NOISE, FAINTEST_NOISE = 0, 60  # dB below the signal

Apply = Callable[[Samples], Samples]


def condition(name: str) -> Apply:
    """The condition of this name; raises ProviderError where it can't be had here, with the remedy."""
    if (match := NOISE.fullmatch(name)) and LOUDEST_NOISE <= int(match[1]) <= FAINTEST_NOISE:
        return partial(_with_noise, below=float(match[1]))
    if name not in _BY_NAME:
        known = ", ".join([*_BY_NAME, "noise-N (N dB below the signal, 0 to 60)"])
        raise ProviderError(f"condition {name!r} is not known; there are {known}")
    if name == "amr":
        _amr_encoder()
    return _BY_NAME[name]


def recipe(name: str) -> str:
    """A name for how a condition is made here: scores under another recipe are scores of other audio."""
    library = soundfile.__libsndfile_version__
    encoder = Path(_amr_encoder()[0]).stem if name == "amr" else ""
    return "-".join(part for part in (name, str(RECIPE), library, encoder) if part)


def _as_it_is(signal: Samples) -> Samples:
    return signal


def _narrow_band(signal: Samples) -> Samples:
    return _back(_down(signal), len(signal))


def _telephony(signal: Samples) -> Samples:
    band = butter(4, BAND, "bandpass", fs=NARROW, output="sos")
    narrow: Samples = sosfilt(band, _down(signal)).astype(np.float32)
    return _back(_coded(narrow, NARROW, "WAV", "ULAW"), len(signal))


def _gsm(signal: Samples) -> Samples:
    return _back(_coded(_down(signal), NARROW, "WAV", "GSM610"), len(signal))


def _opus(signal: Samples) -> Samples:
    return _fit(_coded(signal, SAMPLE_RATE, "OGG", "OPUS", compression_level=OPUS_LEVEL), len(signal))


def _mp3(signal: Samples) -> Samples:
    how = {"compression_level": MP3_LEVEL, "bitrate_mode": "CONSTANT"}  # at 32 kbit/s it would start later
    return _fit(_coded(signal, SAMPLE_RATE, "MP3", "MPEG_LAYER_III", **how), len(signal))


def _amr(signal: Samples) -> Samples:
    """12.2 kbit/s; the encoder looks 5 ms ahead, and the decoder's output is as much later."""
    tool, encode, decode = _amr_encoder()
    wav = io.BytesIO()
    soundfile.write(wav, _clipped(_down(signal)), NARROW, format="WAV", subtype="PCM_16")
    coded = _piped([tool, *encode], wav.getvalue())
    narrow = np.frombuffer(_piped([tool, *decode], coded), "<i2")
    return _back(narrow.astype(np.float32) / np.float32(32768), len(signal))


def _with_noise(signal: Samples, below: float) -> Samples:
    seed = int.from_bytes(hashlib.sha256(np.ascontiguousarray(signal).tobytes()).digest()[:8], "big")
    noise = np.random.default_rng(seed).standard_normal(len(signal))
    level = float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) * 10 ** (-below / 20)
    return (signal + level * noise).astype(np.float32)


def _coded(signal: Samples, rate: int, format: str, subtype: str, **how: Any) -> Samples:
    """Through one of libsndfile's codecs and back."""
    file = io.BytesIO()
    soundfile.write(file, _clipped(signal), rate, format=format, subtype=subtype, **how)
    file.seek(0)
    decoded: Samples = soundfile.read(file, dtype="float32")[0]
    return decoded


def _down(signal: Samples) -> Samples:
    narrow: Samples = soxr.resample(signal, SAMPLE_RATE, NARROW, quality="HQ")
    return narrow


def _back(narrow: Samples, length: int) -> Samples:
    return _fit(soxr.resample(narrow, NARROW, SAMPLE_RATE, quality="HQ"), length)


def _fit(signal: Samples, length: int) -> Samples:
    """Codecs work in frames: what they add at the end is cut, what they lose there is silence."""
    return np.pad(signal[:length], (0, max(0, length - len(signal)))).astype(np.float32, copy=False)


def _clipped(signal: Samples) -> Samples:
    return np.clip(signal, -1, 1)


@cache
def _amr_encoder() -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """A tool that encodes AMR, with its options to encode and to decode; raises ProviderError for none."""
    if (sox := shutil.which("sox")) and "amr-nb" in _said([sox, "--help"]):
        raw = ("-t", "raw", "-e", "signed", "-b", "16", "-")
        return sox, ("-t", "wav", "-", "-t", "amr-nb", "-C", "7", "-"), ("-t", "amr-nb", "-", *raw)
    if (ffmpeg := shutil.which("ffmpeg")) and "libopencore_amrnb" in _said([ffmpeg, "-encoders"]):
        encode = ("-v", "error", "-i", "-", "-c:a", "libopencore_amrnb", "-b:a", "12.2k", "-f", "amr", "-")
        return ffmpeg, encode, ("-v", "error", "-f", "amr", "-i", "-", "-f", "s16le", "-")
    raise ProviderError(
        "condition amr: no AMR encoder is here; Debian and Ubuntu: apt install sox libsox-fmt-base"
    )


def _said(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.stdout + done.stderr


def _piped(command: list[str], data: bytes) -> bytes:
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    if done.returncode:
        words = " ".join(done.stderr.decode(errors="replace").split())
        raise ProviderError(f"condition amr: {command[0]} failed ({words[-200:]})")
    return done.stdout


_BY_NAME: dict[str, Apply] = {
    CLEAN: _as_it_is,
    "telephony": _telephony,
    "8khz": _narrow_band,
    "gsm": _gsm,
    "amr": _amr,
    "opus": _opus,
    "mp3": _mp3,
}
