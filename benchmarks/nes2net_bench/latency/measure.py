"""Latency, throughput and memory of bundles and their peers on one machine: the whole measurement.

    peaks        what the machine can do at all, before and after
    steady       every arm in a process of its own, arms in turn, order drawn anew each round; fresh processes
                 for each window of rounds, so that a ratio's interval holds what differs between processes
    throughput   the same arms, larger batches
    threads      bundles, fewer threads
    streaming    one stream of each bundle, as fast as it goes in turns with the reference, and in real time
    streams      how many streams at once keep up in real time

Nothing here prints; the command shows what comes back.
"""

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from msgspec.structs import replace

from nes2net_bench.latency.arms import Absent, Arm
from nes2net_bench.latency.contention import cpu_times, shares_since
from nes2net_bench.latency.energy import Meter, open_meter
from nes2net_bench.latency.figures import Record, arm_result, bundle_card, placed, windows_of
from nes2net_bench.latency.orders import (
    CountWork,
    Made,
    MakeGraphs,
    MeasurePeaks,
    Open,
    Opened,
    Peaks,
    Ran,
    Run,
    Work,
)
from nes2net_bench.latency.results import LatencyResults, Plan, ThreadPoint
from nes2net_bench.latency.roofline import best_of
from nes2net_bench.latency.rounds import SWEEP_ROUNDS, Turn, take_rounds
from nes2net_bench.latency.streams import measure_streams
from nes2net_bench.latency.timing import ratio, stable, timing
from nes2net_bench.latency.watch import Watch
from nes2net_bench.latency.workers import ArmFailed, Worker, worker_environment
from nes2net_bench.nvml import open_nvml
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError

KEPT = frozenset({"compile"})  # processes that are not started anew: they would compile for a minute
STARTS = 2  # of each arm: how long it loads


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
    arms = _with_graphs(arms, environment, plan, watch)

    records: dict[str, Record] = {arm.name: Record() for arm in arms}
    by_name = {arm.name: arm for arm in arms}
    sweep: dict[int, dict[str, list[Turn]]] = {}
    _start(plan, arms, records, environment, watch)
    with _steady(plan, by_name, records, meter, environment, watch) as workers:
        if "batches" in plan.scenarios:
            many = _without_compiled(plan, by_name, workers, watch)
            for batch in plan.batches[1:]:
                sweep[batch] = _sweep(plan, many, batch, records, watch)
    if not records:
        reasons = "; ".join(f"{absent.name}: {absent.reason}" for absent in watch.absent)
        raise ProviderError(f"nothing could be measured ({reasons})")
    tested = [arm for arm in arms if arm.name in records]
    reference = tested[0].name
    ours = [arm for arm in tested if arm.kind == "bundle"]
    threads = _thread_sweep(plan, ours, environment, watch)
    streaming, streams = measure_streams(plan, ours, tested[0], environment, watch)
    if peaks:
        peaks += _peaks(plan, environment, watch)
    best = best_of(peaks[0], peaks[-1]) if peaks else None

    results = []
    for arm in tested:
        of = Path(arm.folder) if arm.kind == "bundle" and arm.folder else bundles[0].path
        place = placed(arm, best, work.get(of))
        results.append(arm_result(arm, plan, records, reference, place, sweep, window / SAMPLE_RATE))
    watch.end()
    others, stolen = shares_since(busy_before)
    first_work = work.get(bundles[0].path)
    return LatencyResults(
        plan=plan,
        window_seconds=window / SAMPLE_RATE,
        reference=reference,
        bundles=[bundle_card(bundle) for bundle in bundles],
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


def _start(
    plan: Plan, arms: Sequence[Arm], records: dict[str, Record], environment: Mapping[str, str], watch: Watch
) -> None:
    """Load each arm with none of the others beside it, which would take the page cache's memory."""
    advance = watch.track("starting, one at a time", STARTS * len(arms))
    for arm in arms:
        for _ in range(STARTS):
            try:
                with Worker(environment) as worker:
                    _open(arm, plan.batches[0], worker, records[arm.name], plan)
            except ArmFailed as error:
                watch.failed(arm.name, error)
                del records[arm.name]
                break
            advance(1)


@contextmanager
def _steady(
    plan: Plan,
    arms: Mapping[str, Arm],
    records: dict[str, Record],
    meter: Meter,
    environment: Mapping[str, str],
    watch: Watch,
) -> Iterator[dict[str, Worker]]:
    """Measure windows of rounds; the last window's processes are still open when this yields."""
    draw, batch = random.Random(plan.seed), plan.batches[0]
    turns_at_least = plan.least_windows * plan.rounds
    seconds, runs = plan.seconds / turns_at_least, max(1, -(-plan.runs // turns_at_least))
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
            if window == 0 or plan.fresh:
                again = [name for name in records if name not in workers or arms[name].kind not in KEPT]
                for name in again:
                    if name in workers:
                        workers.pop(name).close()
                advance = watch.track("loading", len(again))
                for name in again:
                    try:
                        workers[name] = stack.enter_context(Worker(environment))
                        workers[name].ask(Open(arms[name], batch), Opened, plan.timeout)
                    except ArmFailed as error:
                        drop(name, error)
                    advance(1)
            turns: dict[str, list[Turn]] = {name: [] for name in records}
            advance = watch.track(f"steady state, window {window + 1}", plan.rounds * len(turns))
            take_rounds({name: take(name) for name in turns}, plan.rounds, draw, turns, drop, advance)
            for name, taken in turns.items():
                records[name].turns.append(taken)
            if window + 1 < plan.least_windows:
                continue
            if all(stable(windows_of(record)) for record in records.values()):
                break
        yield workers


def _open(arm: Arm, batch: int, worker: Worker, record: Record, plan: Plan) -> None:
    nvml = open_nvml() if plan.device == "cuda" else None
    before = nvml.memory_used() if nvml else None
    opened = worker.ask(Open(arm, batch), Opened, plan.timeout)
    record.opened.append(opened)
    after = nvml.memory_used() if nvml else None
    record.device_memory = None if before is None or after is None else max(0, after - before)


def _sweep(
    plan: Plan, workers: Mapping[str, Worker], batch: int, records: Mapping[str, Record], watch: Watch
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


def _without_compiled(
    plan: Plan, arms: Mapping[str, Arm], workers: Mapping[str, Worker], watch: Watch
) -> dict[str, Worker]:
    """Without arms that would compile anew for a batch, where that takes longer than all else: on a CPU."""
    kept = dict(workers)
    for name in workers:
        if plan.device == "cpu" and arms[name].kind == "compile" and len(plan.batches) > 1:
            watch.absent.append(Absent(f"{name}, larger batches", "compiles anew for each; not on a CPU"))
            del kept[name]
    return kept


def _thread_sweep(
    plan: Plan, arms: Sequence[Arm], environment: Mapping[str, str], watch: Watch
) -> list[ThreadPoint]:
    """Powers of two up to the plan's threads, and these; on a card the host's threads do little."""
    if "threads" not in plan.scenarios or plan.device != "cpu" or plan.threads == 1:
        return []
    counts = sorted({2**i for i in range(plan.threads.bit_length())} | {plan.threads})
    wanted = {(arm.name, n): replace(arm, threads=n) for arm in arms for n in counts}
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
        turns = _sweep(plan, workers, plan.batches[0], dict.fromkeys(workers, Record()), watch)
    points = []
    for label, taken in turns.items():
        name, n = labels[label]
        if one := turns.get(f"{name}, threads 1"):
            medians = [turn.median for turn in taken]
            speedup = ratio(medians, [turn.median for turn in one])
            points.append(ThreadPoint(name, n, timing([s for turn in taken for s in turn.wall]), speedup))
    return points


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


def _with_graphs(arms: Sequence[Arm], environment: Mapping[str, str], plan: Plan, watch: Watch) -> list[Arm]:
    """Make the graphs of the arms that have none; those that can't have them are out."""
    kept = list(arms)
    for arm in arms:
        if arm.kind == "plain" or (arm.kind == "openvino" and arm.folder != arm.source):
            advance = watch.track(f"graphs: {arm.name}", 1)
            with Worker(environment) as worker:
                try:
                    worker.ask(MakeGraphs(arm), Made, plan.timeout)
                except ArmFailed as error:
                    watch.failed(arm.name, error)
                    kept.remove(arm)
            advance(1)
    return kept
