"""torch modules -> ONNX models, one a stage, with dynamic batch and time."""

import logging
import warnings
from dataclasses import dataclass

import onnx
import torch
from torch import Tensor, nn

from nes2net_export.models.config import FRAME_FIELD, FRAME_HOP
from nes2net_export.models.detector import Detector
from nes2net_runtime.manifest import StageName


@dataclass(frozen=True)
class StageSpec:
    """Names of a stage's one input and one output, and of their dynamic dimensions."""

    name: StageName
    input: str
    input_shape: tuple[int | str, ...]
    output: str
    output_shape: tuple[int | str, ...]


def stage_specs(detector: Detector, single_graph: bool) -> list[tuple[StageSpec, nn.Module]]:
    """The stages of a bundle, each with its module."""
    c = detector.config
    waveform, frames = ("batch", "samples"), ("batch", "frames", c.conv_channels[-1])
    features, logits = ("batch", "frames", c.width), ("batch", c.logits)
    if single_graph:
        return [(StageSpec("detector", "waveform", waveform, "logits", logits), detector)]
    return [
        (StageSpec("encoder", "waveform", waveform, "frames", frames), detector.encoder),
        (StageSpec("context", "frames", frames, "features", features), detector.context),
        (StageSpec("backend", "features", features, "logits", logits), detector.backend),
    ]


def trace(spec: StageSpec, module: nn.Module, opset: int) -> onnx.ModelProto:
    """Export one stage with torch.onnx's current exporter.

    Weights stay in the model; the caller decides where they are stored.
    """
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's, about its own dependencies
        program = torch.onnx.export(
            module,
            (_example(spec),),
            dynamo=True,
            verbose=False,
            opset_version=opset,
            input_names=[spec.input],
            output_names=[spec.output],
            dynamic_shapes=({i: d for i, d in enumerate(spec.input_shape) if isinstance(d, str)},),
        )
    assert program is not None
    return tidy(program.model_proto, spec)


def tidy(model: onnx.ModelProto, spec: StageSpec) -> onnx.ModelProto:
    """Drop the exporter's notes (a stack trace a node), name the dynamic dimensions of the output."""
    graph = model.graph
    del model.metadata_props[:], graph.metadata_props[:], graph.value_info[:]
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in (*graph.input, *graph.output, *graph.initializer):
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    graph.name = spec.name
    for dimension, size in zip(graph.output[0].type.tensor_type.shape.dim, spec.output_shape, strict=True):
        if isinstance(size, str):
            dimension.dim_param = size
        else:
            dimension.dim_value = size
    return model


def _example(spec: StageSpec) -> Tensor:
    """An input of two utterances: the exporter takes a dimension of size one as constant."""
    frames = 50
    sizes = {"batch": 2, "samples": FRAME_FIELD + FRAME_HOP * (frames - 1), "frames": frames}
    return torch.zeros([sizes[d] if isinstance(d, str) else d for d in spec.input_shape])
