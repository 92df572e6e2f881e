"""Decision defaults of streams: the fewest false alarms among rules that are quick enough.

Two kinds of streams are made of the trials: bona fide speech in a row, speaker after speaker, where each
alert is a false alarm; and changes, from a human's speech to a synthetic voice:

    |--- bona fide, 8 s ---|--- spoofs of one system, 8 to 12 s ---|
                           |<- delay ->| alert
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import cycle, product
from math import inf, log

import numpy as np
from scipy.stats import chi2

from nes2net_calib.progress import Track
from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.rules import EvidenceError
from nes2net_calib.scoring import seconds as seconds_of
from nes2net_runtime import Detector, Score
from nes2net_runtime.audio import SAMPLE_RATE, Samples, read_blocks
from nes2net_runtime.detector import MIN_SPEECH, STREAM_HOP
from nes2net_runtime.manifest import (
    AlertRule,
    Calibration,
    Streaming,
    StreamingEvidence,
)
from nes2net_runtime.streaming.alerts import Alerts

DELAY = 4.0  # seconds, the median at most
LEAD = 8.0  # seconds of bona fide speech before a change
SPOOF = (8.0, 12.0)  # seconds of synthetic speech after it, at least and at most
MOST_HOURS = 1.0  # of bona fide speech that are scored
MOST_CHANGES = 60
LEAST_MINUTES, LEAST_CHANGES = 5.0, 10
SMOOTHING = (0.0, 0.5, 1.0, 2.0)  # seconds
PATIENCE = (0.0, 0.5, 1.0, 2.0)  # seconds
STRICTEST, STEP = -12.0, 0.25  # llrs that are tried, from the label's threshold down


@dataclass(frozen=True)
class Outcome:
    """How a rule did."""

    rule: AlertRule
    false_alarms: int
    delays: tuple[float, ...]  # of changes, in seconds; infinite where one went unnoticed

    @property
    def detected(self) -> int:
        """Changes that were noticed."""
        return sum(delay < inf for delay in self.delays)

    @property
    def median_delay(self) -> float:
        """Seconds; infinite where most changes went unnoticed."""
        return float(np.median(self.delays))


@dataclass(frozen=True)
class Heard:
    """The scores of both kinds of streams, with the llrs of `windows`."""

    genuine: list[Score]  # of bona fide speech
    hours: float  # of it
    changed: list[list[Score]]  # of each change; it comes after LEAD seconds


def hear_streams(
    detector: Detector, name: str, trials: Sequence[Trial], calibration: Calibration, track: Track
) -> Heard:
    """Make both kinds of streams of a list's trials and score them, gated by voice activity.

    Raises EvidenceError where there is too little audio, AudioError for audio that can't be read.
    """
    bonafide, changes = [trial for clips in _speakers(trials) for trial in clips], _changes(trials)
    if len(changes) < LEAST_CHANGES:
        raise EvidenceError(
            f"{name}: too small for decision defaults of streams: {len(changes)} changes from a human to "
            f"{SPOOF[0]:g} s or more of one system's speech; at least {LEAST_CHANGES} are needed"
        )
    advance = track("streams", len(bonafide) + len(changes))
    genuine, seconds = [], 0.0
    stream = detector.stream(hop=STREAM_HOP, min_speech=MIN_SPEECH)
    for trial in bonafide:
        for block in read_blocks(trial.path, None, []):
            seconds += len(block) / SAMPLE_RATE
            genuine += stream.feed(block)
        advance(1)
        if seconds > 3600 * MOST_HOURS:
            break
    if seconds < 60 * LEAST_MINUTES:
        raise EvidenceError(
            f"{name}: too small for decision defaults of streams: {seconds / 60:.1f} minutes of bona fide "
            f"speech; at least {LEAST_MINUTES:g} are needed"
        )
    genuine += stream.close()
    changed = []
    for lead, spoofs in changes:
        stream = detector.stream(hop=STREAM_HOP, min_speech=MIN_SPEECH)
        human, voice = np.resize(_joined(lead, LEAD), round(LEAD * SAMPLE_RATE)), _joined(spoofs, SPOOF[1])
        changed.append([*stream.feed(human), *stream.feed(voice), *stream.close()])
        advance(1)
    with_llr = [_with_llr(scores, calibration) for scores in changed]
    return Heard(_with_llr(genuine, calibration), seconds / 3600, with_llr)


def choose_streaming(
    detector: Detector, protocol: Protocol, trials: Sequence[Trial], calibration: Calibration, track: Track
) -> Streaming:
    """Score the streams and choose; `calibration` is that of `windows`. Raises as `hear_streams` does."""
    heard = hear_streams(detector, protocol.name, trials, calibration, track)
    best = best_rule(heard.genuine, heard.changed, calibration.threshold)
    low, high = poisson_interval(best.false_alarms)
    median = best.median_delay
    return Streaming(
        rule=best.rule,
        hop=STREAM_HOP,
        min_speech=MIN_SPEECH,
        evidence=StreamingEvidence(
            protocol=protocol.name,
            sha256=protocol.sha256,
            split=protocol.split,
            hours=heard.hours,
            false_alarms=best.false_alarms,
            false_alarms_per_hour=(low / heard.hours, high / heard.hours),
            changes=len(best.delays),
            detected=best.detected,
            median_delay=median if median < inf else None,
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
    )


def best_rule(genuine: Sequence[Score], changed: Sequence[Sequence[Score]], threshold: float) -> Outcome:
    """The rule with the fewest false alarms of those that are quick enough; else the quickest.

    Of equals, the one that detects most changes, then the strictest.
    """
    steps = int((threshold - STRICTEST) / STEP) + 1
    outcomes = []
    for smoothing, patience, step in product(SMOOTHING, PATIENCE, range(steps)):
        rule = AlertRule(
            smoothing=smoothing, patience=patience, alert_llr=threshold - STEP * step, clear_llr=threshold
        )
        outcomes.append(outcome(rule, genuine, changed))
    quick = [o for o in outcomes if o.median_delay <= DELAY]
    if not quick:
        return min(outcomes, key=lambda o: (o.median_delay, o.false_alarms))
    return min(quick, key=lambda o: (o.false_alarms, -o.detected, o.rule.alert_llr))


def outcome(rule: AlertRule, genuine: Sequence[Score], changed: Sequence[Sequence[Score]]) -> Outcome:
    """Count a rule's false alarms and measure its delays."""
    delays = (next((at - LEAD for at in _raised(rule, scores) if at > LEAD), inf) for scores in changed)
    return Outcome(rule, len(list(_raised(rule, genuine))), tuple(delays))


def poisson_interval(events: int) -> tuple[float, float]:
    """Exact 95 % interval of a Poisson mean (Garwood); of no events the upper bound alone, -ln 0.05 = 3.0."""
    if events == 0:
        return 0.0, -log(0.05)
    return float(chi2.ppf(0.025, 2 * events) / 2), float(chi2.ppf(0.975, 2 * events + 2) / 2)


def _raised(rule: AlertRule, scores: Sequence[Score]) -> Iterator[float]:
    alerts = Alerts(rule)
    for score in scores:
        for alert in alerts.update(score):
            if alert.state == "raised":
                yield alert.raised


def _with_llr(scores: Sequence[Score], calibration: Calibration) -> list[Score]:
    return [replace(s, llr=calibration.slope * s.score + calibration.offset) for s in scores]


def _speakers(trials: Sequence[Trial]) -> list[list[Trial]]:
    """The bona fide trials of each speaker, so that one goes on as long as there is speech of theirs."""
    speakers: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        if trial.bonafide:
            speakers[trial.speaker or trial.id].append(trial)
    return list(speakers.values())


def _changes(trials: Sequence[Trial]) -> list[tuple[list[Trial], list[Trial]]]:
    """(clips of a speaker, clips of a system) of each change; systems take turns, and so do speakers."""
    speakers = _speakers(trials)
    systems: defaultdict[str, list[list[Trial]]] = defaultdict(list)
    lengths: dict[str, float] = {}
    for trial in trials:
        if trial.bonafide:
            continue
        name = trial.system or "-"
        if lengths.get(name, inf) >= SPOOF[1]:
            systems[name].append([])
            lengths[name] = 0.0
        systems[name][-1].append(trial)
        lengths[name] += seconds_of(trial)
    for name, length in lengths.items():
        if length < SPOOF[0]:
            systems[name].pop()
    made: list[list[Trial]] = []
    while len(made) < MOST_CHANGES and any(systems.values()):
        made += [groups.pop(0) for groups in systems.values() if groups]
    return list(zip(cycle(speakers), made[:MOST_CHANGES])) if speakers else []


def _joined(trials: Sequence[Trial], seconds: float) -> Samples:
    blocks = [block for trial in trials for block in read_blocks(trial.path, None, [])]
    return np.concatenate(blocks)[: round(seconds * SAMPLE_RATE)]
