"""Strided convolutions -> matrix products over frames, channels last; exact up to the order of sums.

    x [B, C, T] -> Conv(w [O, C, k], stride s) -> y [B, O, T']

    x [B, T, C] -> Slices, one a tap [B, T', C] -> Concat [B, T', k C] -> MatMul(w [k C, O]) -> y [B, T', O]

ONNX Runtime has fast 8-bit products, and slow 8-bit convolutions but for those whose results are 8-bit too.
The layer norms between wav2vec 2.0's convolutions want channels last, so the transposes around them go.
"""

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import free_names, producers, readers, rebuilt

TURN = [0, 2, 1]  # channels first <-> channels last
END = np.iinfo(np.int64).max


def unfoldable(model: onnx.ModelProto) -> list[NodeProto]:
    """Convolutions over time of all channels, without padding or dilation, with constant weights."""
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        kernel = weights.get(node.input[1], []) if node.op_type == "Conv" else []
        if len(kernel) == 3 and kernel[2] > 1:
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            plain = given.get("group", 1) == 1 and not any(given.get("pads", ()))
            plain &= set(given.get("dilations", [1])) == {1} and given.get("auto_pad", b"NOTSET") == b"NOTSET"
            if plain:
                found.append(node)
    return found


def products(model: onnx.ModelProto) -> list[NodeProto]:
    """The products that `apply` has made: of slices of a tensor, side by side."""
    made = producers(model.graph)

    def slices(name: str) -> bool:
        return name in made and made[name].op_type == "Slice"

    def framed(name: str) -> bool:
        return name in made and made[name].op_type == "Concat" and all(map(slices, made[name].input))

    return [n for n in model.graph.node if n.op_type == "MatMul" and framed(n.input[0])]


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its `unfoldable` convolutions as products that keep their names."""
    convolutions = {node.output[0] for node in unfoldable(model)}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made, read = producers(model.graph), readers(model.graph)
    fresh = free_names(model.graph, "unfold")
    nodes: list[NodeProto] = []
    added: list[TensorProto] = []
    done: set[str] = set()  # tensors that their product has made: channels last, without the Transpose

    def constant(values: ArrayLike) -> str:
        added.append(numpy_helper.from_array(np.asarray(values), name := next(fresh)))
        return name

    def add(operator: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        name = output or next(fresh)
        nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    for old in model.graph.node:
        if old.output[0] not in convolutions:
            if old.output[0] not in done:
                nodes.append(old)
            continue
        x, maker = old.input[0], made.get(old.input[0])
        x = maker.input[0] if maker is not None and _turns(maker) else add("Transpose", [x], perm=TURN)
        kernel = numpy_helper.to_array(weights[old.input[1]])
        outputs, channels, taps = kernel.shape
        stride = next((a.ints[0] for a in old.attribute if a.name == "strides"), 1)
        axis, step = constant(np.array([1])), constant(np.array([stride]))
        slices = [
            add("Slice", [x, constant([tap]), constant([tap + 1 - taps or END]), axis, step])
            for tap in range(taps)
        ]
        frames = add("Concat", slices, axis=2)
        matrix = constant(np.ascontiguousarray(kernel.transpose(2, 1, 0)).reshape(taps * channels, outputs))
        reading = read.get(old.output[0], [])
        y = next((reader.output[0] for reader in reading if _turns(reader)), None) or next(fresh)
        done.add(y)
        product = y if len(old.input) == 2 else next(fresh)
        nodes.append(helper.make_node("MatMul", [frames, matrix], [product], name=old.name))
        if product != y:
            add("Add", [product, old.input[2]], y)
        if [reader.output[0] for reader in reading] != [y]:
            add("Transpose", [y], old.output[0], perm=TURN)
    return rebuilt(model, nodes, added)


def _turns(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and any(list(a.ints) == TURN for a in node.attribute)
