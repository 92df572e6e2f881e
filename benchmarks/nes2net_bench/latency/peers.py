"""An arm, opened: a function from windows to logits, on the host at both ends, as a user would call it.

Runs in a worker. Each library is imported where it is used, so that its cost is its arm's alone.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from nes2net_bench.latency.arms import Arm, Kind, Weights
from nes2net_bench.latency.orders import Made
from nes2net_runtime.audio import normalize
from nes2net_runtime.bundle import Bundle, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.errors import ProviderError

Array = NDArray[np.float32]
SINGLE = "detector.onnx"


@dataclass(frozen=True)
class OpenArm:
    """An arm that is ready."""

    arm: Arm
    run: Callable[[Array], Array]  # [batch, samples] -> logits [batch, logits]
    runtime: str
    receipt: dict[str, Any] | None = None
    detector: Any = None  # of a bundle: nes2net_runtime's


def windows(arm: Arm, batch: int, seed: int = 0) -> Array:
    """Noise [batch, samples] at the level of speech: no arm's speed depends on what it hears."""
    noise = np.random.default_rng(seed).standard_normal((batch, arm.window), np.float32)
    return 0.05 * noise


def open_arm(arm: Arm) -> OpenArm:
    """Load an arm; raises what its library raises."""
    return OPENERS[arm.kind](arm)


def _open_bundle(arm: Arm) -> OpenArm:
    from dataclasses import asdict

    from nes2net_runtime import Detector

    assert arm.provider is not None
    detector = Detector(arm.folder, arm.provider, arm.threads)
    stages = detector.stages

    def run(batch: Array) -> Array:
        return stages.run(normalize(batch) if arm.normalize else batch)

    receipt = detector.receipt
    libraries = ", ".join(dict.fromkeys(stage.library for stage in receipt.stages))
    return OpenArm(arm, run, libraries, asdict(receipt), detector)


def _open_torch(arm: Arm) -> OpenArm:
    import torch

    if arm.device == "cuda" and not torch.cuda.is_available():
        raise ProviderError("torch finds no CUDA card")
    torch.set_num_threads(arm.threads)
    assert arm.weights is not None
    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[arm.precision]
    module = torch_detector(arm.weights).to(arm.device, kind)
    forward = torch.compile(module, mode=arm.mode) if arm.kind == "compile" else module

    @torch.inference_mode()
    def run(batch: Array) -> Array:
        given = torch.from_numpy(normalize(batch) if arm.normalize else batch)
        logits: Array = forward(given.to(arm.device, kind)).float().cpu().numpy()
        return logits

    return OpenArm(arm, run, f"PyTorch {torch.__version__}")


def torch_detector(weights: Weights) -> Any:
    """The detector in torch, in evaluation mode."""
    import torch

    from nes2net_export.checkpoints import read_checkpoint
    from nes2net_export.models.config import ModelConfig
    from nes2net_export.models.detector import Detector
    from nes2net_export.random_models import random_detector
    from nes2net_export.state_dict import load_detector

    config = msgspec.convert(weights.config, ModelConfig)
    if weights.checkpoint is None:
        torch.manual_seed(0)
        return Detector(config).eval().requires_grad_(False)
    if weights.checkpoint.startswith("random:"):
        return random_detector(weights.checkpoint.removeprefix("random:"))
    return load_detector(read_checkpoint(weights.checkpoint).state, config)


def make_graphs(arm: Arm) -> Made:
    """Write the graphs of an arm that users would make with its library's own tools."""
    start = time.perf_counter()
    assert arm.folder is not None
    folder = Path(arm.folder)
    folder.mkdir(parents=True, exist_ok=True)
    if arm.kind == "openvino":
        assert arm.source is not None
        _make_qdq(read_bundle(Path(arm.source)), folder)
    else:
        assert arm.weights is not None
        _make_plain(arm.weights, folder, arm.precision == "int8")
    return Made(time.perf_counter() - start)


def _make_plain(weights: Weights, folder: Path, dynamic: bool) -> None:
    """torch.onnx as it is, one graph of the whole detector; `dynamic`: INT8 of its products."""
    from nes2net_export.onnx_files import save
    from nes2net_export.trace import stage_specs, trace

    ((spec, module),) = stage_specs(torch_detector(weights), single_graph=True)
    plain = folder / (f"plain-{SINGLE}" if dynamic else SINGLE)
    save(trace(spec, module, opset=20), plain, check=False)
    if dynamic:
        from onnxruntime.quantization import quantize_dynamic

        quantize_dynamic(
            plain, folder / SINGLE, op_types_to_quantize=["MatMul"], use_external_data_format=True
        )
        for file in folder.glob(f"{plain.name}*"):
            file.unlink()


def _make_qdq(bundle: Bundle, folder: Path) -> None:
    """Q/DQ pairs around all convolutions and products, the form that OpenVINO's INT8 takes."""
    import onnx

    from nes2net_export.derive import HEAVY
    from nes2net_export.onnx_files import save
    from nes2net_export.probe import signal_probe
    from nes2net_export.quantisers import for_engines

    manifest = bundle.manifest
    models = {stage.name: onnx.load(bundle.path / stage.file) for stage in manifest.stages}
    probe = signal_probe(manifest.audio.window_samples)
    quantiser = for_engines(manifest, models, HEAVY & models.keys(), probe)
    models |= {stage: quantiser.convert(stage, names) for stage, names in quantiser.nodes.items()}
    for stage in manifest.stages:
        save(models[stage.name], folder / stage.file)
    write_manifest(folder, manifest.with_files(list_files(folder)))


def _open_plain(arm: Arm) -> OpenArm:
    """ONNX Runtime as its documentation shows it: default options, all but the number of threads."""
    from nes2net_runtime.inference.providers import EXECUTION_PROVIDERS, import_onnxruntime, load_cuda

    runtime = import_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = arm.threads
    options.log_severity_level = 3
    wanted = EXECUTION_PROVIDERS[arm.device]
    if arm.device == "cuda":
        if wanted not in runtime.get_available_providers():
            raise ProviderError("this ONNX Runtime has no CUDA")
        load_cuda(runtime)
    assert arm.folder is not None
    session = runtime.InferenceSession(Path(arm.folder) / SINGLE, options, providers=[wanted])
    if session.get_providers()[0] != wanted:
        raise ProviderError(f"ONNX Runtime took {session.get_providers()[0]} in place of {wanted}")

    def run(batch: Array) -> Array:
        (logits,) = session.run(None, {"waveform": normalize(batch) if arm.normalize else batch})
        return np.asarray(logits, np.float32)

    return OpenArm(arm, run, f"ONNX Runtime {runtime.__version__}")


def _open_openvino(arm: Arm) -> OpenArm:
    """A bundle's ONNX stages in OpenVINO, with its hints for one request at a time."""
    from nes2net_runtime.inference.openvino_runtime import import_openvino

    openvino = import_openvino()
    assert arm.folder is not None
    bundle, core = read_bundle(Path(arm.folder)), openvino.Core()
    inner = {"fp32": "f32", "int8": "f32", "bf16": "bf16"}[arm.precision]  # INT8 is in the graph
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": inner,
        "INFERENCE_NUM_THREADS": arm.threads,
    }
    requests = []
    for stage in bundle.manifest.stages:
        model = core.read_model(str(bundle.path / stage.file))
        requests.append(core.compile_model(model, "CPU", settings).create_infer_request())

    def run(batch: Array) -> Array:
        tensor = normalize(batch) if arm.normalize else batch
        for request in requests:
            request.infer([tensor], share_inputs=True)
            tensor = request.get_output_tensor(0).data
        return np.array(tensor, np.float32)

    return OpenArm(arm, run, f"OpenVINO {openvino.__version__.split('-')[0]}")


OPENERS: dict[Kind, Callable[[Arm], OpenArm]] = {
    "bundle": _open_bundle,
    "eager": _open_torch,
    "compile": _open_torch,
    "plain": _open_plain,
    "openvino": _open_openvino,
}


def difference(logits: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """Relative difference of outputs: max|a - b| / max(1, max|b|)."""
    a, b = np.asarray(logits), np.asarray(reference)
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))
