"""What the transforms ask of a graph: element types, makers and readers of tensors, free names."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx
from onnx import NodeProto, TensorProto

CONTRIB = "com.microsoft"  # ONNX Runtime's own operators


def element_types(model: onnx.ModelProto) -> dict[str, int]:
    """Element type (TensorProto.DataType) of every tensor that has one, by shape inference."""
    graph = onnx.shape_inference.infer_shapes(_without_weights(model)).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def readers(graph: onnx.GraphProto) -> dict[str, list[NodeProto]]:
    """Tensor -> the nodes that read it."""
    found: defaultdict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for name in dict.fromkeys(node.input):
            found[name].append(node)
    return found


def free_names(graph: onnx.GraphProto, stem: str) -> Iterator[str]:
    """Names that no tensor or node of the graph has: stem_0, stem_1 …"""
    taken = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    taken |= {tensor.name for tensor in (*graph.initializer, *graph.input, *graph.output)}
    i = 0
    while True:
        if (name := f"{stem}_{i}") not in taken:
            yield name
        i += 1


def refuse_subgraphs(model: onnx.ModelProto) -> None:
    """Raise ValueError where a node holds a graph (If, Loop, Scan) or the model has functions."""
    inner = [n.name for n in model.graph.node if any(a.HasField("g") or a.graphs for a in n.attribute)]
    if inner or model.functions:
        raise ValueError(f"graphs within the graph are not transformed: {inner or 'functions'}")


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its large weights turned into inputs: inference copies all that it gets."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    light.graph.name = model.graph.name
    for tensor in model.graph.initializer:
        if (
            tensor.data_type == TensorProto.INT64 or len(tensor.raw_data) < 1024
        ):  # shapes are inferred from them
            light.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(value)
    return light


def producers(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """Tensor -> the node that makes it."""
    return {name: node for node in graph.node for name in node.output}


def rebuilt(
    model: onnx.ModelProto, nodes: Iterable[NodeProto], added: Iterable[TensorProto], contrib: bool = False
) -> onnx.ModelProto:
    """The model with these nodes in place of its own, `added` initializers, and those that are still read.

    Nodes whose results nobody reads are left out. `contrib`: some are ONNX Runtime's own operators.
    """
    new = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    if contrib and CONTRIB not in {opset.domain for opset in new.opset_import}:
        new.opset_import.append(onnx.helper.make_opsetid(CONTRIB, 1))
    new.graph.name = model.graph.name
    new.graph.input.extend(model.graph.input)
    new.graph.output.extend(model.graph.output)
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(list(nodes)):
        if wanted & {*node.output}:
            kept.append(node)
            wanted |= {*node.input}
    new.graph.node.extend(reversed(kept))
    tensors = (*model.graph.initializer, *added)
    new.graph.initializer.extend(tensor for tensor in tensors if tensor.name in wanted)
    return new
