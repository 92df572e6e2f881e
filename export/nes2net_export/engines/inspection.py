"""Is an engine of the precision that was asked for? From what TensorRT's inspector says of its layers."""

import json
import re
from typing import Any

import onnx

from nes2net_export.transforms.graph import element_types
from nes2net_runtime.manifest import Precision

# Layers that do the work: convolutions, matrix products, and fusions with one of them.
WORK = re.compile(r"conv|gemm|matmul|matrix|mha|attention|foreign|myelin|kgen", re.IGNORECASE)
TYPES: dict[Precision, re.Pattern[str]] = {
    "fp32": re.compile(r"(?<!b)float(?!16)|fp32", re.IGNORECASE),
    "fp16": re.compile(r"half|fp16|float16", re.IGNORECASE),
    "bf16": re.compile(r"bfloat16|bf16", re.IGNORECASE),
    "int8": re.compile(r"int8", re.IGNORECASE),
    "int4": re.compile(r"int4|int8|half|fp16", re.IGNORECASE),  # weights alone are INT4
}
LEAST = 0.5  # of the graph's own share must touch the type: borders do not, and layers are joined
NUMBERS: dict[Precision, int] = {"fp32": onnx.TensorProto.FLOAT, "fp16": onnx.TensorProto.FLOAT16}


def precision_share(information: str, precision: Precision) -> float:
    """The share of an engine's working layers that read or write the type of `precision`.

    `information`: the inspector's JSON of an engine that was built with detailed profiling. Raises ValueError
    where it names no working layer.
    """
    layers = [layer for layer in json.loads(information).get("Layers", []) if isinstance(layer, dict)]
    working = [layer for layer in layers if WORK.search(f"{layer.get('LayerType')} {layer.get('Name')}")]
    if not working:
        raise ValueError("the inspector names no convolution and no matrix product")
    right = sum(any(TYPES[precision].search(kind) for kind in _types(layer)) for layer in working)
    return right / len(working)


def graph_share(model: onnx.ModelProto, precision: Precision) -> float:
    """The share of the graph's convolutions and matrix products that compute in `precision`.

    The others are what scores could not stand in it.
    """
    types = element_types(model)
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    working = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    if precision == "int8":
        right = [n for n in working if {makers.get(name) for name in n.input[:2]} == {"DequantizeLinear"}]
    else:
        right = [node for node in working if types.get(node.output[0]) == NUMBERS[precision]]
    return len(right) / max(1, len(working))


def _types(layer: dict[str, Any]) -> list[str]:
    """What the layer's tensors and weights are held in."""
    tensors = [t for place in ("Inputs", "Outputs") for t in layer.get(place) or [] if isinstance(t, dict)]
    weights = layer.get("Weights")
    found = [str(tensor.get("Format/Datatype", "")) for tensor in tensors]
    return [*found, str(weights.get("Type", ""))] if isinstance(weights, dict) else found
