"""`nes2net-calib`: labelled audio gives a bundle's scores their meaning.

stdout carries the result, stderr everything else.
"""

from collections.abc import Callable, Mapping
from enum import Enum
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.console import Console

from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.commands import installed_versions, one_line_errors, run_app
from nes2net_runtime.errors import Nes2NetError, ProtocolError
from nes2net_runtime.inference.providers import DISTRIBUTIONS, Provider
from nes2net_runtime.manifest import (
    CalibrationRule,
)

if TYPE_CHECKING:
    from nes2net_calib.protocols import Protocol
    from nes2net_calib.thresholds import Choice

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

AUDIO = "Which audio"
THRESHOLD = "From which llr a recording is called bona fide"
OUTPUT = "What is written"
RUN = "How it runs"
WIDTH = 100  # characters, where stdout is no terminal
USUAL_PRIOR = 0.5  # share of spoofs
REPORT = "reports/calibration.html"
INTERRUPTED = 130
LEAST = 0.0001  # share or cost
Error = Literal["spoof accepted", "bona fide rejected"]


class Rule(str, Enum):
    """Segment rules, as a type that typer takes a list of."""

    FIRST = "first"
    FULL = "full"
    WINDOWS = "windows"
    EARLY = "early"


def up_to(most: float) -> Callable[[str], float]:
    """A parser of numbers from 0.0001 to `most`; typer's own ranges push names of options out of the help."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = nan
        if not LEAST <= number <= most:
            raise typer.BadParameter(f"{text!r} is not a number from {LEAST:g} to {most:g}")
        return number

    return parse


def main() -> None:
    """Entry point of `nes2net-calib`."""
    run_app(app, "nes2net-calib")


def print_version(wanted: bool) -> None:
    if wanted:
        versions = installed_versions("nes2net-edge", *DISTRIBUTIONS, "scikit-learn", "matplotlib")
        typer.echo(", ".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit


@app.command(no_args_is_help=True)
@one_line_errors
def calib(
    protocol: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="List of labelled trials: as ASVspoof 2019, 2021 and 5, In-the-Wild, CtrSVDD and "
            "PartialSpoof publish it, or CSV with the columns file, label [, system, speaker, split, "
            "condition].",
            rich_help_panel=AUDIO,
        ),
    ],
    bundle: Annotated[
        Path,
        typer.Argument(
            metavar="BUNDLE",
            help="Bundle that nes2net-export made.",
            show_default="the demo detector",
            readable=False,
        ),
    ] = DEMO,
    audio: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder with the audio.",
            show_default="where the data set has it, from the list",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Part of a list that has several, or all. Not one that the detector was trained on or will "
            "be tested on.",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Leave out trials that can't be read, and say which.", rich_help_panel=AUDIO
        ),
    ] = False,
    segment: Annotated[
        list[Rule] | None,
        typer.Option(
            help="What to calibrate: as nes2net-run's --segment, or a stream's early scores. May be "
            "repeated; each scores all audio.",
            show_default="first, full, windows, early",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    threshold: Annotated[
        Literal["eer", "cost"] | None,
        typer.Option(
            help="eer: both error rates are the same. cost: the expected cost is least.",
            show_default="eer",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    target_spoof_accepted: Annotated[
        float | None,
        typer.Option(
            parser=up_to(0.5),
            metavar="X",
            help="At most this share of the spoofs is accepted (0.01: 1 %).",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    target_bonafide_rejected: Annotated[
        float | None,
        typer.Option(
            parser=up_to(0.5),
            metavar="X",
            help="At most this share of the bona fide trials is rejected.",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    prior_spoof: Annotated[
        float | None,
        typer.Option(
            parser=up_to(0.9999),
            metavar="X",
            help="Share of spoofs among the recordings to come, for p_spoof and for --threshold cost.",
            show_default="0.5; with --threshold cost 0.05, ASVspoof 5's",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    cost_bonafide_rejected: Annotated[
        float | None,
        typer.Option(
            parser=up_to(1000),
            metavar="X",
            help="Cost of a bona fide recording rejected, for --threshold cost.",
            show_default="1, ASVspoof 5's",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    cost_spoof_accepted: Annotated[
        float | None,
        typer.Option(
            parser=up_to(1000),
            metavar="X",
            help="Cost of a spoof accepted, for --threshold cost.",
            show_default="10, ASVspoof 5's",
            rich_help_panel=THRESHOLD,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            help="Write a calibrated copy here and leave the bundle as it is.",
            show_default="the bundle itself is calibrated",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is at -o.", rich_help_panel=OUTPUT)
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the result as JSON instead of tables.", rich_help_panel=OUTPUT),
    ] = False,
    no_streaming: Annotated[
        bool,
        typer.Option(
            "--no-streaming",
            help="Leave out when streams raise alerts, which comes with `windows`: scores an hour of speech "
            "and 60 changes of voice, at most, every 0.5 s.",
            rich_help_panel=THRESHOLD,
        ),
    ] = False,
    provider: Annotated[
        Provider,
        typer.Option(
            help="Execution provider; auto takes CUDA where it works, else the CPU.", rich_help_panel=RUN
        ),
    ] = "auto",
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads.",
            show_default="the physical cores this process may use",
            rich_help_panel=RUN,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None:
    """Calibrate a bundle on labelled audio: its scores become llrs, probabilities and labels.

    Each segment rule is scored, and gets an affine map from scores to log-likelihood ratios (logistic
    regression) and a threshold. They go into the bundle's manifest, a report with plots into its folder
    `reports`. `windows` hears clips of one speaker and system joined to 20 seconds, `early` the first 1, 2
    and 3 seconds of each. With `windows` come the decision defaults of streams: the fewest false alarms among
    rules that notice a change from a human to a synthetic voice within 4 seconds (the median).

    Calibrate on audio like that of your use. At least 50 trials of each class are needed, and bona fide
    speech of 5 speakers. Scores are kept in the user's cache: a run that was stopped goes on where it was.

    Exit codes: 0 done, 2 wrong usage, 3 the bundle, the list or the provider can't be used or the calibration
    was refused, 130 interrupted.
    """
    try:
        from nes2net_calib.calibrate import Plan, calibrate, check_target, open_detector, write
        from nes2net_calib.metrics import Costs
        from nes2net_calib.output import json_document, print_tables
        from nes2net_calib.progress import scoring_progress
        from nes2net_calib.protocols import read_protocol
        from nes2net_calib.report import documents
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        raise Nes2NetError(
            f"{missing} is not installed: pip install 'nes2net-edge[calib,cpu]' calibrates bundles"
        ) from error

    if force and output is None:
        raise typer.BadParameter("--force replaces a bundle at -o alone, which is not given")
    choice = choose(
        threshold,
        {"spoof accepted": target_spoof_accepted, "bona fide rejected": target_bonafide_rejected},
        prior_spoof,
        {"bonafide_rejected": cost_bonafide_rejected, "spoof_accepted": cost_spoof_accepted},
    )
    prior = choice.prior_spoof if isinstance(choice, Costs) else prior_spoof or USUAL_PRIOR
    rules = tuple(rule for rule in get_args(CalibrationRule) if Rule(rule) in (segment or Rule))
    loaded = read_bundle(bundle)
    check_target(bundle, output, force)
    trials = read_protocol(protocol, audio, split, partial)
    check_split(protocol, trials, split)
    detector = open_detector(loaded, provider, threads)
    try:
        with scoring_progress() as (say, track):
            calibrated = calibrate(
                detector, trials, Plan(rules, choice, prior, partial, not no_streaming), say, track
            )
    except KeyboardInterrupt:
        typer.echo("interrupted: the scores are kept; the same command goes on from here", err=True)
        raise typer.Exit(INTERRUPTED) from None
    written = write(calibrated, documents(calibrated), output, force)
    if as_json:
        typer.echo(json_document(calibrated, written))
    else:
        console = Console(highlight=False)
        print_tables(calibrated, console if console.is_terminal else Console(highlight=False, width=WIDTH))
    if old := (loaded.manifest.calibration or {}).keys() - {rule.rule for rule in calibrated.rules}:
        typer.echo(f"as before: the calibration of {', '.join(sorted(old))}", err=True)
    named = "" if bundle == DEMO == written else f" --bundle {written}"
    typer.echo(f"report: {written / REPORT}", err=True)
    typer.echo(f"score audio with labels: nes2net-run{named} FILE", err=True)


def choose(
    threshold: Literal["eer", "cost"] | None,
    targets: Mapping[Error, float | None],
    prior_spoof: float | None,
    costs: Mapping[str, float | None],
) -> "Choice":
    """How the threshold is chosen, from the options; None is one that was not given."""
    from nes2net_calib.metrics import Costs
    from nes2net_calib.thresholds import Target

    wanted = [Target(error, rate) for error, rate in targets.items() if rate is not None]
    if len(wanted) + (threshold is not None) > 1:
        raise typer.BadParameter("--threshold and the two --target options exclude each other")
    given = {name: cost for name, cost in {**costs, "prior_spoof": prior_spoof}.items() if cost is not None}
    if threshold == "cost":
        return Costs(**given)
    if given.keys() - {"prior_spoof"}:
        raise typer.BadParameter("costs choose a threshold with --threshold cost alone")
    return wanted[0] if wanted else "eer"


def check_split(path: Path, protocol: "Protocol", split: str | None) -> None:
    """Raise ProtocolError for a list whose several splits were not chosen from."""
    there = sorted({trial.split for trial in protocol.trials if trial.split})
    if split is None and len(there) > 1:
        raise ProtocolError(f"{path}: has several splits; choose one with --split: {', '.join(there)} or all")
