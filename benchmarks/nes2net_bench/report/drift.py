"""Drift on labelled audio as sections of a report."""

from collections.abc import Iterator, Sequence

from matplotlib.figure import Figure

from nes2net_bench.drift.curves import Curve, det_figure
from nes2net_bench.drift.intervals import Paired
from nes2net_bench.drift.measure import METRICS, Comparison
from nes2net_bench.drift.results import DriftReport
from nes2net_bench.report import plots_accuracy
from nes2net_bench.report.content import NONE, Picture, Section, Table, mega, percent, table
from nes2net_bench.report.plots import style

CLEAN = "clean"


def drift_lede(report: DriftReport) -> str:
    """What was compared, in one line."""
    names = ", ".join(f"{one.name} ({one.precision})" for one in report.candidates)
    reference = report.reference
    return (
        f"{names} beside {reference.name} ({reference.precision}) on {listed(report)}, "
        f"{report.protocol.trials} trials, {report.provider}"
    )


def listed(report: DriftReport) -> str:
    """The list's name."""
    protocol = report.protocol
    return protocol.name if protocol.split is None else f"{protocol.name}, split {protocol.split}"


def drift_sections(report: DriftReport) -> Iterator[Section]:
    """Error rates, decisions, DET curves, attacks."""
    comparisons = report.comparisons
    names = [one.name for one in report.candidates]
    pictures = [
        Picture(
            plots_accuracy.differences(comparisons, "eer", "difference of EER, percentage points", 100),
            " ".join(map(_in_words, comparisons)),
        )
    ]
    if any(comparison.calibrated for comparison in comparisons):
        pictures.append(
            Picture(
                plots_accuracy.differences(comparisons, "cllr", "difference of Cllr, bits", 1),
                "The same for Cllr; the table has the figures.",
            )
        )
    yield Section(
        "Error rates, paired",
        "Both heard the same trials. Intervals: 95 %, from "
        f"{report.resamples:,} draws of speakers that are the same for both; one that holds 0 shows no "
        "difference.",
        tuple(pictures),
        tuple(metrics_table([c for c in comparisons if c.candidate == name], name) for name in names),
        () if report.note is None else (report.note,),
    )
    yield Section(
        "Scores and decisions",
        "How far scores move, and how many decisions are others at the calibrated threshold (minus: wrong "
        "now, plus: "
        "right now).",
        tables=(_decisions(comparisons),),
    )
    if report.det:
        panels = list(dict.fromkeys((curve.rule, curve.condition) for curve in report.det))
        own = [[c for c in report.det if (c.rule, c.condition) == panel] for panel in panels]
        yield Section(
            "DET curves",
            "Each point is one threshold; further down and to the left is better. The reference is solid, "
            "candidates "
            "lie dashed over it.",
            tuple(
                Picture(
                    _det(curves),
                    f"DET curves of {rule}, {condition}. "
                    + " ".join(f"{curve.system}: EER {100 * curve.eer:.2f} %." for curve in curves),
                )
                for (rule, condition), curves in zip(panels, own, strict=True)
            ),
        )
    if report.note is None and any(c.groups for c in comparisons):
        yield Section(
            "Attack by attack",
            "EER of each attack's spoofs; audio as it is, the first segment rule.",
            tables=(_attacks(report),),
        )
    yield Section(
        "What was compared",
        tables=(
            table(
                ("", "precision", "MB", "manifest, SHA-256"),
                (
                    (one.name, one.precision, mega(one.bytes), one.manifest_sha256[:16])
                    for one in (report.reference, *report.candidates)
                ),
            ),
        ),
    )


def _det(curves: Sequence[Curve]) -> Figure:
    with style():
        return det_figure(curves)


def drift_missing(report: DriftReport) -> list[str]:
    """What the document lacks, and why."""
    lines = []
    if not all(comparison.calibrated for comparison in report.comparisons):
        lines.append("Cllr, actDCF and flips where a bundle is not calibrated for the segment rule")
    if any(c.metrics["eer"].difference_interval is None for c in report.comparisons):
        lines.append("intervals where a class has a single speaker")
    return lines


def metrics_table(comparisons: Sequence[Comparison], title: str) -> Table:
    """All metrics of one candidate."""
    rows = []
    for comparison in comparisons:
        for name, label in METRICS.items():
            if (found := comparison.metrics.get(name)) is None:
                continue
            rows.append((_where(comparison), label, *cells(found, name)))
    return table(("segment", "", "reference", "candidate", "difference", "95 %"), rows, title)


def cells(found: Paired, metric: str) -> tuple[str, str, str, str]:
    """Reference, candidate, difference and its interval, with the digits that make sense."""
    scale, digits = (100.0, 2) if metric == "eer" else (1.0, 4)
    between = NONE
    if found.difference_interval is not None:
        between = " to ".join(f"{scale * end:+.{digits}f}" for end in found.difference_interval)
    reference, candidate = (f"{scale * value:.{digits}f}" for value in (found.reference, found.candidate))
    return reference, candidate, f"{scale * found.difference:+.{digits}f}", between


def _decisions(comparisons: Sequence[Comparison]) -> Table:
    rows = []
    for comparison in comparisons:
        scores, flips = comparison.scores, comparison.scores.flips
        decided = (NONE, NONE, NONE)
        if flips is not None:
            decided = (
                percent(flips.share, 2),
                f"-{flips.bonafide_lost} +{flips.bonafide_won}",
                f"-{flips.spoof_lost} +{flips.spoof_won}",
            )
        rows.append(
            (
                f"{comparison.candidate}, {_where(comparison)}",
                f"{comparison.bonafide} + {comparison.spoof}",
                f"{scores.mean_absolute:.4f}",
                f"{scores.largest:.3f}",
                *(NONE if value is None else f"{value:.4f}" for value in (scores.pearson, scores.spearman)),
                *decided,
            )
        )
    return table(
        ("", "human + spoof", "mean change", "largest", "Pearson", "Spearman", "flips", "human", "spoof"),
        rows,
    )


def _attacks(report: DriftReport) -> Table:
    rule = report.comparisons[0].rule
    own = [c for c in report.comparisons if c.rule == rule and c.condition == CLEAN and c.groups]
    head = ["", "spoofs", f"{report.reference.name}, EER %"]
    for comparison in own:
        head += [comparison.candidate, "difference (95 %)"]
    rows = []
    for i, group in enumerate(own[0].groups):
        row = [group.name, str(group.spoof), f"{100 * group.eer.reference:.2f}"]
        for comparison in own:
            _, value, difference, between = cells(comparison.groups[i].eer, "eer")
            row += [value, difference if between == NONE else f"{difference} ({between})"]
        rows.append(row)
    return table(head, rows)


def _where(comparison: Comparison) -> str:
    return comparison.rule if comparison.condition == CLEAN else f"{comparison.rule}, {comparison.condition}"


def _in_words(comparison: Comparison) -> str:
    _, _, difference, between = cells(comparison.metrics["eer"], "eer")
    return f"{comparison.candidate}, {_where(comparison)}: {difference} points ({between})."
