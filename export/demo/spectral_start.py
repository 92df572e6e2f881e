"""A spectral analysis written into the weights of a wav2vec 2.0 feature encoder.

Layer norms after every convolution take level and spectrum away from a randomly initialised encoder; one of
this size would need days to learn around that, and far more speech than there is. So its weights are
computed, and stay:

    layers 0 to 4    a delay line: 5, 10, 24, 60, 140 samples, every 5, 10, 20, 40, 80, carried as pairs
                     (GELU(x), GELU(-x)), whose difference is x exactly
    layer 3          also 16 bands of 500 Hz in three phases, every 40 samples: the short spectra
    layer 4 to 6     their magnitudes (rectified phases add up to them), 2, 4 and 8 a frame
    layer 5          80 bands of 100 Hz in three phases, every 160 samples; its norm is a gain control for all
    layer 6          magnitudes of the 80 bands, two averaged; six knots for each, two for each short one
    analysis matrix  a piecewise linear logarithm of the 80 bands, and its cosine transform: 80 cepstra;
                     the short magnitudes as they are

Spare channels with constants hold each norm's deviation, and others its mean, so that the norm changes
nothing.
"""

import math

import numpy as np
import torch
from augment import Audio
from numpy.typing import NDArray
from spectrum import BANDS, SILENCE, SPAN, cepstra, sinusoids
from torch import Tensor, nn

from nes2net_export.models.config import STRIDES
from nes2net_export.models.detector import Detector
from nes2net_export.models.encoder import ConvLayer, FeatureEncoder

CARRIED = (5, 10, 24, 60, 140)  # samples, by the layers of the delay line
PHASES = 3
SHORT_BANDS = 16  # of spectra of 60 samples
SHORT_KNOTS = (0.0, 0.3)
SHORT_SLOPE = 6.0
SHORT = tuple(SHORT_BANDS * n for n in (PHASES, 2, 4, 8 * len(SHORT_KNOTS)))  # channels, layers 3 to 6
SPARES = (6, 4, 16, 8, 16, 16, 16)  # channels with constants
KNOTS = (0.0, 0.03, 0.08, 0.2, 0.5, 1.2)
SLOPES = (40.0, 40.0, 25.0, 12.0, 5.0, 2.5)  # of GELU at each knot: the larger, the sharper its bend
# channels of the delay line and of bands
LONG = (10, 20, 48, 120, 2 * CARRIED[4], BANDS * PHASES, BANDS * len(KNOTS))
CHANNELS = tuple(map(sum, zip(LONG, SPARES, (0, 0, 0, *SHORT), strict=True)))  # in this order in each layer
HEARD = BANDS + SHORT[3]  # rows of the analysis matrix
CONSTANT = 4.0  # of the delay line's spare channels: far above any sample
GAIN = 8.0  # of a sample, between layers
SPECTRAL_GAIN = 60.0  # so large that GELU rectifies even weak bands
SMALL = 0.02  # a short magnitude at its usual level, before a norm, so that it does not move it
HOLD, KEEP = 100.0, 250.0  # constants of layer 6 before and after its norm
RECTIFIED = PHASES / math.pi  # sum of three rectified phases of a sinusoid, relative to its amplitude


@torch.no_grad()
def start_as_spectra(detector: Detector, levels: NDArray[np.float32], speech: Audio) -> tuple[Tensor, float]:
    """Set encoder and input norm in place; they need no training.

    `levels`: usual level of each band; `speech` [clips, samples] for the fit of the logarithm. Returns the
    analysis matrix [HEARD, channels], to be applied after the input norm, and the part of the cepstra's
    variance that the fit leaves, on average.
    """
    encoder, context = detector.encoder, detector.context.network
    _delay_line(encoder)
    _spectrum(_layer(encoder, 5), torch.from_numpy(levels))
    _knots(_layer(encoder, 6))
    _short_spectra(encoder, torch.from_numpy(levels))
    nn.init.ones_(context.input_norm.weight)
    nn.init.zeros_(context.input_norm.bias)
    pieces = torch.from_numpy(speech).split(10)
    frames = torch.cat([context.input_norm(encoder(piece)).flatten(0, 1) for piece in pieces])
    frames = frames.double()
    wanted = torch.from_numpy(np.concatenate([cepstra(one, levels) for one in speech])).double()
    centre, deviation = frames.mean(0), frames.std(0)
    deviation[LONG[6] : LONG[6] + SPARES[6]] = math.inf
    context.input_norm.weight /= deviation
    context.input_norm.bias -= centre / deviation
    frames = (frames - centre) / deviation
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    knots = frames[:, : LONG[6]]
    ridge = 1e-5 * len(knots) * torch.eye(knots.shape[1], dtype=torch.float64)
    fit = torch.linalg.solve(knots.T @ knots + ridge, knots.T @ wanted)
    analysis = torch.zeros(HEARD, CHANNELS[6])
    analysis[:BANDS, : LONG[6]] = fit.T
    analysis[BANDS:, -SHORT[3] :] = torch.eye(SHORT[3])
    return analysis, float((knots @ fit - wanted).square().mean())


def _delay_line(encoder: FeatureEncoder) -> None:
    hop, before, gain = 1, 1, 1.0
    for i, samples in enumerate(CARRIED):
        layer = _layer(encoder, i)
        used, spare = 2 * samples, _clear(layer, i)
        _bias(layer)[used : used + spare] = CONSTANT * _signs(spare)
        layer.norm.weight[:used] = GAIN * _deviation(layer, i)
        rows = _from_pairs(torch.eye(samples), layer.conv, hop, before) / gain
        layer.conv.weight[0:used:2], layer.conv.weight[1:used:2] = rows, -rows
        hop, before, gain = hop * STRIDES[i], samples, GAIN


def _deviation(layer: ConvLayer, i: int) -> float:
    """Of a norm of the delay line: that of its constants."""
    return CONSTANT * math.sqrt(SPARES[i] / layer.conv.out_channels)


def _spectrum(layer: ConvLayer, levels: Tensor) -> None:
    """Phases of band b are channels b, BANDS + b, 2 BANDS + b."""
    used, spare = BANDS * PHASES, _clear(layer, 5)
    _bias(layer)[used : used + spare] = math.sqrt(SILENCE * used / spare) * _signs(spare)
    layer.norm.weight[:used] = SPECTRAL_GAIN * math.sqrt(used / layer.conv.out_channels)
    bank = (_phases(sinusoids()) / levels[:, None]).flatten(0, 1)
    layer.conv.weight[:used] = _from_pairs(bank, layer.conv, math.prod(STRIDES[:5]), CARRIED[-1]) / GAIN


def _short_spectra(encoder: FeatureEncoder, levels: Tensor) -> None:
    """Phases at layer 3; then magnitudes, band b of slot s is channel s SHORT_BANDS + b of the last ones."""
    span = CARRIED[3]
    usual = levels.reshape(SHORT_BANDS, -1).square().mean(1).sqrt() * math.sqrt(span / SPAN)
    bank = (_phases(sinusoids(SHORT_BANDS, span)) / usual[:, None]).flatten(0, 1)
    rows = _from_pairs(bank, _layer(encoder, 3).conv, math.prod(STRIDES[:3]), CARRIED[2]) / GAIN
    _append(_layer(encoder, 3), rows, _deviation(_layer(encoder, 3), 3))
    magnitudes = torch.eye(SHORT_BANDS).repeat(1, PHASES) / (RECTIFIED * math.sqrt(2))
    for i, each in ((4, magnitudes), (5, torch.eye(SHORT[1])), (6, torch.eye(SHORT[2]))):
        layer = _layer(encoder, i)
        rows = torch.zeros(2 * len(each), each.shape[1], layer.conv.kernel_size[0])
        rows[: len(each), :, 0] = rows[len(each) :, :, 1] = each / SPECTRAL_GAIN
        if i < 6:
            gain_control = math.sqrt(BANDS * PHASES / layer.conv.out_channels)
            _append(layer, rows, _deviation(layer, i) if i == 4 else gain_control)
        else:
            layer.conv.weight[-SHORT[3] :, -SHORT[2] :] = rows.repeat(len(SHORT_KNOTS), 1, 1)
            _bias(layer)[-SHORT[3] :] = -torch.tensor(SHORT_KNOTS).repeat_interleave(len(rows))
            deviation = HOLD * math.sqrt(SPARES[6] // 2 / layer.conv.out_channels)
            layer.norm.weight[-SHORT[3] :] = SHORT_SLOPE * deviation
        _cancel(layer, i)


def _append(layer: ConvLayer, rows: Tensor, deviation: float) -> None:
    """Rows of the last channels: small before the norm, SPECTRAL_GAIN after it."""
    layer.conv.weight[-len(rows) :, -rows.shape[1] :] = SMALL * rows
    layer.norm.weight[-len(rows) :] = SPECTRAL_GAIN / SMALL * deviation


def _cancel(layer: ConvLayer, i: int) -> None:
    """Take the short magnitudes' sum from spare channels, so that the norm's mean stays as it was."""
    now = SHORT[i - 3]
    spare = slice(LONG[i], LONG[i] + SPARES[i] // (2 if i == 6 else 1))
    count = spare.stop - spare.start
    layer.conv.weight[spare] -= layer.conv.weight[-now:].sum(0) / count
    _bias(layer)[spare] -= _bias(layer)[-now:].sum() / count


def _phases(bank: NDArray[np.complex64]) -> Tensor:
    """Complex sinusoids [band, sample] -> real [phase, band, sample]."""
    turns = np.exp(2j * np.pi * np.arange(PHASES) / PHASES)[:, None, None]
    return torch.from_numpy((turns * bank).real.astype(np.float32))


def _knots(layer: ConvLayer) -> None:
    """Channel k BANDS + b is the excess of band b over knot k, times the knot's slope."""
    used, spare = BANDS * len(KNOTS), _clear(layer, 6)
    amplitude = 1 / (RECTIFIED * math.sqrt(2) * SPECTRAL_GAIN)
    one_band = torch.eye(BANDS).repeat(len(KNOTS), PHASES).unsqueeze(-1)  # [knot x band, phase x band, 1]
    layer.conv.weight[:used, : BANDS * PHASES] = one_band * amplitude / 2  # two taps
    _bias(layer)[:used] = -torch.tensor(KNOTS).repeat_interleave(BANDS)
    cancel, hold = slice(used, used + spare // 2), slice(used + spare // 2, used + spare)
    layer.conv.weight[cancel] = -layer.conv.weight[:used].sum(0) / (spare // 2)
    _bias(layer)[cancel] = -_bias(layer)[:used].sum() / (spare // 2)
    _bias(layer)[hold] = HOLD * _signs(spare // 2)
    deviation = HOLD * math.sqrt(spare // 2 / layer.conv.out_channels)
    layer.norm.weight[:used] = deviation * torch.tensor(SLOPES).repeat_interleave(BANDS)
    layer.norm.bias[hold] = KEEP


def _layer(encoder: FeatureEncoder, i: int) -> ConvLayer:
    layer = encoder.layers[i]
    assert isinstance(layer, ConvLayer)
    return layer


def _bias(layer: ConvLayer) -> nn.Parameter:
    assert layer.conv.bias is not None
    return layer.conv.bias


def _clear(layer: ConvLayer, i: int) -> int:
    """Set all weights to zero; returns how many channels have constants."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    return SPARES[i]


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
