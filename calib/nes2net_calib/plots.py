"""DET curves, histograms of llrs, reliability of probabilities: each as one figure of all rules, or of one.

Figures are drawn without pyplot, so that no state is shared and no display is needed.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image
from scipy.special import expit, logit, ndtri
from scipy.stats import binomtest
from sklearn.metrics import roc_curve

from nes2net_calib.metrics import Scores
from nes2net_calib.rules import CalibratedRule
from nes2net_calib.thresholds import why

Draw = Callable[[Axes, CalibratedRule], None]

RULES = {
    "first": "#0067b1",
    "full": "#b8447e",
    "windows": "#00836b",
    "early": "#9a6700",
}  # apart for the colour-blind, too
BONAFIDE, SPOOF = "#2a7fb8", "#d95f02"
INK, FAINT = "#24292f", "#8b949e"
STYLE: Any = {
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "svg.fonttype": "none",
    "svg.hashsalt": "nes2net",
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}
RATES = np.array([0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8])
FINEST = 0.008  # normal deviates: what no eye sees of a curve
PROBABILITIES = np.array([0.999, 0.99, 0.9, 0.5, 0.1, 0.01, 0.001])


def det_figure(rules: Sequence[CalibratedRule]) -> Figure:
    """Both error rates at every threshold, one curve a rule, on normal-deviate axes."""
    with rc_context(STYLE):
        figure = Figure(figsize=(5, 4.8))
        axes = figure.subplots()
        limits = det_axes(axes, min(min(rule.bonafide.size, rule.spoof.size) for rule in rules))
        for rule in rules:
            _det_curve(axes, rule)
        _det_labels(axes, rules, limits)
        return figure


def det_axes(axes: Axes, fewest: int) -> tuple[float, float]:
    """Normal-deviate axes of both error rates, down to one error in `fewest` trials; returns their limits."""
    low = max((rate for rate in RATES if rate <= 1 / fewest), default=RATES[0])
    limits = float(ndtri(low)), float(ndtri(0.6))
    rates = RATES[(low <= RATES) & (RATES <= 0.6)]
    ticks = rates[_readable(ndtri(rates), 0.065 * (limits[1] - limits[0]))]
    for set_ticks in (axes.set_xticks, axes.set_yticks):
        set_ticks(ndtri(ticks), [f"{100 * tick:g} %" for tick in ticks])
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.set(xlabel="spoof accepted", ylabel="bona fide rejected")
    axes.plot(limits, limits, color=FAINT, lw=0.6, ls=(0, (4, 4)))
    axes.grid(color="#eaeef2", lw=0.6)
    return limits


def det_points(bonafide: Scores, spoof: Scores) -> NDArray[np.float64]:
    """Rates of spoof accepted and bona fide rejected, [2, points], without points that no eye tells apart.

    Rates of 0 and 1 are half an error away from them, as the axes have no place for these.
    """
    scores = np.concatenate([bonafide, spoof])
    accepted, detected, _ = roc_curve(np.arange(scores.size) < bonafide.size, scores)
    smallest = 0.5 / scores.size
    rates = np.clip([accepted, 1 - detected], smallest, 1 - smallest)
    steps = np.diff(np.round(ndtri(rates) / FINEST), prepend=np.inf).any(axis=0)
    return np.asarray(rates[:, steps])


def _det_curve(axes: Axes, rule: CalibratedRule) -> None:
    smallest = 0.5 / (rule.bonafide.size + rule.spoof.size)
    curve = ndtri(det_points(rule.bonafide, rule.spoof))
    colour, eer = RULES[rule.rule], rule.entry.provenance.eer
    axes.plot(*curve, color=colour, lw=1.6, solid_joinstyle="round")
    axes.plot(*[ndtri(max(eer, smallest))] * 2, "o", color=colour, ms=6, mec="white")
    if rule.entry.chosen_by != why("eer"):
        rates = rule.rates.spoof_accepted, rule.rates.bonafide_rejected
        at = ndtri(np.clip(rates, smallest, 1 - smallest))
        axes.plot(*at, "D", color="white", ms=6, mec=colour, mew=1.6)


def _det_labels(axes: Axes, rules: Sequence[CalibratedRule], limits: tuple[float, float]) -> None:
    """In the corner that the curves leave free."""
    labels = [(f"{r.rule}: EER {100 * r.entry.provenance.eer:.1f} %", RULES[r.rule]) for r in rules]
    if (chosen_by := rules[0].entry.chosen_by) != why("eer"):
        labels.append((f"\u25c7 {chosen_by}", INK))
    lower_left = ndtri(np.mean([r.entry.provenance.eer for r in rules])) > np.mean(limits)
    for i, (text, colour) in enumerate(labels):
        x, y = (0.04, 0.055 * (len(labels) - i) - 0.01) if lower_left else (0.97, 0.94 - 0.055 * i)
        side = "left" if lower_left else "right"
        axes.text(x, y, text, color=colour, ha=side, weight="bold", transform=axes.transAxes)


def scores_figure(rules: Sequence[CalibratedRule]) -> Figure:
    """Histograms of the llrs of both classes, and the threshold; a panel a rule."""
    return _panels(rules, draw_scores, rows=len(rules), size=(6, 2.2))


def draw_scores(axes: Axes, rule: CalibratedRule) -> None:
    """One panel of `scores_figure`."""
    bonafide, spoof = rule.llr.llr(rule.bonafide), rule.llr.llr(rule.spoof)
    threshold, prior = rule.entry.threshold, rule.entry.prior_spoof
    low, high = np.quantile(np.concatenate([bonafide, spoof]), [0.002, 0.998])
    edges = np.linspace(min(low, threshold - 0.5), max(high, threshold + 0.5), 41)
    peak = 0.0
    for llrs, colour in ((bonafide, BONAFIDE), (spoof, SPOOF)):
        counts, _ = np.histogram(np.clip(llrs, edges[0], edges[-1]), edges)
        share = 100 * counts / llrs.size
        axes.stairs(share, edges, color=colour, fill=True, alpha=0.35)
        axes.stairs(share, edges, color=colour, lw=1.2)
        peak = max(peak, share.max())
    axes.axvline(threshold, color=INK, lw=1.2)
    for text, colour, x, y in (
        ("bona fide \u2192", BONAFIDE, 5, 0.97),
        ("\u2190 spoof", SPOOF, -5, 0.97),
        (f"from llr {threshold:+.2f} on", INK, 5, 0.84),
    ):
        axes.annotate(
            text,
            (threshold, y),
            (x, 0),
            xycoords=axes.get_xaxis_transform(),
            textcoords="offset points",
            color=colour,
            ha="left" if x > 0 else "right",
            va="top",
            size=8 if colour == INK else 9,
            weight="normal" if colour == INK else "bold",
        )
    margin = 0.02 * (edges[-1] - edges[0])
    axes.set(xlim=(edges[0] - margin, edges[-1] + margin), ylim=(0, 1.45 * peak))
    axes.set(xlabel="llr", ylabel="% of each class")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    shift = np.log(prior / (1 - prior))
    llrs = shift - logit(PROBABILITIES)
    inside = np.flatnonzero((llrs > edges[0]) & (llrs < edges[-1]))
    shown = inside[_readable(llrs[inside], 0.09 * (edges[-1] - edges[0]))]
    top = axes.secondary_xaxis("top")
    top.set_xticks(llrs[shown], [f"{100 * p:g} %" for p in PROBABILITIES[shown]])
    top.set_xlabel(f"p_spoof, where {100 * prior:g} % are spoofs")


def _readable(positions: Scores, apart: float) -> list[int]:
    """Which of these rising positions have room for a label, from the first on."""
    shown: list[int] = []
    for i, position in enumerate(positions):
        if not shown or position - positions[shown[-1]] >= apart:
            shown.append(i)
    return shown


def reliability_figure(rules: Sequence[CalibratedRule]) -> Figure:
    """Whether as many are spoofs as p_spoof says, before and after; a panel a rule."""
    return _panels(rules, draw_reliability, rows=1, size=(3.2, 3.4))


def draw_reliability(axes: Axes, rule: CalibratedRule) -> None:
    """One panel of `reliability_figure`."""
    axes.plot([0, 100], [0, 100], color=FAINT, lw=0.6, ls=(0, (4, 4)))
    prior = rule.entry.prior_spoof
    for llr, colour, name in ((np.asarray, FAINT, "before"), (rule.llr.llr, RULES[rule.rule], "after")):
        said, seen, low, high = reliability(llr(rule.bonafide), llr(rule.spoof), prior)
        axes.errorbar(
            100 * said,
            100 * seen,
            100 * np.array([seen - low, high - seen]),
            color=colour,
            fmt="o-",
            mec="white",
            ms=5.5,
            lw=1.2,
            elinewidth=0.9,
            label=f"{name}: Cllr {getattr(rule.entry.provenance, f'cllr_{name}'):.2f}",
        )
    ticks = range(0, 101, 25)
    axes.set(xlim=(-3, 103), ylim=(-3, 103), aspect="equal", xticks=ticks, yticks=ticks)
    axes.set(xlabel="p_spoof said, %", ylabel="were spoofs, %")
    axes.legend(fontsize=8, loc="best", handlelength=1.4, framealpha=0.8, edgecolor="none")


def reliability(
    bonafide_llr: Scores, spoof_llr: Scores, prior_spoof: float
) -> tuple[NDArray[np.float64], ...]:
    """p_spoof as it is said, and the share of spoofs seen, with its 95 % interval, in bins of equal counts.

    The set is weighted to the prior's share of spoofs. The intervals are Wilson's, of a bin's own counts, and
    shifted to that share.
    """
    llrs = np.concatenate([bonafide_llr, spoof_llr])
    is_spoof = np.arange(llrs.size) >= bonafide_llr.size
    shift = logit(prior_spoof)
    weights = np.where(is_spoof, prior_spoof / spoof_llr.size, (1 - prior_spoof) / bonafide_llr.size)
    own_share = logit(spoof_llr.size / llrs.size)
    points = []
    for members in np.array_split(np.argsort(llrs, kind="stable"), np.clip(llrs.size // 25, 4, 10)):
        said = np.average(expit(shift - llrs[members]), weights=weights[members])
        spoofs = int(is_spoof[members].sum())
        around = binomtest(spoofs, members.size).proportion_ci(method="wilson")
        with np.errstate(divide="ignore"):
            seen = expit(logit([spoofs / members.size, around.low, around.high]) - own_share + shift)
        points.append([said, *seen])
    said, seen, low, high = np.array(points).T
    return said, seen, np.minimum(low, seen), np.maximum(high, seen)


def one_panel(rule: CalibratedRule, draw: Draw, size: tuple[float, float]) -> Figure:
    """A figure of one rule."""
    with rc_context(STYLE):
        figure = Figure(figsize=size)
        draw(figure.subplots(), rule)
        return figure


def _panels(rules: Sequence[CalibratedRule], draw: Draw, rows: int, size: tuple[float, float]) -> Figure:
    columns = -(-len(rules) // rows)
    with rc_context(STYLE):
        figure = Figure(figsize=(size[0] * columns, size[1] * rows))
        for axes, rule in zip(figure.subplots(rows, columns, squeeze=False).flat, rules, strict=True):
            draw(axes, rule)
            axes.set_title(rule.rule, color=RULES[rule.rule])
        return figure


def png(figure: Figure) -> bytes:
    """A picture, small enough for a repository."""
    out = io.BytesIO()
    with rc_context(STYLE):
        figure.savefig(out, dpi=150)
    small = io.BytesIO()
    Image.open(out).convert("RGB").quantize(192).save(small, "PNG", optimize=True)
    return small.getvalue()


def svg(figure: Figure) -> str:
    """An <svg> element that a page holds; its text is text, in the page's own font."""
    out = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    return text[text.index("<svg") :].replace("'DejaVu Sans', ", "")
