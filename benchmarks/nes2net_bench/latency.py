"""Latency, throughput and memory of bundles and their peers on one machine: the whole measurement.

    peaks        what the machine can do at all, before and after
    steady       every arm in a process of its own, arms in turn, order drawn anew each round; fresh processes
                 for each window of rounds, so that a ratio's interval holds what differs between processes
    throughput   the same arms, larger batches
    threads      the reference and bundles, fewer threads
    streaming    one stream of each bundle, as fast as it goes, and in real time
    streams      how many streams at once keep up in real time

Nothing here prints; the command shows what comes back.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import msgspec

from nes2net_bench.arms import Absent, Arm
from nes2net_bench.contention import cpu_times, shares_since
from nes2net_bench.energy import Meter, open_meter
from nes2net_bench.latency_results import (
    ArmResult,
    BundleCard,
    LatencyResults,
    Plan,
    StreamResult,
    StreamsResult,
    ThreadPoint,
    Throughput,
)
from nes2net_bench.memory import Memory
from nes2net_bench.nvml import open_nvml
from nes2net_bench.orders import (
    CountWork,
    Made,
    MakePlain,
    MeasurePeaks,
    Open,
    Opened,
    Peaks,
    Ran,
    Run,
    Serve,
    Served,
    Work,
)
from nes2net_bench.peers import difference
from nes2net_bench.roofline import Roofline, best_of, computes_in, roofline
from nes2net_bench.rounds import Turn, take_rounds
from nes2net_bench.serving import Load, kept_up, most_that_fit
from nes2net_bench.timing import WINDOWS, ratio, stable, timing
from nes2net_bench.workers import ArmFailed, Worker, worker_environment
from nes2net_calib.progress import Say, Track
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}
SWEEP_ROUNDS = 6  # of the sweeps over batches and threads: the fewest whose ratios have a 95 % interval


class Watch:
    """What is told on the way: lines, progress, arms that drop out, and how long each phase took."""

    def __init__(self, say: Say, track: Track, absent: Sequence[Absent]) -> None:
        self.say, self.absent = say, list(absent)
        self.phases: dict[str, float] = {}  # seconds
        self._track, self._phase, self._began = track, "", time.perf_counter()

    def track(self, phase: str, steps: int) -> Callable[[int], None]:
        """A phase begins, and the one before it ends; returns what is told of each step."""
        self.end()
        self._phase = phase
        return self._track(phase, steps)

    def end(self) -> None:
        """The phase ends."""
        now = time.perf_counter()
        if self._phase:
            self.phases[self._phase] = round(self.phases.get(self._phase, 0.0) + now - self._began, 1)
        self._phase, self._began = "", now

    def failed(self, name: str, error: ArmFailed) -> None:
        """An arm is out."""
        self.absent.append(Absent(name, str(error), error.crashed))
        self.say(f"{name}: {error}")


@dataclass
class _Record:
    """What is gathered of one arm."""

    turns: list[list[Turn]] = field(default_factory=list)  # by window
    opened: list[Opened] = field(default_factory=list)
    device_memory: int | None = None
    memory: Memory | None = None


def measure_latency(
    plan: Plan,
    bundles: Sequence[Bundle],
    arms: Sequence[Arm],
    watch: Watch,
    scratch: Path,
) -> LatencyResults:
    """Measure the arms; the first that works is the reference. Raises ProviderError where none works."""
    start, load_before, busy_before = time.perf_counter(), os.getloadavg()[0], cpu_times()
    environment = worker_environment(scratch, plan.threads)
    window = bundles[0].manifest.audio.window_samples
    meter = open_meter(plan.device)
    peaks: list[Peaks] = []
    work: dict[Path, Work] = {}
    if "roofline" in plan.scenarios:
        peaks += _peaks(plan, environment, watch)
        work = _count_work(bundles, window, environment, plan, watch)
    arms = _with_plain_export(arms, environment, plan, watch)

    records: dict[str, _Record] = {arm.name: _Record() for arm in arms}
    by_name = {arm.name: arm for arm in arms}
    sweep: dict[int, dict[str, list[Turn]]] = {}
    with _steady(plan, by_name, records, meter, environment, watch) as workers:
        if "batches" in plan.scenarios:
            for batch in plan.batches[1:]:
                sweep[batch] = _sweep(plan, workers, batch, records, watch)
    if not records:
        reasons = "; ".join(f"{absent.name}: {absent.reason}" for absent in watch.absent)
        raise ProviderError(f"nothing could be measured ({reasons})")
    tested = [arm for arm in arms if arm.name in records]
    reference = tested[0].name
    ours = [arm for arm in tested if arm.kind == "bundle"]
    threads = _thread_sweep(plan, [a for a in tested if a.name == reference or a in ours], environment, watch)
    streaming, streams = _streams(plan, ours, environment, watch)
    if peaks:
        peaks += _peaks(plan, environment, watch)
    best = best_of(peaks[0], peaks[-1]) if peaks else None

    results = []
    for arm in tested:
        of = Path(arm.folder) if arm.kind == "bundle" and arm.folder else bundles[0].path
        place = _placed(arm, best, work.get(of))
        results.append(_result(arm, plan, records, reference, place, sweep, window / SAMPLE_RATE))
    watch.end()
    others, stolen = shares_since(busy_before)
    first_work = work.get(bundles[0].path)
    return LatencyResults(
        plan=plan,
        window_seconds=window / SAMPLE_RATE,
        reference=reference,
        bundles=[_card(bundle) for bundle in bundles],
        arms=results,
        absent=watch.absent,
        threads=threads,
        streaming=streaming,
        streams=streams,
        peaks=peaks,
        macs=None if first_work is None else first_work.macs,
        energy=meter.source,
        load_average=(round(load_before, 2), round(os.getloadavg()[0], 2)),
        others=others,
        stolen=stolen,
        phases=watch.phases,
        seconds=time.perf_counter() - start,
    )


@contextmanager
def _steady(
    plan: Plan,
    arms: Mapping[str, Arm],
    records: dict[str, _Record],
    meter: Meter,
    environment: Mapping[str, str],
    watch: Watch,
) -> Iterator[dict[str, Worker]]:
    """Measure windows of rounds; the last window's processes are still open when this yields."""
    draw, batch = random.Random(plan.seed), plan.batches[0]
    seconds = plan.seconds / (WINDOWS * plan.rounds)
    runs = max(1, -(-plan.runs // (WINDOWS * plan.rounds)))
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}

        def drop(name: str, error: ArmFailed) -> None:
            watch.failed(name, error)
            records.pop(name, None)
            workers.pop(name).close()

        def take(name: str) -> Callable[[], Turn]:
            def turn() -> Turn:
                before = meter.read() if meter.read else 0.0
                ran = workers[name].ask(Run(batch, runs, seconds), Ran, plan.timeout)
                records[name].memory = ran.memory
                joules = (meter.read() - before) / ran.all_runs / batch if meter.read else None
                return Turn(ran.wall, ran.cpu, joules)

            return turn

        for window in range(plan.most_windows):
            if window == 0 or (plan.fresh and window < WINDOWS):
                for worker in workers.values():
                    worker.close()
                workers.clear()
                advance = watch.track("loading", len(records))
                for name in list(records):
                    try:
                        workers[name] = stack.enter_context(Worker(environment))
                        _open(arms[name], batch, workers[name], records[name], plan)
                    except ArmFailed as error:
                        drop(name, error)
                    advance(1)
            turns: dict[str, list[Turn]] = {name: [] for name in records}
            advance = watch.track(f"steady state, window {window + 1}", plan.rounds * len(turns))
            take_rounds({name: take(name) for name in turns}, plan.rounds, draw, turns, drop, advance)
            for name, taken in turns.items():
                records[name].turns.append(taken)
            if all(stable(_windows(record)) for record in records.values()):
                break
        yield workers


def _open(arm: Arm, batch: int, worker: Worker, record: _Record, plan: Plan) -> None:
    nvml = open_nvml() if plan.device == "cuda" else None
    before = nvml.memory_used() if nvml else None
    opened = worker.ask(Open(arm, batch), Opened, plan.timeout)
    record.opened.append(opened)
    after = nvml.memory_used() if nvml else None
    record.device_memory = None if before is None or after is None else max(0, after - before)


def _windows(record: _Record) -> list[float]:
    """Each window's median of rounds, seconds."""
    return [median(turn.median for turn in window) for window in record.turns]


def _sweep(
    plan: Plan, workers: Mapping[str, Worker], batch: int, records: Mapping[str, _Record], watch: Watch
) -> dict[str, list[Turn]]:
    """Turns of all arms at another batch."""

    def take(worker: Worker) -> Callable[[], Turn]:
        def turn() -> Turn:
            ran = worker.ask(Run(batch, 1, plan.seconds / 15), Ran, plan.timeout)
            return Turn(ran.wall, ran.cpu)

        return turn

    def failed(name: str, error: ArmFailed) -> None:
        watch.failed(f"{name}, batch {batch}", error)

    alive = {name: take(worker) for name, worker in workers.items() if name in records}
    turns: dict[str, list[Turn]] = {name: [] for name in alive}
    advance = watch.track(f"batch {batch}", SWEEP_ROUNDS * len(alive))
    take_rounds(alive, SWEEP_ROUNDS, random.Random(plan.seed + batch), turns, failed, advance)
    return turns


def _thread_sweep(
    plan: Plan, arms: Sequence[Arm], environment: Mapping[str, str], watch: Watch
) -> list[ThreadPoint]:
    """Powers of two up to the plan's threads, and these; on a card the host's threads do little."""
    if "threads" not in plan.scenarios or plan.device != "cpu" or plan.threads == 1:
        return []
    counts = sorted({2**i for i in range(plan.threads.bit_length())} | {plan.threads})
    wanted = {(arm.name, n): replace_threads(arm, n) for arm in arms for n in counts}
    labels = {f"{name}, threads {n}": (name, n) for name, n in wanted}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        advance = watch.track("loading", len(labels))
        for label, key in labels.items():
            worker = stack.enter_context(Worker({**environment, "OMP_NUM_THREADS": str(key[1])}))
            try:
                worker.ask(Open(wanted[key], plan.batches[0]), Opened, plan.timeout)
                workers[label] = worker
            except ArmFailed as error:
                watch.failed(label, error)
            advance(1)
        turns = _sweep(plan, workers, plan.batches[0], dict.fromkeys(workers, _Record()), watch)
    points = []
    for label, taken in turns.items():
        name, n = labels[label]
        if one := turns.get(f"{name}, threads 1"):
            medians = [turn.median for turn in taken]
            speedup = ratio(medians, [turn.median for turn in one])
            points.append(ThreadPoint(name, n, timing([s for turn in taken for s in turn.wall]), speedup))
    return points


def replace_threads(arm: Arm, threads: int) -> Arm:
    """The same arm with other threads."""
    return msgspec.structs.replace(arm, threads=threads)


def _streams(
    plan: Plan, arms: Sequence[Arm], environment: Mapping[str, str], watch: Watch
) -> tuple[list[StreamResult], list[StreamsResult]]:
    """One stream of each bundle, and how many at once."""
    single: list[StreamResult] = []
    many: list[StreamsResult] = []
    steps = len(arms) * sum(scenario in plan.scenarios for scenario in ("streaming", "streams"))
    if not steps:
        return single, many
    advance = watch.track("streams", steps)
    for arm in arms:
        try:
            if "streaming" in plan.scenarios:
                with Worker(environment) as worker:
                    worker.ask(Open(arm, 1), Opened, plan.timeout)
                    single.append(_single(plan, arm.name, worker))
                advance(1)
            if "streams" in plan.scenarios:
                # One thread a stream gives the most streams on a CPU; a card takes one at a time, and a
                # second thread prepares the next.
                at_once = plan.threads if plan.device == "cpu" else 2
                with Worker({**environment, "OMP_NUM_THREADS": "1"}) as worker:
                    worker.ask(Open(replace_threads(arm, 1), 1), Opened, plan.timeout)
                    many.append(_many(plan, arm.name, worker, at_once))
                advance(1)
        except ArmFailed as error:
            watch.failed(f"{arm.name}, streams", error)
    return single, many


def _single(plan: Plan, name: str, worker: Worker) -> StreamResult:
    hops = max(10, round(plan.stream_seconds / plan.hop))
    fast = worker.ask(Serve(1, plan.hop, hops, 1, False), Served, plan.timeout)
    paced = worker.ask(Serve(1, plan.hop, hops, 1, True), Served, plan.timeout)
    spent = timing(fast.service)
    return StreamResult(
        name=name,
        hop=plan.hop,
        saturated=spent,
        saturated_cpu=1e3 * fast.cpu / hops,
        real_time_factor=spent.p50 / 1e3 / plan.hop,
        paced=_load(1, paced, plan.hop, 1),
    )


def _many(plan: Plan, name: str, worker: Worker, at_once: int) -> StreamsResult:
    """Try numbers of streams around what a saturated test promises."""
    hops = max(4, round(plan.stream_seconds / plan.hop))
    probe = worker.ask(Serve(at_once, plan.hop, 4, at_once, False), Served, plan.timeout)
    guess = int(0.9 * at_once * plan.hop / median(probe.service))
    trials: list[Load] = []
    memory: list[Memory] = [probe.memory]

    def fits(streams: int) -> bool:
        served = worker.ask(Serve(streams, plan.hop, hops, at_once, True), Served, plan.timeout)
        trials.append(_load(streams, served, plan.hop, at_once))
        memory.append(served.memory)
        return trials[-1].fits

    most, least = most_that_fit(fits, guess, plan.trials)
    return StreamsResult(name, plan.hop, at_once, most, least, trials, memory[-1])


def _load(streams: int, served: Served, hop: float, at_once: int) -> Load:
    busy, late, fits = kept_up(served, hop, at_once)
    return Load(streams, len(served.latency), timing(served.latency), busy, late, fits)


def _peaks(plan: Plan, environment: Mapping[str, str], watch: Watch) -> list[Peaks]:
    """One measurement of the machine, or none."""
    order = MeasurePeaks(plan.device, plan.threads, plan.peak_seconds)
    advance = watch.track("peaks of the machine", 1)
    with Worker(environment) as worker:
        try:
            return [worker.ask(order, Peaks, plan.timeout)]
        except ArmFailed as error:
            watch.failed("peaks of the machine", error)
            return []
        finally:
            advance(1)


def _count_work(
    bundles: Sequence[Bundle], window: int, environment: Mapping[str, str], plan: Plan, watch: Watch
) -> dict[Path, Work]:
    """What a window of each bundle needs."""
    counted: dict[Path, Work] = {}
    with Worker(environment) as worker:
        for bundle in bundles:
            try:
                counted[bundle.path] = worker.ask(CountWork(str(bundle.path), window), Work, plan.timeout)
            except ArmFailed as error:
                watch.failed(f"MACs of {bundle.path.name}", error)
                if error.crashed:
                    break
    return counted


def _with_plain_export(
    arms: Sequence[Arm], environment: Mapping[str, str], plan: Plan, watch: Watch
) -> list[Arm]:
    """Export for the arms that need it; those that can't have it are out."""
    kept = list(arms)
    for arm in arms:
        if arm.kind == "plain":
            assert arm.weights is not None and arm.folder is not None
            advance = watch.track("plain export", 1)
            with Worker(environment) as worker:
                try:
                    worker.ask(MakePlain(arm.weights, arm.folder), Made, plan.timeout)
                except ArmFailed as error:
                    watch.failed(arm.name, error)
                    kept.remove(arm)
            advance(1)
    return kept


Place = Callable[[int, float], Roofline | None]  # (batch, seconds of it) -> where that is


def _placed(arm: Arm, peaks: Peaks | None, work: Work | None) -> Place:
    def place(batch: int, seconds: float) -> Roofline | None:
        if peaks is None or work is None:
            return None
        weights = work.weights if arm.kind == "bundle" else work.parameters * BYTES[arm.precision]
        precision = computes_in(arm.precision, arm.device)
        return roofline(peaks, precision, batch * sum(work.macs.values()), weights, seconds)

    return place


def _result(
    arm: Arm,
    plan: Plan,
    records: Mapping[str, _Record],
    reference: str,
    place: Place,
    sweep: Mapping[int, Mapping[str, list[Turn]]],
    window_seconds: float,
) -> ArmResult:
    record, of_reference = records[arm.name], records[reference]
    turns, others = _turns(record), _turns(of_reference)
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
        ratio=ratio(rounds, [turn.median for turn in others]),
        cpu_ratio=ratio([turn.cpu_median for turn in turns], [turn.cpu_median for turn in others]),
        rounds=[1e3 * seconds for seconds in rounds],
        windows=[1e3 * seconds for seconds in _windows(record)],
        stable=stable(_windows(record)),
        memory=record.memory,
        baseline=last.started,
        device_memory=record.device_memory,
        joules=sum(joules) / len(joules) if joules else None,
        roofline=place(batch, spent.p50 / 1e3),
        difference=difference(last.logits, of_reference.opened[-1].logits) if arm.same_weights else None,
        receipt=last.receipt,
        throughput=throughput,
    )


def _turns(record: _Record) -> list[Turn]:
    return [turn for window in record.turns for turn in window]


def _throughput(
    batch: int, turns: Sequence[Turn], reference: Sequence[Turn] | None, place: Place, window_seconds: float
) -> Throughput:
    spent = timing([s for turn in turns for s in turn.wall])
    rate = batch / (spent.p50 / 1e3)
    medians = [turn.median for turn in turns]
    against = ratio(medians, [turn.median for turn in reference]) if reference else None
    return Throughput(batch, spent, rate, rate * window_seconds, against, place(batch, spent.p50 / 1e3))


def _card(bundle: Bundle) -> BundleCard:
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
