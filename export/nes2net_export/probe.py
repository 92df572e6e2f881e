"""Windows that a derived bundle is compared with its parent on: labelled speech, or signals made here."""

from dataclasses import dataclass

import numpy as np

from nes2net_runtime.audio import SAMPLE_RATE, Samples

BUILT_IN = "built-in signals"
SIGNALS = 16


@dataclass(frozen=True)
class Probe:
    """Windows [samples] of one length, float32 at 16 kHz; `bonafide` has their labels where they have any."""

    audio: str
    calibrate: list[Samples]
    compare: list[Samples]
    bonafide: list[bool] | None


def signal_probe(window: int) -> Probe:
    """Voice-like tones in noise: enough to tell a broken graph, no substitute for speech."""
    signals = [_signal(window, np.random.default_rng(seed)) for seed in range(2 * SIGNALS)]
    return Probe(BUILT_IN, signals[:SIGNALS], signals[SIGNALS:], None)


def _signal(samples: int, random: np.random.Generator) -> Samples:
    """Harmonics of a gliding pitch under two formants, in syllables, with noise 10 to 40 dB below."""
    time = np.arange(samples) / SAMPLE_RATE
    pitch = random.uniform(80, 260) * (1 + 0.2 * np.sin(2 * np.pi * random.uniform(0.3, 1.5) * time))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    formants = random.uniform([300, 900], [800, 2500])
    voice = np.zeros(samples)
    for harmonic in range(1, 40):
        frequency = harmonic * pitch
        envelope = sum(1 / (1 + ((frequency - formant) / 150) ** 2) for formant in formants)
        voice += (envelope + 0.01) * (frequency < SAMPLE_RATE / 2) * np.sin(harmonic * phase)
    voice *= np.clip(np.sin(2 * np.pi * random.uniform(2, 5) * time) + 0.5, 0, None)
    noise = random.standard_normal(samples)
    signal = voice / voice.std() + noise * 10 ** -random.uniform(0.5, 2)
    level = 10 ** -random.uniform(0.7, 1.8)
    return (signal * level / np.abs(signal).max()).astype(np.float32)
