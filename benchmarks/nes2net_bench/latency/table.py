"""The measurement, for people: tables on a terminal's width, and what must not be overlooked below them."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nes2net_bench.latency.orders import Peaks
from nes2net_bench.latency.results import ArmResult, LatencyResults, Throughput
from nes2net_bench.latency.timing import Ratio
from nes2net_runtime.output import count

QUIET = 0.05  # share of the machine that others may use before the report says so


def show(console: Console, results: LatencyResults) -> None:
    """Print everything."""
    plan = results.plan
    batch = "" if plan.batches[0] == 1 else f", batch {plan.batches[0]}"
    where = f"{plan.device}, {count(plan.threads, 'thread')}"
    console.print(_steady(f"One window of {results.window_seconds:.2f} s{batch} on {where}", results.arms))
    console.print(_start(results.arms))
    if len(plan.batches) > 1 and any(len(arm.throughput) > 1 for arm in results.arms):
        console.print(_throughput(results.arms, plan.batches))
    if results.threads:
        table = _table("Threads", "arm", "threads", "p50, ms", "speed-up, x one thread")
        for point in results.threads:
            speedup = point.speedup
            shown = f"{1 / speedup.estimate:.2f} ({1 / speedup.high:.2f}-{1 / speedup.low:.2f})"
            table.add_row(point.name, str(point.threads), f"{point.wall.p50:.1f}", shown)
        console.print(table)
    if results.streaming:
        console.print(_streaming(results))
    if results.streams:
        console.print(_streams(results))
    for line in notes(results):
        console.print(line)


def notes(results: LatencyResults) -> list[str]:
    """What must not be overlooked, one line each."""
    lines = [_peak_line(results.peaks[-1])] if results.peaks else []
    lines.append(f"energy: {results.energy}")
    low, high = results.load_average
    quiet = "" if (results.others or 0) <= QUIET else ": not quiet, trust ratios before milliseconds"
    others = "" if results.others is None else f"; others used {results.others:.0%} of its CPU time{quiet}"
    stolen = f"; {results.stolen:.0%} was stolen by other virtual machines" if results.stolen else ""
    lines.append(f"load of the machine {low:g} before, {high:g} after{others}{stolen}")
    lines.append(f"measured in {results.seconds:.0f} s")
    unstable = [arm.name for arm in results.arms if not arm.stable]
    if unstable:
        lines.append(f"UNSTABLE (three successive windows differ by more than 10 %): {', '.join(unstable)}")
    for absent in results.absent:
        lines.append(f"{'failed' if absent.crashed else 'unavailable'}: {absent.name}: {absent.reason}")
    return lines


def _steady(title: str, arms: Sequence[ArmResult]) -> Table:
    against = f"x {arms[0].name}"
    columns = ("p50, ms", "p95", "p99", "jitter", against, "CPU ms", "x CPU", "RTF", "of peak", "of roof")
    table = _table(title, "arm", *columns, "differs")
    for arm in arms:
        roof = arm.roofline
        table.add_row(
            arm.name + ("" if arm.stable else " (unstable)"),
            f"{arm.wall.p50:.1f}",
            _number(arm.wall.p95),
            _number(arm.wall.p99),
            _number(arm.wall.jitter),
            _ratio(arm.ratio),
            f"{arm.cpu.p50:.1f}",
            f"{arm.cpu_ratio.estimate:.3f}",
            f"{arm.real_time_factor:.3f}",
            "-" if roof is None else f"{roof.share_of_peak:.0%} {roof.precision}",
            "-" if roof is None else f"{roof.share:.0%}",
            "-" if arm.difference is None else f"{arm.difference:.0e}",
        )
    return table


def _start(arms: Sequence[ArmResult]) -> Table:
    energy = ["J a window"] if any(arm.joules is not None for arm in arms) else []
    card = ["card, MB"] if any(arm.device_memory is not None for arm in arms) else []
    columns = ("load, s", "again", "first run, ms", "peak MB", "anonymous", "mapped", "runs", *card, *energy)
    table = _table("Start and memory, each arm in a process of its own", "arm", *columns)
    for arm in arms:
        again = f"{min(arm.load[1:]):.2f}" if len(arm.load) > 1 else "-"
        cells = [f"{arm.load[0]:.2f}", again, f"{1e3 * arm.first_run[0]:.0f}", _mega(arm.memory.peak)]
        cells += [_mega(arm.memory.anonymous), _mega(arm.memory.mapped), str(arm.wall.samples)]
        cells += [_mega(arm.device_memory)] if card else []
        cells += ["-" if arm.joules is None else f"{arm.joules:.2f}"] if energy else []
        table.add_row(arm.name, *cells)
    return table


def _throughput(arms: Sequence[ArmResult], batches: Sequence[int]) -> Table:
    table = _table("Windows a second, by batch (in brackets: of the GEMM peak)", "arm", *map(str, batches))
    for arm in arms:
        found = {point.batch: point for point in arm.throughput}
        table.add_row(arm.name, *(_rate(found.get(batch)) for batch in batches))
    return table


def _rate(point: Throughput | None) -> str:
    if point is None:
        return "-"
    share = "" if point.roofline is None else f" ({point.roofline.share_of_peak:.0%})"
    return f"{point.windows_per_second:.3g}{share}"


def _streaming(results: LatencyResults) -> Table:
    hop = results.plan.hop
    against = f"x window of {results.reference}"
    columns = ("p50, ms", "p99", against, "CPU ms", "RTF", "paced p50, ms", "paced p99", "hops late")
    title = f"One stream, a hop of {hop:g} s: as fast as it goes, and in real time"
    table = _table(title, "bundle", *columns)
    for stream in results.streaming:
        paced = stream.paced
        table.add_row(
            stream.name,
            f"{stream.saturated.p50:.1f}",
            _number(stream.saturated.p99, stream.saturated.largest),
            "-" if stream.ratio is None else _ratio(stream.ratio),
            f"{stream.saturated_cpu:.1f}",
            f"{stream.real_time_factor:.3f}",
            f"{paced.latency.p50:.1f}",
            _number(paced.latency.p99, paced.latency.largest),
            f"{paced.late:.0%}",
        )
    return table


def _streams(results: LatencyResults) -> Table:
    title = f"Streams at once in real time, a hop of {results.plan.hop:g} s (p99 within the hop)"
    table = _table(title, "bundle", "fit", "do not", "p99 of those that fit, ms", "busy", "peak MB")
    for found in results.streams:
        best = max((trial for trial in found.trials if trial.fits), key=lambda t: t.streams, default=None)
        table.add_row(
            found.name,
            str(found.fit),
            "-" if found.fail is None else str(found.fail),
            "-" if best is None else _number(best.latency.p99, best.latency.largest),
            "-" if best is None else f"{best.busy:.0%}",
            _mega(found.memory.peak),
        )
    return table


def _peak_line(peaks: Peaks) -> str:
    gemm = (f"{name} {peak.per_second / 1e9:,.0f} GFLOP/s ({peak.by})" for name, peak in peaks.gemm.items())
    copy = f"copy {peaks.copy.per_second / 1e9:.1f} GB/s ({peaks.copy.by})"
    return f"measured peaks: {', '.join([*gemm, copy])}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left", overflow="fold")
    return table


def _ratio(found: Ratio) -> str:
    if found.low == found.high == 1:
        return "1"
    return f"{found.estimate:.3f} ({found.low:.3f}-{found.high:.3f})"


def _number(value: float | None, largest: float | None = None) -> str:
    """A percentile; where runs are too few for it, the largest with a sign that says so."""
    if value is None:
        return "-" if largest is None else f"<={largest:.1f}"
    return f"{value:.1f}"


def _mega(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:,.0f}"
