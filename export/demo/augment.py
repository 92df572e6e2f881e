"""Channel effects for both classes alike: what a recording may go through on its way to a detector."""

import io

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from scipy.signal import fftconvolve, firwin2, lfilter

Audio = NDArray[np.float32]
Rng = np.random.Generator
RATE = 16_000
CODECS = (("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("WAV", "ULAW"), ("WAV", "GSM610"))


def augment(audio: Audio, rng: Rng, share: float) -> Audio:
    """For a `share` of calls a random chain of effects; a new level and a noise floor always."""
    x = _level(effects(audio, rng) if rng.random() < share else audio, rng.normal(-22, 4))
    floor = np.float32(10 ** (rng.uniform(-88, -62) / 20))
    return np.clip(x + floor * rng.standard_normal(len(x), np.float32), -1, 1)


def effects(x: Audio, rng: Rng) -> Audio:
    """Each effect with its own probability, from the room to the channel."""
    if rng.random() < 0.3:
        x = soxr.resample(x, RATE, int(RATE * rng.uniform(0.88, 1.12)))
    if rng.random() < 0.25:
        x = reverberate(x, rng)
    if rng.random() < 0.5:
        x = colour(x, 2.5, rng)
    if rng.random() < 0.15:
        x = np.tanh(_level(x, rng.uniform(-20, -3)))
    if rng.random() < 0.2:
        x = band_limit(x, rng)
    if rng.random() < 0.4:
        x = add_noise(x, rng.uniform(8, 45), rng)
    if rng.random() < 0.2:
        x = code(np.clip(_level(x, -22), -1, 1), rng)
    return x


def scramble(x: Audio, other: Audio, rng: Rng) -> Audio:
    """Two crops spliced or mixed, transposed, filtered: sound whose class only a teacher can tell."""
    kind = rng.random()
    if kind < 0.25:
        border = int(rng.uniform(0.2, 0.8) * len(x))
        x = np.concatenate([x[:border], other[border:]])
    elif kind < 0.5:
        x = x + other * np.float32(10 ** (rng.uniform(-25, 0) / 20))
    if rng.random() < 0.6:
        x = np.resize(soxr.resample(x, RATE, int(RATE * rng.uniform(0.7, 1.4))), len(x))
    if rng.random() < 0.7:
        x = colour(x, 5, rng)
    return np.clip(_level(x, rng.normal(-22, 5)), -1, 1)


def _level(x: Audio, db: float) -> Audio:
    """Scaled to a root mean square of `db` relative to full scale."""
    y: Audio = x * np.float32(10 ** (db / 20) / (np.sqrt(np.mean(x**2)) + 1e-5))
    return y


def reverberate(x: Audio, rng: Rng) -> Audio:
    """A direct sound and an exponentially decaying tail of noise, 0.1 to 0.7 s."""
    decay = rng.uniform(0.1, 0.7)
    t = np.arange(int(decay * RATE * 0.7), dtype=np.float32) / RATE
    tail = rng.standard_normal(len(t), np.float32) * np.exp(-6.9 * t / decay)
    tail *= 10 ** (rng.uniform(-16, 0) / 20) / np.sqrt(np.sum(tail**2) + 1e-9)
    tail[0] = 1
    y: Audio = fftconvolve(x, tail)[: len(x)].astype(np.float32)
    return y


def colour(x: Audio, step: float, rng: Rng) -> Audio:
    """A smooth random response, a walk of `step` dB from knot to knot: microphones and loudspeakers."""
    knots = np.sort(rng.uniform(0.01, 0.98, rng.integers(4, 13)))
    gain = np.clip(np.cumsum(rng.normal(0, step, len(knots) + 2)), -30, 30)
    response = firwin2(95, [0, *knots, 1], 10 ** (gain / 20))
    y: Audio = lfilter(response, [1], x).astype(np.float32)
    return y


def band_limit(x: Audio, rng: Rng, rate: int | None = None) -> Audio:
    """A lower sampling rate on the way."""
    rate = rate or int(rng.choice([8000, 11_025, 12_000, 14_000]))
    y: Audio = soxr.resample(soxr.resample(x, RATE, rate, "LQ"), rate, RATE, "MQ")
    return y


def add_noise(x: Audio, snr: float, rng: Rng) -> Audio:
    """Noise with a spectrum between white and brown, at `snr` dB."""
    spectrum = np.fft.rfft(rng.standard_normal(len(x), np.float32))
    spectrum *= np.maximum(np.arange(len(spectrum)), 50 * len(x) / RATE + 1) ** -rng.uniform(0, 1)
    noise = np.fft.irfft(spectrum, len(x)).astype(np.float32)
    scale = np.sqrt(np.mean(x**2) / (np.mean(noise**2) + 1e-20)) * 10 ** (-snr / 20)
    return x + np.float32(scale) * noise


def code(x: Audio, rng: Rng) -> Audio:
    """Through a codec and back, in memory; GSM at its own 8 kHz."""
    container, subtype = CODECS[rng.integers(len(CODECS))]
    rate = 8000 if subtype == "GSM610" else RATE
    if rate != RATE:
        x = soxr.resample(x, RATE, rate)
    quality = {} if container == "WAV" else {"compression_level": float(rng.uniform(0.1, 0.95))}
    with io.BytesIO() as file:
        soundfile.write(file, x, rate, format=container, subtype=subtype, **quality)
        file.seek(0)
        y: Audio = soundfile.read(file, dtype="float32")[0]
    return soxr.resample(y, rate, RATE).astype(np.float32) if rate != RATE else y
