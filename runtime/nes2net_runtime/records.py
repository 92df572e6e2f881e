"""Machine-readable output: one record a line. `records.schema.json` beside this file is its JSON Schema."""

from pathlib import Path
from typing import Any

import msgspec

from nes2net_runtime.decisions import Label
from nes2net_runtime.results import FileResult, Score
from nes2net_runtime.sessions import Receipt

SCHEMA = 1
SCHEMA_FILE = Path(__file__).parent / "records.schema.json"


class _Record(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=False):
    schema: int = SCHEMA


class ScoreRecord(_Record, frozen=True, tag="score"):
    """One segment. Times in seconds; score: bona fide logit, higher is more human."""

    file: str
    channel: int | None  # counted from 1; null: the mix
    start: float
    end: float
    score: float
    llr: float | None  # natural log, positive = bona fide; null, as the next two: not calibrated
    p_spoof: float | None  # at the calibration's prior
    label: Label | None
    tail: bool  # end-aligned window after the last on the grid


class FileRecord(_Record, frozen=True, tag="file"):
    """One file (or channel): the summary of its scores."""

    file: str
    channel: int | None
    seconds: float  # of audio read
    segments: int
    score: float  # mean
    llr: float | None  # mean; null, as the next three: not calibrated
    p_spoof: float | None
    label: Label | None
    spoof_segments: int | None  # labelled spoof
    lowest: float
    lowest_at: float  # seconds
    warnings: list[str]


class ErrorRecord(_Record, frozen=True, tag="error"):
    """An input that could not be scored."""

    file: str
    channel: int | None
    error: str


class ReceiptRecord(_Record, frozen=True, tag="receipt"):
    """What the detector really ran on."""

    receipt: Receipt


class SummaryRecord(_Record, frozen=True, tag="summary"):
    """The end of a run."""

    files: int
    failed: int
    segments: int
    audio_seconds: float  # of scored files
    wall_seconds: float


AnyRecord = ScoreRecord | FileRecord | ErrorRecord | ReceiptRecord | SummaryRecord


def printable(text: str) -> str:
    """Text that any stream takes: bytes of a file's name that are not UTF-8 show as \\xNN."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def records_of(result: FileResult) -> list[AnyRecord]:
    """A result as records: its error, or its scores and their summary."""
    if result.error is not None:
        return [
            ErrorRecord(
                file=printable(result.file), channel=result.channel, error=printable(str(result.error))
            )
        ]
    return [*(_score_record(result, score) for score in result.scores), file_record(result)]


def file_record(result: FileResult) -> FileRecord:
    """The summary of a result without error."""
    return FileRecord(
        file=printable(result.file),
        channel=result.channel,
        seconds=round(result.seconds, 6),
        segments=len(result.scores),
        score=result.mean,
        llr=result.llr,
        p_spoof=result.p_spoof,
        label=result.label,
        spoof_segments=result.spoof_segments,
        lowest=result.lowest.score,
        lowest_at=result.lowest.start,
        warnings=result.warnings,
    )


def _score_record(result: FileResult, score: Score) -> ScoreRecord:
    return ScoreRecord(
        file=printable(result.file),
        channel=result.channel,
        start=score.start,
        end=score.end,
        score=score.score,
        llr=score.llr,
        p_spoof=score.p_spoof,
        label=score.label,
        tail=score.tail,
    )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line, from the types above."""
    schema = msgspec.json.schema(AnyRecord)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nes2net-run records",
        **schema,
    }
