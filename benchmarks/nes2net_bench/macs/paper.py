"""The convention of the papers' table of MACs: that of ptflops 0.7.5 with its backend "pytorch".

For these back-ends it counts
- convolutions and linear layers, with one MAC more for each result that gets a bias;
- two for each element that a batch norm sees;
- two for each element that a ReLU, or the average of a squeeze-and-excitation, sees: ptflops meets both
  twice, as the official code's module (nn.ReLU, nn.AdaptiveAvgPool1d) and as the function that this calls;
- nothing for SELU, sigmoid, tanh, softmax, additions, the weighted sums of Nes2Net-X, and means that are no
  module (mean pooling, ASTP).

So a network gets cheaper by a dearer activation (SELU). That is why products alone are counted beside it.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from nes2net_bench.macs.modules import module_products
from nes2net_export.models.config import ModelConfig
from nes2net_export.models.nes2net import Nes2Net, SqueezeExcitation
from nes2net_export.random_models import WAVLM_LARGE

FRAMES = 200  # of the table's input, (1024, 200): four seconds have 199 or 201
COUNTED_TWICE = ("ReLU", "AdaptiveAvgPool1d")


@dataclass(frozen=True)
class BackendRow:
    """One back-end of the table, at (1024, 200)."""

    name: str
    macs: int  # by the papers' convention
    products: int | None  # products alone; None: not counted here
    parameters: int


# Its network is not part of this toolkit. ptflops 0.7.5, backend "pytorch", printed these numbers for the
# official code's back-end, Linear 1024 -> 128 included, at (200, 1024); the paper rounds them to 707.65 M.
AASIST = BackendRow("AASIST", 707_652_570, None, 447_242)


def paper_table() -> list[BackendRow]:
    """The back-ends that the papers compare, mean pooling, one logit; AASIST by its published numbers."""
    x = replace(WAVLM_LARGE, logits=1)
    rows = {
        "Nes2Net": replace(x, backend="nes2net"),
        "Nes2Net-X": x,
        "Nes2Net-X SELU": replace(x, activation="selu"),
    }
    return [*(backend_row(name, config) for name, config in rows.items()), AASIST]


def saving(row: BackendRow, over: BackendRow = AASIST) -> float:
    """Share of the MACs of `over` that a back-end does without."""
    return 1 - row.macs / over.macs


def backend_row(name: str, config: ModelConfig) -> BackendRow:
    """A back-end at the table's input, by both conventions."""
    with torch.device("meta"):
        module, features = Nes2Net(config).eval(), torch.empty(1, FRAMES, config.width)
    products, _ = module_products(module, features)
    macs = paper_macs(module, features)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return BackendRow(name, sum(macs.values()), sum(product.macs for product in products), parameters)


def paper_macs(backend: nn.Module, features: torch.Tensor) -> Counter[str]:
    """MACs of a back-end by the type of layer in the official code; what ptflops meets twice counts twice."""
    counter = _Official()
    hooks = [
        module.register_forward_pre_hook(counter.squeeze)
        for module in backend.modules()
        if isinstance(module, SqueezeExcitation)
    ]
    with torch.no_grad(), counter:
        backend(features)
    for hook in hooks:
        hook.remove()
    once = counter.once
    return Counter({kind: macs * (2 if kind in COUNTED_TWICE else 1) for kind, macs in once.items()})


class _Official(TorchFunctionMode):
    """Counts calls as the layers that the official code has for them."""

    def __init__(self) -> None:
        super().__init__()
        self.once: Counter[str] = Counter()

    def squeeze(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self.once["AdaptiveAvgPool1d"] += inputs[0].numel()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (F.conv1d, F.conv2d, F.linear, torch.conv1d, torch.conv2d):
            _, weight, *bias = args
            each = prod(weight.shape[1:]) + any(b is not None for b in bias[:1])
            kind = "Linear" if weight.dim() == 2 else f"Conv{weight.dim() - 2}d"
            self.once[kind] += result.numel() * each
        elif func is F.batch_norm:
            self.once[f"BatchNorm{result.dim() - 2}d"] += 2 * result.numel()
        elif func in (F.relu, torch.relu, torch.Tensor.relu):
            self.once["ReLU"] += result.numel()
        return result
