"""What a person sees on stderr while files are scored: a bar on a terminal, warnings, errors, totals."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nes2net_runtime.audio import audio_info
from nes2net_runtime.decisions import CALIBRATE
from nes2net_runtime.manifest import (
    Calibration,
    Manifest,
)
from nes2net_runtime.output import clock, count
from nes2net_runtime.records import SummaryRecord, printable
from nes2net_runtime.results import FileResult, Score
from nes2net_runtime.segments import SegmentRule


class ScoringProgress:
    """Counts what was done and shows it; the bar is there only where stderr is a terminal."""

    def __init__(self, files: int) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("scoring"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[audio]}"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not sys.stderr.isatty(),  # whatever FORCE_COLOR says
        )
        self.task = self.bar.add_task("scoring", total=files, audio="")
        self.start = time.perf_counter()
        self.files = self.failed = self.segments = 0
        self.seconds = 0.0
        self.current = ("", 1.0)  # the file being scored, and its length in seconds

    def __enter__(self) -> "ScoringProgress":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """A line above the bar."""
        self.console.print(printable(line), markup=False, emoji=False)

    def on_segment(self, result: FileResult, score: Score) -> None:
        """Move the bar within a file: one long recording is a bar of its own."""
        if self.bar.disable:
            return
        if result.file != self.current[0]:
            self.current = (result.file, max(audio_info_seconds(result), 0.1))
        done = self.files + min(1.0, score.end / self.current[1])
        speed = (self.seconds + score.end) / (time.perf_counter() - self.start)
        audio = f"{clock(self.seconds + score.end)} of audio, {speed:.0f}x real time"
        self.bar.update(self.task, completed=done, audio=audio)

    def file_done(self, result: FileResult) -> None:
        """Count a file, and say what was wrong with it."""
        self.files += 1
        for warning in result.warnings:
            self.say(f"warning: {result.file}: {warning}")
        if result.error is not None:
            self.failed += 1
            self.say(f"error: {result.error}")
        else:
            self.seconds += result.seconds
            self.segments += len(result.scores)
        self.bar.update(self.task, completed=self.files)

    def totals(self) -> SummaryRecord:
        """What was done until now."""
        return SummaryRecord(
            files=self.files,
            failed=self.failed,
            segments=self.segments,
            audio_seconds=round(self.seconds, 3),
            wall_seconds=round(time.perf_counter() - self.start, 3),
        )


def audio_info_seconds(result: FileResult) -> float:
    """Length by the header, or what was read where the header does not tell."""
    return audio_info(Path(result.file)).seconds or result.seconds


def totals_line(totals: SummaryRecord, provider: str, threads: int) -> str:
    """One line for people."""
    failed = f", {totals.failed} failed" if totals.failed else ""
    speed = totals.audio_seconds / max(totals.wall_seconds, 1e-9)
    return (
        f"{count(totals.files, 'file')}{failed}, {count(totals.segments, 'window')}, "
        f"{clock(totals.audio_seconds)} of audio in {totals.wall_seconds:.1f} s ({speed:.0f}x real time) "
        f"on {provider}, {count(threads, 'thread')}"
    )


def meaning_lines(usable: Mapping[SegmentRule, Calibration], segment: SegmentRule) -> list[str]:
    """What the numbers of the table mean; `usable`: the run's calibrations by rule."""
    lines = []
    for rule, c in sorted(usable.items(), key=lambda item: item[0] != segment):
        audio = "" if rule == segment else " of audio shorter than a window"
        lines.append(
            f"label{audio}: bonafide from a mean llr of {c.threshold:+.3g} on ({c.chosen_by}); "
            f"p_spoof assumes that {100 * c.prior_spoof:g} % of recordings are spoofs."
        )
    return [*lines, "score, lowest: mean and minimum of the windows' bona fide logits, higher = more human."]


def why_no_labels(manifest: Manifest, segment: SegmentRule, window_samples: int | None) -> str | None:
    """Why files have no labels; None where the bundle is calibrated for such segments."""
    window = manifest.audio.window_samples
    if not manifest.calibration:
        return f"not calibrated: scores order recordings, and no labels come with them; {CALIBRATE}."
    if segment != "full" and window_samples not in (None, window):
        return f"not calibrated for windows of {window_samples} samples but of {window}: no labels."
    if segment not in manifest.calibration:
        rules = ", ".join(manifest.calibration)
        short = segment == "windows" and "first" in manifest.calibration
        where = " but on audio shorter than a window" if short else ""
        return f"not calibrated for --segment {segment} (only {rules}): no labels{where}; {CALIBRATE}."
    return None
