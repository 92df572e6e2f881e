"""Plots of accuracy: drift with its intervals, and accuracy against what it costs."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nes2net_bench.drift.intervals import Interval
from nes2net_bench.drift.measure import Comparison
from nes2net_bench.report.plots import (
    BLUE,
    FAINT,
    GRID,
    INK,
    PAPER,
    SERIES,
    figure,
    legend_above,
    row_height,
    rows,
    style,
)


@dataclass(frozen=True)
class Choice:
    """A detector that one might deploy."""

    name: str
    cost: float
    cost_low: float  # of its own spread
    cost_high: float
    eer: float
    interval: Interval | None


def differences(comparisons: Sequence[Comparison], metric: str, unit: str, scale: float) -> Figure:
    """Candidate minus reference, with intervals; a row a segment rule and condition."""
    with style():
        keys = list(dict.fromkeys((c.rule, c.condition) for c in comparisons))
        names = list(dict.fromkeys(c.candidate for c in comparisons))
        made, axes = figure(row_height(len(keys), 0.26 + 0.16 * len(names), 0.9))
        axes.axvline(0, color=FAINT, lw=1, ls=(0, (4, 3)))
        for comparison in comparisons:
            if (found := comparison.metrics.get(metric)) is None:
                continue
            which = names.index(comparison.candidate)
            row = keys.index((comparison.rule, comparison.condition))
            at, colour = row + 0.7 * ((which + 0.5) / len(names) - 0.5), SERIES[which % len(SERIES)]
            if found.difference_interval is not None:
                axes.plot([scale * end for end in found.difference_interval], [at, at], color=colour, lw=1.8)
            axes.plot(scale * found.difference, at, "o", ms=6, color=colour, mec=PAPER, mew=0.8)
        rows(axes, [rule if where == "clean" else f"{rule}, {where}" for rule, where in keys])
        low, high = axes.get_xlim()
        widest = max(abs(low), abs(high), 1e-3 * scale)
        axes.set_xlim(-1.05 * widest, 1.05 * widest)
        axes.set_xlabel(f"{unit}: further left is better than the reference")
        for i, name in enumerate(names):
            axes.plot([], [], "o-", ms=5, color=SERIES[i % len(SERIES)], label=name)
        legend_above(axes, 2)
        return made


def pareto(choices: Sequence[Choice], xlabel: str) -> Figure:
    """Accuracy against cost; the line goes through those that nothing beats in both."""
    with style():
        made, axes = figure(3.6)
        best = front(choices)
        axes.plot(
            [choice.cost for choice in best], [100 * choice.eer for choice in best],
            color=FAINT, lw=1.2, drawstyle="steps-post", zorder=1,
        )  # fmt: skip
        for choice in choices:
            colour = BLUE if choice in best else INK
            eer = 100 * choice.eer
            if choice.interval is not None:
                axes.plot(
                    [choice.cost] * 2, [100 * end for end in choice.interval], color=colour, lw=1, alpha=0.5
                )
            if choice.cost_high > choice.cost_low:
                axes.plot([choice.cost_low, choice.cost_high], [eer, eer], color=colour, lw=1, alpha=0.3)
            face = colour if choice in best else PAPER
            axes.plot(choice.cost, eer, "o", ms=7, color=face, mec=colour, mew=1.4)
        axes.set_xlim(0, 1.3 * max(choice.cost_high for choice in choices))
        tops = [100 * (c.interval[1] if c.interval else c.eer) for c in choices]
        axes.set_ylim(0, 1.12 * max([*tops, 1e-3]))
        _names(axes, choices)
        axes.set(xlabel=xlabel, ylabel="EER, %")
        axes.grid(color=GRID, lw=0.7)
        return made


def front(choices: Sequence[Choice]) -> list[Choice]:
    """Those that no other beats in one and equals in the other, by rising cost."""
    best = [
        one
        for one in choices
        if not any(
            other.cost <= one.cost and other.eer <= one.eer and (other.cost, other.eer) != (one.cost, one.eer)
            for other in choices
        )
    ]
    return sorted(best, key=lambda choice: (choice.cost, choice.eer))


def _names(axes: Axes, choices: Sequence[Choice]) -> None:
    """Right of the points, pushed apart where they would cover each other."""
    _, top = axes.get_ylim()
    _, right = axes.get_xlim()
    before: list[tuple[float, float]] = []
    for choice in sorted(choices, key=lambda choice: -choice.eer):
        x, y = choice.cost / right, 100 * choice.eer / top
        near = [b for a, b in before if abs(a - x) < 0.3]
        place = min([y, *(b - 0.06 for b in near)])
        before.append((x, place))
        axes.annotate(
            choice.name, (choice.cost, 100 * choice.eer), (x + 0.025, place), textcoords="axes fraction",
            va="center", size=8, bbox={"fc": PAPER, "ec": "none", "pad": 0.6, "alpha": 0.85},
            arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkB": 4},
        )  # fmt: skip
