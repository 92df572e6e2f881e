"""`nes2net-run FILE …`: score files and folders, in order."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import typer

from nes2net_runtime.audio import SAMPLE_RATE, Channels, find_audio
from nes2net_runtime.commands import Exit
from nes2net_runtime.detector import Detector
from nes2net_runtime.errors import NoAudioError
from nes2net_runtime.info import receipt_lines
from nes2net_runtime.output import (
    OutputOptions,
    make_score_writer,
    make_writer,
    open_output,
    open_results,
    refuse_overwriting,
    write_record,
)
from nes2net_runtime.progress import ScoringProgress, meaning_lines, totals_line, why_no_labels
from nes2net_runtime.records import ReceiptRecord
from nes2net_runtime.segments import FRAME_HOP, SegmentRule, round_hop


@dataclass(frozen=True)
class FileOptions:
    """What the command's options say of files."""

    segment: SegmentRule
    hop: float  # seconds
    window_samples: int | None
    max_seconds: float
    channels: Channels
    batch_size: int | None
    scores: Path | None  # the official score file


def run_files(
    paths: Sequence[Path], open_detector: Callable[[], Detector], options: FileOptions, wanted: OutputOptions
) -> bool:
    """Score files and folders and write the results; returns whether any input failed."""
    inputs = list(find_audio(paths))
    if not inputs:
        raise typer.BadParameter("name at least one audio file or folder", param_hint="FILE|DIR")
    if all(isinstance(error, NoAudioError) for _, error in inputs):
        for _, error in inputs:
            typer.echo(f"error: {error}", err=True)
        raise typer.Exit(Exit.USAGE)

    for path, _ in inputs:
        for written in (wanted.path, options.scores):
            refuse_overwriting(written, path)
    detector = open_detector()
    for passed in detector.stages.passed_over:
        typer.echo(f"passed over: {passed}", err=True)
    calibrations = detector.calibrations(options.segment, options.window_samples)
    with ExitStack() as files:
        out = open_results(wanted, files)
        writers = [make_writer(wanted.format, out, bool(calibrations))]
        progress = files.enter_context(ScoringProgress(len(inputs)))
        if options.scores:
            writers.append(make_score_writer(open_output(options.scores, files), progress.say))
        hop = round_hop(options.hop) / SAMPLE_RATE
        if options.segment == "windows" and abs(hop - options.hop) > 1e-9:
            progress.say(f"hop: {hop:g} s (a multiple of {FRAME_HOP} samples)")
        for result in detector.score_files(
            paths,
            options.segment,
            options.hop,
            options.window_samples,
            options.max_seconds,
            options.channels,
            options.batch_size,
            progress.on_segment,
        ):
            for write in writers:
                write(result)
            progress.file_done(result)
        totals = progress.totals()
        if wanted.format == "jsonl":
            if wanted.receipt:
                write_record(ReceiptRecord(receipt=detector.receipt), out)
            write_record(totals, out)
    if wanted.receipt and wanted.format != "jsonl":
        for line in receipt_lines(detector.receipt):
            typer.echo(line, err=True)
    typer.echo(totals_line(totals, detector.stages.provider, detector.stages.threads), err=True)
    if wanted.format == "text":
        for line in meaning_lines(calibrations, options.segment):
            typer.echo(line, err=True)
    if reason := why_no_labels(detector.bundle.manifest, options.segment, options.window_samples):
        typer.echo(reason, err=True)
    return totals.failed > 0
