"""Which processor this is."""

import platform
from pathlib import Path

# As /proc/cpuinfo has them. The name alone does not tell: in a virtual machine all of a maker's may have one.
FIELDS = ("model name", "cpu family", "model", "stepping")
ARM_FIELDS = ("CPU implementer", "CPU variant", "CPU part", "CPU revision")


def processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The first processor: "AMD EPYC, cpu family 25, model 17, stepping 1"; elsewhere what Python tells."""
    try:
        lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        return platform.processor() or platform.machine()
    first: dict[str, str] = {}
    for name, _, value in lines:
        first.setdefault(name.strip(), value.strip())
    told = [f"{name} {first[name]}" for name in (*FIELDS, *ARM_FIELDS) if name in first]
    return ", ".join(told).removeprefix("model name ") or platform.machine()
