"""A Triton Inference Server model repository from a bundle: a model a stage, and an ensemble of them.

    TARGET/
        nes2net-edge.json            which folders are ours: what --force may replace
        NAME/                        the ensemble: waveform [batch, samples] -> logits [batch, logits]
            config.pbtxt             its parameters hold all that turns logits into decisions
            bundle.json, MODEL_CARD.md, LICENSE
            1/
        NAME-normalize/              only where each window is normalised, which no graph of a bundle does
        NAME-encoder/
            config.pbtxt
            1/model.onnx             and the files of its weights; or model.plan
        NAME-context/ …  NAME-backend/ …    (or NAME-detector/)

A score must not depend on the requests that happen to be there at the same time. Triton joins only requests
of equal shapes, and nothing is padded; a stage that quantises on the fly, with one scale for all of a batch,
runs its requests one by one.

The format: `model_config.proto` of triton-inference-server/common.
"""

import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import msgspec
import onnx
from onnx import TensorProto, helper

from nes2net_runtime.bundle import MANIFEST, Bundle
from nes2net_runtime.bundle_writer import new_bundle
from nes2net_runtime.errors import BundleError
from nes2net_runtime.external_data import external_locations
from nes2net_runtime.manifest import Engine, Manifest, Stage, Tensor

MARKER = "nes2net-edge.json"
DOCUMENTS = ("MODEL_CARD.md", "LICENSE")
# A batch comes out of a stage as single requests again, one after the other: with no delay the next stage
# would run the first one alone. Half a millisecond is little beside a window's work.
QUEUE_DELAY = 500  # microseconds
# Operators with one scale for a whole tensor, batch and all, that is measured as the tensor comes.
QUANTISE_ON_THE_FLY = {
    "ConvInteger",
    "DynamicQuantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
}
# As the runtime does: lengths that are ever new would make ONNX Runtime's plans of memory grow.
SESSION = {"enable_mem_pattern": "0"}

Message = Mapping[str, object]


class Word(str):
    """A value of an enumeration: text without quotes."""


TYPES = {"float32": Word("TYPE_FP32")}


@dataclass(frozen=True)
class StageModel:
    """A model of the repository, and what its line of the summary says of it."""

    name: str
    platform: str
    input: Tensor
    output: Tensor
    max_batch: int  # windows, of one request and of joined ones
    joined: bool  # whether requests are
    files: Mapping[str, Path | bytes]  # of version 1
    says: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def write_triton(
    bundle: Bundle, target: Path, force: bool = False, max_batch: int = 32, engines: bool = True
) -> list[str]:
    """Write the model repository `target`, whole or not at all; returns a line for each of its models.

    `max_batch`: windows in the largest batch, of one request and of joined ones. `engines`: TensorRT engines
    that take the official window replace their ONNX stages; they need their card and TensorRT version.
    TensorRT-RTX's are none that Triton loads.

    Raises BundleError where the bundle is damaged, the target is in the way (`force` replaces a repository
    that holds nothing but ours), or it can't be written; ValueError for a `max_batch` below 1.
    """
    if max_batch < 1:
        raise ValueError(f"max_batch: {max_batch}, but a batch holds at least 1")
    bundle.verify()
    manifest, name = bundle.manifest, model_name(bundle.manifest.name)
    stages = list(_stages(bundle, name, max_batch, engines))
    batch = min(stage.max_batch for stage in stages)  # Triton refuses an ensemble that takes more
    listed = {file.path: file for file in manifest.files}
    documents = [listed[document] for document in DOCUMENTS if document in listed]
    for document in documents:
        bundle.check_hash(document)
    _refuse_others(target)
    with new_bundle(target, force, MARKER, "Triton repository made here") as folder:
        ours = {"models": [name, *(stage.name for stage in stages)]}
        (folder / MARKER).write_bytes(msgspec.json.encode(ours) + b"\n")
        keep = b"An ensemble has no model file. This one keeps the folder where empty ones are lost.\n"
        version = _model_folder(folder, name, _ensemble_config(manifest, name, stages, batch))
        _put(version, {"README": keep})
        _put(folder / name, {"bundle.json": bundle.path / MANIFEST})
        _put(folder / name, {document.path: bundle.path / document.path for document in documents})
        for stage in stages:
            _put(_model_folder(folder, stage.name, _stage_config(manifest, stage)), stage.files)
    summary = [f"{name}: the detector, waveform -> logits, up to {batch} windows a request"]
    return summary + [f"{stage.name}: {stage.says}" for stage in stages]


def model_name(bundle_name: str) -> str:
    """A bundle's name as a folder's that is also part of an address."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", bundle_name).strip("-.")[:100] or "detector"


def pbtxt(message: Message, indent: str = "") -> str:
    """Protobuf's text format: mappings are messages, lists repeat, tuples are lists of numbers."""
    text = ""
    for key, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, Mapping):
                text += f"{indent}{key} {{\n{pbtxt(one, indent + '  ')}{indent}}}\n"
            else:
                text += f"{indent}{key}: {_scalar(one)}\n"
    return text


def normalize_graph() -> onnx.ModelProto:
    """waveform -> normalized, both [batch, samples] float32: the runtime's `normalize` as a graph.

    Each row to zero mean and unit (biased) variance, epsilon 1e-5, computed in float64.
    """
    nodes = [
        helper.make_node("Cast", ["waveform"], ["exact"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceMean", ["exact", "samples"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["exact", "mean"], ["centred"]),
        helper.make_node("Mul", ["centred", "centred"], ["squares"]),
        helper.make_node("ReduceMean", ["squares", "samples"], ["variance"], keepdims=1),
        helper.make_node("Add", ["variance", "epsilon"], ["above zero"]),
        helper.make_node("Sqrt", ["above zero"], ["deviation"]),
        helper.make_node("Div", ["centred", "deviation"], ["normal"]),
        helper.make_node("Cast", ["normal"], ["normalized"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "normalize",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("normalized", TensorProto.FLOAT, ["batch", "samples"])],
        [
            helper.make_tensor("samples", TensorProto.INT64, [1], [1]),
            helper.make_tensor("epsilon", TensorProto.DOUBLE, [], [1e-5]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def quantises_on_the_fly(graph: Path) -> bool:
    """Whether an operator of the ONNX file quantises by what the whole batch holds."""
    model = onnx.load(graph, load_external_data=False)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    return any(node.op_type in QUANTISE_ON_THE_FLY for node in _with_inner(nodes))


def _with_inner(nodes: Collection[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _with_inner(graph.node)


def _stages(bundle: Bundle, name: str, max_batch: int, engines: bool) -> Iterator[StageModel]:
    """The models that the ensemble consists of, in order."""
    if bundle.manifest.audio.normalize == "per-window":
        yield StageModel(
            name=f"{name}-normalize",
            platform="onnxruntime_onnx",
            input=Tensor(name="waveform", type="float32", shape=["batch", "samples"]),
            output=Tensor(name="normalized", type="float32", shape=["batch", "samples"]),
            max_batch=max_batch,
            joined=False,  # there is nothing to gain
            files={"model.onnx": normalize_graph().SerializeToString()},
            says="ONNX, each window to zero mean and unit variance",
            parameters=SESSION,
        )
    chosen = _engines(bundle.manifest) if engines else {}
    for stage in bundle.manifest.stages:
        if engine := chosen.get(stage.name):
            yield _engine_model(bundle, f"{name}-{stage.name}", stage, engine, max_batch)
        else:
            yield _onnx_model(bundle, f"{name}-{stage.name}", stage, max_batch)


def _onnx_model(bundle: Bundle, name: str, stage: Stage, max_batch: int) -> StageModel:
    graph = bundle.path / stage.file
    alone = quantises_on_the_fly(graph)
    files: dict[str, Path | bytes] = {"model.onnx": graph}
    for location in external_locations(graph):
        if PurePosixPath(location) == PurePosixPath("model.onnx"):
            raise BundleError(f"{graph}: keeps its weights in model.onnx, Triton's name of the graph itself")
        files[location] = graph.parent / location
    how = "window by window: it quantises on the fly" if alone else f"joins up to {max_batch} windows"
    return StageModel(
        name=name,
        platform="onnxruntime_onnx",
        input=stage.inputs[0],
        output=stage.outputs[0],
        max_batch=1 if alone else max_batch,
        joined=not alone and max_batch > 1,
        files=files,
        says=f"ONNX, {stage.precision}, {how}",
        parameters=SESSION,
    )


def _engine_model(bundle: Bundle, name: str, stage: Stage, engine: Engine, max_batch: int) -> StageModel:
    listed = {file.path: file for file in bundle.manifest.files}
    if engine.file not in listed:
        raise BundleError(
            f"{bundle.path}: engine {engine.file!r} is named, but the manifest does not list the file"
        )
    bundle.check_hash(listed[engine.file])
    batch = min(max_batch, engine.batch[2])
    cards = ", ".join(engine.compute_capabilities)
    return StageModel(
        name=name,
        platform="tensorrt_plan",
        input=stage.inputs[0],
        output=stage.outputs[0],
        max_batch=batch,
        joined=batch > 1,
        files={"model.plan": bundle.path / engine.file},
        says=f"TensorRT {engine.version} engine, {engine.precision}, compute capability {cards}, "
        f"{engine.platform}, {engine.samples[0]} to {engine.samples[2]} samples, joins up to {batch} windows",
    )


def _engines(manifest: Manifest) -> dict[str, Engine]:
    """By stage, the engines to serve: all of one TensorRT version, platform and card, as a server has."""
    builds: dict[tuple[str, ...], dict[str, Engine]] = {}
    window = manifest.audio.window_samples
    for engine in manifest.engines:
        fits = engine.batch[0] == 1 and engine.samples[0] <= window <= engine.samples[2]
        if engine.kind == "trt" and fits:
            build = (engine.version, engine.platform, *engine.compute_capabilities)
            builds.setdefault(build, {})[engine.stage] = engine
    return max(builds.values(), key=len, default={})


def _ensemble_config(manifest: Manifest, name: str, stages: Sequence[StageModel], batch: int) -> Message:
    """What clients ask: the audio goes in, and each step's output is the next one's input."""
    tensor = stages[0].input.name
    steps = []
    for stage in stages:
        steps.append(
            {
                "model_name": stage.name,
                "model_version": -1,
                "input_map": {"key": stage.input.name, "value": tensor},
                "output_map": {"key": stage.output.name, "value": stage.output.name},
            }
        )
        tensor = stage.output.name
    return {
        "name": name,
        "platform": "ensemble",
        "max_batch_size": batch,
        "input": _port(stages[0].input),
        "output": _port(stages[-1].output),
        "ensemble_scheduling": {"step": steps},
        "parameters": _parameters(_decisions(manifest)),
    }


def _decisions(manifest: Manifest) -> dict[str, str]:
    """What a client needs to cut audio and to turn logits into decisions."""
    audio = manifest.audio
    found = {
        "bundle": manifest.name,
        "precision": manifest.precision,
        "random_weights": str(manifest.source.random).lower(),
        "sample_rate": str(audio.sample_rate),
        "window_samples": str(audio.window_samples),
        "min_samples": str(audio.min_samples),
        "bonafide_logit": str(manifest.score.bonafide_logit),
        "score": manifest.score.meaning,
    }
    for rule, calibration in (manifest.calibration or {}).items():
        for number in ("slope", "offset", "threshold", "prior_spoof", "min_seconds"):
            found[f"calibration.{rule}.{number}"] = repr(float(getattr(calibration, number)))
    return found


def _stage_config(manifest: Manifest, stage: StageModel) -> Message:
    batching = {"dynamic_batching": {"max_queue_delay_microseconds": QUEUE_DELAY}} if stage.joined else {}
    return {
        "name": stage.name,
        "platform": stage.platform,
        "max_batch_size": stage.max_batch,
        "input": _port(stage.input),
        "output": _port(stage.output),
        **batching,
        "instance_group": {"kind": Word("KIND_AUTO"), "count": 1},
        "model_warmup": _warmup(manifest, stage.input),
        "parameters": _parameters(stage.parameters),
    }


def _port(tensor: Tensor) -> Message:
    return {"name": tensor.name, "data_type": TYPES[tensor.type], "dims": _dims(tensor, {})}


def _dims(tensor: Tensor, known: Mapping[str, int]) -> tuple[int, ...]:
    """Shape without the batch, which Triton takes for granted; -1 where it is dynamic and not known."""
    return tuple(d if isinstance(d, int) else known.get(d, -1) for d in tensor.shape[1:])


def _warmup(manifest: Manifest, tensor: Tensor) -> Message:
    """Silence of one official window, so that the first request does not wait for kernels to be chosen."""
    audio = manifest.audio
    frames = (audio.window_samples - audio.frame_field) // audio.frame_hop + 1
    dims = _dims(tensor, {"samples": audio.window_samples, "frames": frames})
    silence = {"data_type": TYPES[tensor.type], "dims": dims, "zero_data": True}
    return {"name": "official window", "batch_size": 1, "inputs": {"key": tensor.name, "value": silence}}


def _parameters(values: Mapping[str, str]) -> list[Message]:
    return [{"key": key, "value": {"string_value": value}} for key, value in values.items()]


def _scalar(value: object) -> str:
    match value:
        case Word():
            return value
        case str():  # bytes outside printable ASCII as octal escapes, which every reader understands
            escaped = (f"\\{b:03o}" if b in b'"\\' or not 32 <= b < 127 else chr(b) for b in value.encode())
            return f'"{"".join(escaped)}"'
        case bool():
            return str(value).lower()
        case tuple():
            return f"[ {', '.join(map(str, value))} ]"
        case _:
            return str(value)


def _refuse_others(target: Path) -> None:
    """Raise BundleError where `force` would delete models that were put beside ours."""
    try:
        ours = msgspec.json.decode((target / MARKER).read_bytes(), type=dict[str, list[str]])
        there = {path.name for path in target.iterdir()}
    except (OSError, msgspec.DecodeError):
        return  # not there, or not ours: `new_bundle` says so
    if others := sorted(there - {MARKER, *ours.get("models", [])}):
        raise BundleError(f"{target}: also holds {', '.join(others)}, not made here; choose another -o")


def _model_folder(repository: Path, name: str, config: Message) -> Path:
    """Make the folder of a model, with its config; returns that of its only version."""
    version = repository / name / "1"
    version.mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(pbtxt(config), encoding="utf-8")
    return version


def _put(folder: Path, files: Mapping[str, Path | bytes]) -> None:
    for name, content in files.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            shutil.copyfile(content, place)
