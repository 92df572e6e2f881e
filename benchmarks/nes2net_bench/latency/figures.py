"""What was gathered of an arm -> its figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from nes2net_bench.latency.arms import Arm
from nes2net_bench.latency.memory import Memory
from nes2net_bench.latency.orders import Opened, Peaks, Work
from nes2net_bench.latency.peers import difference
from nes2net_bench.latency.results import ArmResult, BundleCard, Plan, Throughput
from nes2net_bench.latency.roofline import Roofline, computes_in, roofline
from nes2net_bench.latency.rounds import Turn
from nes2net_bench.latency.timing import ratio, stable, timing
from nes2net_runtime.bundle import Bundle

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "int4": 0.5}


@dataclass
class Record:
    """What is gathered of one arm."""

    turns: list[list[Turn]] = field(default_factory=list)  # by window
    opened: list[Opened] = field(default_factory=list)
    device_memory: int | None = None
    memory: Memory | None = None


def windows_of(record: Record) -> list[float]:
    """Each window's median of rounds, seconds."""
    return [median(turn.median for turn in window) for window in record.turns]


def cpu_windows_of(record: Record) -> list[float]:
    """The same of CPU seconds."""
    return [median(turn.cpu_median for turn in window) for window in record.turns]


Place = Callable[[int, float], Roofline | None]  # (batch, seconds of it) -> where that is


def placed(arm: Arm, peaks: Peaks | None, work: Work | None) -> Place:
    def place(batch: int, seconds: float) -> Roofline | None:
        if peaks is None or work is None:
            return None
        weights = work.weights if arm.kind == "bundle" else round(work.parameters * BYTES[arm.precision])
        precision = computes_in(arm.precision, arm.device)
        return roofline(peaks, precision, batch * sum(work.macs.values()), weights, seconds)

    return place


def arm_result(
    arm: Arm,
    plan: Plan,
    records: Mapping[str, Record],
    reference: str,
    place: Place,
    sweep: Mapping[int, Mapping[str, list[Turn]]],
    window_seconds: float,
) -> ArmResult:
    record, of_reference = records[arm.name], records[reference]
    turns, others = turns_of(record), turns_of(of_reference)
    wall = [seconds for turn in turns for seconds in turn.wall]
    cpu = [seconds for turn in turns for seconds in turn.cpu]
    batch, spent = plan.batches[0], timing(wall)
    rounds = [turn.median for turn in turns]
    joules = [turn.joules for turn in turns if turn.joules is not None]
    last = record.opened[-1]
    assert record.memory is not None
    throughput = []
    for size, taken in {batch: {reference: others, arm.name: turns}, **sweep}.items():
        if arm.name in taken:
            throughput.append(_throughput(size, taken[arm.name], taken.get(reference), place, window_seconds))
    return ArmResult(
        name=arm.name,
        kind=arm.kind,
        precision=arm.precision,
        provider=arm.provider,
        runtime=last.runtime,
        threads=arm.threads,
        load=[opened.load for opened in record.opened],
        first_run=[opened.first for opened in record.opened],
        wall=spent,
        cpu=timing(cpu),
        cpu_share=sum(cpu) / (sum(wall) * arm.threads),
        real_time_factor=spent.p50 / 1e3 / (batch * window_seconds),
        # Rounds of one process are not drawn alike with those of another: windows, of fresh processes, are.
        ratio=ratio(windows_of(record), windows_of(of_reference)),
        cpu_ratio=ratio(cpu_windows_of(record), cpu_windows_of(of_reference)),
        rounds=[1e3 * seconds for seconds in rounds],
        windows=[1e3 * seconds for seconds in windows_of(record)],
        stable=stable(windows_of(record)),
        memory=record.memory,
        baseline=last.started,
        device_memory=record.device_memory,
        joules=sum(joules) / len(joules) if joules else None,
        roofline=place(batch, spent.p50 / 1e3),
        difference=difference(last.logits, of_reference.opened[-1].logits) if arm.same_weights else None,
        receipt=last.receipt,
        throughput=throughput,
    )


def turns_of(record: Record) -> list[Turn]:
    return [turn for window in record.turns for turn in window]


def _throughput(
    batch: int, turns: Sequence[Turn], reference: Sequence[Turn] | None, place: Place, window_seconds: float
) -> Throughput:
    spent = timing([s for turn in turns for s in turn.wall])
    rate = batch / (spent.p50 / 1e3)
    medians = [turn.median for turn in turns]
    against = ratio(medians, [turn.median for turn in reference]) if reference else None
    return Throughput(batch, spent, rate, rate * window_seconds, against, place(batch, spent.p50 / 1e3))


def bundle_card(bundle: Bundle) -> BundleCard:
    manifest = bundle.manifest
    opened = {path for stage in manifest.stages for path in (stage.file, *bundle.weights(stage))}
    files = [file for file in manifest.files if file.path in opened]
    return BundleCard(
        name=bundle.path.name.removesuffix(".nes2net"),
        precision=manifest.precision,
        checkpoint=manifest.source.checkpoint,
        random=manifest.source.random,
        bytes=sum(file.bytes for file in files),
        graphs={file.path: file.sha256 for file in files},
    )
