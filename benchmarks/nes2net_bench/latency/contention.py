"""What else the machine did during a measurement: the CPU time of others, and of other virtual machines."""

import os
import resource
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class CpuTimes:
    """Ticks of all CPUs, and seconds of this process and its children."""

    all: float
    busy: float
    stolen: float
    ours: float


def cpu_times(stat: Path = Path("/proc/stat")) -> CpuTimes | None:
    """From proc(5): user nice system idle iowait irq softirq steal; None where Linux does not tell."""
    try:
        ticks = [int(value) for value in stat.read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, idle, wait, irq, soft, steal = (tick / os.sysconf("SC_CLK_TCK") for tick in ticks)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ours = sum(usage.ru_utime + usage.ru_stime for usage in used)
    busy = user + nice + system + irq + soft
    return CpuTimes(busy + idle + wait + steal, busy, steal, ours)


def shares_since(before: CpuTimes | None) -> tuple[float | None, float | None]:
    """Shares of the machine's CPU time since then: of others' processes, and stolen."""
    now = cpu_times()
    if before is None or now is None or now.all <= before.all:
        return None, None
    span = now.all - before.all
    others = (now.busy - before.busy - (now.ours - before.ours)) / span
    return round(max(0.0, others), 4), round((now.stolen - before.stolen) / span, 4)
