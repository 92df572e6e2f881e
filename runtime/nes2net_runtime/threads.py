"""How many threads this process may use: never more than the machine gives it."""

import os
from math import floor
from pathlib import Path


def usable_threads() -> int:
    """The smallest of CPU affinity, cgroup quota (rounded down, at least 1) and physical cores."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(affinity, cgroup_cpus() or affinity, physical_cores() or affinity))


def cgroup_cpus(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """CPU quota of the container, or None: cgroup v2 `cpu.max`, v1 `cpu/cpu.cfs_quota_us`."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not quota.isdigit():  # "max", or -1
        return None
    return max(1, floor(int(quota) / int(period)))


def physical_cores(root: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """Physical cores among the CPUs of this process' affinity, or None where Linux does not tell."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        siblings = {
            (root / f"cpu{i}/topology/thread_siblings_list").read_text() for i in os.sched_getaffinity(0)
        }
    except OSError:
        return None
    return len(siblings)
