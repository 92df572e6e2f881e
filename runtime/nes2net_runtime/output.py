"""Writers of results: text for people, JSONL and CSV for programs, the official two-column score file."""

import csv
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TextIO

import msgspec
import typer

from nes2net_runtime.records import AnyRecord, file_record, printable, records_of
from nes2net_runtime.results import FileResult

Format = Literal["text", "jsonl", "csv"]


@dataclass(frozen=True)
class OutputOptions:
    """What the command's options say of its output."""

    format: Format
    path: Path | None  # None: stdout
    receipt: bool


Writer = Callable[[FileResult], None]

CSV_COLUMNS = ("file", "channel", "start", "end", "score", "llr", "p_spoof", "label", "tail", "error")
COLOURS = {"bonafide": typer.colors.GREEN, "spoof": typer.colors.RED}


def open_results(options: OutputOptions, files: ExitStack) -> TextIO:
    """Where the results go; closed with `files`."""
    return open_output(options.path, files) if options.path else sys.stdout


def open_output(path: Path, files: ExitStack) -> TextIO:
    """Open a file that an option names; a usage error where it can't be written."""
    try:
        return files.enter_context(path.open("w", encoding="utf-8", newline=""))
    except OSError as error:
        raise typer.BadParameter(f"{path} can't be written ({error.strerror})") from error


def refuse_overwriting(output: Path | None, audio: Path) -> None:
    """A usage error where an output is the audio itself."""
    if output is not None and output.exists() and audio.exists() and output.samefile(audio):
        raise typer.BadParameter(f"{output}: is the audio itself, and would be overwritten")


def make_writer(format: Format, out: TextIO, calibrated: bool) -> Writer:
    """A function that writes one result, flushed; text has labels where the detector is `calibrated`."""
    match format:
        case "text":
            return _label_writer(out) if calibrated else _text_writer(out)
        case "jsonl":
            return _jsonl_writer(out)
        case "csv":
            return _csv_writer(out)


def write_record(record: AnyRecord, out: TextIO) -> None:
    """One JSON line, flushed."""
    out.write(msgspec.json.encode(record).decode() + "\n")
    out.flush()


def make_score_writer(out: TextIO, warn: Callable[[str], None]) -> Writer:
    """`utt_id score`, as the official scripts write it: name without suffix, mean of the windows."""
    seen: set[str] = set()

    def write(result: FileResult) -> None:
        if result.error is not None:
            return
        utterance = Path(printable(result.file)).stem + (
            "" if result.channel is None else f"_ch{result.channel}"
        )
        if utterance in seen:
            warn(f"warning: {result.file}: the score file has {utterance} twice")
        seen.add(utterance)
        out.write(f"{utterance} {result.mean:.9g}\n")
        out.flush()

    return write


def clock(seconds: float) -> str:
    """1:02:03.4, or 2:03.4 under an hour."""
    minutes, rest = divmod(round(seconds, 1), 60)
    hours, minutes = divmod(int(minutes), 60)
    return f"{hours}:{minutes:02d}:{rest:04.1f}" if hours else f"{minutes}:{rest:04.1f}"


def count(number: int, noun: str) -> str:
    """2 windows, 1 window."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _name(result: FileResult) -> str:
    file = printable(result.file)
    return file if result.channel is None else f"{file} (channel {result.channel})"


def _text_writer(out: TextIO) -> Writer:
    out.write(f"{'score':>8}  {'lowest':>8}  {'at':>9}  {'windows':>7}  file\n")

    def write(result: FileResult) -> None:
        name = _name(result)
        if result.error is None:
            r = file_record(result)
            out.write(f"{r.score:+8.3f}  {r.lowest:+8.3f}  {clock(r.lowest_at):>9}  {r.segments:7}  {name}\n")
        else:
            out.write(f"{'failed':>8}  {'':8}  {'':9}  {'':7}  {name}\n")
        out.flush()

    return write


def _label_writer(out: TextIO) -> Writer:
    coloured = out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def line(label: str, p_spoof: str, score: str, lowest: str, at: str, spoof: str, name: str) -> None:
        shown = f"{label:8}"
        if coloured and label in COLOURS:
            shown = typer.style(shown, fg=COLOURS[label])
        out.write(f"{shown}  {p_spoof:>7}  {score:>8}  {lowest:>8}  {at:>9}  {spoof:>13}  {name}\n")
        out.flush()

    def write(result: FileResult) -> None:
        if result.error is not None:
            line("failed", "", "", "", "", "", _name(result))
            return
        r = file_record(result)
        spoof = f"{'-' if r.spoof_segments is None else r.spoof_segments} of {r.segments}"
        scores = f"{r.score:+.3f}", f"{r.lowest:+.3f}"
        line(r.label or "-", probability(r.p_spoof), *scores, clock(r.lowest_at), spoof, _name(result))

    line("label", "p_spoof", "score", "lowest", "at", "spoof windows", "file")
    return write


def probability(p: float | None) -> str:
    """A probability for people: three digits, and never a 0 or 1 that it is not."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else ">0.999" if p > 0.999 else f"{p:.3f}"


def _jsonl_writer(out: TextIO) -> Writer:
    def write(result: FileResult) -> None:
        for record in records_of(result):
            write_record(record, out)

    return write


def _csv_writer(out: TextIO) -> Writer:
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)

    def write(result: FileResult) -> None:
        file = printable(result.file)
        if result.error is not None:
            rows.writerow([file, result.channel, *[""] * 7, printable(str(result.error))])
        for s in result.scores:
            decision = (s.llr, s.p_spoof, s.label)  # empty where None
            rows.writerow([file, result.channel, s.start, s.end, s.score, *decision, int(s.tail), ""])
        out.flush()

    return write
