"""float16 graph -> float32 graph that rounds to float16 where that one does: to measure it on a CPU.

    Cast(f16) -> MatMul(w f16) -> Gelu

    round -> MatMul(w f32) -> round -> Gelu -> round          round = Cast(f16) -> Cast(f32)

That is what a GPU computes that accumulates in float32 and stores float16. ONNX Runtime's own float16 on a
CPU is not: it computes in float32 and leaves results there, so that nothing rounds and nothing overflows.
"""

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import element_types, free_names

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16
MOVES = frozenset(  # values that were rounded before
    {"Concat", "Expand", "Gather", "Identity", "Relu", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph with the roundings of a float16 one; exactly its values, with exact sums."""
    types, fresh = element_types(model), free_names(model.graph, "round")
    nodes: list[NodeProto] = []

    def rounded(source: str, target: str) -> None:
        half = next(fresh)
        nodes.append(helper.make_node("Cast", [source], [half], name=half, to=FLOAT16))
        nodes.append(helper.make_node("Cast", [half], [target], name=f"{half}_back", to=FLOAT))

    for old in model.graph.node:
        to = next((a.i for a in old.attribute if a.name == "to"), None) if old.op_type == "Cast" else None
        if to == FLOAT16:
            rounded(old.input[0], old.output[0])
            continue
        if to == FLOAT and types.get(old.input[0]) == FLOAT16:
            nodes.append(helper.make_node("Identity", old.input, old.output, name=old.name))
            continue
        node = NodeProto()
        node.CopyFrom(old)
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.data_type == FLOAT16:
                attribute.t.CopyFrom(_widened(attribute.t))
        nodes.append(node)
        if old.op_type not in MOVES:
            for i, name in enumerate(old.output):
                if types.get(name) == FLOAT16:
                    node.output[i] = next(fresh)
                    rounded(node.output[i], name)

    new = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    new.graph.name = model.graph.name
    new.graph.input.extend(model.graph.input)
    new.graph.output.extend(model.graph.output)
    new.graph.node.extend(nodes)
    new.graph.initializer.extend(
        _widened(tensor) if tensor.data_type == FLOAT16 else tensor for tensor in model.graph.initializer
    )
    return new


def _widened(tensor: TensorProto) -> TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
