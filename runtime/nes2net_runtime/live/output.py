"""What a stream writes as it goes, each line flushed: text, JSONL, CSV, and a label track for Audacity."""

import csv
from collections.abc import Callable
from typing import TextIO

from nes2net_runtime.decisions import CALIBRATE
from nes2net_runtime.live.loop import Event
from nes2net_runtime.manifest import (
    AlertRule,
)
from nes2net_runtime.output import Format, clock, count, probability, write_record
from nes2net_runtime.records import SummaryRecord, alert_record, gap_record, printable, score_record
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert

EventWriter = Callable[[Event], None]

CSV_COLUMNS = (
    "type", "file", "channel", "start", "end", "score", "llr", "p_spoof", "label", "tail", "early", "note",
)  # fmt: skip


def make_event_writer(
    format: Format, out: TextIO, file: str, channel: int | None, calibrated: bool
) -> EventWriter:
    """A function that writes one event of the stream called `file`."""
    match format:
        case "text":
            return _text_writer(out, calibrated)
        case "jsonl":
            return _jsonl_writer(out, file, channel)
        case "csv":
            return _csv_writer(out, file, channel)


def event_line(event: Event, calibrated: bool) -> str:
    """An event for people."""
    if isinstance(event, Outage):
        return (
            f"{clock(event.start):>9}  gap       {event.end - event.start:.1f} s of audio lost: {event.cause}"
        )
    if isinstance(event, Alert):
        if event.state == "raised":
            return f"{clock(event.raised):>9}  ALERT     sounds synthetic since {clock(event.start)}"
        return f"{'':9}  alert over: {clock(event.start)} to {clock(event.end)}, llr down to {event.llr:+.1f}"
    note = "  early" if event.early else ""
    score = f"{event.score:+8.3f}{note}"
    if not calibrated:
        return f"{clock(event.end):>9}  {score}"
    llr = "" if event.llr is None else f"{event.llr:+.2f}"
    return (
        f"{clock(event.end):>9}  {event.label or '-':8}  {probability(event.p_spoof):>7}  {llr:>7}  {score}"
    )


def head_line(calibrated: bool) -> str:
    """The heads of a score line's columns."""
    labels = f"{'label':8}  {'p_spoof':>7}  {'llr':>7}  " if calibrated else ""
    return f"{'at':>9}  {labels}{'score':>8}"


def make_label_writer(out: TextIO) -> EventWriter:
    """Audacity's label track (start, end, text; tab-separated): alerts once they have ended, and gaps."""

    def write(event: Event) -> None:
        if isinstance(event, Outage):
            out.write(f"{event.start:.6f}\t{event.end:.6f}\tgap: {event.cause}\n")
        elif isinstance(event, Alert) and event.state == "ended":
            out.write(f"{event.start:.6f}\t{event.end:.6f}\tsynthetic (llr {event.llr:+.1f})\n")
        out.flush()

    return write


def live_totals_line(summary: SummaryRecord) -> str:
    """The end of a stream in one line."""
    s = summary.stream
    assert s is not None
    load = 100 * s.work_seconds / max(summary.audio_seconds, 1e-9)
    return ", ".join(
        [
            f"{clock(summary.audio_seconds)} of audio",
            f"{count(summary.segments, 'window')} scored",
            *([f"{s.without_speech} without speech"] if s.without_speech else []),
            count(s.alerts, "alert"),
            count(s.gaps, "gap") + (f" ({s.lost_seconds:.1f} s lost)" if s.gaps else ""),
            f"load {load:.1f} % of real time",
        ]
    )


def meaning_of_alerts(rule: AlertRule | None) -> list[str]:
    """What an alert means, for people."""
    if rule is None:
        return [f"not calibrated: scores order recordings, no alerts come; {CALIBRATE}."]
    llr = f"the llr, smoothed over {rule.smoothing:g} s," if rule.smoothing else "the llr of a window"
    below = f"below {rule.alert_llr:+.3g}"
    falls = f"stays {below} for {rule.patience:g} s" if rule.patience else f"is {below}"
    return [f"alert: {llr} {falls}; over when it is above {rule.clear_llr:+.3g}."]


def _text_writer(out: TextIO, calibrated: bool) -> EventWriter:
    out.write(head_line(calibrated) + "\n")

    def write(event: Event) -> None:
        out.write(event_line(event, calibrated) + "\n")
        out.flush()

    return write


def _jsonl_writer(out: TextIO, file: str, channel: int | None) -> EventWriter:
    def write(event: Event) -> None:
        if isinstance(event, Score):
            write_record(score_record(file, channel, event), out)
        elif isinstance(event, Alert):
            write_record(alert_record(file, channel, event), out)
        else:
            write_record(gap_record(file, channel, event), out)

    return write


def _csv_writer(out: TextIO, file: str, channel: int | None) -> EventWriter:
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(CSV_COLUMNS)
    whose = (printable(file), channel)

    def write(event: Event) -> None:
        if isinstance(event, Score):
            s, decision = event, (event.llr, event.p_spoof, event.label)
            rows.writerow(
                ["score", *whose, s.start, s.end, s.score, *decision, int(s.tail), int(s.early), ""]
            )
        elif isinstance(event, Alert):
            a = event
            rows.writerow(["alert", *whose, a.start, a.end, "", a.llr, "", "", "", "", a.state])
        else:
            rows.writerow(["gap", *whose, event.start, event.end, *[""] * 6, event.cause])
        out.flush()

    return write
