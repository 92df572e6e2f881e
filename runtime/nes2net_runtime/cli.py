"""`nes2net-run`: score audio files and folders with a bundle.

stdout carries results, stderr everything else.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, NoReturn, TextIO

import typer

from nes2net_runtime import detector as defaults
from nes2net_runtime.audio import SAMPLE_RATE, Channels, find_audio
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.commands import Exit, installed_versions, one_line_errors, run_app
from nes2net_runtime.detector import Detector
from nes2net_runtime.errors import NoAudioError
from nes2net_runtime.info import damaged_files, receipt_lines, write_info
from nes2net_runtime.output import Format, make_score_writer, make_writer, write_record
from nes2net_runtime.progress import ScoringProgress, meaning_lines, totals_line, why_no_labels
from nes2net_runtime.records import ReceiptRecord
from nes2net_runtime.segments import FRAME_HOP, MIN_SAMPLES, SegmentRule, round_hop
from nes2net_runtime.sessions import DISTRIBUTIONS, Provider, available_providers

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

AUDIO = "Which audio is scored"
RUN = "How it runs"
OUTPUT = "What is printed"


def main() -> None:
    """Entry point of `nes2net-run`."""
    run_app(app, "nes2net-run")


def parse_channels(text: str) -> Channels:
    """`mix`, `each`, or a channel's number from 1."""
    if text == "mix":
        return "mix"
    if text == "each":
        return "each"
    if text.isdigit() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"{text!r} is not mix, each or a channel's number from 1")


def print_version(wanted: bool) -> None:
    if wanted:
        versions = installed_versions("nes2net-edge", *DISTRIBUTIONS)
        typer.echo(", ".join(f"{name} {number}" for name, number in versions.items()))
        typer.echo(f"providers built in: {', '.join(available_providers())}")
        raise typer.Exit


@app.command(no_args_is_help=True)
@one_line_errors
def run(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE|DIR]...", help="Audio files, or folders searched for audio.", readable=False
        ),
    ] = None,
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle",
            "-b",
            help="Bundle that nes2net-export made.",
            show_default="the demo detector",
            readable=False,
        ),
    ] = DEMO,
    segment: Annotated[
        SegmentRule,
        typer.Option(
            help="windows: every window of the whole file. first: the papers' protocol, the first window "
            "alone. full: the file as it is, at once. Short audio is repeated.",
            rich_help_panel=AUDIO,
        ),
    ] = "windows",
    window_samples: Annotated[
        int | None,
        typer.Option(
            min=MIN_SAMPLES,
            help="Window in samples at 16 kHz.",
            show_default="the bundle's",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    hop: Annotated[
        float,
        typer.Option(
            min=0.001,
            max=3600,
            help="Seconds between starts of windows, rounded to frames of 20 ms.",
            rich_help_panel=AUDIO,
        ),
    ] = defaults.WINDOWS_HOP,
    max_seconds: Annotated[
        float,
        typer.Option(min=0.025, help="Longest file that `full` takes, in seconds.", rich_help_panel=AUDIO),
    ] = defaults.MAX_FULL,
    channels: Annotated[
        str,
        typer.Option(
            metavar="mix|each|N",
            help="Average all channels, score each alone, or take channel N (from 1).",
            rich_help_panel=AUDIO,
        ),
    ] = "mix",
    provider: Annotated[
        Provider,
        typer.Option(
            help="Execution provider. One that does not really run is an error; auto takes CUDA where it "
            "works, else the CPU.",
            rich_help_panel=RUN,
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
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Segments of equal length scored at once.",
            show_default=f"1 on a CPU, {defaults.ACCELERATOR_BATCH} elsewhere",
            rich_help_panel=RUN,
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="text: a line a file. jsonl: a record a window and a file. csv: a row a window.",
            rich_help_panel=OUTPUT,
        ),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for the results.", show_default="stdout", rich_help_panel=OUTPUT
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Also write an official score file: a line `utt_id score` a file, the mean of its windows.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    receipt: Annotated[
        bool,
        typer.Option("--receipt", help="Say what each stage really ran on.", rich_help_panel=OUTPUT),
    ] = False,
    info: Annotated[
        bool,
        typer.Option(
            "--info", help="Print the bundle's manifest, check all its hashes, list providers; no scoring."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print versions and providers."
        ),
    ] = False,
) -> None:
    """Score audio files: is this speech human or synthetic?

    A **score** is the detector's bona fide logit: higher is more human. It orders recordings, no more. Where
    nes2net-calib has calibrated the bundle on labelled audio, there also are:

    - **llr**, the log-likelihood ratio: how much likelier such audio is from a human than from a machine
      (natural log; 0: as likely from either). It does not depend on how common spoofs are.

    - **p_spoof**, the probability that this is a spoof, 0 to 1. It depends on how common spoofs are: the
      calibration assumes a share, and where spoofs are rarer, p_spoof is too high.

    - **label**, bonafide or spoof: on which side of the calibration's threshold the llr is.

    `--info` shows that share and the threshold. All of them hold for audio like that of the calibration.

    Exit codes: 0 all done, 1 an input failed (the others were scored), 2 wrong usage or no audio found,
    3 the bundle or provider can't be used, 130 interrupted.
    """
    loaded = read_bundle(bundle)
    if info:
        show_info(loaded, format)
    wanted_channels = parse_channels(channels)
    inputs = list(find_audio(paths or []))
    if not inputs:
        raise typer.BadParameter("name at least one audio file or folder", param_hint="FILE|DIR")
    if all(isinstance(error, NoAudioError) for _, error in inputs):
        for _, error in inputs:
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(Exit.USAGE)

    detector = Detector(loaded, provider, threads)
    calibrations = detector.calibrations(segment, window_samples)
    with ExitStack() as files:
        out = open_output(output, files) if output else sys.stdout
        writers = [make_writer(format, out, bool(calibrations))]
        progress = files.enter_context(ScoringProgress(len(inputs)))
        if scores:
            writers.append(make_score_writer(open_output(scores, files), progress.say))
        if segment == "windows" and abs(round_hop(hop) / SAMPLE_RATE - hop) > 1e-9:
            progress.say(f"hop: {round_hop(hop) / SAMPLE_RATE:g} s (a multiple of {FRAME_HOP} samples)")
        for result in detector.score_files(
            paths or [],
            segment,
            hop,
            window_samples,
            max_seconds,
            wanted_channels,
            batch_size,
            progress.on_segment,
        ):
            for write in writers:
                write(result)
            progress.file_done(result)
        totals = progress.totals()
        if format == "jsonl":
            if receipt:
                write_record(ReceiptRecord(receipt=detector.receipt), out)
            write_record(totals, out)
    if receipt and format != "jsonl":
        for line in receipt_lines(detector.receipt):
            typer.echo(line, err=True)
    typer.echo(totals_line(totals, detector.stages.provider, detector.stages.threads), err=True)
    if format == "text":
        for line in meaning_lines(calibrations, segment):
            typer.echo(line, err=True)
    if reason := why_no_labels(loaded.manifest, segment, window_samples):
        typer.echo(reason, err=True)
    if totals.failed:
        raise typer.Exit(Exit.INPUT_FAILED)


def show_info(bundle: Bundle, format: Format) -> NoReturn:
    damaged = damaged_files(bundle)
    write_info(bundle, damaged, format == "jsonl", sys.stdout)
    raise typer.Exit(Exit.NO_START if damaged else Exit.DONE)


def open_output(path: Path, files: ExitStack) -> TextIO:
    try:
        return files.enter_context(path.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be written ({error.strerror})") from error
