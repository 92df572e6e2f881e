"""Two ways to make the products of a float32 bundle's stages integer ones: for CPUs, and for GPU engines.

    for_cpus      encoder: 8 bits, scales from audio, so that a frame does not depend on its window
                  context: 8 bits, scales found as it runs; or 4-bit weights of its products
    for_engines   Q/DQ pairs with scales from audio, signed and symmetric, as TensorRT wants them

What is left in float32 is chosen by sensitivity.py.
"""

from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx

from nes2net_export.activations import ranges_inside
from nes2net_export.drift import Models
from nes2net_export.probe import Probe
from nes2net_export.transforms import (
    block_weights,
    integer_convolution,
    integer_products,
    quantize_linear,
    unfold,
)
from nes2net_runtime.manifest import Manifest, StageName


@dataclass(frozen=True)
class Quantiser:
    """Nodes that can be quantised, by stage, and what quantises some of them."""

    nodes: Mapping[StageName, Mapping[str, tuple[int, ...]]]  # name -> the shape of its weight
    four_bit: Mapping[StageName, AbstractSet[str]]  # those of them that get 4-bit weights; the others INT8
    convert: Callable[[StageName, Collection[str]], onnx.ModelProto]


def for_cpus(
    manifest: Manifest,
    models: Models,
    heavy: frozenset[StageName],
    probe: Probe,
    block: int | None,
    speech: bool,
) -> Quantiser:
    """Integer products; `block`: 4-bit weights with a scale for so many, of all but the encoder.

    The feature encoder needs scales from `speech` (or weights that mean nothing); else it stays as it is.
    """
    framed = {stage: {product.name for product in unfold.products(models[stage])} for stage in heavy}
    grouped = {stage: integer_convolution.grouped(models[stage]) for stage in heavy}
    nodes = {
        stage: _shapes(models[stage], [*integer_products.products(models[stage]), *grouped[stage]])
        for stage in heavy
    }
    if not speech:
        nodes = {s: {name: of[name] for name in of.keys() - framed[s]} for s, of in nodes.items()}
    sources = {stage: integer_products.sources(models[stage]) for stage in heavy}
    static = {
        stage: {sources[stage][name] for name in framed[stage] & nodes[stage].keys()} for stage in heavy
    }
    ranges = ranges_inside(manifest, models, static, probe.calibrate)

    def convert(stage: StageName, names: Collection[str]) -> onnx.ModelProto:
        model = integer_convolution.apply(models[stage], names)
        model = integer_products.apply(model, framed[stage] & {*names}, ranges[stage])
        rest = {*names} - framed[stage]
        return block_weights.apply(model, block, rest) if block else integer_products.apply(model, rest)

    whole = {s: framed[s] | {node.name for node in grouped[s]} for s in heavy}  # convolutions
    four_bit = {s: nodes[s].keys() - whole[s] if block else set() for s in heavy}
    return Quantiser(nodes, four_bit, convert)


def for_engines(manifest: Manifest, models: Models, heavy: frozenset[StageName], probe: Probe) -> Quantiser:
    """Q/DQ pairs around convolutions and products."""
    quantisable = {stage: quantize_linear.quantisable(models[stage]) for stage in heavy}
    read = {stage: {node.input[0] for node in nodes} for stage, nodes in quantisable.items()}
    ranges = ranges_inside(manifest, models, read, probe.calibrate)

    def convert(stage: StageName, names: Collection[str]) -> onnx.ModelProto:
        largest = {tensor: max(-low, high) for tensor, (low, high) in ranges[stage].items()}
        return quantize_linear.apply(models[stage], largest, names)

    nodes = {stage: _shapes(models[stage], quantisable[stage]) for stage in heavy}
    return Quantiser(nodes, {stage: set() for stage in heavy}, convert)


def _shapes(model: onnx.ModelProto, nodes: Collection[onnx.NodeProto]) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    return {node.name: shapes[node.input[1]] for node in nodes}
