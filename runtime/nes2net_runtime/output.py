"""Writers of results: text for people, JSONL and CSV for programs, the official two-column score file."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TextIO

import msgspec

from nes2net_runtime.detector import FileResult
from nes2net_runtime.records import AnyRecord, file_record, printable, records_of

Format = Literal["text", "jsonl", "csv"]
Writer = Callable[[FileResult], None]

CSV_COLUMNS = ("file", "channel", "start", "end", "score", "tail", "error")


def make_writer(format: Format, out: TextIO) -> Writer:
    """A function that writes one result, flushed."""
    match format:
        case "text":
            return _text_writer(out)
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


def _text_writer(out: TextIO) -> Writer:
    out.write(f"{'score':>8}  {'lowest':>8}  {'at':>9}  {'windows':>7}  file\n")

    def write(result: FileResult) -> None:
        file = printable(result.file)
        name = file if result.channel is None else f"{file} (channel {result.channel})"
        if result.error is None:
            r = file_record(result)
            out.write(f"{r.score:+8.3f}  {r.lowest:+8.3f}  {clock(r.lowest_at):>9}  {r.segments:7}  {name}\n")
        else:
            out.write(f"{'failed':>8}  {'':8}  {'':9}  {'':7}  {name}\n")
        out.flush()

    return write


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
            rows.writerow([file, result.channel, "", "", "", "", printable(str(result.error))])
        for s in result.scores:
            rows.writerow([file, result.channel, s.start, s.end, s.score, int(s.tail), ""])
        out.flush()

    return write
