"""A feature encoder that starts as a short-time spectrum instead of noise.

Layer norms after every convolution take the level of each 10-sample patch away, which a randomly initialised
encoder of this size needs hours to learn around. So the first four layers start (and stay) a delay line, and
the fifth starts as a bank of windowed sinusoids:

    layer            0    1    2    3    4
    samples carried  5   10   24   60  140, every 5, 10, 20, 40, 80 samples
    channels used   10   20   48  120  240 = 80 bands of 100 Hz in three phases

A sample x travels as the pair (GELU(x), GELU(-x)), whose difference is x exactly. Pairs have mean zero, and
spare channels with a large constant bias hold the norm's deviation, so that the norm changes nothing. In the
fifth layer the spare constants are small: there the norm is a gain control for each 8.75 ms, with a floor.
"""

import math

import torch
from torch import Tensor, nn

from nes2net_export.models.config import STRIDES
from nes2net_export.models.encoder import ConvLayer, FeatureEncoder

CARRIED = (5, 10, 24, 60)  # samples, by the layers of the delay line
CHANNELS = (16, 24, 64, 128, 256)
BANDS, PHASES, SPAN = 80, 3, 140
CONSTANT = 4.0  # of the delay line's spare channels: far above any sample
FLOOR = 0.08  # of the spectrum's spare channels; a band has deviation 1 in speech
GAIN = 8.0  # of a sample, between layers
SPECTRAL_GAIN = 2.0


def delay_line(encoder: FeatureEncoder) -> nn.ModuleList:
    """The layers that are not trained."""
    return nn.ModuleList(encoder.layers[: len(CARRIED)])


@torch.no_grad()
def start_as_spectrum(encoder: FeatureEncoder, speech: Tensor) -> None:
    """Set layers 0 to 4 in place; `speech` [batch, samples] tells the bands' usual levels, to level them."""
    hop, before, gain = 1, 1, 1.0
    for i, samples in enumerate(CARRIED):
        layer = _layer(encoder, i)
        _clear(layer, CONSTANT, 2 * samples, gain=GAIN)
        layer.conv.weight[: 2 * samples] = _from_pairs(torch.eye(samples), layer.conv, hop, before) / gain
        hop, before, gain = hop * STRIDES[i], samples, GAIN
    layer = _layer(encoder, len(CARRIED))
    _clear(layer, FLOOR, BANDS * PHASES, gain=SPECTRAL_GAIN)
    layer.norm.weight[: BANDS * PHASES] = SPECTRAL_GAIN
    bank = sinusoids()
    layer.conv.weight[: len(bank)] = _from_pairs(bank, layer.conv, hop, before)[0::2] / gain
    x = speech.unsqueeze(1)
    for lower in delay_line(encoder):
        x = lower(x)
    level = layer.conv(x)[:, : len(bank)].square().mean((0, 2)).view(PHASES, BANDS).mean(0).sqrt()
    layer.conv.weight[: len(bank)] /= level.repeat(PHASES)[:, None, None]


def sinusoids() -> Tensor:
    """Windowed sinusoids [phase x band, sample]; band b is centred on 100 b + 50 Hz."""
    n = torch.arange(SPAN) - (SPAN - 1) / 2
    turns = (torch.arange(BANDS) + 0.5)[:, None] / (2 * BANDS) * n  # [band, sample]
    shift = torch.arange(PHASES)[:, None, None] / PHASES
    window = torch.hann_window(SPAN + 2, periodic=False)[1:-1]
    return ((2 * math.pi * (turns + shift)).cos() * window).flatten(0, 1)


def _layer(encoder: FeatureEncoder, i: int) -> ConvLayer:
    layer = encoder.layers[i]
    assert isinstance(layer, ConvLayer)
    return layer


def _clear(layer: ConvLayer, constant: float, used: int, gain: float) -> None:
    """Zero a layer but for its spare channels, whose constants set the deviation that the norm divides by."""
    channels, bias = layer.conv.out_channels, layer.conv.bias
    assert bias is not None
    nn.init.zeros_(layer.conv.weight)
    nn.init.zeros_(bias)
    nn.init.zeros_(layer.norm.weight)
    nn.init.zeros_(layer.norm.bias)
    bias[used:] = constant * (-1.0) ** torch.arange(channels - used)
    layer.norm.weight[:used] = gain * constant * math.sqrt((channels - used) / channels)


def _from_pairs(rows: Tensor, conv: nn.Conv1d, hop: int, before: int) -> Tensor:
    """Weights [2 x row, channel, tap] of +-`rows` [row, sample]; inputs carry `before` samples every `hop`.

    A tap carries samples [hop tap, hop tap + before); each sample is taken from the last tap that has it.
    """
    weight = torch.zeros(2 * len(rows), conv.in_channels, conv.kernel_size[0])
    for sample in range(rows.shape[1]):
        if conv.in_channels == 1:
            weight[0::2, 0, sample] = rows[:, sample]
        else:
            tap = min(sample // hop, conv.kernel_size[0] - 1)
            pair = 2 * (sample - hop * tap)
            weight[0::2, pair, tap] = rows[:, sample]
            weight[0::2, pair + 1, tap] = -rows[:, sample]
    weight[1::2] = -weight[0::2]
    return weight
