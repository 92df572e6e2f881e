"""The documents of a calibration: one page that needs nothing else, and its plots as pictures."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from string import Template

from msgspec.structs import replace

from nes2net_calib.calibrate import Calibrated
from nes2net_calib.output import dcf_costs, group_rows, summary_rows
from nes2net_calib.plots import (
    Draw,
    det_figure,
    draw_reliability,
    draw_scores,
    one_panel,
    png,
    reliability_figure,
    scores_figure,
    svg,
)
from nes2net_calib.rules import CalibratedRule
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.decisions import decide_llr
from nes2net_runtime.info import streaming_rows

PAGE = Path(__file__).parent / "report.html"
PICTURES = {"det": det_figure, "scores": scores_figure, "reliability": reliability_figure}
LLRS = (-6, -4, -2, 0, 2, 4, 6)
HEARS = {
    "first": "the first window of a recording",
    "full": "a recording as a whole",
    "windows": "windows of a long recording",
    "early": "the first 1, 2 and 3 s, repeated",
}


def documents(calibrated: Calibrated) -> dict[str, bytes]:
    """The page and the pictures, by their path in the bundle."""
    pictures = {name: png(draw(calibrated.rules)) for name, draw in PICTURES.items()}
    return {
        "reports/calibration.html": page(calibrated).encode(),
        **{f"reports/calibration-{name}.png": picture for name, picture in pictures.items()},
    }


def page(calibrated: Calibrated) -> str:
    """The HTML page: no scripts, nothing to load."""
    rules, entry = calibrated.rules, calibrated.rules[0].entry
    names = [f"{rule.rule}<br><small>{HEARS[rule.rule]}</small>" for rule in rules]
    summary = [(_typeset(what), *map(_typeset, cells)) for what, cells in summary_rows(rules)]
    left_out = [f"<p class=note>Not calibrated. {escape(why)}.</p>" for why in calibrated.left_out.values()]
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        name=escape(calibrated.bundle.manifest.name),
        list=escape(calibrated.protocol.title),
        date=entry.provenance.created[:10],
        summary=_table(["", *names], summary) + "".join(left_out),
        dcf=escape(dcf_costs()),
        prior=f"{100 * entry.prior_spoof:g}",
        probabilities=_probabilities(rules[0]),
        det=_picture(svg(det_figure(rules)), "DET curves. " + _each(rules, _errors)),
        scores=_panels(rules, draw_scores, (4.6, 2.7), _errors),
        reliability=_panels(rules, draw_reliability, (3.2, 3.1), _reliability),
        chosen_by=escape(entry.chosen_by),
        groups=_groups(rules),
        streams=_streams(calibrated),
        provenance=_table(None, _provenance(calibrated)),
    )


def _typeset(text: str) -> str:
    """What a terminal's text is in HTML."""
    for plain, symbol in (("->", "\u2192"), (" - ", "\u2013"), (" x ", " \u00d7 ")):
        text = text.replace(plain, symbol)
    return escape(text)


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first of each row is its heading."""
    lines = [] if head is None else ["<thead><tr>" + "".join(f"<th scope=col>{h}" for h in head) + "</thead>"]
    lines += [f"<tr><th scope=row>{first}" + "".join(f"<td>{cell}" for cell in rest) for first, *rest in rows]
    return "<div class=wide><table>\n" + "\n".join(lines) + "\n</table></div>"


def _picture(drawing: str, text: str) -> str:
    return f'<div class=picture role=img aria-label="{escape(text)}">{drawing}</div>'


def _panels(
    rules: Sequence[CalibratedRule],
    draw: Draw,
    size: tuple[float, float],
    text: Callable[[CalibratedRule], str],
) -> str:
    """One figure a rule: they stand side by side where there is room."""
    panels = [
        f"<figure><figcaption class={rule.rule}>{rule.rule}</figcaption>"
        f"{_picture(svg(one_panel(rule, draw, size)), text(rule))}</figure>"
        for rule in rules
    ]
    return "<div class=panels>" + "\n".join(panels) + "</div>"


def _each(rules: Sequence[CalibratedRule], text: Callable[[CalibratedRule], str]) -> str:
    return " ".join(text(rule) for rule in rules)


def _errors(rule: CalibratedRule) -> str:
    eer, rates = rule.entry.provenance.eer, rule.rates
    return (
        f"{rule.rule}: EER {100 * eer:.1f} %; at the threshold, llr {rule.entry.threshold:+.2f}, "
        f"{100 * rates.bonafide_rejected:.1f} % of bona fide are rejected and "
        f"{100 * rates.spoof_accepted:.1f} % of spoofs accepted."
    )


def _reliability(rule: CalibratedRule) -> str:
    before, after = rule.entry.provenance.cllr_before, rule.entry.provenance.cllr_after
    return f"{rule.rule}: Cllr {before:.2f} bits before calibration, {after:.2f} after."


def _probabilities(rule: CalibratedRule) -> str:
    """p_spoof of some llrs, where spoofs are as common as assumed, and where they are not."""
    priors = sorted({rule.entry.prior_spoof, 0.5, 0.1, 0.01}, reverse=True)
    rows = [[f"{llr:+d}" if llr else "0", *(_p_spoof(rule, llr, prior) for prior in priors)] for llr in LLRS]
    return _table(["llr", *(f"{100 * prior:g} % are spoofs" for prior in priors)], rows)


def _p_spoof(rule: CalibratedRule, llr: float, prior: float) -> str:
    return f"{100 * decide_llr(llr, replace(rule.entry, prior_spoof=prior)).p_spoof:.3g} %"


def _groups(rules: Sequence[CalibratedRule]) -> str:
    rows = [
        (escape(name) + " <small>(condition)</small>" * (by == "condition"), *map(_group, cells))
        for by, name, cells in group_rows(rules)
    ]
    if not rows:
        return "<p>The list names neither attacks nor conditions.</p>"
    return _table(["", *(rule.rule for rule in rules)], rows)


def _group(cell: tuple[str, str]) -> str:
    spoofs, eer = cell
    return "-" if eer == "-" else f"{_typeset(eer)}<br><small>{spoofs} spoofs</small>"


def _streams(calibrated: Calibrated) -> str:
    if calibrated.streaming is None:
        return "<p>No decision defaults were chosen: streams take the usual ones.</p>"
    return _table(
        None, [(name.strip(), _typeset(text)) for name, text in streaming_rows(calibrated.streaming)]
    )


def _provenance(calibrated: Calibrated) -> list[tuple[str, str]]:
    manifest, protocol, entry = calibrated.bundle.manifest, calibrated.protocol, calibrated.rules[0].entry
    costs = entry.costs and (
        f" (bona fide rejected {entry.costs.bonafide_rejected:g}, "
        f"spoof accepted {entry.costs.spoof_accepted:g})"
    )
    left_out = f"; {len(protocol.missing)} lines of the list could not be used" if protocol.missing else ""
    rows = [
        ("Detector", f"{manifest.name}, {manifest.precision}"),
        ("Checkpoint", f"{manifest.source.checkpoint}, SHA-256 {manifest.source.sha256 or '-'}"),
        ("List", f"{protocol.title} ({protocol.format}), SHA-256 {protocol.sha256}"),
        ("Trials", f"{len(protocol.trials)}{left_out}"),
        ("Threshold", f"chosen by {entry.chosen_by}{costs or ''}"),
        ("Prior", f"{100 * entry.prior_spoof:g} % spoofs, for p_spoof"),
        (
            "Made",
            f"{entry.provenance.created} with "
            + ", ".join(
                f"{name} {version}"
                for name, version in installed_versions("nes2net-edge", "onnxruntime", "scikit-learn").items()
            ),
        ),
    ]
    return [(name, escape(value)) for name, value in rows]
