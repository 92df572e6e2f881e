"""The same products, counted from the torch modules that the graphs are exported from: a second opinion.

Modules run on torch's meta device: shapes alone, no weights, no arithmetic. Formulas are torch's own
(`torch.utils.flop_counter`), two operations a multiply-accumulate.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from nes2net_bench.macs.graphs import Kind, Product
from nes2net_export.models.config import ModelConfig
from nes2net_export.models.detector import Detector
from nes2net_export.trace import stage_specs


@dataclass(frozen=True)
class ModuleMacs:
    """One stage's modules."""

    stage: str
    products: tuple[Product, ...]  # in the order in which they run
    parameters: int
    folded: int  # numbers that the graph stores beyond the parameters, since the exporter computes with some


def modules_macs(config: ModelConfig, samples: int, single_graph: bool = False) -> list[ModuleMacs]:
    """The stages of a detector of this shape, for one window of `samples`."""
    with torch.device("meta"):
        detector = Detector(config).eval()
        tensor = torch.empty(1, samples)
    counted = []
    for spec, module in stage_specs(detector, single_graph):
        products, tensor = module_products(module, tensor)
        parameters = sum(parameter.numel() for parameter in module.parameters())
        folded = _folded(config) if spec.name in ("context", "detector") else 0
        counted.append(ModuleMacs(spec.name, tuple(products), parameters, folded))
    return counted


def module_products(module: nn.Module, x: torch.Tensor) -> tuple[list[Product], torch.Tensor]:
    """What a module multiplies for an input, and its output; both on the meta device."""
    counter = _Counter()
    with torch.no_grad(), counter.modules, counter:
        output = module(x)
    return counter.products, output


def config_of(model: Mapping[str, Any]) -> ModelConfig:
    """The configuration that a manifest has as plain data."""
    return msgspec.convert(model, ModelConfig)


def _folded(config: ModelConfig) -> int:
    """What the exporter makes of parameters that no input meets, less those parameters.

    WavLM's embedding of relative positions becomes a table over all distances; the weighted sum's softmax is
    computed, and its results are plain numbers.
    """
    extra = 0
    if config.family == "wavlm":
        distances = 2 * config.relative_max_distance + 1
        extra += config.attention_heads * (distances - config.relative_buckets)
    if config.aggregation == "weighted-sum":
        extra -= config.layers + 1
    return extra


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every product that runs under it, and in which module; what products are written as has come apart."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.modules = ModuleTracker()
        self.products: list[Product] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result, operator = func(*args, **(kwargs or {})), func.overloadpacket
        if operator in FORMULAS:
            operations = FORMULAS[operator](*args, **(kwargs or {}), out_val=result)
            where = max(self.modules.parents, key=len).partition(".")[2]  # after the outermost class's name
            self.products.append(Product(where, KINDS.get(operator, "linear"), operations // 2, "FLOAT"))
        return result


def _matrix_vector(matrix: torch.Tensor, vector: torch.Tensor, **more: Any) -> int:
    return 2 * matrix.numel()


# torch leaves out products of a matrix and a vector: the weighted sums of Nes2Net-X.
FORMULAS: dict[Any, Callable[..., int]] = {**flop_registry, torch.ops.aten.mv: _matrix_vector}
KINDS: dict[Any, Kind] = {torch.ops.aten.convolution: "convolution", torch.ops.aten.bmm: "attention"}
