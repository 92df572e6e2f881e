"""One stream of a bundle, as fast as it goes and in real time; and how many at once keep up."""

from collections.abc import Mapping, Sequence
from statistics import median

from msgspec.structs import replace

from nes2net_bench.latency.arms import Arm
from nes2net_bench.latency.memory import Memory
from nes2net_bench.latency.orders import Open, Opened, Ran, Run, Serve, Served
from nes2net_bench.latency.results import Plan, StreamResult, StreamsResult
from nes2net_bench.latency.rounds import SWEEP_ROUNDS
from nes2net_bench.latency.serving import Load, kept_up, most_that_fit
from nes2net_bench.latency.timing import ratio, timing
from nes2net_bench.latency.watch import Watch
from nes2net_bench.latency.workers import ArmFailed, Worker


def measure_streams(
    plan: Plan, arms: Sequence[Arm], reference: Arm, environment: Mapping[str, str], watch: Watch
) -> tuple[list[StreamResult], list[StreamsResult]]:
    """One stream of each bundle, in turns with windows of the reference; and how many streams at once."""
    single: list[StreamResult] = []
    many: list[StreamsResult] = []
    steps = len(arms) * sum(scenario in plan.scenarios for scenario in ("streaming", "streams"))
    if not steps:
        return single, many
    advance = watch.track("streams", steps)
    for arm in arms:
        try:
            if "streaming" in plan.scenarios:
                with Worker(environment) as worker, Worker(environment) as other:
                    worker.ask(Open(arm, 1), Opened, plan.timeout)
                    other.ask(Open(reference, 1), Opened, plan.timeout)
                    single.append(_single(plan, arm.name, worker, other))
                advance(1)
            if "streams" in plan.scenarios:
                # One thread a stream gives the most streams on a CPU; a card takes one at a time, and a
                # second thread prepares the next.
                at_once = plan.threads if plan.device == "cpu" else 2
                with Worker({**environment, "OMP_NUM_THREADS": "1"}) as worker:
                    worker.ask(Open(replace(arm, threads=1), 1), Opened, plan.timeout)
                    many.append(_many(plan, arm.name, worker, at_once))
                advance(1)
        except ArmFailed as error:
            watch.failed(f"{arm.name}, streams", error)
    return single, many


def _single(plan: Plan, name: str, worker: Worker, reference: Worker) -> StreamResult:
    hops = max(10, round(plan.stream_seconds / plan.hop))
    turn = Serve(1, plan.hop, -(-hops // SWEEP_ROUNDS), 1, False)
    fast: list[Served] = []
    windows: list[Ran] = []
    for _ in range(SWEEP_ROUNDS):
        fast.append(worker.ask(turn, Served, plan.timeout))
        windows.append(reference.ask(Run(1, 1, 0.0), Ran, plan.timeout))
    paced = worker.ask(Serve(1, plan.hop, hops, 1, True), Served, plan.timeout)
    spent = timing([seconds for served in fast for seconds in served.service])
    return StreamResult(
        name=name,
        hop=plan.hop,
        saturated=spent,
        saturated_cpu=1e3 * sum(served.cpu for served in fast) / spent.samples,
        ratio=ratio([median(served.service) for served in fast], [median(ran.wall) for ran in windows]),
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
