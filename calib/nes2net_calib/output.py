"""The numbers of a calibration: as texts for the terminal and the report, and as JSON for programs."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nes2net_calib.calibrate import Calibrated
from nes2net_calib.metrics import Costs
from nes2net_calib.rules import CalibratedRule, Group, Interval
from nes2net_runtime.info import streaming_rows

DCF_COSTS = Costs()
SummaryRow = tuple[str, list[str]]  # what, and its value for each rule
GroupRow = tuple[
    str, str, list[tuple[str, str]]
]  # attack or condition, its name, spoofs and EER for each rule


def summary_rows(rules: Sequence[CalibratedRule]) -> list[SummaryRow]:
    """What each rule's calibration is and how good it is."""
    columns = [_summary(rule) for rule in rules]
    return [(what, [column[what] for column in columns]) for what in columns[0]]


def _summary(rule: CalibratedRule) -> dict[str, str]:
    entry, provenance = rule.entry, rule.entry.provenance
    return {
        "bona fide / spoof scores": f"{provenance.bonafide} / {provenance.spoof}",
        "speakers of bona fide": str(provenance.speakers or "not told"),
        "EER, 95 % interval, %": f"{_percent(provenance.eer)} {_interval(rule.eer_interval)}",
        "Cllr before -> after, bits": f"{provenance.cllr_before:.3f} -> {provenance.cllr_after:.3f}",
        "least Cllr of any map": f"{rule.least_cllr:.3f}",
        "least DCF": f"{rule.least_dcf:.3f}",
        "actual DCF": f"{rule.actual_dcf:.3f}",
        "llr: slope, offset": f"{entry.slope:.3g}, {entry.offset:+.3g}",
        "bona fide from llr": f"{entry.threshold:+.3f}",
        "  which is the score": f"{rule.llr.score(entry.threshold):+.3f}",
        "  bona fide rejected": f"{_percent(rule.rates.bonafide_rejected)} %",
        "  spoof accepted": f"{_percent(rule.rates.spoof_accepted)} %",
        "holds for audio from": f"{entry.min_seconds:.2f} s",
    }


def dcf_costs() -> str:
    """Whose costs the DCFs have, and which."""
    return (
        f"with ASVspoof 5's costs: bona fide rejected {DCF_COSTS.bonafide_rejected:g}, spoof accepted "
        f"{DCF_COSTS.spoof_accepted:g}, {100 * DCF_COSTS.prior_spoof:g} % spoofs; 1: no detector"
    )


def group_rows(rules: Sequence[CalibratedRule]) -> list[GroupRow]:
    """EER in % by attack, then by condition, in the order of their names; "-" where a rule heard none."""
    by_rule = [{(group.by, group.name): group for group in rule.groups} for rule in rules]
    names = sorted({name for groups in by_rule for name in groups})
    return [(*name, [_group(groups.get(name)) for groups in by_rule]) for name in names]


def _group(group: Group | None) -> tuple[str, str]:
    if group is None:
        return "-", "-"
    return str(group.spoof), f"{_percent(group.eer)} {_interval(group.eer_interval)}"


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def _interval(interval: Interval | None) -> str:
    return "(-)" if interval is None else f"({_percent(interval[0])}-{_percent(interval[1])})"


def print_tables(calibrated: Calibrated, console: Console) -> None:
    """The summary, then EER by attack and condition where the list tells them."""
    rules = calibrated.rules
    title = f"{calibrated.bundle.manifest.name}, calibrated on {calibrated.protocol.title}"
    summary = _table(title, "")
    for rule in rules:
        summary.add_column(rule.rule, justify="right")
    for left_out in calibrated.left_out:
        summary.add_column(left_out, justify="right")
    for i, (what, cells) in enumerate(summary_rows(rules)):
        none = "" if i else "not calibrated"
        style = "bold" if what.startswith(("EER", "Cllr")) else ""
        summary.add_row(what, *cells, *[none] * len(calibrated.left_out), style=style)
    console.print(summary)
    console.print(f"DCF: {dcf_costs()}", style="dim")
    if calibrated.streaming:
        streams = _table("Streams", "")
        streams.show_header = False
        streams.add_column()
        for what, text in streaming_rows(calibrated.streaming):
            streams.add_row(what, escape(text))
        console.print(streams)
    grouped = [rule for rule in rules if rule.rule != "early"]  # four do not fit into 100 columns
    if rows := group_rows(grouped):
        groups = _table("EER in % of the spoofs of each attack, and their number", "")
        for rule in grouped:
            groups.add_column(rule.rule, justify="right")
            groups.add_column("", justify="right", style="dim")
        for by, name, pairs in rows:
            cells = [text for number, eer in pairs for text in (eer, number)]
            groups.add_row(escape(name if by == "attack" else f"{name} ({by})"), *cells)
        console.print(groups)


def _table(title: str, first: str) -> Table:
    table = Table(title=escape(title), box=SIMPLE_HEAD, pad_edge=False, header_style="cyan")
    table.title_style, table.title_justify = "bold", "left"
    table.add_column(first, no_wrap=True)
    return table


def json_document(calibrated: Calibrated, bundle: Path) -> str:
    """All of it as one JSON document, with the bundle that it was written to."""
    protocol = calibrated.protocol
    rules = {
        rule.rule: {
            "calibration": rule.entry,
            "eer_interval": rule.eer_interval,
            "least_cllr": rule.least_cllr,
            "least_dcf": rule.least_dcf,
            "actual_dcf": rule.actual_dcf,
            "bonafide_rejected": rule.rates.bonafide_rejected,
            "spoof_accepted": rule.rates.spoof_accepted,
            "groups": [asdict(group) for group in rule.groups],
        }
        for rule in calibrated.rules
    }
    document = {
        "schema": 1,
        "type": "calibration",
        "bundle": str(bundle),
        "protocol": {
            "name": protocol.name,
            "split": protocol.split,
            "format": protocol.format,
            "sha256": protocol.sha256,
        },
        "missing": protocol.missing,
        "dcf_costs": asdict(DCF_COSTS),
        "rules": rules,
        "left_out": calibrated.left_out,
        "streaming": calibrated.streaming,
    }
    return msgspec.json.encode(document).decode()
