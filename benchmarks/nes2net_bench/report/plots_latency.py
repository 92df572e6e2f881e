"""Plots of latency: distributions, ratios, starts, batches, threads, memory, streams."""

from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from nes2net_bench.latency.results import ArmResult, StreamsResult, ThreadPoint
from nes2net_bench.latency.timing import Ratio
from nes2net_bench.report.plots import (
    BLUE,
    FAINT,
    GREEN,
    GRID,
    INK,
    OCHRE,
    ORANGE,
    PAPER,
    PINK,
    SERIES,
    VIOLET,
    figure,
    legend_above,
    row_height,
    rows,
    style,
)

KINDS = {"bundle": BLUE, "eager": INK, "compile": VIOLET, "openvino": GREEN, "plain": OCHRE}
MARKERS = "osD^vPX*"
FLAT = 4.0  # times: values further apart are on a logarithmic axis


def distributions(arms: Sequence[ArmResult]) -> Figure:
    """Each arm's runs: from the fastest to the slowest, its percentiles, and the medians of rounds."""
    with style():
        made, axes = figure(row_height(len(arms), 0.42))
        for row, arm in enumerate(arms):
            colour, wall = KINDS.get(arm.kind, INK), arm.wall
            axes.plot([wall.least, wall.largest], [row, row], color=FAINT, lw=1)
            if wall.p95 is not None:
                axes.plot([wall.least, wall.p95], [row, row], color=colour, lw=7, alpha=0.28)
            for i, value in enumerate(arm.rounds):
                offset = 0.09 * ((i * 7) % 5 - 2)  # beside each other, the same in every drawing
                axes.plot(value, row + offset, "o", ms=2.2, color=colour, alpha=0.55, mew=0)
            axes.plot(wall.p50, row, "|", ms=17, mew=2.2, color=colour)
            if wall.p99 is not None:
                axes.plot(wall.p99, row, "D", ms=4.5, color=PAPER, mec=colour, mew=1.3)
        rows(axes, [arm.name + ("" if arm.stable else "\n(unstable)") for arm in arms])
        _times(axes, [arm.wall.least for arm in arms], [arm.wall.largest for arm in arms])
        axes.set_xlabel("milliseconds a window")
        for label, marker in (("median", "|"), ("p99", "D")):
            axes.plot([], [], marker, color=PAPER if marker == "D" else INK, mec=INK, mew=1.4, label=label)
        axes.plot([], [], color=INK, lw=6, alpha=0.28, label="fastest to p95")
        axes.plot([], [], "o", ms=3, color=INK, alpha=0.6, mew=0, label="rounds")
        legend_above(axes)
        return made


def ratios(arms: Sequence[ArmResult], reference: str) -> Figure:
    """Each arm's time over the reference's, with its interval; wall and CPU time."""
    with style():
        made, axes = figure(row_height(len(arms), 0.4))
        every: list[Ratio] = []
        for row, arm in enumerate(arms):
            colour = KINDS.get(arm.kind, INK)
            for found, dy, face in ((arm.ratio, -0.12, colour), (arm.cpu_ratio, 0.16, PAPER)):
                every.append(found)
                at = row + dy
                axes.plot([found.low, found.high], [at, at], color=colour, lw=1.6, solid_capstyle="butt")
                axes.plot(found.estimate, at, "o", ms=5, color=face, mec=colour, mew=1.3)
        axes.axvline(1, color=FAINT, lw=1, ls=(0, (4, 3)))
        rows(axes, [arm.name for arm in arms])
        _times(axes, [found.low for found in every], [found.high for found in every])
        axes.set_xlabel(f"times {reference}: further left is faster")
        axes.plot([], [], "o-", ms=5, color=INK, label="wall time")
        axes.plot([], [], "o-", ms=5, color=INK, mfc=PAPER, label="CPU time")
        legend_above(axes)
        return made


def starts(arms: Sequence[ArmResult]) -> Figure:
    """From nothing loaded to ready, the first run, and the steady state."""
    with style():
        made, axes = figure(row_height(len(arms)))
        phases = (("load", "s", ORANGE), ("first run", "D", PINK), ("steady state", "o", BLUE))
        every: list[float] = []
        for row, arm in enumerate(arms):
            values = 1e3 * min(arm.load), 1e3 * min(arm.first_run), arm.wall.p50
            every += values
            axes.plot([min(values), max(values)], [row, row], color=FAINT, lw=0.8)
            for value, (_, marker, colour) in zip(values, phases, strict=True):
                axes.plot(value, row, marker, ms=6, color=colour, mec=PAPER, mew=0.8)
        rows(axes, [arm.name for arm in arms])
        _times(axes, every, every)
        axes.set_xlabel("milliseconds (the best of fresh processes)")
        for label, marker, colour in phases:
            axes.plot([], [], marker, ms=6, color=colour, label=label)
        legend_above(axes)
        return made


def batches(arms: Sequence[ArmResult]) -> Figure:
    """Windows a second by batch."""
    with style():
        made, axes = figure(3.4)
        marks = markers(arms)
        for arm in arms:
            at = sorted(arm.throughput, key=lambda point: point.batch)
            axes.plot(
                [point.batch for point in at], [point.windows_per_second for point in at], marks[arm.name],
                ls="-", ms=5, lw=1.3, mec=PAPER, mew=0.6, color=KINDS.get(arm.kind, INK), label=arm.name,
            )  # fmt: skip
        sizes = sorted({point.batch for arm in arms for point in arm.throughput})
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_ylim(bottom=0)
        axes.set(xlabel="windows at once", ylabel="windows a second")
        axes.grid(axis="y", color=GRID, lw=0.7)
        legend_above(axes, 2)
        return made


def threads(points: Sequence[ThreadPoint]) -> Figure:
    """How many times faster with more threads."""
    with style():
        made, axes = figure(3.2)
        most = max(point.threads for point in points)
        axes.plot([1, most], [1, most], color=FAINT, lw=1, ls=(0, (4, 3)), label="as many times faster")
        for i, name in enumerate(dict.fromkeys(point.name for point in points)):
            own = sorted((p for p in points if p.name == name), key=lambda point: point.threads)
            at = [point.threads for point in own]
            middle = [1 / point.speedup.estimate for point in own]
            low = [m - 1 / point.speedup.high for m, point in zip(middle, own, strict=True)]
            high = [1 / point.speedup.low - m for m, point in zip(middle, own, strict=True)]
            axes.errorbar(
                at, middle, [low, high], fmt="o-", ms=5, lw=1.5, color=SERIES[i % len(SERIES)], label=name
            )
        axes.set_xticks(sorted({point.threads for point in points}))
        axes.set(xlabel="threads", ylabel="times faster than with one")
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color=GRID, lw=0.7)
        legend_above(axes, 2)
        return made


def memory(arms: Sequence[ArmResult]) -> Figure:
    """What a process holds after all runs, and the most that it ever held."""
    with style():
        made, axes = figure(row_height(len(arms)))
        for row, arm in enumerate(arms):
            own, mapped = (arm.memory.anonymous or 0) / 1e6, (arm.memory.mapped or 0) / 1e6
            axes.barh(row, own, 0.56, color=BLUE)
            axes.barh(row, mapped, 0.56, left=own, color=BLUE, alpha=0.3)
            axes.plot(arm.memory.peak / 1e6, row, "|", ms=15, mew=2, color=INK)
        rows(axes, [arm.name for arm in arms])
        axes.set_xlim(left=0)
        axes.set_xlabel("MB of a process of its own")
        axes.barh([0], [0], color=BLUE, label="anonymous (RssAnon)")
        axes.barh([0], [0], color=BLUE, alpha=0.3, label="mapped files")
        axes.plot([], [], "|", ms=11, mew=2, color=INK, label="peak (VmHWM)")
        legend_above(axes, 3)
        return made


def streams(found: Sequence[StreamsResult]) -> Figure:
    """How late scores are, by the number of streams at once."""
    with style():
        made, axes = figure(3.2)
        hop = 1e3 * found[0].hop
        for i, one in enumerate(found):
            colour = SERIES[i % len(SERIES)]
            trials = sorted(one.trials, key=lambda trial: trial.streams)
            late = [trial.latency.p99 or trial.latency.largest for trial in trials]
            axes.plot([trial.streams for trial in trials], late, color=colour, lw=1.2, label=one.name)
            for trial, value in zip(trials, late, strict=True):
                face = colour if trial.fits else PAPER
                axes.plot(trial.streams, value, "o", ms=6, color=face, mec=colour, mew=1.4)
        axes.axhline(hop, color=INK, lw=1, ls=(0, (4, 3)))
        axes.annotate("the hop", (0, hop), (3, 3), xycoords=axes.get_yaxis_transform(),
                      textcoords="offset points", size=8)  # fmt: skip
        axes.set_yscale("log")
        plain(axes, "y")
        axes.set(xlabel="streams at once", ylabel="p99 from sound to score, ms")
        axes.grid(color=GRID, lw=0.7)
        legend_above(axes, 2)
        return made


def markers(arms: Sequence[ArmResult]) -> dict[str, str]:
    """Arms of one kind, and so of one colour, are told apart by their markers."""
    of_kind: Counter[str] = Counter()
    found = {}
    for arm in arms:
        found[arm.name] = MARKERS[of_kind[arm.kind] % len(MARKERS)]
        of_kind[arm.kind] += 1
    return found


def _times(axes: Axes, lows: Sequence[float], highs: Sequence[float]) -> None:
    """From zero where values are alike, else logarithmic."""
    if max(highs) < FLAT * min(lows):
        axes.set_xlim(0, 1.05 * max(highs))
        return
    axes.set_xscale("log")
    axes.set_xlim(min(lows) / 1.25, max(highs) * 1.25)
    plain(axes, "x")


def plain(axes: Axes, which: str) -> None:
    """Numbers as people write them; between powers of ten where there are few of these."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axes.get_xlim() if which == "x" else axes.get_ylim())
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < 300 else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())
