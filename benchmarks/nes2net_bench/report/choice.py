"""Accuracy against cost: where documents of drift and of latency have the same bundles, joined by name."""

from collections.abc import Sequence

from nes2net_bench.drift.measure import Comparison, System
from nes2net_bench.drift.results import DriftReport
from nes2net_bench.latency.results import ArmResult, LatencyResults
from nes2net_bench.report.content import NONE, Picture, Section, mega, number, table
from nes2net_bench.report.documents import Loaded, of_type
from nes2net_bench.report.drift import CLEAN, listed
from nes2net_bench.report.plots_accuracy import Choice, front, pareto


def choices(loaded: Sequence[Loaded]) -> list[Section]:
    """A section for each document of drift."""
    latencies = of_type(loaded, LatencyResults)
    return [_choice(one.name, report, latencies) for one, report in of_type(loaded, DriftReport)]


def bundle_of(arm: ArmResult) -> str | None:
    """The name in the manifest of the bundle that an arm is; None: a peer."""
    if arm.kind != "bundle" or arm.receipt is None:
        return None
    return str(arm.receipt["bundle"]).removesuffix(".nes2net")


def shared(report: DriftReport, results: LatencyResults) -> dict[str, list[ArmResult]]:
    """The arms of each bundle that was compared, too: alike in name and in precision."""
    systems = {(one.name, one.precision): one.name for one in (report.reference, *report.candidates)}
    found: dict[str, list[ArmResult]] = {}
    for arm in results.arms:
        if (name := systems.get((bundle_of(arm) or "", arm.precision))) is not None:
            found.setdefault(name, []).append(arm)
    return found


def _choice(
    document: str, report: DriftReport, latencies: Sequence[tuple[Loaded, LatencyResults]]
) -> Section:
    rule = report.comparisons[0].rule
    own = {c.candidate: c for c in report.comparisons if c.rule == rule and c.condition == CLEAN}
    systems = (report.reference, *report.candidates)
    by_size = [_of_size(system, own) for system in systems]
    pictures = [Picture(pareto(by_size, "MB of the bundle"), _in_words(by_size, "MB"), "By size")]
    rows = {one.name: [one.name, f"{100 * one.eer:.2f}", mega(1e6 * one.cost)] for one in by_size}
    head, notes = ["", "EER, %", "size, MB"], []
    for loaded, results in latencies:
        arms = shared(report, results)
        if len(arms) < 2:
            continue
        timed = [
            _of_arm(arm, arm.name if len(each) > 1 else name, next(c for c in by_size if c.name == name))
            for name, each in arms.items()
            for arm in each
        ]
        title = f"By latency ({loaded.name})"
        pictures.append(Picture(pareto(timed, "milliseconds a window, p50"), _in_words(timed, "ms"), title))
        head.append(f"p50, ms ({loaded.name})")
        for name, row in rows.items():
            row.append(" / ".join(number(arm.wall.p50) for arm in arms.get(name, [])) or NONE)
    if len(pictures) == 1:
        notes.append("No document of latency has two of these bundles: latency is not beside the error rate.")
    return Section(
        f"What to choose: {document}",
        f"EER on {listed(report)}, segment rule {rule}, with its interval over speakers, against what a "
        "bundle costs: "
        "further down and to the left is better. The grey line and filled dots are those that none beats "
        "in both.",
        tuple(pictures),
        (table(head, rows.values()),),
        tuple(notes),
    )


def _of_size(system: System, own: dict[str, Comparison]) -> Choice:
    size = system.bytes / 1e6
    if (found := own.get(system.name)) is not None:
        eer = found.metrics["eer"]
        return Choice(system.name, size, size, size, eer.candidate, eer.candidate_interval)
    eer = next(iter(own.values())).metrics["eer"]
    return Choice(system.name, size, size, size, eer.reference, eer.reference_interval)


def _of_arm(arm: ArmResult, name: str, known: Choice) -> Choice:
    wall = arm.wall
    return Choice(name, wall.p50, wall.least, wall.p95 or wall.largest, known.eer, known.interval)


def _in_words(found: Sequence[Choice], unit: str) -> str:
    best = ", ".join(choice.name for choice in front(found))
    each = " ".join(f"{c.name}: EER {100 * c.eer:.2f} %, {number(c.cost)} {unit}." for c in found)
    return f"{each} None beats {best} in both."
