"""What a measurement of latency finds, as data: the `results` of benchmarks/latency.py's document."""

from dataclasses import dataclass, field
from typing import Literal

from nes2net_bench.latency.arms import Absent, Device
from nes2net_bench.latency.memory import Memory
from nes2net_bench.latency.orders import Peaks
from nes2net_bench.latency.roofline import Roofline
from nes2net_bench.latency.serving import Load
from nes2net_bench.latency.timing import Ratio, Timing

Scenario = Literal["batches", "threads", "streaming", "streams", "roofline"]
SCENARIOS: tuple[Scenario, ...] = ("batches", "threads", "streaming", "streams", "roofline")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    device: Device
    threads: int
    batches: tuple[int, ...] = (1, 4)  # the first is the steady state's
    runs: int = 60  # of each arm, at least
    seconds: float = 2.0  # of each arm, at least
    rounds: int = 3  # a window
    least_windows: int = 6  # the fewest whose ratios have a 95 % interval
    most_windows: int = 8  # until all arms are stable
    fresh: bool = True  # processes for each window
    scenarios: tuple[Scenario, ...] = SCENARIOS
    hop: float = 0.5  # seconds, of streams
    stream_seconds: float = 3.0  # of each test of streams
    trials: int = 2  # numbers of streams that are tried
    peak_seconds: float = 0.3
    timeout: float = 900.0  # seconds that an order may take
    seed: int = 0


@dataclass(frozen=True)
class Throughput:
    """One arm at one batch."""

    batch: int
    wall: Timing  # of a batch
    windows_per_second: float
    real_time: float  # seconds of audio a second
    ratio: Ratio | None  # of the reference's time at this batch
    roofline: Roofline | None


@dataclass(frozen=True)
class ArmResult:
    """One arm at the first batch."""

    name: str
    kind: str
    precision: str
    provider: str | None
    runtime: str
    threads: int
    load: list[float]  # seconds, with no other arm beside it; the first of torch.compile compiles
    first_run: list[float]  # seconds, the same
    wall: Timing
    cpu: Timing
    cpu_share: float  # CPU seconds / (wall seconds * threads)
    real_time_factor: float  # p50 / seconds of audio: under 1 is faster than real time
    ratio: Ratio  # to the reference
    cpu_ratio: Ratio  # the same, of CPU time: what others take of the machine is not in it
    rounds: list[float]  # milliseconds: each round's median
    windows: list[float]  # milliseconds: each window's median
    stable: bool  # the last three windows are within 10 %
    memory: Memory  # of its process, after all runs
    baseline: int  # bytes resident before anything was loaded
    device_memory: int | None  # bytes on the card after the first run
    joules: float | None  # a window; of all that ran on the device
    roofline: Roofline | None
    difference: float | None  # of its logits from the reference's, relative; None: other weights
    receipt: dict[str, object] | None
    throughput: list[Throughput] = field(default_factory=list)


@dataclass(frozen=True)
class ThreadPoint:
    """One arm with one number of threads."""

    name: str
    threads: int
    wall: Timing
    speedup: Ratio  # its time / its time with one thread


@dataclass(frozen=True)
class StreamResult:
    """One stream of a bundle; milliseconds a hop."""

    name: str
    hop: float  # seconds
    saturated: Timing  # as fast as it goes
    saturated_cpu: float  # CPU milliseconds a hop
    real_time_factor: float  # saturated p50 / hop
    paced: Load
    # A hop / a window of the reference, in turns of one process each; None: measured before there was one.
    ratio: Ratio | None = None


@dataclass(frozen=True)
class StreamsResult:
    """How many streams of a bundle keep up in real time."""

    name: str
    hop: float  # seconds
    at_once: int  # streams that are scored at the same time, by one thread each on a CPU
    fit: int
    fail: int | None  # the fewest that were tried and did not; None: none
    trials: list[Load]
    memory: Memory  # of the process, with the most streams


@dataclass(frozen=True)
class BundleCard:
    """What was measured, by its content."""

    name: str
    precision: str
    checkpoint: str
    random: bool
    bytes: int  # of its stages and their weights
    graphs: dict[str, str]  # file -> SHA-256


@dataclass(frozen=True)
class LatencyResults:
    """All of it."""

    plan: Plan
    window_seconds: float
    reference: str
    bundles: list[BundleCard]
    arms: list[ArmResult]
    absent: list[Absent]
    threads: list[ThreadPoint]
    streaming: list[StreamResult]
    streams: list[StreamsResult]
    peaks: list[Peaks]  # before and after
    macs: dict[str, int] | None  # of a window, by stage
    energy: str  # its source, or why there is none
    load_average: tuple[float, float]  # before and after
    others: float | None  # share of the machine's CPU time that other processes used meanwhile
    stolen: float | None  # share that the hypervisor gave to others
    phases: dict[str, float]  # seconds that each took
    seconds: float  # that all of this took
