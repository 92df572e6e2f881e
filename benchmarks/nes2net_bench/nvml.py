"""NVIDIA's management library, called as it is: a card's name, driver, clocks, memory, energy.

It comes with the driver (libnvidia-ml.so.1); Jetson's has little of it. Source of names and numbers: nvml.h.
"""

import ctypes
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

LIBRARY = "libnvidia-ml.so.1"
SM, MEMORY = 1, 2  # nvmlClockType_t
GPU = 0  # nvmlTemperatureSensors_t


class _MemoryInfo(ctypes.Structure):
    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


@dataclass(frozen=True)
class Card:
    """A card as it is now; None where the library does not tell."""

    name: str
    driver: str
    memory: int | None  # bytes
    power_limit: float | None  # watts
    sm_clock: int | None  # MHz
    sm_clock_most: int | None
    memory_clock: int | None
    memory_clock_most: int | None
    temperature: int | None  # degrees Celsius


@dataclass(frozen=True)
class Nvml:
    """The library, and the card that CUDA takes first."""

    library: Any
    handle: Any

    def card(self) -> Card:
        """The card."""

        def text(call: Callable[..., int], *arguments: Any) -> str:
            buffer = ctypes.create_string_buffer(96)
            return buffer.value.decode(errors="replace") if call(*arguments, buffer, 96) == 0 else "unknown"

        n, of = self.library, self.handle
        limit = self._number(ctypes.c_uint, n.nvmlDeviceGetPowerManagementLimit)
        info = _MemoryInfo()
        known = n.nvmlDeviceGetMemoryInfo(of, ctypes.byref(info)) == 0
        return Card(
            name=text(n.nvmlDeviceGetName, of),
            driver=text(n.nvmlSystemGetDriverVersion),
            memory=int(info.total) if known else None,
            power_limit=None if limit is None else limit / 1e3,
            sm_clock=self._number(ctypes.c_uint, n.nvmlDeviceGetClockInfo, SM),
            sm_clock_most=self._number(ctypes.c_uint, n.nvmlDeviceGetMaxClockInfo, SM),
            memory_clock=self._number(ctypes.c_uint, n.nvmlDeviceGetClockInfo, MEMORY),
            memory_clock_most=self._number(ctypes.c_uint, n.nvmlDeviceGetMaxClockInfo, MEMORY),
            temperature=self._number(ctypes.c_uint, n.nvmlDeviceGetTemperature, GPU),
        )

    def joules(self) -> float | None:
        """Energy since the driver was loaded (Volta and newer)."""
        energy = self._number(ctypes.c_ulonglong, self.library.nvmlDeviceGetTotalEnergyConsumption)
        return None if energy is None else energy / 1e3

    def memory_used(self) -> int | None:
        """Bytes in use on the card, by all processes."""
        info = _MemoryInfo()
        done = self.library.nvmlDeviceGetMemoryInfo(self.handle, ctypes.byref(info)) == 0
        return int(info.used) if done else None

    def _number(self, kind: type[Any], call: Callable[..., int], *arguments: int) -> int | None:
        value = kind()
        return int(value.value) if call(self.handle, *arguments, ctypes.byref(value)) == 0 else None


def open_nvml() -> Nvml | None:
    """The library with the card that CUDA takes first; None where there is no driver, or no card."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    handle = ctypes.c_void_p()
    if library.nvmlInit_v2() != 0:
        return None
    if visible.isdecimal():
        found = library.nvmlDeviceGetHandleByIndex_v2(int(visible), ctypes.byref(handle))
    else:  # "GPU-…", a card's own name
        found = library.nvmlDeviceGetHandleByUUID(visible.encode(), ctypes.byref(handle))
    return Nvml(library, handle) if found == 0 else None
