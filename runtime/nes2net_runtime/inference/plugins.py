"""Plugins: packages with a library from which ONNX Runtime gets one more execution provider."""

import contextlib
import ctypes
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from nes2net_runtime.errors import ProviderError

# Our name of the provider -> its module (TensorRT-RTX: of the distributions …-cu12 and …-cu13).
PLUGINS = {"trt-rtx": "onnxruntime_ep_nv_tensorrt_rtx", "openvino": "onnxruntime_ep_openvino"}

_REINSTALL = {"trt-rtx": "pip install 'nes2net-edge[trt-rtx]'", "openvino": "pip install openvino"}
_NO_DEVICE = {
    "trt-rtx": "finds no card that it supports (GeForce RTX 30 and newer); ask for --provider cuda",
    "openvino": "offers no processor here (it is for Intel's alone): pip install openvino",
}


def plugin_device(runtime: ModuleType, provider: str) -> Any:
    """The first device that the provider's plugin offers; of OpenVINO's devices the processor.

    Raises ProviderError where the plugin can't be loaded, or offers none.
    """
    for device in _devices(runtime, provider):
        # Intel's GPU and NPU would compute in float16.
        if provider != "openvino" or device.ep_metadata["ov_device"] == "CPU":
            return device
    raise ProviderError(f"provider {provider}: its plugin {_NO_DEVICE[provider]}")


@cache
def _devices(runtime: ModuleType, provider: str) -> tuple[Any, ...]:
    """Register the plugin, once a process: the devices that it offers."""
    plugin = import_module(PLUGINS[provider])
    # RTX's wheel has CUDA's runtime under its full version only, a name that the loader does not look for.
    for library in sorted(Path(plugin.get_library_path()).parent.glob("libcudart.so.*")):
        with contextlib.suppress(OSError):
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    name = plugin.get_ep_name()
    try:
        runtime.register_execution_provider_library(name, plugin.get_library_path())
    except Exception as error:  # ONNX Runtime's own type, of no base but Exception
        cause = str(error).strip().splitlines()[0].split("with error: ")[-1]
        cause = cause.removesuffix(": No such file or directory")
        remedy = "install NVIDIA's driver" if "libcuda." in cause else _REINSTALL[provider]
        raise ProviderError(f"provider {provider}: its plugin can't be loaded ({cause}): {remedy}") from error
    return tuple(device for device in runtime.get_ep_devices() if device.ep_name == name)
