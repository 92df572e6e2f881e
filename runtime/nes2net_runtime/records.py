"""Machine-readable output: one record a line. `records.schema.json` beside this file is its JSON Schema."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import msgspec

from nes2net_runtime.decisions import Label
from nes2net_runtime.inference.receipt import Receipt
from nes2net_runtime.results import FileResult, Outage, Score
from nes2net_runtime.streaming.alerts import Alert

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
    early: bool  # of a stream's beginning, repeated: a whole window was not there yet


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


class GapRecord(_Record, frozen=True, tag="gap"):
    """Audio that a stream lost: no window spans it, and the grid of windows starts anew at its end."""

    file: str
    channel: int | None
    start: float
    end: float
    cause: str


class AlertRecord(_Record, frozen=True, tag="alert"):
    """A stream sounds synthetic: one record when the alert is raised, one when it has ended."""

    file: str
    channel: int | None
    state: Literal["raised", "ended"]
    start: float  # where the first window began whose smoothed llr was low enough
    end: float  # where the last such window ended; of an alert just raised, up to now
    raised: float  # when the alert was raised: the end of the window that raised it
    llr: float  # the lowest smoothed llr


class ReceiptRecord(_Record, frozen=True, tag="receipt"):
    """What the detector really ran on."""

    receipt: Receipt


class StreamSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream adds to the summary. Times in seconds."""

    without_speech: int  # windows that were not scored for that
    alerts: int
    gaps: int
    lost_seconds: float  # in the gaps
    longest_wait: float  # of live audio before it was scored
    longest_hop: float
    work_seconds: float  # spent on the audio


class SummaryRecord(_Record, frozen=True, tag="summary"):
    """The end of a run."""

    files: int
    failed: int
    segments: int
    audio_seconds: float  # of scored files
    wall_seconds: float
    stream: StreamSummary | None = None


AnyRecord = ScoreRecord | FileRecord | GapRecord | AlertRecord | ErrorRecord | ReceiptRecord | SummaryRecord


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
    scores = (score_record(result.file, result.channel, score) for score in result.scores)
    return [*scores, file_record(result)]


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


def score_record(file: str, channel: int | None, score: Score) -> ScoreRecord:
    """One score of a file or stream."""
    return ScoreRecord(
        file=printable(file),
        channel=channel,
        start=score.start,
        end=score.end,
        score=score.score,
        llr=score.llr,
        p_spoof=score.p_spoof,
        label=score.label,
        tail=score.tail,
        early=score.early,
    )


def gap_record(file: str, channel: int | None, outage: Outage) -> GapRecord:
    """What a stream lost."""
    return GapRecord(file=printable(file), channel=channel, **asdict(outage))


def alert_record(file: str, channel: int | None, alert: Alert) -> AlertRecord:
    """An alert, raised or ended."""
    return AlertRecord(file=printable(file), channel=channel, **asdict(alert))


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a line, from the types above."""
    schema = msgspec.json.schema(AnyRecord)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "nes2net-run records",
        **schema,
    }
