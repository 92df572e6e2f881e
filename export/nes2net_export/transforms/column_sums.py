"""Products with a constant vector -> products with a matrix of one column; exact.

    x [..., n] -> MatMul(w [n]) -> y [...]          x -> MatMul(w [n, 1]) -> Squeeze(-1) -> y

The weighted sums over Nes2Net-X's growing last axis, 49 of them. ONNX Runtime makes many products of one by a
vector, and one of one by a matrix: 0.5 ms and 0.01 ms each.
"""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nes2net_export.transforms.graph import free_names, rebuilt


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with its products by constant vectors as products by one-column matrices."""
    vectors = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) == 1}
    fresh = free_names(model.graph, "column")
    nodes, columns, last = [], {}, numpy_helper.from_array(np.array([-1]), next(fresh))
    for old in model.graph.node:
        if old.op_type != "MatMul" or old.input[1] not in vectors:
            nodes.append(old)
            continue
        x, w = old.input
        if w not in columns:
            columns[w] = numpy_helper.from_array(numpy_helper.to_array(vectors[w])[:, None], next(fresh))
        y = next(fresh)
        nodes.append(helper.make_node("MatMul", [x, columns[w].name], [y], name=old.name))
        nodes.append(helper.make_node("Squeeze", [y, last.name], old.output, name=y))
    return rebuilt(model, nodes, [*columns.values(), last])
