"""A grouped convolution over time -> sums of 8-bit integer products; approximate.

    x [B, G I, T] -> Conv(w [G O, I, K], group G, pads) -> y [B, G O, T']

    x -> Pad -> DynamicQuantizeLinear -> frames of 16 taps [B, G, T' + K - 16, 16 I]
      -> products with each 16 taps [B, G, T', O], of frames 16 later each -> their sum -> scales -> y

wav2vec 2.0's positional convolution, of 128 taps in 16 groups. Frames of all taps at once would be 128 times
as large as x; of 16 they stay in the cache: a third of the float32 convolution's time, and a quarter of its
weights. Scales are those of integer_products.py. Zeros are padded before the quantisation, and do not change
its range, which always holds zero; where bytes are padded, OpenVINO takes zero in place of the zero point.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import free_names, rebuilt
from nes2net_export.transforms.integer_products import weight_bytes

TAPS = 16  # of a frame
END = np.iinfo(np.int64).max


def grouped(model: onnx.ModelProto) -> list[NodeProto]:
    """Convolutions over time in groups, with constant weights, that move by one."""
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv" and len(weights.get(node.input[1], ())) == 3:
            given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            whole = {*given.get("strides", [1]), *given.get("dilations", [1])} == {1}
            if given.get("group", 1) > 1 and whole and given.get("auto_pad", b"NOTSET") == b"NOTSET":
                found.append(node)
    return found


def apply(model: onnx.ModelProto, names: Collection[str] | None = None) -> onnx.ModelProto:
    """Return the graph with its `grouped` convolutions in INT8, or those of them that are called `names`."""
    chosen = {n.output[0] for n in grouped(model) if names is None or n.name in names}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    fresh = free_names(model.graph, "int8_conv")
    nodes: list[NodeProto] = []
    added: list[TensorProto] = []

    def constant(values: ArrayLike) -> str:
        added.append(numpy_helper.from_array(np.ascontiguousarray(values), name := next(fresh)))
        return name

    def integers(*values: int) -> str:
        return constant(np.array(values, np.int64))

    def add(operator: str, *inputs: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(operator, inputs, [name := next(fresh)], name=name, **attributes))
        return name

    def later(x: str, first: int, beyond: int) -> str:
        """Frames (axis 2) from `first` on, without the last `beyond`."""
        return add("Slice", x, integers(first), integers(-beyond or END), integers(2))

    for old in model.graph.node:
        if old.output[0] not in chosen:
            nodes.append(old)
            continue
        given = {a.name: helper.get_attribute_value(a) for a in old.attribute}
        before, after = given.get("pads", (0, 0))
        kernel = numpy_helper.to_array(weights[old.input[1]])
        groups, inputs = given["group"], kernel.shape[1]
        missing = -kernel.shape[2] % TAPS
        taps, after = kernel.shape[2] + missing, after + missing
        kernel = np.pad(kernel, ((0, 0), (0, 0), (0, missing)))
        values, scales = weight_bytes(kernel.reshape(len(kernel), -1).T)
        # [G, O, I, blocks, taps of a block]
        values = values.T.reshape(groups, -1, inputs, taps // TAPS, TAPS)
        outputs = values.shape[1]

        padded = add("Pad", old.input[0], integers(0, 0, before, 0, 0, after))
        quantised = [next(fresh) for _ in range(3)]
        nodes.append(helper.make_node("DynamicQuantizeLinear", [padded], quantised, name=quantised[0]))
        x, scale, zero = quantised
        x = add("Reshape", x, integers(0, groups, inputs, -1))
        x = add("Transpose", x, perm=[0, 1, 3, 2])
        frames = add("Concat", *(later(x, tap, TAPS - 1 - tap) for tap in range(TAPS)), axis=3)
        sums = []
        for block in range(taps // TAPS):
            weight = values[:, :, :, block].transpose(0, 3, 2, 1).reshape(groups, TAPS * inputs, outputs)
            heard = later(frames, TAPS * block, taps - TAPS * (block + 1))
            sums.append(add("MatMulInteger", heard, constant(weight), zero))
        y = sums[0]
        for other in sums[1:]:
            y = add("Add", y, other)
        both = add("Mul", scale, constant(scales.reshape(groups, 1, outputs)))
        y = add("Mul", add("Cast", y, to=TensorProto.FLOAT), both)
        y = add("Transpose", y, perm=[0, 1, 3, 2])
        y = add("Reshape", y, integers(0, groups * outputs, -1))
        if len(old.input) > 2:
            bias = add("Unsqueeze", old.input[2], integers(1))
            nodes.append(helper.make_node("Add", [y, bias], old.output, name=old.name))
        else:
            nodes.append(helper.make_node("Identity", [y], old.output, name=old.name))
    return rebuilt(model, nodes, added)
