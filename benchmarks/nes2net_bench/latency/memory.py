"""Memory of this process, as Linux counts it."""

import resource
import sys
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Memory:
    """In bytes; None where the system does not tell."""

    peak: int  # VmHWM: the most that was ever resident
    resident: int | None  # VmRSS, now
    anonymous: int | None  # RssAnon, now: what no file backs, and only swap could take away
    mapped: int | None  # RssFile, now: libraries, and weights that are mapped from their file


def process_memory(status: Path = STATUS) -> Memory:
    """What this process holds."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        scale = 1 if sys.platform == "darwin" else 1024  # getrusage(2): KiB, but bytes on macOS
        return Memory(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale, None, None, None)
    fields = {name: value for name, _, value in (line.partition(":") for line in lines)}

    def size(name: str) -> int:
        return int(fields[name].split()[0]) * 1024  # "  1234 kB", which are KiB

    return Memory(size("VmHWM"), size("VmRSS"), size("RssAnon"), size("RssFile"))
