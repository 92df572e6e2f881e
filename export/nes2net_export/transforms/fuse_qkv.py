"""Products of one tensor with several matrices -> one product, split; exact up to rounding.

    x -> MatMul(q) -> Add -> Mul(s)          x -> MatMul([s q, k, v]) -> Add -> Split -> s q x, k x, v x
    x -> MatMul(k) -> Add
    x -> MatMul(v) -> Add

Attention's query, key and value: x is read, and in INT8 quantised, once. The scale of the query goes into its
weights: exactly where it is a power of two, as with heads of 64.
"""

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import free_names, readers, rebuilt

Matrix = NDArray[np.float32]
Branch = tuple[Matrix, Matrix, list[NodeProto]]  # matrix, bias, and the nodes of product, bias and scale


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with biased products that read the same tensor joined; others stay."""
    graph, fresh = model.graph, free_names(model.graph, "qkv")
    constants = {tensor.name: tensor for tensor in graph.initializer}
    read = readers(graph)
    replaced: dict[str, list[NodeProto]] = {}  # a node's result -> what stands in the node's place
    added: list[TensorProto] = []
    for x, nodes in read.items():
        products = [n for n in nodes if n.op_type == "MatMul" and n.input[0] == x and n.input[1] in constants]
        branches = [branch for product in products if (branch := _branch(product, read, constants))]
        if len(branches) < 2 or len(branches) < len(products):
            continue
        w, y, z, sizes = (next(fresh) for _ in range(4))
        b = _bias_name(branches)
        if b is None or b in {tensor.name for tensor in added}:  # the exporter stores equal biases once
            b = next(fresh)
        added += [
            numpy_helper.from_array(np.concatenate([matrix for matrix, _, _ in branches], axis=1), w),
            numpy_helper.from_array(np.concatenate([bias for _, bias, _ in branches]), b),
            numpy_helper.from_array(np.array([len(bias) for _, bias, _ in branches], np.int64), sizes),
        ]
        replaced |= {node.output[0]: [] for _, _, chain in branches for node in chain}
        replaced[products[0].output[0]] = [
            helper.make_node("MatMul", [x, w], [y], name=products[0].name),
            helper.make_node("Add", [y, b], [z], name=z),
            helper.make_node(
                "Split", [z, sizes], [c[-1].output[0] for _, _, c in branches], name=sizes, axis=-1
            ),
        ]
    return rebuilt(model, [new for old in graph.node for new in replaced.get(old.output[0], [old])], added)


def _bias_name(branches: list[Branch]) -> str | None:
    """`layers.0.attention.qkv.bias`, of `layers.0.attention.query.bias` and its like: what layer it is of."""
    names = [name for _, _, (_, add, *_) in branches for name in add.input if name.count(".") > 1]
    return f"{names[0].rsplit('.', 2)[0]}.qkv.bias" if names else None


def _branch(
    product: NodeProto, read: Mapping[str, list[NodeProto]], constants: Mapping[str, TensorProto]
) -> Branch | None:
    """Matrix, bias and nodes of product -> Add -> Mul by one number, which may be missing; None: no bias."""

    def follow(node: NodeProto, operator: str) -> tuple[NodeProto, Matrix] | None:
        nodes = read.get(node.output[0], [])
        known = [name for name in nodes[0].input if name in constants] if len(nodes) == 1 else []
        if len(known) != 1 or nodes[0].op_type != operator:
            return None
        return nodes[0], numpy_helper.to_array(constants[known[0]])

    if (biased := follow(product, "Add")) is None or biased[1].ndim != 1:
        return None
    matrix, (add, bias) = numpy_helper.to_array(constants[product.input[1]]), biased
    if (scaled := follow(add, "Mul")) is None or scaled[1].size > 1:
        return matrix, bias, [product, add]
    multiply, factor = scaled
    return matrix * factor.reshape(()), bias * factor.reshape(()), [product, add, multiply]
