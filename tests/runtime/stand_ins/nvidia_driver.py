"""Stands in for libcuda.so.1: the driver's calls that `nvidia.py` makes, on cards that a test names."""

import ctypes
from collections.abc import Sequence
from typing import Any

LIBRARY = "libcuda.so.1"
SUCCESS, NO_DEVICE = 0, 100
MAJOR, MINOR = 75, 76
ABSENT = ("libcuda", "libcublas", "libnvinfer", "libnvonnx")  # also where the tests' machine has them


class Libcuda:
    """A driver; without cards cuInit fails, as the real one does."""

    def __init__(self, cards: Sequence[tuple[str, str]], cuda: str) -> None:
        self.cards, self.cuda = cards, cuda
        self.ready = False

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        major, minor = map(int, self.cuda.split("."))
        version._obj.value = 1000 * major + 10 * minor
        return SUCCESS

    def cuInit(self, flags: int) -> int:  # noqa: N802
        self.ready = bool(self.cards)
        return SUCCESS if self.ready else NO_DEVICE

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.cards)
        return SUCCESS

    def cuDeviceGet(self, device: Any, index: int) -> int:  # noqa: N802
        assert self.ready
        device._obj.value = index
        return SUCCESS

    def cuDeviceGetName(self, name: Any, size: int, device: Any) -> int:  # noqa: N802
        name.value = self.cards[device.value][0].encode()[: size - 1]
        return SUCCESS

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:  # noqa: N802
        major, minor = self.cards[device.value][1].split(".")
        value._obj.value = int({MAJOR: major, MINOR: minor}[attribute])
        return SUCCESS


class Libnvinfer:
    """TensorRT's own library, as far as it tells its version."""

    def __init__(self, version: str) -> None:
        self.version = version

    def getInferLibVersion(self) -> int:  # noqa: N802
        major, minor, patch = map(int, self.version.split(".")[:3])
        return 10_000 * major + 100 * minor + patch


def loader(libraries: dict[str, Any]) -> Any:
    """A `ctypes.CDLL` that finds these libraries by name, and no others of NVIDIA's."""
    real = ctypes.CDLL

    def load(name: str, *arguments: Any, **options: Any) -> Any:
        if str(name).endswith(("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so")):
            name = "libcublas.so.13"  # what they need first
        if name in libraries:
            return libraries[name]
        if any(part in str(name) for part in ABSENT):
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return real(name, *arguments, **options)

    return load
