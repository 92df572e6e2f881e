"""Latency as sections of a report."""

from collections.abc import Iterator, Sequence

from nes2net_bench.latency.orders import Peaks
from nes2net_bench.latency.results import SCENARIOS, ArmResult, LatencyResults
from nes2net_bench.latency.roofline import best_of
from nes2net_bench.latency.table import QUIET
from nes2net_bench.latency.timing import Timing
from nes2net_bench.report import plots_latency, plots_work
from nes2net_bench.report.content import NONE, Picture, Section, mega, number, percent, ratio, table
from nes2net_runtime.output import count

SCENARIO_WORDS = {
    "batches": "larger batches",
    "threads": "fewer threads",
    "streaming": "one stream",
    "streams": "streams at once",
    "roofline": "the roofline",
}


def latency_lede(results: LatencyResults) -> str:
    """What was measured, in one line."""
    plan = results.plan
    bundles = ", ".join(f"{card.name} ({card.precision})" for card in results.bundles)
    batch = "one window" if plan.batches[0] == 1 else f"{plan.batches[0]} windows"
    where = f"{plan.device}, {count(plan.threads, 'thread')}"
    return f"{bundles} and peers: {batch} of {results.window_seconds:.2f} s on {where}"


def latency_sections(results: LatencyResults) -> Iterator[Section]:
    """What the document has, in the order in which people ask."""
    arms = results.arms
    yield _steady(arms, results.reference)
    yield _starts(arms)
    yield _memory(arms)
    if any(len(arm.throughput) > 1 for arm in arms):
        yield _batches(arms)
    if results.threads:
        yield _threads(results)
    if results.streaming or results.streams:
        yield _streams(results)
    if results.peaks and any(arm.roofline for arm in arms):
        yield _roofline(results.peaks, arms)
    yield Section(
        "What was measured",
        tables=(
            table(
                ("bundle", "precision", "checkpoint", "MB", "graphs, SHA-256"),
                (
                    (
                        card.name,
                        card.precision,
                        card.checkpoint + (" (random weights)" if card.random else ""),
                        mega(card.bytes),
                        ", ".join(f"{file} {digest[:12]}" for file, digest in card.graphs.items()),
                    )
                    for card in results.bundles
                ),
            ),
        ),
        notes=(_conditions(results),),
    )


def latency_missing(results: LatencyResults) -> list[str]:
    """What the document lacks, and why."""
    found = {
        "batches": any(len(arm.throughput) > 1 for arm in results.arms),
        "threads": bool(results.threads),
        "streaming": bool(results.streaming),
        "streams": bool(results.streams),
        "roofline": bool(results.peaks),
    }
    lines = []
    for scenario in SCENARIOS:
        if not found[scenario]:
            asked = scenario in results.plan.scenarios
            reason = "gave nothing here" if asked else "was left out (--scenario)"
            lines.append(f"{SCENARIO_WORDS[scenario]}: {reason}")
    lines += [f"{absent.name}: {absent.reason}" for absent in results.absent]
    if all(arm.joules is None for arm in results.arms):
        lines.append(f"energy: {results.energy}")
    return lines


def _conditions(results: LatencyResults) -> str:
    low, high = results.load_average
    line = f"Measured in {results.seconds:.0f} s; load of the machine {low:g} before, {high:g} after"
    if results.others is not None:
        line += f"; others used {percent(results.others)} of its CPU time"
        line += ": not quiet, trust ratios before milliseconds" if results.others > QUIET else ""
    if results.stolen:
        line += f"; {percent(results.stolen, 1)} was stolen by other virtual machines"
    return line + "."


def _steady(arms: Sequence[ArmResult], reference: str) -> Section:
    each = " ".join(f"{arm.name}: median {arm.wall.p50:.1f} ms." for arm in arms)
    pictures = [Picture(plots_latency.distributions(arms), f"Latency of a window. {each}", "A window")]
    times = table(
        ("", "p50, ms", "p95", "p99", "largest", "jitter", "RTF", "CPU ms", "runs", "stable"),
        (
            (
                arm.name,
                *(number(v) for v in (arm.wall.p50, arm.wall.p95, arm.wall.p99, arm.wall.largest)),
                number(arm.wall.jitter),
                number(arm.real_time_factor),
                number(arm.cpu.p50),
                str(arm.wall.samples),
                "yes" if arm.stable else "no",
            )
            for arm in arms
        ),
    )
    tables = [times]
    if len(arms) > 1:
        each = " ".join(f"{arm.name}: {arm.ratio.estimate:.2f}." for arm in arms)
        drawn = plots_latency.ratios(arms, reference)
        pictures.append(Picture(drawn, f"Ratios to {reference}. {each}", f"Over {reference}"))
        rows = (
            (arm.name, ratio(arm.ratio), ratio(arm.cpu_ratio), str(arm.ratio.pairs), _differs(arm))
            for arm in arms
        )
        tables.append(table((f"over {reference}", "wall time", "CPU time", "windows", "differs"), rows))
    unstable = ", ".join(arm.name for arm in arms if not arm.stable)
    return Section(
        "Latency, once it runs",
        "Bars go from the fastest run to p95; dots are medians of rounds, in which all took turns. Ratios "
        "are formed "
        "window by window, so that what else the machine does cancels, with intervals of 95 %: trust them "
        "before "
        "milliseconds. A percentile is left out where runs are too few for it. RTF: time over duration of "
        "the audio, "
        "below 1 is faster than real time. Differs: logits against the reference's, relative.",
        tuple(pictures),
        tuple(tables),
        (f"Not stable, three successive windows of runs differ by more than 10 %: {unstable}.",)
        if unstable
        else (),
    )


def _differs(arm: ArmResult) -> str:
    if arm.difference is None:
        return NONE
    return f"{arm.difference:.0e}" if arm.difference else "0"


def _starts(arms: Sequence[ArmResult]) -> Section:
    return Section(
        "Load, first run, steady state",
        "Load: from a process that has imported nothing to one that is ready. What a command that scores "
        "one file "
        "waits for is load plus first run.",
        (
            Picture(
                plots_latency.starts(arms),
                " ".join(
                    f"{arm.name}: load {min(arm.load):.2f} s, first run {1e3 * min(arm.first_run):.0f} ms, "
                    f"then {arm.wall.p50:.1f} ms."
                    for arm in arms
                ),
            ),
        ),
        (
            table(
                ("", "load, s", "load again, s", "first run, ms", "steady, ms"),
                (
                    (
                        arm.name,
                        number(arm.load[0]),
                        number(min(arm.load[1:])) if len(arm.load) > 1 else NONE,
                        number(1e3 * arm.first_run[0]),
                        number(arm.wall.p50),
                    )
                    for arm in arms
                ),
            ),
        ),
    )


def _memory(arms: Sequence[ArmResult]) -> Section:
    card = any(arm.device_memory is not None for arm in arms)
    return Section(
        "Memory",
        "Each in a process of its own, after all runs. Anonymous memory is what no file backs; mapped "
        "files are "
        "libraries, and weights that several processes share.",
        (
            Picture(
                plots_latency.memory(arms),
                " ".join(f"{arm.name}: peak {mega(arm.memory.peak)} MB." for arm in arms),
            ),
        )
        if any(arm.memory.anonymous is not None for arm in arms)
        else (),
        (
            table(
                (
                    *("", "peak (VmHWM), MB", "anonymous (RssAnon)", "mapped (RssFile)", "before the load"),
                    *(["on the card"] if card else []),
                ),
                (
                    (
                        arm.name,
                        mega(arm.memory.peak),
                        mega(arm.memory.anonymous),
                        mega(arm.memory.mapped),
                        mega(arm.baseline),
                        *([mega(arm.device_memory)] if card else []),
                    )
                    for arm in arms
                ),
            ),
        ),
    )


def _batches(arms: Sequence[ArmResult]) -> Section:
    sizes = sorted({point.batch for arm in arms for point in arm.throughput})
    rows = []
    for arm in arms:
        found = {point.batch: point for point in arm.throughput}
        rates = (found[size].windows_per_second if size in found else None for size in sizes)
        rows.append((arm.name, *map(number, rates)))
    return Section(
        "Throughput by batch",
        "Windows a second where several are scored at once.",
        (Picture(plots_latency.batches(arms), "Windows a second by batch; the table has the figures."),),
        (table(("windows a second", *map(str, sizes)), rows),),
    )


def _threads(results: LatencyResults) -> Section:
    rows = []
    for point in results.threads:
        speedup = point.speedup
        shown = f"{1 / speedup.estimate:.2f} ({1 / speedup.high:.2f} to {1 / speedup.low:.2f})"
        rows.append((point.name, str(point.threads), number(point.wall.p50), shown))
    return Section(
        "Threads",
        "How many times faster a window is than with one thread.",
        (Picture(plots_latency.threads(results.threads), "Speed-up by threads; the table has the figures."),),
        (table(("", "threads", "p50, ms", "times faster (95 %)"), rows),),
    )


def _streams(results: LatencyResults) -> Section:
    hop = results.plan.hop
    single = [
        (
            one.name,
            number(one.saturated.p50),
            _most(one.saturated),
            ratio(one.ratio),
            number(one.saturated_cpu),
            number(one.real_time_factor),
            number(one.paced.latency.p50),
            _most(one.paced.latency),
            percent(one.paced.late),
        )
        for one in results.streaming
    ]
    many = []
    for found in results.streams:
        best = max((trial for trial in found.trials if trial.fits), key=lambda t: t.streams, default=None)
        many.append(
            (
                found.name,
                str(found.fit),
                NONE if found.fail is None else str(found.fail),
                NONE if best is None else _most(best.latency),
                NONE if best is None else percent(best.busy),
                mega(found.memory.peak),
            )
        )
    tables = []
    if single:
        head = [
            "one stream",
            "p50, ms",
            "p99",
            f"\u00d7 {results.reference}'s window",
            "CPU ms",
            "RTF",
            "paced p50, ms",
            "paced p99",
            "hops late",
        ]
        tables.append(table(head, single))
    if many:
        head = ["at once", "fit", "do not", "p99 of those that fit, ms", "busy", "peak MB"]
        tables.append(table(head, many))
    pictures: tuple[Picture, ...] = ()
    if results.streams:
        text = "How late scores are by the number of streams; filled dots keep up."
        pictures = (Picture(plots_latency.streams(results.streams), text),)
    return Section(
        "Streams",
        f"A score every {hop:g} s. One stream as fast as it goes, in turns with windows of "
        f"{results.reference}, then paced as a microphone would; then "
        "as many at "
        "once, out of step, as keep up: p99 from the last sample of a hop to its score within the hop. "
        "With fewer "
        "than 100 hops the slowest stands for p99 (≤).",
        pictures,
        tuple(tables),
    )


def _most(timing: Timing) -> str:
    """p99; of too few, the largest."""
    return number(timing.p99) if timing.p99 is not None else f"≤ {number(timing.largest)}"


def _roofline(peaks: Sequence[Peaks], arms: Sequence[ArmResult]) -> Section:
    best = peaks[0]
    for again in peaks[1:]:
        best = best_of(best, again)
    rows = [
        (f"{name} products", f"{peak.per_second / 1e9:,.0f} GFLOP/s", peak.by)
        for name, peak in best.gemm.items()
    ]
    rows.append(("copy", f"{best.copy.per_second / 1e9:,.1f} GB/s", best.copy.by))
    rows += [(f"{name} products", NONE, reason) for name, reason in best.unavailable.items()]
    return Section(
        "How far from the machine",
        "Roofs are what this machine was measured to do at all: large products in each precision, and "
        "copying. Points "
        "are the arms: filled at the first batch, empty at larger ones. Products alone count, so nothing "
        "reaches its "
        "roof.",
        (Picture(plots_work.roofline(best, arms), "Roofline; the table has each arm's shares."),),
        (
            table(
                ("", "computes in", "GFLOP/s", "of peak", "least possible, ms", "of the roof", "bound by"),
                (
                    (
                        arm.name,
                        arm.roofline.precision,
                        number(arm.roofline.per_second / 1e9),
                        percent(arm.roofline.share_of_peak),
                        number(arm.roofline.least),
                        percent(arm.roofline.share),
                        "arithmetic" if arm.roofline.bound == "compute" else "memory",
                    )
                    for arm in arms
                    if arm.roofline is not None
                ),
            ),
            table(("measured", "", "by"), rows),
        ),
    )
