"""Scores of labelled trials.

Each segment rule is scored on its own kind of audio. `first` and `full` take every trial as it is. `windows`
repeats what is shorter than a window, which is not what it hears of a long recording: trials of one speaker
(and one label, system and condition) are joined until they fill several windows. `early` takes the first 1,
2 and 3 seconds of a trial, each repeated to a window as a stream's early scores are.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nes2net_calib.protocols import Trial
from nes2net_calib.score_cache import Heard, ScoreCache
from nes2net_runtime import AudioError, BundleError, Detector, FileResult, Score
from nes2net_runtime.audio import SAMPLE_RATE, Samples, audio_info, read_blocks
from nes2net_runtime.bundle import sha256
from nes2net_runtime.detector import MAX_FULL, SILENT
from nes2net_runtime.manifest import (
    CalibrationRule,
)

EARLY = (1.0, 2.0, 3.0)  # seconds
JOINED = 20.0  # seconds of joined trials; then the next ones are another signal
CHUNK = 64  # signals that are read, scored and kept before the next ones are

NOTHING: Samples = np.zeros(0, np.float32)

Length = Callable[[Trial], float]  # in seconds
Signal = tuple[Trial, ...]  # what is scored as one: a trial, or several in a row


@dataclass(frozen=True)
class LabelledScore:
    """One score; the trial tells label, system, speaker and condition."""

    trial: Trial
    score: float
    seconds: float  # of audio that the score is of


def seconds(trial: Trial) -> float:
    """How long a trial's audio is, by its header; 0 where it can't be read."""
    try:
        return audio_info(trial.path).seconds
    except AudioError:
        return 0.0


def signals(
    trials: Sequence[Trial], rule: CalibrationRule, window_samples: int, length: Length = seconds
) -> list[Signal]:
    """What is scored under a rule: `full` not above 60 s, `windows` joined and filling a window.

    `length` tells how long a trial is. Trials of an unknown speaker are not joined. A file that can't be read
    is in, for the scoring to say so.
    """
    if rule == "first":
        return [(trial,) for trial in trials]
    if rule == "early":
        return [(trial,) for trial in trials if length(trial) >= EARLY[0]]
    if rule == "full":
        return [(trial,) for trial in trials if length(trial) <= MAX_FULL]
    lengths: defaultdict[tuple[object, ...], float] = defaultdict(float)
    growing: defaultdict[tuple[object, ...], list[Trial]] = defaultdict(list)
    made: list[Signal] = []
    for trial in trials:
        group = (trial.speaker or trial.id, trial.bonafide, trial.system, trial.condition)
        growing[group].append(trial)
        lengths[group] += length(trial)
        if lengths[group] >= JOINED:
            made.append(tuple(growing.pop(group)))
            del lengths[group]
    whole = [group for group, filled in lengths.items() if filled >= window_samples / SAMPLE_RATE]
    return made + [tuple(growing[group]) for group in whole]


def score_signals(
    detector: Detector,
    wanted: Sequence[Signal],
    rule: CalibrationRule,
    cache: ScoreCache,
    on_signals: Callable[[int], None] = lambda count: None,
) -> tuple[list[LabelledScore], dict[Trial, str]]:
    """The scores of all signals, and what is wrong with a trial of each that has none.

    Only what the cache lacks is computed. Labelled audio that is cut short, damaged or silent has no score.
    """
    scores: list[LabelledScore] = []
    problems: dict[Trial, str] = {}
    for start in range(0, len(wanted), CHUNK):
        chunk = {signal: content(signal) for signal in wanted[start : start + CHUNK]}
        new = {key: signal for signal, key in chunk.items() if key not in cache}
        reasons: dict[str, tuple[int, str]] = {}  # which trial of the signal, and what is wrong
        for key, result in zip(new, _results(detector, list(new.values()), rule), strict=True):
            if result.error is not None or result.warnings:
                place = [str(trial.path) for trial in new[key]].index(result.file)
                reasons[key] = place, str(result.error or f"{result.file}: {result.warnings[0]}")
            else:
                cache.add(key, _heard(result, rule, detector.bundle.manifest.audio.window_samples))
            on_signals(1)
        on_signals(len(chunk) - len(new))
        for signal, key in chunk.items():
            if key in reasons:
                place, reason = reasons[key]
                problems[signal[place]] = reason
            else:
                heard = cache[key]
                scores += [LabelledScore(signal[0], score, heard.seconds) for score in heard.scores]
    return scores, problems


def _results(detector: Detector, wanted: Sequence[Signal], rule: CalibrationRule) -> Iterator[FileResult]:
    if rule == "early":
        yield from (_early(detector, trial) for (trial,) in wanted)
        return
    if rule != "windows":
        yield from detector.score_files([signal[0].path for signal in wanted], segment=rule)
        return
    for signal in wanted:
        if len(signal) == 1:
            yield from detector.score_files([signal[0].path], segment=rule)
        else:
            yield _joined(detector, signal)


def _early(detector: Detector, trial: Trial) -> FileResult:
    """Scores of a trial's first seconds, as far as it has them."""
    result, samples = _read([trial])
    lengths = [round(seconds * SAMPLE_RATE) for seconds in EARLY]
    return _scored(
        result,
        lambda: [detector.score(samples[:n], segment="first")[0] for n in lengths if n <= len(samples)],
    )


def _joined(detector: Detector, signal: Signal) -> FileResult:
    """The scores of several files in a row."""
    result, samples = _read(signal)
    return _scored(result, lambda: detector.score(samples, segment="windows"))


def _read(signal: Sequence[Trial]) -> tuple[FileResult, Samples]:
    """The audio of several files in a row; or what is wrong with the first that something is wrong with."""
    joined: list[Samples] = []
    for trial in signal:
        result = FileResult(str(trial.path))
        try:
            blocks = list(read_blocks(trial.path, None, result.warnings))
        except AudioError as error:
            result.error = error
            return result, NOTHING
        if not any(block.any() for block in blocks):
            result.warnings.append(SILENT)
        if result.warnings:
            return result, NOTHING
        joined += blocks
    return result, np.concatenate(joined)


def _scored(result: FileResult, score: Callable[[], list[Score]]) -> FileResult:
    if result.error is None and not result.warnings:
        try:
            result.scores = score()
        except AudioError as error:  # the detector's output is not finite
            result.error = error
    return result


def _heard(result: FileResult, rule: CalibrationRule, window_samples: int) -> Heard:
    """Of `windows` only whole ones count: where the audio is shorter there is one, and it is repeated."""
    window, end = window_samples / SAMPLE_RATE, result.scores[-1].end
    if rule == "early":
        return Heard(EARLY[0], [score.score for score in result.scores])
    if rule != "windows":
        return Heard(end, [score.score for score in result.scores])
    return Heard(window, [score.score for score in result.scores] if end >= window else [])


def content(signal: Signal) -> str:
    """SHA-256 over those of the files; of one that can't be read, of its name."""
    return hashlib.sha256(" ".join(_file_content(trial.path) for trial in signal).encode()).hexdigest()


def _file_content(path: Path) -> str:
    try:
        return sha256(path)
    except BundleError:
        return ascii(path)
