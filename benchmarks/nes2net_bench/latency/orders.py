"""What a worker is told to do, and what it answers."""

from typing import Any

import msgspec

from nes2net_bench.latency.arms import Arm, Device
from nes2net_bench.latency.memory import Memory


class Open(msgspec.Struct, tag=True, frozen=True):
    """Load an arm, and make its first run."""

    arm: Arm
    batch: int


class Run(msgspec.Struct, tag=True, frozen=True):
    """Run the arm's window: at least `runs` times and `seconds`, after one run that is not counted."""

    batch: int
    runs: int
    seconds: float


class Serve(msgspec.Struct, tag=True, frozen=True):
    """Score streams of a bundle: paced, as a microphone would, or as fast as it goes."""

    streams: int
    hop: float  # seconds
    hops: int  # of each stream
    at_once: int  # streams that are scored at the same time
    paced: bool
    seed: int = 0


class MakeGraphs(msgspec.Struct, tag=True, frozen=True):
    """Write the graphs of an arm that has none yet to its folder."""

    arm: Arm


class MeasurePeaks(msgspec.Struct, tag=True, frozen=True):
    """Measure what the machine can do at all."""

    device: Device
    threads: int
    seconds: float  # for each figure


class CountWork(msgspec.Struct, tag=True, frozen=True):
    """Count the multiply-accumulates of a bundle's window."""

    folder: str
    samples: int


Order = Open | Run | Serve | MakeGraphs | MeasurePeaks | CountWork


class Failed(msgspec.Struct, tag=True, frozen=True):
    """The order could not be done."""

    reason: str


class Opened(msgspec.Struct, tag=True, frozen=True):
    """An arm is loaded and has run once."""

    load: float  # seconds, from nothing loaded (not even libraries) to ready
    first: float  # seconds of the first run
    logits: list[list[float]]
    runtime: str  # name and version of what computes
    receipt: dict[str, Any] | None  # of a bundle
    started: int  # bytes resident before the load: Python alone
    loaded: Memory  # after the load
    ran: Memory  # after the first run


class Ran(msgspec.Struct, tag=True, frozen=True):
    """Seconds of runs."""

    wall: list[float]
    cpu: list[float]
    all_runs: int  # with those that are not counted
    memory: Memory


class Served(msgspec.Struct, tag=True, frozen=True):
    """How streams were served."""

    latency: list[float]  # seconds from a hop's last sample to its score, in the order of hops
    service: list[float]  # seconds of computing alone
    wall: float  # seconds
    cpu: float  # CPU seconds, over all threads
    memory: Memory


class Made(msgspec.Struct, tag=True, frozen=True):
    """A folder was filled."""

    seconds: float


class Peak(msgspec.Struct, tag=True, frozen=True):
    """The best of some runs of one kind of work."""

    per_second: float  # operations (a multiply-accumulate is two), or bytes read and written
    by: str  # what did it
    runs: int


class Peaks(msgspec.Struct, tag=True, frozen=True):
    """What the machine can do at all."""

    gemm: dict[str, Peak]  # by precision
    copy: Peak
    unavailable: dict[str, str]  # precision -> reason


class Work(msgspec.Struct, tag=True, frozen=True):
    """What a window needs, of a bundle's graphs."""

    macs: dict[str, int]  # of products, by stage
    parameters: int
    weights: int  # bytes, as the graphs store them
