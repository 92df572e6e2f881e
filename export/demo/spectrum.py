"""Cepstra every 20 ms: what the detector's encoder computes and its teacher hears.

A frame is the mean of two magnitude spectra of 220 samples, 160 samples apart, in 80 bands. Each spectrum
is levelled (bands by their usual level, then all of it by its own root mean square, with a floor); then
comes the logarithm. Weak bands and fine structure carry most of what tells vocoders from voices: a higher
floor or fewer cepstra hear less.
"""

import numpy as np
from augment import Audio
from numpy.typing import NDArray
from scipy.fft import dct

BANDS, SPAN, HOP = 80, 220, 160
SILENCE = 0.02  # mean square of a levelled spectrum that is not amplified further; speech has 1
FLOOR = 0.02  # of a band, before its logarithm


def sinusoids() -> NDArray[np.complex64]:
    """Windowed sinusoids [band, sample]; band b is centred on 100 b + 50 Hz."""
    n = np.arange(SPAN) - (SPAN - 1) / 2
    turns = (np.arange(BANDS) + 0.5) / (2 * BANDS)
    bank: NDArray[np.complex64] = np.exp(2j * np.pi * turns[:, None] * n) * np.hanning(SPAN + 2)[1:-1]
    return bank.astype(np.complex64)


def usual_levels(audio: Audio) -> NDArray[np.float32]:
    """Root mean square of each band's real part over all of `audio` [clips, samples]."""
    power = np.mean([(np.abs(_spectra(one)) ** 2).mean(0) for one in audio], 0)
    return np.sqrt(power / 2).astype(np.float32)


def cepstra(audio: Audio, levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """[samples] -> [frames, 80], one frame for each of the encoder's."""
    bands = np.abs(_spectra(audio)) / (levels * np.sqrt(2))
    bands /= np.sqrt((bands**2).mean(1, keepdims=True) + SILENCE)
    frames = (len(audio) - 400) // 320 + 1
    bands = (bands[0 : 2 * frames : 2] + bands[1 : 2 * frames : 2]) / 2
    result: NDArray[np.float32] = dct(np.log(bands + FLOOR), axis=1, norm="ortho").astype(np.float32)
    return result


def _spectra(audio: Audio) -> NDArray[np.complex64]:
    windows = np.lib.stride_tricks.sliding_window_view(audio, SPAN)[::HOP]
    spectra: NDArray[np.complex64] = windows @ sinusoids().T
    return spectra
