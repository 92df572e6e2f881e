"""Plots of work: multiply-accumulates by stage and layer, and the roofline with what is under it."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nes2net_bench.latency.orders import Peaks
from nes2net_bench.latency.results import ArmResult
from nes2net_bench.latency.roofline import Roofline
from nes2net_bench.report.plots import (
    BLUE,
    FAINT,
    GREEN,
    GRID,
    INK,
    OCHRE,
    PAPER,
    PINK,
    VIOLET,
    figure,
    legend_above,
    row_height,
    rows,
    style,
)
from nes2net_bench.report.plots_latency import KINDS, markers, plain

OF_KIND = {"convolution": OCHRE, "linear": BLUE, "attention": PINK}
OF_PRECISION = {"fp32": INK, "fp16": VIOLET, "bf16": GREEN, "int8": PINK}
ROOM = 3.0  # times around the points of a roofline


def stages(by_kind: Mapping[str, Mapping[str, int]]) -> Figure:
    """Share of a window's MACs of each stage, by kind of product."""
    with style():
        made, axes = figure(row_height(len(by_kind), 0.42))
        whole = sum(sum(kinds.values()) for kinds in by_kind.values())
        for row, kinds in enumerate(by_kind.values()):
            left = 0.0
            for kind, colour in OF_KIND.items():
                share = 100 * kinds.get(kind, 0) / whole
                axes.barh(row, share, 0.6, left=left, color=colour)
                left += share
            label = f"{left:.1f} %" if left >= 0.1 else f"{left:.2f} %"
            axes.annotate(label, (left, row), (4, 0), textcoords="offset points", va="center", size=8)
        rows(axes, list(by_kind))
        axes.set_xlim(0, 112)
        axes.set_xlabel("% of a window's MACs")
        for kind, colour in OF_KIND.items():
            axes.barh([0], [0], color=colour, label=kind)
        legend_above(axes, 3)
        return made


def layers(named: Sequence[tuple[str, str, int]], whole: int) -> Figure:
    """(name, kind, MACs) of the largest groups of layers."""
    with style():
        made, axes = figure(row_height(len(named), 0.26))
        for row, (_, kind, macs) in enumerate(named):
            share = 100 * macs / whole
            axes.barh(row, share, 0.66, color=OF_KIND[kind])
            axes.annotate(
                f"{share:.2g} %", (share, row), (4, 0), textcoords="offset points", va="center", size=8
            )
        rows(axes, [name for name, _, _ in named])
        axes.set_xlim(0, 1.15 * max(100 * macs / whole for _, _, macs in named))
        axes.set_xlabel("% of a window's MACs")
        return made


def roofline(peaks: Peaks, arms: Sequence[ArmResult]) -> Figure:
    """What the machine can do at all, and where each arm is, at each batch."""
    with style():
        made, axes = figure(4.4)
        placed = [
            (arm, found.operations / found.weights, found.per_second / 1e9, i == 0)
            for arm in arms
            for i, found in enumerate(_places(arm))
        ]
        marks = markers(arms)
        roofs = {name: peak.per_second / 1e9 for name, peak in peaks.gemm.items()}
        copy = peaks.copy.per_second / 1e9
        low = min([x for _, x, _, _ in placed], default=10.0) / ROOM
        high = max([x for _, x, _, _ in placed], default=1000.0) * 2 * ROOM
        low = min(low, min(roofs.values()) / copy / ROOM)
        x = np.geomspace(low, high, 200)
        bottom = min([y for _, _, y, _ in placed], default=min(roofs.values())) / ROOM
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(bottom, 2.2 * max(roofs.values()))
        for name, peak in roofs.items():
            axes.plot(x, np.minimum(peak, copy * x), color=OF_PRECISION.get(name, FAINT), lw=1.4)
        _roof_names(axes, roofs, high)
        axes.annotate(
            f"memory, {copy:.0f} GB/s", (low, max(bottom, copy * low)), (6, -4), textcoords="offset points",
            size=8, va="top",
        )  # fmt: skip
        for arm, at, done, first in placed:
            colour = KINDS.get(arm.kind, INK)
            face, size = (colour, 6.0) if first else (PAPER, 4.5)
            label = arm.name if first else None
            axes.plot(at, done, marks[arm.name], ls="", ms=size, color=face, mec=colour, mew=1.1, label=label)
        plain(axes, "x")
        plain(axes, "y")
        legend_above(axes, 2)
        axes.set(xlabel="operations for each byte of weights", ylabel="billion operations a second")
        axes.grid(color=GRID, lw=0.7)
        return made


def _places(arm: ArmResult) -> list[Roofline]:
    """The first batch's, then those of larger ones."""
    larger = [point.roofline for point in arm.throughput[1:]]
    return [found for found in (arm.roofline, *larger) if found is not None]


def _roof_names(axes: Axes, roofs: Mapping[str, float], right: float) -> None:
    """At the right end of each roof; names of roofs that are close stand above each other."""
    low, high = np.log(axes.get_ylim())
    before = -np.inf
    for name, peak in sorted(roofs.items(), key=lambda item: item[1]):
        at = max((np.log(peak) - low) / (high - low) + 0.01, before + 0.05)
        before = at
        axes.annotate(
            f"{name}, {peak:,.0f}", (1, at), (-2, 0), xycoords="axes fraction", textcoords="offset points",
            ha="right", va="bottom", size=8, color=OF_PRECISION.get(name, INK), weight="bold",
        )  # fmt: skip
