"""What is compared: our bundles by provider, and the peers that users would take instead.

A peer that is not here is listed with its reason, never left out in silence.
"""

import os
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

import nes2net_export
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.manifest import Source

Device = Literal["cpu", "cuda"]
Kind = Literal["bundle", "eager", "compile", "openvino", "plain"]
Peer = Literal["eager", "compile", "compile-bf16", "openvino", "plain", "dynamic"]
Float = Literal["fp32", "fp16", "bf16"]

PEERS: tuple[Peer, ...] = get_args(Peer)
# All but one that compiles for another minute; the document says that it was left out.
DEFAULT_PEERS: tuple[Peer, ...] = ("eager", "compile", "openvino", "plain", "dynamic")
PROVIDERS: dict[Device, tuple[Provider, ...]] = {"cpu": ("cpu",), "cuda": ("cuda", "tensorrt", "trt-rtx")}
# Folders in the run's scratch folder: the exporter's own graph, the same with dynamic INT8, and a bundle's
# graphs with Q/DQ pairs.
PLAIN_EXPORT, DYNAMIC_EXPORT, QDQ = "plain-export", "dynamic-export", "qdq"
EXPORT = "pip install 'nes2net-edge[export]'"
# float16 on a CPU is slower than float32 everywhere, and bfloat16 on a card as fast as float16.
FLOATS: dict[Device, tuple[Float, ...]] = {"cpu": ("fp32", "bf16"), "cuda": ("fp32", "fp16")}
# What OpenVINO makes of a float32 bundle; its INT8 wants Q/DQ pairs, and unpacks other integer graphs.
HINTS = ("fp32", "bf16", "int8")


class Weights(msgspec.Struct, frozen=True):
    """Where torch takes a detector from."""

    config: dict[str, Any]  # ModelConfig as plain data
    checkpoint: str | None  # as `nes2net-export --checkpoint` takes it; None: random ones of this shape
    same: bool  # as the bundles'


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One way to compute a window's logits."""

    name: str
    kind: Kind
    precision: str  # of the weights: fp32, fp16, bf16, int8
    device: Device
    threads: int
    window: int  # samples
    normalize: bool  # each window first
    folder: str | None = None  # a bundle's, or an export's
    source: str | None = None  # the bundle that OpenVINO's graphs are of
    provider: Provider | None = None  # of a bundle
    weights: Weights | None = None  # of torch
    mode: str | None = None  # of torch.compile
    same_weights: bool = True  # as the first bundle's: outputs can be compared


class Absent(msgspec.Struct, frozen=True):
    """An arm that was not measured, or not to the end."""

    name: str
    reason: str
    crashed: bool = False  # its process died, or did not answer


def bundle_arms(
    bundles: Sequence[Bundle], providers: Sequence[Provider], device: Device, threads: int
) -> list[Arm]:
    """Each bundle by each provider."""
    first = bundles[0].manifest.source
    return [
        Arm(
            name=_title(bundle, bundles) + (f" on {provider}" if len(providers) > 1 else ""),
            kind="bundle",
            precision=bundle.manifest.precision,
            device=device,
            threads=threads,
            window=bundle.manifest.audio.window_samples,
            normalize=bundle.manifest.audio.normalize == "per-window",
            folder=str(bundle.path),
            provider=provider,
            same_weights=bundle.manifest.source == first,
        )
        for bundle in bundles
        for provider in providers
    ]


def _title(bundle: Bundle, bundles: Sequence[Bundle], precision: str | None = None) -> str:
    """ "nes2net-run int8", with the bundle's name where precision does not tell it from others."""
    own = bundle.manifest.precision
    alike = sum(other.manifest.precision == own for other in bundles) > 1
    name = f" ({bundle.path.name.removesuffix('.nes2net')})" if alike else ""
    return f"nes2net-run {precision or own}{name}"


def find_weights(bundle: Bundle, checkpoint: str | None) -> Weights:
    """The weights for torch: of `checkpoint`, else those that a bundle came from where they are known."""
    source = bundle.manifest.source
    if checkpoint is not None:
        return Weights(bundle.manifest.model, checkpoint, True)
    if source.random:
        return Weights(bundle.manifest.model, source.checkpoint, True)
    if source == _demo_source():
        return Weights(bundle.manifest.model, str(_demo_checkpoint()), True)
    return Weights(bundle.manifest.model, None, False)


def peer_arms(
    bundles: Sequence[Bundle],
    weights: Weights,
    peers: Sequence[Peer],
    device: Device,
    threads: int,
    scratch: Path,
) -> tuple[list[Arm], list[Absent]]:
    """The peers that can be tried here, and those that can't; the reference, PyTorch eager, comes first."""
    audio = bundles[0].manifest.audio

    def arm(name: str, kind: Kind, precision: str, **rest: Any) -> Arm:
        return Arm(
            name=name,
            kind=kind,
            precision=precision,
            device=device,
            threads=threads,
            window=audio.window_samples,
            normalize=audio.normalize == "per-window",
            **{"same_weights": weights.same, **rest},
        )

    arms: list[Arm] = []
    for precision in FLOATS[device]:
        arms.append(arm(f"PyTorch eager {precision}", "eager", precision, weights=weights))
    for precision in FLOATS[device]:
        arms.append(arm(f"torch.compile {precision}", "compile", precision, weights=weights))
        if device == "cuda":
            replayed = arm(
                *(f"torch.compile {precision}, CUDA graphs", "compile", precision),
                weights=weights,
                mode="reduce-overhead",
            )
            arms.append(replayed)
    folder = str(scratch / PLAIN_EXPORT)
    arms.append(arm("ONNX Runtime, plain export fp32", "plain", "fp32", weights=weights, folder=folder))
    folder = str(scratch / DYNAMIC_EXPORT)
    arms.append(arm("ONNX Runtime, dynamic int8", "plain", "int8", weights=weights, folder=folder))
    for bundle in bundles:
        manifest = bundle.manifest
        for hint in HINTS if manifest.precision == "fp32" else ():
            title = _title(bundle, bundles, hint).replace("nes2net-run", "OpenVINO")
            same = manifest.source == bundles[0].manifest.source
            source = str(bundle.path)
            made = str(scratch / f"{bundle.path.name}-{QDQ}") if hint == "int8" else source
            arms.append(arm(title, "openvino", hint, folder=made, source=source, same_weights=same))
    reasons = {
        peer: REASONS[peer](device) if peer in peers else f"left out: ask for --peer {peer}" for peer in PEERS
    }
    tried = [a for a in arms if reasons[_peer(a)] is None]
    return tried, [Absent(a.name, str(reasons[_peer(a)])) for a in arms if a not in tried]


def _peer(arm: Arm) -> Peer:
    assert arm.kind != "bundle"
    match arm.kind, arm.precision:
        case "compile", "bf16":
            return "compile-bf16"
        case "plain", "int8":
            return "dynamic"
    return arm.kind


def _without_torch(device: Device) -> str | None:
    if missing := [name for name in ("torch", "safetensors", "huggingface_hub") if find_spec(name) is None]:
        return f"{missing[0]} is not installed: {EXPORT}"
    return None


def _without_compiler(device: Device) -> str | None:
    if reason := _without_torch(device):
        return reason
    if device == "cuda":
        return None if find_spec("triton") else "torch.compile needs Triton: pip install triton"
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers):
        return f"torch.compile needs a C++ compiler ({' or '.join(compilers)}), and there is none"
    return None


def _without_exporter(device: Device) -> str | None:
    if reason := _without_torch(device):
        return reason
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    return f"{missing[0]} is not installed: {EXPORT}" if missing else None


def _without_quantiser(device: Device) -> str | None:
    if device != "cpu":
        return "its integers are for CPUs"
    return _without_exporter(device)


def _without_openvino(device: Device) -> str | None:
    if device != "cpu":
        return "OpenVINO has no NVIDIA cards"
    return None if find_spec("openvino") else "openvino is not installed: pip install openvino"


REASONS: dict[Peer, Callable[[Device], str | None]] = {
    "eager": _without_torch,
    "compile": _without_compiler,
    "compile-bf16": _without_compiler,
    "plain": _without_exporter,
    "dynamic": _without_quantiser,
    "openvino": _without_openvino,
}


def _demo_checkpoint() -> Path:
    return Path(str(nes2net_export.__file__)).parent / "demo" / "demo.safetensors"


def _demo_source() -> Source:
    return read_bundle(DEMO).manifest.source
