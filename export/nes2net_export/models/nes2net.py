"""Nes2Net and Nes2Net-X: nested Res2Net back-ends without dimension reduction (arXiv 2504.05657, section 3).

Source: the official repositories' `WavLM_Nes2Net.py`, `WavLM_Nes2Net_X[_SeLU].py`, `wav2vec2_Nes2Net_X.py`.
Batch norm comes after the activation inside blocks and groups, and before it at the end.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nes2net_export.models.config import ModelConfig

KERNEL = 3


class SqueezeExcitation(nn.Module):
    """Channel gates from the mean over time. Keeps ReLU in the SeLU variant too."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv1d(channels, bottleneck, 1)
        self.excite = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gates = self.excite(self.squeeze(x.mean(-1, keepdim=True)).relu()).sigmoid()
        return x * gates


class Res2NetBlock(nn.Module):
    """Residual block whose channels are split; each split's convolution also sees the one before's result.

    A subclass says how one split meets the next (`fuse`). The last split passes unchanged.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        splits = config.inner_splits
        self.width = (
            channels // splits
        )  # channels that do not divide are dropped by `reduce`, restored by `expand`
        self.activation: Callable[[Tensor], Tensor] = F.selu if config.activation == "selu" else F.relu
        self.reduce = nn.Conv1d(channels, self.width * splits, 1)
        self.reduce_norm = nn.BatchNorm1d(self.width * splits)
        self.expand = nn.Conv1d(self.width * splits, channels, 1)
        self.expand_norm = nn.BatchNorm1d(channels)
        self.se = SqueezeExcitation(channels, config.se_bottleneck)

    def fuse(self, splits: tuple[Tensor, ...]) -> list[Tensor]:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, frames] -> the same shape."""
        y = self.reduce_norm(self.activation(self.reduce(x)))
        splits = y.split(self.width, 1)
        y = torch.cat([*self.fuse(splits), splits[-1]], 1)
        y = self.expand_norm(self.activation(self.expand(y)))
        return self.se(y) + x


class SumBlock(Res2NetBlock):
    """Nes2Net: each split is added to the result of the one before."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__(channels, config)
        stages = range(config.inner_splits - 1)
        d = config.dilation
        self.convs = nn.ModuleList(
            nn.Conv1d(self.width, self.width, KERNEL, padding=d, dilation=d) for _ in stages
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(self.width) for _ in stages)

    def fuse(self, splits: tuple[Tensor, ...]) -> list[Tensor]:
        outputs: list[Tensor] = []
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = splits[i] if i == 0 else outputs[-1] + splits[i]
            outputs.append(norm(self.activation(conv(x))))
        return outputs


class ConcatBlock(Res2NetBlock):
    """Nes2Net-X: splits are stacked on a growing last axis that starts from the last split.

    A learnt weighted sum over that axis makes each output; the stack itself, not the sum, goes on.
    """

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__(channels, config)
        stages = range(config.inner_splits - 1)
        d = config.dilation
        self.convs = nn.ModuleList(
            nn.Conv2d(self.width, self.width, (KERNEL, 1), padding=(d, 0), dilation=(d, 1)) for _ in stages
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(self.width) for _ in stages)
        self.sums = nn.ParameterList(torch.full((i + 2,), 1 / (i + 2)) for i in stages)

    def fuse(self, splits: tuple[Tensor, ...]) -> list[Tensor]:
        columns = [x.unsqueeze(-1) for x in splits]
        outputs = []
        stack = columns[-1]  # [batch, width, frames, 1]
        for i, (conv, norm, weights) in enumerate(zip(self.convs, self.norms, self.sums, strict=True)):
            stack = torch.cat([stack, columns[i]], -1)
            stack = norm(self.activation(conv(stack)))  # [batch, width, frames, i + 2]
            outputs.append(stack @ weights)
        return outputs


class ASTP(nn.Module):
    """Attentive statistics pooling: [batch, channels, frames] -> means and deviations [batch, 2 channels]."""

    def __init__(self, channels: int, bottleneck: int) -> None:
        super().__init__()
        self.embed = nn.Conv1d(channels, bottleneck, 1)
        self.attend = nn.Conv1d(bottleneck, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.attend(self.embed(x).tanh()).softmax(2)
        mean = (alpha * x).sum(2)
        variance = (alpha * x**2).sum(2) - mean**2
        return torch.cat([mean, variance.clamp(min=1e-10).sqrt()], 1)


class Nes2Net(nn.Module):
    """The back-end: outer Res2Net over channel groups whose layers are Res2Net blocks; features -> logits."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.group = config.width // config.outer_splits
        self.activation: Callable[[Tensor], Tensor] = F.selu if config.activation == "selu" else F.relu
        block = ConcatBlock if config.backend == "nes2net-x" else SumBlock
        groups = range(config.outer_splits - 1)
        self.blocks = nn.ModuleList(block(self.group, config) for _ in groups)
        self.norms = nn.ModuleList(nn.BatchNorm1d(self.group) for _ in groups)
        self.norm = nn.BatchNorm1d(config.width)
        self.pooling = ASTP(config.width, config.pooling_bottleneck) if config.pooling == "astp" else None
        pooled = config.width * (2 if config.pooling == "astp" else 1)
        self.classifier = nn.Linear(pooled, config.logits)

    def pool(self, features: Tensor) -> Tensor:
        """[batch, frames, width] -> [batch, pooled]: what the classifier sees."""
        groups = features.transpose(1, 2).split(self.group, 1)
        outputs: list[Tensor] = []
        for i, (block, norm) in enumerate(zip(self.blocks, self.norms, strict=True)):
            x = groups[i] if i == 0 else outputs[-1] + groups[i]
            outputs.append(norm(self.activation(block(x))))
        x = self.activation(self.norm(torch.cat([*outputs, groups[-1]], 1)))
        return x.mean(-1) if self.pooling is None else self.pooling(x)

    def forward(self, features: Tensor) -> Tensor:
        """[batch, frames, width] -> [batch, logits]."""
        return self.classifier(self.pool(features))
