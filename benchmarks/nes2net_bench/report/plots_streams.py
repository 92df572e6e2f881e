"""Plots of streams: what a hop costs, and memory over hours."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from nes2net_bench.report.plots import (
    BLUE,
    FAINT,
    GRID,
    INK,
    ORANGE,
    figure,
    legend_above,
    row_height,
    rows,
    style,
)
from nes2net_bench.streaming import HopCost, Memory


def hop_costs(costs: Mapping[str, HopCost]) -> Figure:
    """CPU time of a hop as a share of it, encoder frames kept or computed anew; a stream has 100 %."""
    with style():
        names = [f"{name}\n{way}" for name in costs for way in ("frames kept", "windows whole")]
        made, axes = figure(row_height(len(names), 0.42))
        for i, cost in enumerate(costs.values()):
            for j, (encoder, whole) in enumerate(
                ((cost.encoder_new, cost.hop_kept), (cost.encoder_whole, cost.hop_whole))
            ):
                row, scale = 2 * i + j, 1 / (10 * cost.hop_seconds)
                axes.barh(row, encoder * scale, 0.56, color=ORANGE)
                axes.barh(row, max(whole.p50 - encoder, 0) * scale, 0.56, left=encoder * scale, color=BLUE)
                label = f"{whole.p50:,.1f} ms" if whole.p50 < 100 else f"{whole.p50:,.0f} ms"
                end = max(whole.p50, encoder) * scale
                axes.annotate(label, (end, row), (4, 0), textcoords="offset points", va="center", size=8)
        rows(axes, names)
        axes.set_xlim(0, 1.2 * axes.get_xlim()[1])
        axes.axvline(100, color=FAINT, lw=1, ls=(0, (4, 3)))
        axes.set_xlabel("CPU time, % of the hop: 100 is one core all the time")
        axes.barh([0], [0], color=ORANGE, label="encoder")
        axes.barh([0], [0], color=BLUE, label="the rest")
        legend_above(axes)
        return made


def memory(found: Memory) -> Figure:
    """Resident memory over simulated hours."""
    with style():
        made, axes = figure(2.8)
        axes.plot(
            [hour for hour, _ in found.samples], [size / 1e6 for _, size in found.samples], color=BLUE, lw=1.3
        )
        axes.set_ylim(0, 1.15 * found.peak / 1e6)
        axes.set_xlim(0, found.hours)
        axes.set(xlabel="simulated hours", ylabel="resident, MB")
        axes.grid(axis="y", color=GRID, lw=0.7)
        axes.annotate(
            f"{100 * found.growth:+.1f} % since it settled", (found.hours, found.last / 1e6), (-2, -14),
            textcoords="offset points", ha="right", color=INK, size=8,
        )  # fmt: skip
        return made
