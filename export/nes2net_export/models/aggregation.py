"""How the transformer's hidden states become the back-end's features: the last state, or one of three merges.

Source: the official CtrSVDD repository, `models/WavLM_Nes2Net_X.py` (SSLModel).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nes2net_export.models.config import ModelConfig

States = list[Tensor]  # layers + 1 tensors [batch, frames, width]


class Last(nn.Module):
    """The encoder's output, after its final norm."""

    def forward(self, states: States) -> Tensor:
        return states[-1]


class WeightedSum(nn.Module):
    """Sum of the states, weighted by a softmax over one learnt number a state."""

    def __init__(self, states: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(states))

    def forward(self, states: States) -> Tensor:
        weights = self.weight.softmax(0).unbind()
        return torch.stack([w * x for w, x in zip(weights, states, strict=True)]).sum(0)


class SEA(nn.Module):
    """Squeeze-and-excitation aggregation (Guragain et al., SLT 2024): states gated by their means, summed."""

    def __init__(self, states: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Linear(states, bottleneck, bias=False)
        self.excite = nn.Linear(bottleneck, states, bias=False)

    def forward(self, states: States) -> Tensor:
        means = torch.stack([x.mean((1, 2)) for x in states], dim=1)  # [batch, states]
        gates = self.excite(self.squeeze(means).relu()).sigmoid()
        return (torch.stack(states, dim=1) * gates[:, :, None, None]).sum(1)


class AttM(nn.Module):
    """Attentive merging (Pan et al., Interspeech 2024): gated states, concatenated and projected.

    The concatenation is channel-major: entry d * states + layer.
    """

    def __init__(self, states: int, bottleneck: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.randn(width, 1) / width**0.5)
        self.squeeze = nn.Parameter(torch.randn(states, bottleneck) / states**0.5)
        self.excite = nn.Parameter(torch.randn(bottleneck, states) / bottleneck**0.5)
        self.projection = nn.Linear(states * width, width)

    def forward(self, states: States) -> Tensor:
        means = torch.stack([x.mean(1) for x in states], dim=1)  # [batch, states, width]
        gates = F.silu(F.silu(means @ self.embed).squeeze(-1) @ self.squeeze) @ self.excite
        gated = (
            torch.stack(states, dim=-1) * gates.sigmoid()[:, None, None, :]
        )  # [batch, frames, width, states]
        return self.projection(gated.flatten(2))


def build_aggregation(config: ModelConfig) -> nn.Module:
    """The module for `config.aggregation`."""
    states = config.layers + 1
    match config.aggregation:
        case "last":
            return Last()
        case "weighted-sum":
            return WeightedSum(states)
        case "sea":
            return SEA(states, config.aggregation_bottleneck)
        case "attm":
            return AttM(states, config.aggregation_bottleneck, config.width)
