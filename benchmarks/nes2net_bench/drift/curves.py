"""DET curves of several bundles over each other: as points, and as figures in calibration's style."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.figure import Figure
from scipy.special import ndtri

from nes2net_calib.metrics import Scores, equal_error_rate
from nes2net_calib.plots import INK, RULES, STYLE, det_axes, det_points
from nes2net_runtime.segments import SegmentRule

COLOURS = (INK, RULES["first"], RULES["full"], RULES["windows"], RULES["early"])  # the reference's first
DIGITS = 5  # of rates


@dataclass(frozen=True)
class Curve:
    """One bundle's errors at every threshold."""

    system: str
    rule: SegmentRule
    condition: str
    bonafide: int
    spoof: int
    eer: float
    spoof_accepted: tuple[float, ...]
    bonafide_rejected: tuple[float, ...]


def curve(system: str, rule: SegmentRule, condition: str, bonafide: Scores, spoof: Scores) -> Curve:
    """The curve of two lists of scores; points that no eye tells apart are left out."""
    accepted, rejected = (
        tuple(round(float(rate), DIGITS) for rate in rates) for rates in det_points(bonafide, spoof)
    )
    eer = equal_error_rate(bonafide, spoof).rate
    return Curve(system, rule, condition, bonafide.size, spoof.size, eer, accepted, rejected)


def det_figure(curves: Sequence[Curve]) -> Figure:
    """One panel for each segment rule and condition; the reference solid, candidates dashed over it."""
    panels = list(dict.fromkeys((curve.rule, curve.condition) for curve in curves))
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with rc_context(STYLE):
        figure = Figure(figsize=(5 * columns, 4.8 * rows))
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for panel, (rule, condition) in zip(axes, panels, strict=False):
            own = [curve for curve in curves if (curve.rule, curve.condition) == (rule, condition)]
            det_axes(panel, min(min(curve.bonafide, curve.spoof) for curve in own))
            for i, one in enumerate(own):
                panel.plot(
                    ndtri(one.spoof_accepted),
                    ndtri(one.bonafide_rejected),
                    color=COLOURS[i % len(COLOURS)],
                    lw=2.2 if i == 0 else 1.4,
                    ls="-" if i == 0 else (0, (5, 2 + i)),
                    label=f"{one.system}: EER {100 * one.eer:.2f} %",
                )
            panel.set_title(rule if condition == "clean" else f"{rule}, {condition}")
            panel.legend(fontsize=8, loc="best", handlelength=2.6, framealpha=0.8, edgecolor="none")
        for panel in axes[len(panels) :]:
            panel.set_axis_off()
        return figure
