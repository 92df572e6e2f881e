"""Tables of a Markdown file that are made from documents of benchmarks.

    <!-- table NAME from benchmarks/results/FILE.json -->
    …
    <!-- end -->

What is between the two lines is NAME's table of that document; nothing, where there is no such document yet.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from nes2net_bench.drift.results import DriftReport
from nes2net_bench.latency.results import LatencyResults
from nes2net_bench.report.content import NONE, Table, mega, number, ratio, table
from nes2net_bench.report.documents import Loaded, load
from nes2net_bench.report.machine import short
from nes2net_bench.report.markdown import markdown_table
from nes2net_bench.streaming import HopCost, StreamingReport
from nes2net_runtime.errors import BundleError
from nes2net_runtime.output import count

BLOCK = re.compile(r"(<!-- table (\S+) from (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
Make = Callable[[Loaded], str]
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")


def rewrite(text: str, root: Path) -> str:
    """A file's text with its tables made anew; paths are relative to `root`. Raises BundleError."""
    starts, ends = (len(re.findall(mark, text)) for mark in (r"<!-- table ", r"<!-- end -->"))
    if not starts == ends == len(BLOCK.findall(text)):
        raise BundleError(
            f"{starts} tables begin and {ends} end; each needs <!-- table NAME from FILE.json --> and "
            "<!-- end -->"
        )
    return BLOCK.sub(lambda found: found[1] + _made(found[2], root / found[3]) + found[5], text)


def absent(text: str, root: Path) -> list[str]:
    """Documents that a file has tables of, and that are not there."""
    return sorted({found[3] for found in BLOCK.finditer(text) if not (root / found[3]).is_file()})


def _made(name: str, path: Path) -> str:
    if name not in TABLES:
        raise BundleError(f"no table is called {name!r}; there are {', '.join(TABLES)}")
    if not path.is_file():
        return ""
    loaded = load(path)
    kind, make = TABLES[name]
    if loaded.kind != kind:
        raise BundleError(f"{path}: is of the {loaded.kind} benchmark, the table {name!r} is of {kind}")
    return f"\n{make(loaded)}\n\n"


def _streams(loaded: Loaded) -> str:
    report: StreamingReport = loaded.results
    small = report.hop[report.bundle]
    rows = [
        (
            f"CPU of a hop ({small.hop_seconds:g} s)",
            f"{small.hop_kept.p50:.1f} ms with encoder frames kept, {small.hop_whole.p50:.1f} ms with "
            "windows computed whole",
        )
    ]
    for name, cost in report.hop.items():
        if name != report.bundle:
            rows.append((_size(name), _large(cost, int(loaded.document.machine["cores"]))))
    decided, memory, shaken = report.decisions, report.memory, report.jitter
    low, high = decided.interval
    rows += [
        (
            "even against uneven pieces (1 to 100,000 samples)",
            "the same scores, to the last bit"
            if shaken.largest_difference == 0
            else f"scores differ by {shaken.largest_difference:.0e} at most",
        ),
        (
            f"delay, human to synthetic voice ({decided.changes} changes of {decided.split})",
            f"{decided.detected} noticed"
            + (
                f"; median {decided.delay.p50:.1f} s, 95 % within {decided.delay.p95:.1f} s"
                if decided.delay is not None
                else ""
            ),
        ),
        (
            f"false alarms ({decided.hours:.3f} h of bona fide speech of {decided.split})",
            f"{decided.false_alarms}: {number(low, 1)} to {number(high, 2)} an hour (95 %)"
            + ("; too little speech to show the goal of one an hour" if high > 1 else ""),
        ),
        (f"resident memory over {memory.hours:g} simulated hours", _over_hours(memory.samples, memory.hours)),
    ]
    head = f"streams with the {'demo detector' if report.bundle == 'demo' else report.bundle}"
    return _plain(table((head, ""), rows))


def _size(checkpoint: str) -> str:
    return (
        f"the same, size of XLS-R (`{checkpoint}`)" if "xlsr" in checkpoint else f"the same, `{checkpoint}`"
    )


def _large(cost: HopCost, cores: int) -> str:
    wall = cost.wall_kept.p50 / 1e3
    words = (
        f"{cost.hop_kept.p50 / 1e3:.2f} s and {cost.hop_whole.p50 / 1e3:.2f} s; the encoder alone "
        f"{cost.encoder_new:.0f} and {cost.encoder_whole:.0f} ms, {cost.encoder_ratio:.1f} times less. "
        f"{_NUMBERS[cores].capitalize() if cores < len(_NUMBERS) else cores} "
        f"{'core takes' if cores == 1 else 'cores take'} {wall:.2f} s"
    )
    if wall > cost.hop_seconds:
        becomes = cost.hop_seconds * ceil(wall / cost.hop_seconds)
        words += f": too slow for {cost.hop_seconds:g} s, so the hop becomes {becomes:g} s"
    return words


def _over_hours(samples: list[tuple[float, int]], hours: float) -> str:
    """After ten minutes, after three hours where there are more, and at the end."""

    def at(hour: float) -> str:
        return f"{min(samples, key=lambda sample: abs(sample[0] - hour))[1] / 2**20:.1f}"

    middle = f"{at(3)} after 3 hours, " if hours > 6 else ""
    return f"{at(1 / 6)} MiB after 10 minutes, {middle}{at(hours)} after {hours:g}"


def _macs(loaded: Loaded) -> str:
    from nes2net_bench.macs.results import MacsReport
    from nes2net_bench.report.macs import stage_table

    counted: MacsReport = loaded.results
    shown = stage_table(counted)
    window = f"{counted.detector}, a window of {counted.seconds:.2f} s"
    return markdown_table(replace(shown, head=(window, *shown.head[1:])))


def _papers(loaded: Loaded) -> str:
    from nes2net_bench.report.macs import paper_table_of

    return markdown_table(paper_table_of(loaded.results))


def _latency(loaded: Loaded) -> str:
    results: LatencyResults = loaded.results
    plan = results.plan
    window = f"{results.window_seconds:.2f} s on {short(loaded.document)}, {count(plan.threads, 'thread')}"
    head = (
        window,
        "p50, ms",
        "p95",
        f"\u00d7 {results.reference}",
        "CPU, \u00d7",
        "load, s",
        "peak MB",
        "logits differ by",
    )
    rows = [
        (
            arm.name + ("" if arm.stable else " (unstable)"),
            number(arm.wall.p50),
            number(arm.wall.p95),
            ratio(arm.ratio),
            ratio(arm.cpu_ratio),
            number(arm.load[0]),
            mega(arm.memory.peak),
            NONE if arm.difference is None else f"{arm.difference:.0e}",
        )
        for arm in results.arms
    ]
    return markdown_table(table(head, rows))


def _peak(loaded: Loaded) -> str:
    """The arms' times alone, and how near they are to what the machine can do."""
    results: LatencyResults = loaded.results
    threads = count(results.plan.threads, "thread")
    window = f"{results.window_seconds:.2f} s on {short(loaded.document)}, {threads}"
    head = (window, "p50, ms", f"\u00d7 {results.reference}", "of the GEMM peak")
    rows = [
        (
            arm.name + ("" if arm.stable else " (unstable)"),
            number(arm.wall.p50),
            ratio(arm.ratio),
            NONE if arm.roofline is None else f"{arm.roofline.share_of_peak:.0%} {arm.roofline.precision}",
        )
        for arm in results.arms
    ]
    return markdown_table(table(head, rows))


def _real_time(loaded: Loaded) -> str:
    """Streams of the bundles that were measured."""
    results: LatencyResults = loaded.results
    # Where no number of streams failed, more than the largest that was tried may keep up.
    fit = {found.name: f"{'≥ ' if found.fail is None else ''}{found.fit}" for found in results.streams}
    rows = []
    for one in results.streaming:
        row = (
            one.name,
            ratio(one.ratio),
            number(one.saturated_cpu),
            number(one.real_time_factor),
            number(one.paced.latency.p50),
        )
        rows.append((*row, fit.get(one.name, NONE)) if fit else row)
    hop, many = f"{results.plan.hop:g}", ("streams that keep up",) if fit else ()
    head = (
        f"a hop of {hop} s",
        f"\u00d7 {results.reference}'s window",
        "CPU, ms",
        "RTF",
        "sound to score, ms",
        *many,
    )
    return markdown_table(table(head, rows))


def _drift(loaded: Loaded) -> str:
    from nes2net_bench.report.drift import cells, listed

    report: DriftReport = loaded.results
    rows = []
    for comparison in report.comparisons:
        where = (
            comparison.rule
            if comparison.condition == "clean"
            else f"{comparison.rule}, {comparison.condition}"
        )
        reference, candidate, difference, between = cells(comparison.metrics["eer"], "eer")
        cllr = comparison.metrics.get("cllr")
        flips = comparison.scores.flips
        rows.append(
            (
                f"{comparison.candidate}, {where}",
                f"{reference} → {candidate}",
                difference if between == NONE else f"{difference} ({between})",
                NONE if cllr is None else f"{cllr.difference:+.4f}",
                f"{comparison.scores.mean_absolute:.4f}",
                NONE if flips is None else f"{100 * flips.share:.2f} %",
            )
        )
    head = (
        f"{listed(report)}, beside {report.reference.name}",
        "EER, %",
        "difference, points (95 %)",
        "Cllr, bits",
        "mean change of scores",
        "flips",
    )
    return markdown_table(table(head, rows))


def _plain(shown: Table) -> str:
    """Words, which stand on the left, and may have Markdown in them."""
    lines = [shown.head, ("---",) * len(shown.head), *shown.rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines).replace("|  |", "| |")


# Name -> the benchmark it is of, and how it is made.
TABLES: Mapping[str, tuple[Any, Make]] = {
    "streams": ("streaming", _streams),
    "macs": ("macs", _macs),
    "papers": ("macs", _papers),
    "latency": ("latency", _latency),
    "peak": ("latency", _peak),
    "real-time": ("latency", _real_time),
    "drift": ("drift", _drift),
}
