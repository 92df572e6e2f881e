"""Constant folding and shape simplification by onnxsim; exact up to rounding.

onnxsim helps graphs with leftover shape arithmetic and harms others: around dynamic dimensions it replaces a
MatMul and its Add by a Gemm between two Reshapes. So its result is kept only where it has fewer nodes.
"""

import onnx
import onnxsim

MAX_BYTES = 1 << 31  # of a protobuf message


def apply(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return onnxsim's model where it is valid and has fewer nodes, else `model` itself."""
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= MAX_BYTES:
        return model
    simplified, valid = onnxsim.simplify(model)
    return simplified if valid and len(simplified.graph.node) < len(model.graph.node) else model
