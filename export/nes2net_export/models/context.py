"""Context network of wav2vec 2.0 and WavLM: frames -> hidden states of a pre-norm transformer.

Source: fairseq `models/wav2vec/wav2vec2.py` (TransformerEncoder, layer_norm_first) and s3prl / unilm WavLM.
The two differ in attention alone: WavLM adds a gated relative position bias.
No masks and no dropout: batches hold utterances of equal length, and this code never pre-trains.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nes2net_export.models.config import ModelConfig


class PositionalConv(nn.Module):
    """Grouped convolution over time whose output is added to its input.

    Its even kernel with padding kernel/2 gives one frame too many; the official code drops the last one.
    The weight norm of the official checkpoints is folded into `weight` when they are loaded.
    """

    def __init__(self, width: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
        self.drop_last = kernel % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.transpose(1, 2))  # [batch, width, frames + 1]
        if self.drop_last:
            y = y[:, :, :-1]
        return x + F.gelu(y).transpose(1, 2)


class RelativePositionBias(nn.Module):
    """WavLM's relative position bias, one table for all layers (T5 buckets, bidirectional).

    Distances beyond `max_distance` share the last bucket, so that a table over [-max_distance, max_distance]
    holds every bucket and the graph needs neither logarithm nor rounding.
    """

    buckets: Tensor

    def __init__(self, buckets: int, max_distance: int, heads: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(buckets, heads)
        self.max_distance = max_distance
        self.register_buffer("buckets", relative_buckets(buckets, max_distance), persistent=False)

    def forward(self, frames: int) -> Tensor:
        """-> [heads, frames (query), frames (key)]."""
        position = torch.arange(frames, device=self.buckets.device)
        distance = position[None, :] - position[:, None]  # key - query
        distance = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        table = self.embedding(self.buckets).T  # [heads, 2 max_distance + 1]
        return table[:, distance]


def relative_buckets(buckets: int, max_distance: int) -> Tensor:
    """Bucket of every distance from -max_distance to max_distance (WavLM `_relative_positions_bucket`)."""
    distance = torch.arange(-max_distance, max_distance + 1)
    half = buckets // 2  # positive distances have the upper half
    exact = half // 2  # one bucket each below this, logarithmic above
    magnitude = distance.abs()
    spread = torch.log(magnitude.float() / exact) / math.log(max_distance / exact) * (half - exact)
    logarithmic = (exact + spread.clamp(min=0).long()).clamp(max=half - 1)
    return (distance > 0).long() * half + torch.where(magnitude < exact, magnitude, logarithmic)


class PositionGate(nn.Module):
    """WavLM's gate on the position bias, from the attention's input (after the norm, before projection)."""

    def __init__(self, heads: int, head_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(head_width, 8)
        self.scale = nn.Parameter(torch.ones(1, heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, heads, frames, head_width] -> [batch, heads, frames, 1]."""
        gates = self.linear(x).unflatten(-1, (2, 4)).sum(-1).sigmoid()
        update, reset = gates.split(1, dim=-1)
        return update * (reset * self.scale - 1) + 2


class Attention(nn.Module):
    """Multi-head self-attention; with a `gate`, the position bias is gated and added to the scores."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.gate = PositionGate(heads, width // heads) if gated else None

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [batch, heads, frames, head_width]

    def forward(self, x: Tensor, position_bias: Tensor | None) -> Tensor:
        query, key, value = (
            self.split(self.query(x) * self.scale),
            self.split(self.key(x)),
            self.split(self.value(x)),
        )
        scores = query @ key.transpose(-1, -2)  # [batch, heads, frames, frames]
        if self.gate is not None:
            scores = scores + self.gate(self.split(x)) * position_bias
        x = scores.softmax(-1) @ value
        return self.output(x.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """Pre-norm block."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config.width, config.attention_heads, gated=config.family == "wavlm")
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.expand = nn.Linear(config.width, config.feed_forward)
        self.contract = nn.Linear(config.feed_forward, config.width)

    def forward(self, x: Tensor, position_bias: Tensor | None) -> Tensor:
        x = x + self.attention(self.attention_norm(x), position_bias)
        return x + self.contract(F.gelu(self.expand(self.feed_forward_norm(x))))


class ContextNetwork(nn.Module):
    """Projection, positional convolution, transformer, final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_norm = nn.LayerNorm(config.conv_channels[-1])
        self.projection = nn.Linear(config.conv_channels[-1], config.width)
        self.positional = PositionalConv(config.width, config.pos_conv_kernel, config.pos_conv_groups)
        self.position_bias = (
            RelativePositionBias(
                config.relative_buckets, config.relative_max_distance, config.attention_heads
            )
            if config.family == "wavlm"
            else None
        )
        self.layers = nn.ModuleList(TransformerLayer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)

    def forward(self, frames: Tensor) -> list[Tensor]:
        """[batch, frames, channels] -> layers + 1 states [batch, frames, width].

        As s3prl counts them: the input of each layer, then the output after the final norm. The last layer's
        output before that norm is not among them.
        """
        x = self.positional(self.projection(self.input_norm(frames)))
        bias = None if self.position_bias is None else self.position_bias(x.shape[1])
        states = []
        for layer in self.layers:
            states.append(x)
            x = layer(x, bias)
        return [*states, self.norm(x)]
