"""NVIDIA's driver and cards, asked of the driver's own library: it is also where NVML is not (Jetson)."""

import ctypes
import sys
from dataclasses import dataclass

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MAJOR, MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Card:
    """One GPU."""

    name: str
    compute_capability: str  # "8.9"


@dataclass(frozen=True)
class Driver:
    """What is there. The first card is the one that CUDA takes by default (CUDA_VISIBLE_DEVICES holds)."""

    cuda: str  # the newest CUDA that it supports, "13.0"
    cards: tuple[Card, ...]


def find_driver() -> Driver | None:
    """The driver and its cards; None where there is no driver, no cards where it finds none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    if library.cuInit(0) != 0 or library.cuDeviceGetCount(ctypes.byref(count)) != 0:
        count = ctypes.c_int(0)  # a driver without a card that it can use
    cuda = f"{version.value // 1000}.{version.value % 1000 // 10}"
    return Driver(cuda, tuple(_card(library, index) for index in range(count.value)))


def _card(library: ctypes.CDLL, index: int) -> Card:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(100)
    library.cuDeviceGet(ctypes.byref(device), index)
    library.cuDeviceGetName(name, len(name), device)
    library.cuDeviceGetAttribute(ctypes.byref(major), MAJOR, device)
    library.cuDeviceGetAttribute(ctypes.byref(minor), MINOR, device)
    return Card(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")
