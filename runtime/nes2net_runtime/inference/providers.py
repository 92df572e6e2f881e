"""ONNX Runtime and its execution providers: who installed it, which are there, what they need."""

import contextlib
import ctypes
import io
import mmap
import os
import re
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.plugins import PLUGINS

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


def onnxruntime_owners() -> list[str]:
    """Installed distributions that own the module `onnxruntime`, with versions."""
    return installed(DISTRIBUTIONS)


def installed(distributions: Iterable[str]) -> list[str]:
    """Those distributions that are installed, each with its version."""
    found = []
    for name in distributions:
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return found


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime; raises ProviderError unless exactly one distribution provides it."""
    owners = onnxruntime_owners()
    if len(owners) > 1:
        names = " ".join(owner.split()[0] for owner in owners)
        raise ProviderError(
            f"{' and '.join(owners)} overwrite each other: pip uninstall -y {names}, then install one of "
            "nes2net-edge[cpu], nes2net-edge[gpu]"
        )
    # Since 1.32 ONNX Runtime keeps an id of the machine in ~/.cache and sends what it runs to its makers; the
    # events that wait to be sent also grow the memory of a stream. disable_telemetry_events() comes too late.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime
    except ImportError as error:
        raise ProviderError(
            "ONNX Runtime is not installed: pip install 'nes2net-edge[cpu]' (or [gpu])"
        ) from error
    module: ModuleType = onnxruntime
    return module


def available_providers() -> list[str]:
    """Our names of the providers that are installed (CUDA may still lack its libraries, or a card)."""
    built_in = import_onnxruntime().get_available_providers()
    beside = {name for name, package in PLUGINS.items() if find_spec(package)}
    if find_spec("openvino"):  # its own runtime, without ONNX Runtime
        beside.add("openvino")
    return [ours for ours, theirs in EXECUTION_PROVIDERS.items() if theirs in built_in or ours in beside]


@cache
def is_built_in(runtime: ModuleType, provider: str) -> bool:
    """Whether ONNX Runtime has the provider (our name) inside, without a plugin.

    To be asked before the plugin is registered, whose provider is in ONNX Runtime's list from then on.
    """
    return EXECUTION_PROVIDERS[provider] in runtime.get_available_providers()


def our_name(execution_provider: str) -> str:
    """Our name of one of ONNX Runtime's execution providers; `other` for one that we do not know."""
    return next(
        (ours for ours, theirs in EXECUTION_PROVIDERS.items() if theirs == execution_provider), "other"
    )


@cache
def load_cuda(runtime: ModuleType) -> None:
    """Load the CUDA and cuDNN libraries of NVIDIA's wheels, which ONNX Runtime does not look for by itself.

    What it prints, and what ONNX Runtime writes to stderr, is said in our own words where it matters.
    """
    runtime.set_default_logger_severity(4)
    with contextlib.redirect_stdout(io.StringIO()):
        runtime.preload_dlls()


def missing_library(runtime: ModuleType, provider: str) -> str:
    """What the library of ONNX Runtime's provider lacks, as the loader says it; empty: nothing."""
    folder = Path(str(runtime.__file__)).parent / "capi"
    try:
        for name in ("shared", provider):  # the first has what all the others need
            library = folder / f"libonnxruntime_providers_{name}.so"
            if library.exists():
                ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error).removesuffix(": No such file or directory")
    return ""


def plugin_tensorrt() -> str | None:
    """Version of the TensorRT-RTX inside the plugin, "1.7.1", by its library's name; None: no plugin."""
    spec = find_spec(PLUGINS["trt-rtx"])
    for folder in (spec and spec.submodule_search_locations) or ():
        for library in Path(folder).glob("libtensorrt_rtx.so.*.*"):
            return library.name.removeprefix("libtensorrt_rtx.so.")
    return None


@cache
def linked_tensorrt(runtime: ModuleType) -> str:
    """Version of the TensorRT that ONNX Runtime's provider loads, "10.16.1"; loads its libraries.

    Raises ProviderError where ONNX Runtime has no such provider, or the library is not there.
    """
    provider = Path(str(runtime.__file__)).parent / "capi" / "libonnxruntime_providers_tensorrt.so"
    try:
        with provider.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            linked = re.search(rb"libnvinfer\.so\.(\d+)", content)
            major = linked[1].decode() if linked else "10"
    except OSError as error:
        raise ProviderError(
            "provider tensorrt is not in this ONNX Runtime: pip install 'nes2net-edge[gpu]' in place of the "
            "distribution that is there"
        ) from error
    library = load_tensorrt(major)
    if library is None:
        raise ProviderError(
            f"provider tensorrt needs TensorRT {major}, and libnvinfer.so.{major} is not there: pip install "
            f"'tensorrt>={major},<{int(major) + 1}', or NVIDIA's own package of it"
        )
    number = library.getInferLibVersion()
    return f"{number // 10_000}.{number // 100 % 100}.{number % 100}"


def load_tensorrt(major: str) -> ctypes.CDLL | None:
    """libnvinfer of this major version, from NVIDIA's wheel, else the system's; its parser is loaded, too."""
    spec = find_spec("tensorrt_libs")
    folders = [Path(place) for place in (spec and spec.submodule_search_locations) or ()]
    loaded: list[ctypes.CDLL] = []
    for name in (f"libnvinfer.so.{major}", f"libnvinfer_plugin.so.{major}", f"libnvonnxparser.so.{major}"):
        for place in (*(str(folder / name) for folder in folders), name):
            with contextlib.suppress(OSError):
                loaded.append(ctypes.CDLL(place, mode=ctypes.RTLD_GLOBAL))
                break
        if not loaded:
            return None
    return loaded[0]
