"""What the teacher hears: statistics of a clip, in four groups that fail in different ways.

cepstra     shape of the spectrum, down to fine and weak structure: tells synthesisers from voices
modulation  how cepstra move: over-smoothed or frozen trajectories
harmonics   fine spectra of 50 ms: how regular and how deep the harmonics are; tells re-synthesis
envelope    energy in bands within 20 ms: pulses that are too sharp, too flat or alike in all bands
"""

import numpy as np
from augment import Audio
from numpy.typing import NDArray
from scipy.fft import dct, rfft
from spectrum import cepstra

Features = NDArray[np.float32]
CEPSTRA = 60
MOVING = 40  # cepstra whose modulation is looked at
QUIET = 30  # per cent of frames, the weakest, are left out of harmonics and envelopes
LONG, LONG_HOP = 800, 200  # samples
SHORT, SHORT_HOP, SHORT_BANDS = 64, 20, 16


def features(audio: Audio, levels: NDArray[np.float32]) -> Features:
    """[samples] -> all groups, one after the other."""
    c = cepstra(audio, levels)
    level = audio / np.float32(np.sqrt(np.mean(audio**2)) + 1e-6)
    groups = (cepstral(c[:, :CEPSTRA]), modulation(c[:, :MOVING]), harmonics(level), envelope(level))
    return np.concatenate(groups)


def cepstral(x: Features) -> Features:
    """Mean, deviation, deviation of change, both deviations' logarithms, and three percentiles."""
    spread = np.concatenate([x.std(0), np.diff(x, axis=0).std(0)])
    percentiles = np.percentile(x, [10, 50, 90], axis=0).ravel()
    return np.concatenate([x.mean(0), spread, np.log(spread + 1e-3), percentiles]).astype(np.float32)


def modulation(x: Features) -> Features:
    """Change over 1, 2, 3 and 5 frames and its change, relative to the deviation; kurtosis and skewness."""
    x = x - x.mean(0)
    scale = x.std(0) + 1e-3
    changes = [x[lag:] - x[:-lag] for lag in (1, 2, 3, 5)] + [np.diff(x, 2, axis=0)]
    speeds = [np.log(change.std(0) / scale + 1e-3) for change in changes]
    moments = [((x / scale) ** power).mean(0) for power in (4, 3)]
    return np.concatenate([*speeds, *moments]).astype(np.float32)


def harmonics(audio: Audio) -> Features:
    """Energies of quefrencies from 2.5 to 25 ms, and height and place of the peak; of 0 to 4 kHz alone.

    A telephone's lack of anything above would look like a sign of re-synthesis.
    """
    windows = np.lib.stride_tricks.sliding_window_view(audio, LONG)[::LONG_HOP]
    spectra = rfft(windows * np.hanning(LONG).astype(np.float32), 1024, axis=1)[:, :256]
    power = _loud(np.abs(spectra) ** 2)
    power /= power.mean(1, keepdims=True)
    quefrency = dct(np.log(power + 1e-4), axis=1, norm="ortho")[:, 20:200]
    groups = np.log((quefrency.reshape(len(quefrency), 20, 9) ** 2).mean(2) + 1e-3)
    place = np.log(quefrency.argmax(1) + 20.0)
    frames = np.column_stack([groups, quefrency.max(1), place])
    jumps = np.abs(np.diff(place))
    return np.concatenate([_summary(frames), [np.median(jumps), jumps.mean()]]).astype(np.float32)


def envelope(audio: Audio) -> Features:
    """Crest and flatness of each band's energy within 320 samples, and its correlation with other bands."""
    n = np.arange(SHORT) - (SHORT - 1) / 2
    turns = (np.arange(SHORT_BANDS) + 0.5) / (2 * SHORT_BANDS)
    bank = np.exp(2j * np.pi * turns[:, None] * n) * np.hanning(SHORT + 2)[1:-1]
    windows = np.lib.stride_tricks.sliding_window_view(audio, SHORT)[::SHORT_HOP]
    energy = np.abs(windows @ bank.T.astype(np.complex64)) ** 2 + 1e-9
    inside = 320 // SHORT_HOP
    frames = len(energy) // inside
    energy = _loud(energy[: frames * inside].reshape(frames, inside, SHORT_BANDS))
    mean, log = energy.mean(1), np.log(energy)
    z = (log - log.mean(1, keepdims=True)) / (log.std(1, keepdims=True) + 1e-3)
    parts = [np.log(energy.max(1) / mean), log.mean(1) - np.log(mean)]
    parts += [(z[:, :, apart:] * z[:, :, :-apart]).mean(1) for apart in (1, 3)]
    return _summary(np.concatenate(parts, 1))


def _loud(power: NDArray[np.floating]) -> NDArray[np.floating]:
    """Frames but the weakest."""
    total = power.reshape(len(power), -1).sum(1)
    return power[total >= np.percentile(total, QUIET)]


def _summary(frames: NDArray[np.floating]) -> Features:
    """Mean, deviation, three percentiles and deviation of change, over frames."""
    percentiles = np.percentile(frames, [10, 50, 90], axis=0).ravel()
    change = np.diff(frames, axis=0).std(0)
    return np.concatenate([frames.mean(0), frames.std(0), percentiles, change]).astype(np.float32)
