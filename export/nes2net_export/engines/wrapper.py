"""An engine as an ONNX graph of one EPContext node, which is how ONNX Runtime takes one.

Its attributes are those that the TensorRT providers read: the engine's file beside the graph, and its cards.
"""

from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from nes2net_export.engines.tensorrt import Kind
from nes2net_runtime.manifest import Stage, Tensor

PROVIDERS: dict[Kind, str] = {"trt": "TensorrtExecutionProvider", "trt-rtx": "NvTensorRTRTXExecutionProvider"}


def wrap(stage: Stage, engine: str, kind: Kind, version: str, architecture: str) -> ModelProto:
    """The graph for the engine in the file `engine` beside it; `architecture`: "89", or "80+"."""
    node = helper.make_node(
        "EPContext",
        [tensor.name for tensor in stage.inputs],
        [tensor.name for tensor in stage.outputs],
        name=stage.name,
        domain="com.microsoft",
        main_context=1,
        embed_mode=0,
        ep_cache_context=engine,
        ep_sdk_version=version,
        hardware_architecture=architecture,
        partition_name=stage.name,
        source=PROVIDERS[kind],
    )
    graph = helper.make_graph([node], stage.name, _values(stage.inputs), _values(stage.outputs))
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, producer_name="nes2net-edge")


def _values(tensors: list[Tensor]) -> list[ValueInfoProto]:
    return [helper.make_tensor_value_info(t.name, TensorProto.FLOAT, t.shape) for t in tensors]
