"""float32 products -> 8-bit integer products, in the form that ONNX Runtime's CPU kernels take; approximate.

    x -> MatMul(w f32) -> y

    x -> DynamicQuantizeLinear -> MatMulInteger(w i8) -> Cast -> Mul(scales) -> y      scale found as it runs
    x -> QuantizeLinear -> DequantizeLinear -> MatMul(DequantizeLinear(w i8)) -> y      scale from audio

Activations are unsigned, with one scale and a zero point; weights signed and symmetric, one scale a column,
in 7 of their 8 bits: CPUs with AVX2 and no VNNI add two products in 16 bits, where 2 x 255 x 127 saturates
and 2 x 255 x 63 does not. Unsigned weights would not saturate either, and take twice the time where VNNI is.
What only moves values (slices of unfold.py) comes after the quantisation: bytes are moved, not floats.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import free_names, producers, rebuilt

Range = tuple[float, float]  # least and largest value
MOVES = frozenset({"Concat", "Reshape", "Slice", "Transpose"})
LEAST_INPUTS = 16
LARGEST = 63  # of a weight's byte
BYTES = 255  # steps of an activation's byte


def products(model: onnx.ModelProto) -> list[NodeProto]:
    """Products with a constant matrix as their second input; not those of few inputs, which gain nothing.

    The first convolution is one of these: ten samples of the waveform, which 8 bits would not do justice.
    """
    weights = {
        t.name
        for t in model.graph.initializer
        if t.data_type == TensorProto.FLOAT and len(t.dims) == 2 and t.dims[0] >= LEAST_INPUTS
    }
    return [
        n
        for n in model.graph.node
        if n.op_type == "MatMul" and n.input[1] in weights and n.input[0] not in weights
    ]


def sources(model: onnx.ModelProto) -> dict[str, str]:
    """Name of each product -> the tensor that is quantised for it: its input before what only moves it."""
    made = producers(model.graph)
    return {node.name: _source(node.input[0], made) for node in products(model)}


def apply(
    model: onnx.ModelProto, names: Collection[str] | None = None, ranges: Mapping[str, Range] | None = None
) -> onnx.ModelProto:
    """Return the graph with its `products` in INT8, or those of them that are called `names`.

    `ranges`: of the tensors in `sources`, where scales are static; values beyond are clipped. Without, each
    product's scale is found as it runs.
    """
    chosen = {n.output[0] for n in products(model) if names is None or n.name in names}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made, fresh = producers(model.graph), free_names(model.graph, "int8")
    nodes: list[NodeProto] = []
    added: list[TensorProto] = []
    quantised: dict[str, list[str]] = {}  # tensor -> its bytes, scale and zero point

    def constant(values: ArrayLike, kind: type[np.generic]) -> str:
        added.append(numpy_helper.from_array(np.asarray(values, kind), name := next(fresh)))
        return name

    def add(operator: str, inputs: list[str], outputs: int = 1, **attributes: Any) -> list[str]:
        names = [next(fresh) for _ in range(outputs)]
        nodes.append(helper.make_node(operator, inputs, names, name=names[0], **attributes))
        return names

    def quantise(x: str) -> list[str]:
        if x not in quantised:
            maker = made.get(x)
            source = _source(x, made)
            if source != x:
                assert maker is not None
                parts = {name: quantise(name) for name in _moved(maker)}
                node = NodeProto()
                node.CopyFrom(maker)
                node.name = next(fresh)
                node.input[:] = [parts[name][0] if name in parts else name for name in maker.input]
                node.output[0] = node.name
                nodes.append(node)
                quantised[x] = [node.name, *next(iter(parts.values()))[1:]]
            elif ranges is None:
                quantised[x] = add("DynamicQuantizeLinear", [x], 3)
            else:
                scale, zero = activation_scale(*ranges[x])
                held = [constant(scale, np.float32), constant(zero, np.uint8)]
                quantised[x] = [*add("QuantizeLinear", [x, *held]), *held]
        return quantised[x]

    for old in model.graph.node:
        if old.output[0] not in chosen:
            nodes.append(old)
            continue
        x, scale, zero = quantise(old.input[0])
        values, scales = weight_bytes(numpy_helper.to_array(weights[old.input[1]]))
        w, w_scale = constant(values, np.int8), constant(scales, np.float32)
        node = NodeProto()
        node.CopyFrom(old)
        if ranges is not None:
            zeros = constant(np.zeros(scales.shape), np.int8)
            node.input[:] = [
                *add("DequantizeLinear", [x, scale, zero]),
                *add("DequantizeLinear", [w, w_scale, zeros], axis=1),
            ]
            nodes.append(node)
        else:
            (sums,) = add("MatMulInteger", [x, w, zero])
            (floats,) = add("Cast", [sums], to=TensorProto.FLOAT)
            (both,) = add("Mul", [scale, w_scale])
            nodes.append(helper.make_node("Mul", [floats, both], old.output, name=old.name))
    return rebuilt(model, nodes, added)


def activation_scale(least: float, largest: float) -> tuple[np.float32, int]:
    """Scale and zero point of bytes that reach from `least` to `largest`, and hold zero exactly."""
    least, largest = min(least, 0.0), max(largest, 0.0)
    scale = max((largest - least) / BYTES, float(np.finfo(np.float32).tiny))
    return np.float32(scale), round(-least / scale)


def weight_bytes(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """[inputs, outputs] -> bytes, and a scale for each output."""
    scales = np.maximum(np.abs(weight).max(axis=0) / LARGEST, np.finfo(np.float32).tiny).astype(np.float32)
    return np.rint(weight / scales).astype(np.int8), scales


def _source(x: str, made: Mapping[str, NodeProto]) -> str:
    """The tensor whose values `x` has, in another order; `x` itself where that is more than one."""
    node = made.get(x)
    if node is None or node.op_type not in MOVES:
        return x
    found = {_source(name, made) for name in _moved(node)}
    return found.pop() if len(found) == 1 else x


def _moved(node: NodeProto) -> list[str]:
    """The inputs whose values a node moves; the others tell it where to."""
    return list(node.input) if node.op_type == "Concat" else [node.input[0]]
