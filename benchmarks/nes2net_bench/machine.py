"""What a measurement ran on: without it a figure means nothing."""

import os
import platform
from pathlib import Path
from typing import Any

from nes2net_runtime.commands import installed_versions
from nes2net_runtime.sessions import DISTRIBUTIONS
from nes2net_runtime.threads import physical_cores, usable_threads


def machine() -> dict[str, Any]:
    """Processor, cores, load, and versions."""
    return {
        "processor": _processor(),
        "cores": physical_cores(),
        "threads": usable_threads(),
        "load": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions("nes2net-edge", *DISTRIBUTIONS, "numpy", "soxr"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"
    )
