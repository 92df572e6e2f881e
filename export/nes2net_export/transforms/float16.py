"""float32 graph -> float16 graph with float32 islands and borders; approximate (weights and results rounded).

    x (f32) -> MatMul(w f32) -> Softmax -> y (f32)

    x (f32) -> Cast(f16) -> MatMul(w f16) -> Cast(f32) -> Softmax -> y (f32)        with Softmax an island

The graph says of every node what it computes in, as strongly typed TensorRT networks ask for. Initializers
that islands read as well stay in both types.
"""

from collections.abc import Collection

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import element_types, free_names, refuse_subgraphs

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def apply(model: onnx.ModelProto, islands: Collection[str] = ()) -> onnx.ModelProto:
    """Return the graph in float16, but for the nodes whose operator type or name is in `islands`.

    Graph inputs and outputs keep their types. Raises ValueError for graphs within the graph.
    """
    refuse_subgraphs(model)
    graph = model.graph
    floats = {name for name, kind in element_types(model).items() if kind == FLOAT}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    fresh = free_names(graph, "float16")
    held = dict.fromkeys(floats, FLOAT)  # what each tensor is held in, as the new graph has it
    casts: dict[tuple[str, int], str] = {}  # (tensor, type) -> its copy of that type
    nodes: list[NodeProto] = []
    extra: list[TensorProto] = []
    used: set[str] = set()

    def as_type(name: str, kind: int) -> str:
        """The name under which the tensor can be read as `kind`."""
        if name not in floats:
            return name
        if held[name] == kind:
            used.add(name)
            return name
        if (name, kind) not in casts:
            casts[name, kind] = copy = next(fresh)
            if name in weights:
                extra.append(_rounded(weights[name], copy))
            else:
                nodes.append(helper.make_node("Cast", [name], [copy], name=copy, to=kind))
        return casts[name, kind]

    for old in graph.node:
        island = old.op_type in islands or old.name in islands or _is_float32_alone(old)
        kind = FLOAT if island else FLOAT16
        node = NodeProto()
        node.CopyFrom(old)
        node.input[:] = [as_type(name, kind) for name in old.input]
        if kind == FLOAT16:
            _retype_attributes(node)
        nodes.append(node)
        for i, name in enumerate(old.output):
            if name in floats and kind == FLOAT16:
                if name in outputs:
                    node.output[i] = inner = next(fresh)
                    nodes.append(helper.make_node("Cast", [inner], [name], name=f"{inner}_cast", to=FLOAT))
                    casts[name, FLOAT16] = inner
                else:
                    held[name] = FLOAT16

    new = onnx.ModelProto()
    new.CopyFrom(onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import))
    new.graph.name = graph.name
    new.graph.input.extend(graph.input)
    new.graph.output.extend(graph.output)
    new.graph.node.extend(nodes)
    kept = (tensor for tensor in graph.initializer if tensor.name not in floats or tensor.name in used)
    new.graph.initializer.extend([*kept, *extra])
    return new


def _is_float32_alone(node: NodeProto) -> bool:
    """Whether the node has no form for float16: Range, and constants that have no type of their own."""
    constant = node.op_type in ("Constant", "ConstantOfShape")
    return node.op_type == "Range" or (constant and not any(a.HasField("t") for a in node.attribute))


def _rounded(tensor: TensorProto, name: str) -> TensorProto:
    with np.errstate(over="ignore"):  # infinite in float16: the check of drift finds it
        return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), name)


def _retype_attributes(node: NodeProto) -> None:
    """Attributes that say float32 (of Cast, Constant, ConstantOfShape, QuantizeLinear …) say float16."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype", "output_dtype") and attribute.i == FLOAT:
            attribute.i = FLOAT16
        if attribute.HasField("t") and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_rounded(attribute.t, attribute.t.name))
