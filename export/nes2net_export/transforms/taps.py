"""Tensors inside a graph, as outputs: to see what values they take.

MatMul -> y -> Gelu          MatMul -> y (output) -> Gelu
"""

from collections.abc import Iterable

import onnx
from onnx import TensorProto, helper


def apply(model: onnx.ModelProto, tensors: Iterable[str]) -> onnx.ModelProto:
    """Return the graph with these float tensors as further outputs; its inputs and outputs are left out."""
    new = onnx.ModelProto()
    new.CopyFrom(model)
    there = {value.name for value in (*model.graph.input, *model.graph.output)}
    for name in dict.fromkeys(tensors):
        if name not in there:
            new.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return new
