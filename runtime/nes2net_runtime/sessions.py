"""A bundle's stages as ONNX Runtime sessions: providers asked for and proved, threads, the receipt."""

import os
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from nes2net_runtime.audio import Samples
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import BundleError, ProviderError
from nes2net_runtime.manifest import (
    Stage,
)
from nes2net_runtime.threads import usable_threads

Provider = Literal["auto", "cpu", "cuda", "tensorrt", "trt-rtx", "openvino", "coreml"]
PROVIDERS: tuple[Provider, ...] = get_args(Provider)

EXECUTION_PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "trt-rtx": "NvTensorRTRTXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
# Distributions that install the one module `onnxruntime`; two overwrite each other without a word.
DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-openvino",
    "onnxruntime-directml",
    "onnxruntime-trt-rtx",
)


@dataclass(frozen=True)
class StageReceipt:
    """What one stage really ran on."""

    stage: str
    precision: str
    provider: str
    device: str
    nodes: dict[str, int]  # execution provider -> nodes of the optimised graph


@dataclass(frozen=True)
class Receipt:
    """What a detector really runs on, from the sessions themselves."""

    bundle: str
    provider: str  # as asked for or chosen
    stages: list[StageReceipt]
    threads: int
    load_seconds: float
    onnxruntime: str


def onnxruntime_owners() -> list[str]:
    """Installed distributions that own the module `onnxruntime`, with versions."""
    owners = []
    for name in DISTRIBUTIONS:
        try:
            owners.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return owners


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime; raises ProviderError unless exactly one distribution provides it."""
    owners = onnxruntime_owners()
    if len(owners) > 1:
        names = " ".join(owner.split()[0] for owner in owners)
        raise ProviderError(
            f"{' and '.join(owners)} overwrite each other: pip uninstall -y {names}, then install one of "
            "nes2net-edge[cpu], nes2net-edge[gpu], nes2net-edge[openvino]"
        )
    # Since 1.32 ONNX Runtime keeps an id of the machine in ~/.cache and sends what it runs to its makers; the
    # events that wait to be sent also grow the memory of a stream. disable_telemetry_events() comes too late.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            "ONNX Runtime is not installed: pip install 'nes2net-edge[cpu]' (or [gpu], or [openvino])"
        ) from error
    module: ModuleType = onnxruntime
    return module


def available_providers() -> list[str]:
    """Our names of the providers built into this ONNX Runtime (CUDA may still lack its libraries)."""
    built_in = import_onnxruntime().get_available_providers()
    return [ours for ours, theirs in EXECUTION_PROVIDERS.items() if theirs in built_in]


def cpu_session(model: Path, threads: int) -> Any:
    """A session on the CPU for a graph that comes with this package."""
    runtime = import_onnxruntime()
    return runtime.InferenceSession(
        model, session_options(runtime, threads), providers=["CPUExecutionProvider"]
    )


def session_options(runtime: ModuleType, threads: int) -> Any:
    """Options that all sessions share."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a fall-back is found and said in our own words
    # Threads that spin after their work burn a core, and take it from the next stage and from everybody.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Streams bring inputs of ever new lengths; an arena and a plan for each length grow for hours.
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return options


def normalize(batch: Samples) -> Samples:
    """Each row to zero mean and unit (biased) variance, epsilon 1e-5 (s3prl's layer norm)."""
    mean = batch.mean(axis=1, keepdims=True, dtype=np.float64)
    variance = batch.var(axis=1, keepdims=True, dtype=np.float64)
    normal: Samples = ((batch - mean) / np.sqrt(variance + 1e-5)).astype(np.float32)
    return normal


class Stages:
    """The loaded stages; scoring is thread-safe, as ONNX Runtime's sessions are."""

    def __init__(self, bundle: Bundle, provider: Provider = "auto", threads: int | None = None) -> None:
        """Verify the hashes of the stages' files and open them.

        Raises BundleError, and ProviderError for a provider that is not there or that ONNX Runtime replaced.
        """
        start = time.perf_counter()
        self.runtime = import_onnxruntime()
        self.threads = threads or usable_threads()
        bundle.verify()
        self.stages = bundle.manifest.stages
        self.bundle = bundle
        self.provider, self.sessions = self._open(provider)
        self.load_seconds = time.perf_counter() - start

    @property
    def frames_reusable(self) -> bool:
        """Whether `encode` and `score_frames` may share frames among windows."""
        return len(self.stages) > 1 and self.bundle.manifest.audio.frames_reusable

    def score(self, waveforms: Samples) -> NDArray[np.float32]:
        """[batch, samples] -> bona fide logits [batch]; normalised first where the bundle says so."""
        if self.bundle.manifest.audio.normalize == "per-window":
            waveforms = normalize(waveforms)
        return self.run(waveforms)[:, self.bundle.manifest.score.bonafide_logit]

    def encode(self, waveform: Samples) -> NDArray[np.float32]:
        """[samples] -> the encoder's frames [frames, channels]; frame i sees 400 samples from 320 i on."""
        frames: NDArray[np.float32] = self.run(waveform[None], slice(0, 1))[0]
        return frames

    def score_frames(self, frames: NDArray[np.float32]) -> float:
        """The bona fide logit of a window, from its frames [frames, channels]."""
        return float(self.run(frames[None], slice(1, None))[0, self.bundle.manifest.score.bonafide_logit])

    def run(self, tensor: NDArray[np.float32], stages: slice = slice(None)) -> NDArray[np.float32]:
        """Run all stages, [batch, samples] -> logits [batch, logits], or some of them."""
        for stage, session in zip(self.stages[stages], self.sessions[stages], strict=True):
            (tensor,) = session.run(None, {stage.inputs[0].name: tensor})
        return tensor

    def receipt(self) -> Receipt:
        """What each stage's session reports of itself."""
        stages = [
            StageReceipt(
                stage=stage.name,
                precision=stage.precision,
                provider=_our_name(session.get_providers()[0]),
                device=_device(session),
                nodes=_nodes(session),
            )
            for stage, session in zip(self.stages, self.sessions, strict=True)
        ]
        name, runtime = self.bundle.manifest.name, str(self.runtime.__version__)
        return Receipt(name, self.provider, stages, self.threads, round(self.load_seconds, 3), runtime)

    def _open(self, provider: Provider) -> tuple[str, list[Any]]:
        """`auto` takes CUDA where a session really starts on it, else the CPU."""
        there = available_providers()
        if provider == "auto":
            if "cuda" in there:
                try:
                    return "cuda", [self._session(stage, "cuda") for stage in self.stages]
                except ProviderError:
                    pass
            return "cpu", [self._session(stage, "cpu") for stage in self.stages]
        if provider not in there:
            raise ProviderError(
                f"provider {provider} is not in this ONNX Runtime; there is: {', '.join(there)}"
            )
        return provider, [self._session(stage, provider) for stage in self.stages]

    def _session(self, stage: Stage, provider: str) -> Any:
        options = session_options(self.runtime, self.threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        execution_provider = EXECUTION_PROVIDERS[provider]
        path = self.bundle.path / stage.file
        try:
            session = self.runtime.InferenceSession(path, options, providers=[execution_provider])
        except Exception as error:  # ONNX Runtime raises a dozen unrelated types
            first_line = str(error).strip().splitlines()[0]
            if provider == "cpu":
                raise BundleError(f"{path}: ONNX Runtime can't load this stage ({first_line})") from error
            raise ProviderError(
                f"provider {provider} can't load stage {stage.name} ({first_line})"
            ) from error
        if (ran := session.get_providers()[0]) != execution_provider:
            raise ProviderError(
                f"provider {provider} does not work here: ONNX Runtime replaced it by {_our_name(ran)}; "
                "check its driver and libraries, or ask for --provider cpu"
            )
        return session


def _our_name(execution_provider: str) -> str:
    return next(
        (ours for ours, theirs in EXECUTION_PROVIDERS.items() if theirs == execution_provider), "other"
    )


def _device(session: Any) -> str:
    devices = session.get_input_epdevices()
    if devices and devices[0] is not None:
        device = devices[0].device
        return f"{str(device.type).rsplit('.', 1)[-1].lower()} {device.vendor}".strip()
    return "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "accelerator"


def _nodes(session: Any) -> dict[str, int]:
    nodes: dict[str, int] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        name = _our_name(subgraph.ep_name)
        nodes[name] = nodes.get(name, 0) + len(subgraph.get_nodes())
    return nodes
