"""float32 graph -> static INT8 by symmetric QuantizeLinear/DequantizeLinear pairs; approximate.

    x -> MatMul(w f32) -> y

    x -> Quantize -> Dequantize -> MatMul(Dequantize(w i8)) -> y

The form that ONNX Runtime, TensorRT and TensorRT-RTX all take: signed and symmetric, one scale an activation,
one a channel of a weight, biases in float32. Products of two activations (attention) stay as they are.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import free_names, readers

LARGEST = 127  # -128 is not used: symmetric
SMALLEST = np.finfo(np.float16).smallest_subnormal  # engines refuse a scale of zero


def quantisable(model: onnx.ModelProto) -> list[NodeProto]:
    """Convolutions, and products with a constant matrix as their second input."""
    weights = {t.name: len(t.dims) for t in model.graph.initializer if t.data_type == TensorProto.FLOAT}
    return [
        node
        for node in model.graph.node
        if (node.op_type == "Conv" and node.input[1] in weights)
        or (node.op_type == "MatMul" and weights.get(node.input[1]) == 2)
        if node.input[0] not in weights
    ]


def apply(
    model: onnx.ModelProto, largest: Mapping[str, float], names: Collection[str] | None = None
) -> onnx.ModelProto:
    """Return the graph with its `quantisable` nodes in INT8, or those of them that are called `names`.

    `largest`: |value| of each node's first input that the scale reaches up to; more is clipped.
    """
    nodes = {id(n): n for n in quantisable(model) if names is None or n.name in names}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    fresh = free_names(model.graph, "int8")
    new = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    new.graph.name = model.graph.name
    new.graph.input.extend(model.graph.input)
    new.graph.output.extend(model.graph.output)
    pairs: dict[str, str] = {}  # tensor -> the same, quantised and back

    def constant(values: ArrayLike, kind: type[np.generic]) -> str:
        tensor = numpy_helper.from_array(np.asarray(values, kind), name := next(fresh))
        new.graph.initializer.append(tensor)
        return name

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        new.graph.node.append(
            helper.make_node(operator, inputs, [name := next(fresh)], name=name, **attributes)
        )
        return name

    for old in model.graph.node:
        node = NodeProto()
        node.CopyFrom(old)
        if id(old) in nodes:
            x, w = old.input[:2]
            if x not in pairs:
                scale = constant(scales_of(largest[x]), np.float32)
                zero = constant(0, np.int8)
                pairs[x] = add("DequantizeLinear", add("QuantizeLinear", x, scale, zero), scale, zero)
            if w not in pairs:
                axis = 0 if old.op_type == "Conv" else 1  # of output channels
                values, scales = _by_channel(numpy_helper.to_array(weights[w]), axis)
                zeros = constant(np.zeros(scales.shape), np.int8)
                pairs[w] = add(
                    "DequantizeLinear",
                    constant(values, np.int8),
                    constant(scales, np.float32),
                    zeros,
                    axis=axis,
                )
            node.input[:2] = pairs[x], pairs[w]
        new.graph.node.append(node)
    read = readers(new.graph)
    new.graph.initializer.extend(t for t in model.graph.initializer if t.name in read)
    return new


def scales_of(largest: ArrayLike) -> NDArray[np.float32]:
    """Scales that reach up to these values, as numbers that float16 has: it may hold the graph's floats."""
    wanted = np.asarray(largest, np.float32) / LARGEST
    half = np.maximum(wanted.astype(np.float16), SMALLEST)
    return np.where(half < wanted, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


def _by_channel(weight: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """int8 values, and one scale for each index of `axis`."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scales = scales_of(np.abs(weight).max(axis=others, keepdims=True))
    return np.rint(weight / scales).astype(np.int8), scales.reshape(-1)
