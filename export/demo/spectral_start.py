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
import torch.nn.functional as F
from augment import Audio
from numpy.typing import NDArray
from spectrum import BANDS, SILENCE, cepstra, sinusoids
from torch import Tensor, nn

from nes2net_export.models.config import STRIDES
from nes2net_export.models.context import ContextNetwork
from nes2net_export.models.detector import Detector
from nes2net_export.models.encoder import ConvLayer, FeatureEncoder

CARRIED = (5, 10, 24, 60, 140)  # samples, by the layers of the delay line
PHASES = 3
SPARES = (6, 4, 16, 8, 16, 16, 16)  # channels with constants
KNOTS = (0.0, 0.03, 0.08, 0.2, 0.5, 1.2)
SLOPES = (40.0, 40.0, 25.0, 12.0, 5.0, 2.5)  # of GELU at each knot: the larger, the sharper its bend
COMPUTED = (10, 20, 48, 120, 2 * CARRIED[4], BANDS * PHASES, BANDS * len(KNOTS))  # channels
LEARNED = (8, 16, 24, 32, 48, 64, 40)  # channels that are left to training, the last of each layer
CHANNELS = tuple(map(sum, zip(COMPUTED, SPARES, LEARNED, strict=True)))
CONSTANT = 4.0  # of the delay line's spare channels: far above any sample
GAIN = 8.0  # of a sample, between layers
SMALL = 1e-3  # learned channels before a norm, relative to its constants, so that they do not move it
LOUDNESS = 0.08  # root mean square of speech
SPECTRAL_GAIN = 60.0  # so large that GELU rectifies even weak bands
HOLD, KEEP = 100.0, 250.0  # constants of layer 6 before and after its norm
UNIT = (*[CONSTANT] * 5, 1.0, HOLD)  # of learned channels before each norm
_LEARNED = tuple(zip(range(7), LEARNED, UNIT, strict=True))
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
    centre, deviation = frames.mean(0), frames.std(0)
    spare = slice(COMPUTED[6], COMPUTED[6] + SPARES[6])
    deviation[spare] = math.inf
    context.input_norm.weight /= deviation
    context.input_norm.bias -= centre / deviation
    frames = (frames - centre) / deviation
    wanted = (wanted - wanted.mean(0)) / wanted.std(0)
    knots = frames[:, : COMPUTED[6]]
    ridge = 1e-5 * len(knots) * torch.eye(knots.shape[1], dtype=torch.float64)
    fit = torch.linalg.solve(knots.T @ knots + ridge, knots.T @ wanted)
    nn.init.zeros_(context.projection.bias)
    context.projection.weight[:, : -LEARNED[6]] = 0
    context.projection.weight[:BANDS, : COMPUTED[6]] = fit.T
    return float((knots @ fit - wanted).square().mean())


class LearnedChannels(nn.Module):
    """The last channels of each of the encoder's layers, in training; the others stay as they are computed.

    The same as the whole encoder but for the part of each norm's mean and deviation that comes from learned
    channels, which is kept below a thousandth; and much faster, since only theirs are differentiated.
    """

    def __init__(self, encoder: FeatureEncoder) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        rows = [_layer(encoder, i).conv.weight[-n:] / (SMALL * unit) for i, n, unit in _LEARNED]
        self.weights = nn.ParameterList(row.detach().clone() for row in rows)
        self.biases = nn.ParameterList(torch.zeros(n) for _, n, _ in _LEARNED)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> [batch, frames, channels]."""
        computed, learned = waveform.unsqueeze(1), waveform.new_zeros(len(waveform), 0, waveform.shape[1])
        for (i, n, unit), weight, bias in zip(_LEARNED, self.weights, self.biases, strict=True):
            layer = _layer(self.encoder, i)
            conv, norm = layer.conv, layer.norm
            with torch.no_grad():
                y = F.conv1d(computed, conv.weight[:-n, : computed.shape[1]], _bias(layer)[:-n], conv.stride)
                mean = y.sum(1, keepdim=True) / conv.out_channels
                scale = (y.square().sum(1, keepdim=True) / conv.out_channels - mean**2 + norm.eps).rsqrt()
                y = F.gelu((y - mean) * scale * norm.weight[:-n, None] + norm.bias[:-n, None])
            new = F.conv1d(torch.cat([computed, learned], 1), weight, bias, conv.stride) * (SMALL * unit)
            learned = F.gelu((new - mean) * scale * norm.weight[-n:, None])
            computed = y
        return torch.cat([computed, learned], 1).transpose(1, 2)

    @torch.no_grad()
    def merge(self) -> None:
        """Write what was trained into the encoder."""
        for (i, n, unit), weight, bias in zip(_LEARNED, self.weights, self.biases, strict=True):
            layer = _layer(self.encoder, i)
            layer.conv.weight[-n:] = weight * (SMALL * unit)
            _bias(layer)[-n:] = bias * (SMALL * unit)


def train_projection(context: ContextNetwork) -> None:
    """Only the projection's columns of learned channels are trained; without weight decay."""
    context.input_norm.requires_grad_(False)
    mask = torch.zeros_like(context.projection.weight)
    mask[:, -LEARNED[6] :] = 1
    context.projection.weight.register_hook(lambda gradient: gradient * mask)


def _delay_line(encoder: FeatureEncoder) -> None:
    hop, before, gain = 1, 1, 1.0
    for i, samples in enumerate(CARRIED):
        layer = _layer(encoder, i)
        used, spare = 2 * samples, _clear(layer, i)
        _bias(layer)[used : used + spare] = CONSTANT * _signs(spare)
        deviation = CONSTANT * math.sqrt(spare / layer.conv.out_channels)
        layer.norm.weight[:used] = GAIN * deviation
        layer.norm.weight[used + spare :] = deviation / (CONSTANT * SMALL)
        rows = _from_pairs(torch.eye(samples), layer.conv, hop, before) / gain
        layer.conv.weight[0:used:2], layer.conv.weight[1:used:2] = rows, -rows
        hop, before, gain = hop * STRIDES[i], samples, GAIN


def _spectrum(layer: ConvLayer, levels: Tensor) -> None:
    """Phases of band b are channels b, BANDS + b, 2 BANDS + b."""
    used, spare = BANDS * PHASES, _clear(layer, 5)
    _bias(layer)[used : used + spare] = math.sqrt(SILENCE * used / spare) * _signs(spare)
    deviation = math.sqrt(used / layer.conv.out_channels)  # of speech at its usual level
    layer.norm.weight[:used] = SPECTRAL_GAIN * deviation
    layer.norm.weight[used + spare :] = deviation / SMALL
    turns = np.exp(2j * np.pi * np.arange(PHASES) / PHASES)[:, None, None]
    bank = torch.from_numpy((turns * sinusoids()).real.astype(np.float32))  # [phase, band, sample]
    bank = (bank / levels[:, None]).flatten(0, 1)
    layer.conv.weight[:used] = _from_pairs(bank, layer.conv, math.prod(STRIDES[:5]), CARRIED[-1]) / GAIN


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
    layer.norm.weight[used + spare :] = deviation / (HOLD * SMALL)
    layer.norm.bias[hold] = KEEP


def _layer(encoder: FeatureEncoder, i: int) -> ConvLayer:
    layer = encoder.layers[i]
    assert isinstance(layer, ConvLayer)
    return layer


def _bias(layer: ConvLayer) -> nn.Parameter:
    assert layer.conv.bias is not None
    return layer.conv.bias


def _clear(layer: ConvLayer, i: int) -> int:
    """Set all weights to zero, but those of learned channels at random; returns how many have constants."""
    for p in layer.parameters():
        nn.init.zeros_(p)
    learned = layer.conv.weight[-LEARNED[i] :]
    size = LOUDNESS * math.sqrt(learned[0].numel()) if i == 0 else math.sqrt(learned[0].numel() / 2)
    nn.init.normal_(learned, std=SMALL * UNIT[i] / size)
    if i == 6:
        learned[:, : COMPUTED[5]] /= SPECTRAL_GAIN
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
