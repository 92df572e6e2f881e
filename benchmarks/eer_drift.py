"""What another precision, or another model, does to decisions: paired, on a labelled list.

    python benchmarks/eer_drift.py
    python benchmarks/eer_drift.py --protocol corpus.csv --split dev --candidate demo-int8.nes2net
    python benchmarks/eer_drift.py --protocol ASVspoof5.eval.track_1.tsv --condition telephony --ray auto

- EER, minDCF, actDCF (costs of ASVspoof 5) and Cllr of both, and of the difference its 95 % interval: both
  hear the same trials, and every draw of the bootstrap takes the same speakers for both.
- How far scores move, how their order changes, and how many decisions are others at the calibrated threshold.
- Segment rules as in nes2net-run; codecs and noise (--condition), the same for both classes.

Scores are kept in the user's cache by the content of bundle and audio: a run that was stopped goes on where
it was. Without a list two example clips are cut into pieces, which show how far scores move and no more.

The last line of stdout is one JSON document.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from enum import Enum
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, get_args

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nes2net_bench.documents import document, publish
from nes2net_bench.extras import extras
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.commands import Exit, one_line_errors
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.segments import SegmentRule
from nes2net_runtime.threads import usable_threads

with extras("bench,cpu"):
    from nes2net_bench.drift.conditions import CLEAN, condition
    from nes2net_bench.drift.curves import det_figure
    from nes2net_bench.drift.intervals import RESAMPLES, Paired
    from nes2net_bench.drift.measure import METRICS, Comparison
    from nes2net_bench.drift.results import DriftReport, drift_report
    from nes2net_bench.drift.scores import Scoring, local_workers, ray_workers
    from nes2net_bench.drift.sets import WARNING, float16_of, pieces
    from nes2net_calib.cli import check_split
    from nes2net_calib.output import dcf_costs
    from nes2net_calib.plots import png, svg
    from nes2net_calib.progress import scoring_progress
    from nes2net_calib.protocols import Protocol, read_protocol

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False)
if not console.is_terminal:
    console = Console(stderr=True, highlight=False, width=100)
EXAMPLES = Path(__file__).parents[1] / "docs/examples"
INTERRUPTED = 130
LIST, BUNDLES, RUN = "What is heard", "What is compared", "How it runs"


class Rule(str, Enum):
    """Segment rules, as a type that typer takes a list of."""

    FIRST = "first"
    FULL = "full"
    WINDOWS = "windows"


@app.command()
@one_line_errors
def eer_drift(
    reference: Annotated[
        Path, typer.Option(help="Bundle.", show_default="the demo detector", rich_help_panel=BUNDLES)
    ] = DEMO,
    candidate: Annotated[
        list[Path] | None,
        typer.Option(
            help="Bundle to hold against it; may be repeated.",
            show_default="the reference in float16, made now",
            rich_help_panel=BUNDLES,
        ),
    ] = None,
    protocol: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="List of labelled trials, as nes2net-calib reads it.",
            show_default="pieces of two example clips",
            rich_help_panel=LIST,
        ),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the list's audio.",
            show_default="where the data set has it, from the list",
            rich_help_panel=LIST,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Part of a list that has several, or all.", rich_help_panel=LIST),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Leave out trials that can't be scored, and say which.", rich_help_panel=LIST
        ),
    ] = False,
    segment: Annotated[
        list[Rule] | None,
        typer.Option(
            help="Segment rule: first, full or windows; may be repeated.",
            show_default="first, full, windows; without a list first",
            rich_help_panel=LIST,
        ),
    ] = None,
    condition_: Annotated[
        list[str] | None,
        typer.Option(
            "--condition",
            metavar="NAME",
            help="What the audio goes through, beside the audio as it is: telephony, 8khz, gsm, amr, opus, "
            "mp3, noise-N (white noise N dB below it); may be repeated.",
            show_default="the audio as it is alone",
            rich_help_panel=LIST,
        ),
    ] = None,
    resamples: Annotated[
        int, typer.Option(min=100, max=100_000, help="Draws of speakers behind each interval.")
    ] = RESAMPLES,
    max_eer_rise: Annotated[
        float | None,
        typer.Option(
            min=0.0, help="Percentage points of EER that a candidate may lose; past it the exit code is 4."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Processes that score; each loads one bundle at a time.",
            show_default="one for each thread this process may use",
            rich_help_panel=RUN,
        ),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of each of them.", rich_help_panel=RUN)] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Ray cluster instead, whose nodes have this package, and bundles and audio at the same "
            "paths: HOST:PORT, or auto on one of its nodes.",
            rich_help_panel=RUN,
        ),
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Execution provider.", rich_help_panel=RUN)] = "cpu",
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for DET curves, det.png and det.svg.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the JSON document.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Compare bundles on labelled audio; tables go to stderr, one JSON document to the last line of stdout.

    Exit codes: 0 done, 2 wrong usage, 3 a bundle, the list, a condition or the provider can't be used,
    4 --max-eer-rise is passed, 130 interrupted.
    """
    if provider == "auto":
        raise typer.BadParameter("name the provider: scores are kept by what computed them")
    if protocol is None and (audio or split):
        raise typer.BadParameter("--audio and --split are of a list: name it with --protocol")
    if ray is not None and workers is not None:
        raise typer.BadParameter("--ray and --workers exclude each other: a cluster has its own")
    conditions = list(dict.fromkeys([CLEAN, *(condition_ or [])]))
    for name in conditions:
        condition(name)  # before hours of scoring
    first = read_bundle(reference)
    with ExitStack() as stack:
        say, track = stack.enter_context(scoring_progress())
        others = [read_bundle(path) for path in candidate or ()] or [float16_of(first, say)]
        trials = _trials(protocol, audio, split, partial, stack)
        rules = _rules(segment, few=protocol is None)
        run = stack.enter_context(
            local_workers(workers or usable_threads()) if ray is None else ray_workers(ray, threads)
        )
        how = Scoring(run, provider, threads, say, track)
        note = WARNING if protocol is None else None
        try:
            report = drift_report(first, others, trials, rules, conditions, how, resamples, partial, note)
        except KeyboardInterrupt:
            typer.echo("interrupted: the scores are kept; the same command goes on from here", err=True)
            raise typer.Exit(INTERRUPTED) from None
    if plots is not None:
        figure = det_figure(report.det)
        plots.mkdir(parents=True, exist_ok=True)
        (plots / "det.png").write_bytes(png(figure))
        (plots / "det.svg").write_text(svg(figure))
    show(report)
    publish(document("drift", report), output)
    most = inf if max_eer_rise is None else max_eer_rise
    risen = [c for c in report.comparisons if 100 * c.metrics["eer"].difference > most]
    for worse in risen:
        rise = 100 * worse.metrics["eer"].difference
        typer.echo(
            f"error: {worse.candidate}, {worse.rule}, {worse.condition}: EER is {rise:.2f} points higher",
            err=True,
        )
    if risen:
        raise typer.Exit(Exit.VERIFICATION_FAILED)


def _rules(asked: Sequence[Rule] | None, few: bool) -> list[SegmentRule]:
    """In the order of the rules, whatever the order of the options."""
    wanted = {rule.value for rule in asked or ()} or ({"first"} if few else set(get_args(SegmentRule)))
    return [rule for rule in get_args(SegmentRule) if rule in wanted]


def _trials(
    protocol: Path | None, audio: Path | None, split: str | None, partial: bool, stack: ExitStack
) -> Protocol:
    if protocol is None:
        return pieces(EXAMPLES, Path(stack.enter_context(TemporaryDirectory())))
    trials = read_protocol(protocol, audio, split, partial)
    check_split(protocol, trials, split)
    return trials


def show(report: DriftReport) -> None:
    """Tables for people: metrics and decisions, then attacks."""
    listed = report.protocol
    where = listed.name if listed.split is None else f"{listed.name}, split {listed.split}"
    for candidate in report.candidates:
        own = [c for c in report.comparisons if c.candidate == candidate.name]
        console.print(_metrics(f"{candidate.name} beside {report.reference.name}, {where}", own))
        console.print(_decisions(own))
    console.print(f"intervals: 95 %, {report.resamples} draws of speakers, the same for both", style="dim")
    console.print(f"DCF: {dcf_costs()}", style="dim", soft_wrap=True)
    if any(c.groups for c in report.comparisons) and report.note is None:
        console.print(_attacks(report))
    if report.note:
        console.print(f"note: {report.note}", style="bold", soft_wrap=True)


def _metrics(title: str, own: Sequence[Comparison]) -> Table:
    table = _table(title, "", "", "reference", "candidate", "difference", "95 %")
    for comparison in own:
        heading = _heading(comparison)
        for name, label in METRICS.items():
            found = comparison.metrics.get(name)
            scale = 100 if name == "eer" else 1
            cells = ["not calibrated"] if found is None else _cells(found, scale)
            table.add_row(heading, label, *cells)
            heading = ""
        table.add_section()
    return table


def _cells(found: Paired, scale: float) -> list[str]:
    digits = 2 if scale > 1 else 4
    low_high = found.difference_interval
    between = "one speaker"
    if low_high is not None:
        between = " to ".join(f"{scale * end:+.{digits}f}" for end in low_high)
    values = (f"{scale * value:.{digits}f}" for value in (found.reference, found.candidate))
    return [*values, f"{scale * found.difference:+.{digits}f}", between]


def _decisions(own: Sequence[Comparison]) -> Table:
    columns = ("mean change", "in sd", "largest", "Pearson", "Spearman", "flips", "bona fide", "spoof")
    table = _table("Scores and decisions", "", *columns)
    for comparison in own:
        scores, flips = comparison.scores, comparison.scores.flips
        decided = ["-"] * 3
        if flips is not None:
            decided = [
                f"{100 * flips.share:.2f} %",
                f"-{flips.bonafide_lost} +{flips.bonafide_won}",
                f"-{flips.spoof_lost} +{flips.spoof_won}",
            ]
        table.add_row(
            f"{comparison.rule} {'' if comparison.condition == CLEAN else comparison.condition}",
            f"{scores.mean_absolute:.4f}",
            f"{scores.mean_absolute_deviations:.4f}",
            f"{scores.largest:.3f}",
            *("-" if value is None else f"{value:.4f}" for value in (scores.pearson, scores.spearman)),
            *decided,
        )
    table.caption = "flips: decisions that changed at the calibrated threshold; -wrong now +right now"
    return table


def _attacks(report: DriftReport) -> Table:
    """EER of each attack under the first rule, the audio as it is, and how far candidates are from it."""
    rule = report.comparisons[0].rule
    own = [c for c in report.comparisons if c.rule == rule and c.condition == CLEAN]
    table = _table(f"EER of each attack, %, {rule}", "", "spoofs", report.reference.name)
    for comparison in own:
        table.add_column(comparison.candidate, justify="right")
        table.add_column("95 %", justify="right", style="dim")
    for i, group in enumerate(own[0].groups):
        found = [_cells(comparison.groups[i].eer, 100) for comparison in own]
        cells = [cell for _, _, difference, between in found for cell in (difference, between)]
        table.add_row(escape(group.name), str(group.spoof), f"{100 * group.eer.reference:.2f}", *cells)
    return table


def _heading(comparison: Comparison) -> str:
    heard = f"{comparison.rule}\n{comparison.bonafide} + {comparison.spoof}"
    return heard if comparison.condition == CLEAN else f"{heard}\n{comparison.condition}"


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right")
    return table


if __name__ == "__main__":
    app()
