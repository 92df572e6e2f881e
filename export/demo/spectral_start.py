"""A cepstral analysis (spectrum.py) written into the weights of a wav2vec 2.0 feature encoder.

Layer norms after every convolution take level and spectrum away from a randomly initialised encoder; one of
this size would need days to learn around that, and far more speech than there is. So its weights are
computed, and stay:

    layers 0 to 4    a delay line: 5, 10, 24, 60, 140 samples, every 5, 10, 20, 40, 80, carried as pairs
                     (GELU(x), GELU(-x)), whose difference is x exactly
    layer 5          80 bands of 100 Hz in three phases, every 160 samples; its norm is a gain control
    layer 6          magnitudes (rectified phases add up to them), two averaged; six knots for each band
    projection       a piecewise linear logarithm from the knots, and its cosine transform: 80 cepstra

Spare channels with constants hold each norm's deviation, and others its mean, so that the norm changes
nothing.
"""

import math

import numpy as np
import torch
from augment import Audio
from numpy.typing import NDArray
from spectrum import BANDS, SILENCE, cepstra, sinusoids
from torch import Tensor, nn

from nes2net_export.models.config import STRIDES
from nes2net_export.models.detector import Detector
from nes2net_export.models.encoder import ConvLayer, FeatureEncoder

CARRIED = (5, 10, 24, 60, 140)  # samples, by the layers of the delay line
PHASES = 3
SPARE = 16
KNOTS = (0.0, 0.03, 0.08, 0.2, 0.5, 1.2)
SLOPES = (40.0, 40.0, 25.0, 12.0, 5.0, 2.5)  # of GELU at each knot: the larger, the sharper its bend
CHANNELS = (16, 24, 64, 128, 2 * CARRIED[4] + SPARE, BANDS * PHASES + SPARE, BANDS * len(KNOTS) + SPARE)
CONSTANT = 4.0  # of the delay line's spare channels: far above any sample
GAIN = 8.0  # of a sample, between layers
SPECTRAL_GAIN = 60.0  # so large that GELU rectifies even weak bands
HOLD, KEEP = 100.0, 1000.0  # constants of layer 6 before and after its norm
RECTIFIED = PHASES / math.pi  # sum of three rectified phases of a sinusoid, relative to its amplitude


@torch.no_grad()
def start_as_cepstra(detector: Detector, levels: NDArray[np.float32], speech: Audio) -> float:
    """Set encoder, input norm and projection in place; they need no training.

    `levels`: usual level of each band; `speech` [clips, samples] for the fit of the logarithm. Returns the
    part of the cepstra's variance that the fit leaves, on average.
    """
    encoder, context = detector.encoder, detector.context.network
    _delay_line(encoder)
    _spectrum(_layer(encoder, 5), torch.from_numpy(levels))
    _knots(_layer(encoder, 6))
    nn.init.ones_(context.input_norm.weight)
    nn.init.zeros_(context.input_norm.bias)
    frames = context.input_norm(encoder(torch.from_numpy(speech))).flatten(0, 1).double()
    wanted = torch.from_numpy(np.concatenate([cepstra(one, levels) for one in speech])).double()
    centre, deviation = frames.mean(0), frames.std(0).clamp(min=1e-6)
    context.input_norm.weight /= deviation
    context.input_norm.bias -= centre / deviation
    frames = (frames - centre) / deviation
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    ridge = 1e-5 * len(frames) * torch.eye(frames.shape[1], dtype=torch.float64)
    fit = torch.linalg.solve(frames.T @ frames + ridge, frames.T @ wanted)
    nn.init.zeros_(context.projection.weight)
    nn.init.zeros_(context.projection.bias)
    context.projection.weight[:BANDS] = fit.T
    return float((frames @ fit - wanted).square().mean())


def _delay_line(encoder: FeatureEncoder) -> None:
    hop, before, gain = 1, 1, 1.0
    for i, samples in enumerate(CARRIED):
        layer = _layer(encoder, i)
        used = 2 * samples
        spare = _clear(layer, used)
        _bias(layer)[used:] = CONSTANT * _signs(spare)
        layer.norm.weight[:used] = GAIN * CONSTANT * math.sqrt(spare / (used + spare))
        rows = _from_pairs(torch.eye(samples), layer.conv, hop, before) / gain
        layer.conv.weight[0:used:2], layer.conv.weight[1:used:2] = rows, -rows
        hop, before, gain = hop * STRIDES[i], samples, GAIN


def _spectrum(layer: ConvLayer, levels: Tensor) -> None:
    """Phases of band b are channels b, BANDS + b, 2 BANDS + b."""
    used = BANDS * PHASES
    spare = _clear(layer, used)
    _bias(layer)[used:] = math.sqrt(SILENCE * used / spare) * _signs(spare)
    layer.norm.weight[:used] = SPECTRAL_GAIN * math.sqrt(used / (used + spare))
    turns = np.exp(2j * np.pi * np.arange(PHASES) / PHASES)[:, None, None]
    bank = torch.from_numpy((turns * sinusoids()).real.astype(np.float32))  # [phase, band, sample]
    bank = (bank / levels[:, None]).flatten(0, 1)
    layer.conv.weight[:used] = _from_pairs(bank, layer.conv, math.prod(STRIDES[:5]), CARRIED[-1]) / GAIN


def _knots(layer: ConvLayer) -> None:
    """Channel k BANDS + b is the excess of band b over knot k, times the knot's slope."""
    used = BANDS * len(KNOTS)
    spare = _clear(layer, used)
    amplitude = 1 / (RECTIFIED * math.sqrt(2) * SPECTRAL_GAIN)
    one_band = torch.eye(BANDS).repeat(len(KNOTS), PHASES).unsqueeze(-1)  # [knot x band, phase x band, 1]
    layer.conv.weight[:used, : BANDS * PHASES] = one_band * amplitude / 2  # two taps
    _bias(layer)[:used] = -torch.tensor(KNOTS).repeat_interleave(BANDS)
    cancel, hold = slice(used, used + spare // 2), slice(used + spare // 2, None)
    layer.conv.weight[cancel] = -layer.conv.weight[:used].sum(0) / (spare // 2)
    _bias(layer)[cancel] = -_bias(layer)[:used].sum() / (spare // 2)
    _bias(layer)[hold] = HOLD * _signs(spare // 2)
    deviation = HOLD * math.sqrt(spare // 2 / (used + spare))
    layer.norm.weight[:used] = deviation * torch.tensor(SLOPES).repeat_interleave(BANDS)
    layer.norm.bias[hold] = KEEP


def _layer(encoder: FeatureEncoder, i: int) -> ConvLayer:
    layer = encoder.layers[i]
    assert isinstance(layer, ConvLayer)
    return layer


def _bias(layer: ConvLayer) -> nn.Parameter:
    assert layer.conv.bias is not None
    return layer.conv.bias


def _clear(layer: ConvLayer, used: int) -> int:
    """Set all weights to zero; returns how many channels are to spare."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return layer.conv.out_channels - used


def _signs(count: int) -> Tensor:
    return (-1.0) ** torch.arange(count)


def _from_pairs(rows: Tensor, conv: nn.Conv1d, hop: int, before: int) -> Tensor:
    """Weights [row, channel, tap] that give `rows` [row, sample] times the samples carried by the inputs.

    Inputs carry `before` samples every `hop`: tap t has samples [hop t, hop t + before); each sample is taken
    from the last tap that has it.
    """
    weight = torch.zeros(len(rows), conv.in_channels, conv.kernel_size[0])
    for sample in range(rows.shape[1]):
        if conv.in_channels == 1:
            weight[:, 0, sample] = rows[:, sample]
        else:
            tap = min(sample // hop, conv.kernel_size[0] - 1)
            pair = 2 * (sample - hop * tap)
            weight[:, pair, tap] = rows[:, sample]
            weight[:, pair + 1, tap] = -rows[:, sample]
    return weight
