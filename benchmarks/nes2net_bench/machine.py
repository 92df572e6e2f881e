"""What a measurement ran on: without it a figure means nothing."""

import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nes2net_bench.nvml import open_nvml
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.inference.nvidia import find_driver
from nes2net_runtime.inference.providers import DISTRIBUTIONS
from nes2net_runtime.threads import cgroup_cpus, physical_cores, usable_threads

CPUS = Path("/sys/devices/system/cpu")
# What decides the speed of matrices, as /proc/cpuinfo names it.
INSTRUCTIONS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16", "sve"),
)
LIBRARIES = ("numpy", "soxr", "torch", "onnx", "onnxsim", "onnxscript", "openvino")
ENGINES = ("tensorrt", "tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx")


def machine() -> dict[str, Any]:
    """Processor, cores, clocks, load, memory, cards, and versions."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": physical_cores(),
        "threads": usable_threads(),
        "quota": cgroup_cpus(),  # CPUs that the container may use; null: no limit
        "governor": _governor(),
        "virtual": _virtual(),
        "load": round(os.getloadavg()[0], 2),
        "memory": _memory(),  # bytes
        "cards": _cards(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions("nes2net-edge", *DISTRIBUTIONS, *LIBRARIES, *ENGINES),
    }


def _processor() -> str:
    names = _cpuinfo("model name")
    return names or platform.processor() or "unknown"


def _instructions() -> list[str]:
    flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return [name for name in INSTRUCTIONS if name in flags]


def _virtual() -> bool:
    """Whether a hypervisor runs this machine: it hides the clocks, and may take time away."""
    return "hypervisor" in _cpuinfo("flags").split()


def _cpuinfo(field: str) -> str:
    """A field of the first CPU; empty where Linux does not tell."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _governor() -> str:
    """The policy of the clocks: "performance", "powersave" …"""
    try:
        return (CPUS / "cpu0/cpufreq/scaling_governor").read_text().strip()
    except OSError:
        return "not exposed"


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _cards() -> list[dict[str, Any]]:
    """NVIDIA's cards that CUDA would take; the first with its clocks, where NVML tells them."""
    driver, nvml = find_driver(), open_nvml()
    cards = [asdict(card) for card in (driver.cards if driver else ())]
    if cards and driver:
        cards[0] |= {"cuda": driver.cuda, **(asdict(nvml.card()) if nvml else {})}
    return cards
