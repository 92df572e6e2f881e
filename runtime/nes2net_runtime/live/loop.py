"""The loop of a live run: a source's blocks become scores, alerts and gaps, in order.

    source -> resampler -> Stream -> Score ─┬─> sinks (records, view, recorder, report, commands)
         └──────────────── Gap ─────────────┤
                             Alerts ────────┘

A machine that is too slow for the hop makes fewer windows: the hop doubles while audio waits, up to a window
(then no audio goes unheard), and comes back. Where even that is too slow the source's buffer overflows, which
is a gap as any other.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event as Flag

import numpy as np

from nes2net_runtime.audio import SAMPLE_RATE, Samples, resampler
from nes2net_runtime.errors import AudioError
from nes2net_runtime.memory import tidy_memory
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert, Alerts
from nes2net_runtime.streaming.sources import Gap, Source
from nes2net_runtime.streaming.stream import Stream

SETTLE = 0.8  # how fast running means follow: share of the old value that is kept
TIDY = 60.0  # seconds of the stream between two times that memory is tidied
EASY = 0.7  # share of a hop's time that a window may take
NOTHING: Samples = np.zeros(0, np.float32)


Event = Score | Alert | Outage


@dataclass(frozen=True)
class Status:
    """How a run stands; for people."""

    seconds: float  # of the signal, gaps too
    level: float  # dB of full scale: of the last block
    hop: float  # seconds, as it is now
    behind: float  # seconds of audio that wait
    real_time_factor: float  # seconds of work for a second of audio, over the last seconds
    smoothed: float | None  # llr
    alert: Alert | None
    without_speech: bool  # the last window was not scored
    receiving: bool  # the last read gave audio


@dataclass
class Totals:
    """What a run did. Times in seconds."""

    windows: int = 0
    without_speech: int = 0  # windows that were not scored
    alerts: int = 0
    gaps: int = 0
    lost: float = 0.0
    audio: float = 0.0  # heard, without gaps
    busy: float = 0.0  # spent on it
    longest_wait: float = 0.0  # that audio had to
    longest_hop: float = 0.0
    error: AudioError | None = None  # that ended the source


@dataclass(frozen=True)
class Sinks:
    """Who is told what, as it happens."""

    event: list[Callable[[Event], None]] = field(default_factory=list)
    audio: list[Callable[[Samples], None]] = field(
        default_factory=list
    )  # at 16 kHz, as the detector hears it
    status: list[Callable[[Status], None]] = field(default_factory=list)  # after each block
    say: Callable[[str], None] = lambda line: None  # a warning for people


def listen(source: Source, stream: Stream, alerts: Alerts | None, sinks: Sinks, stop: Flag) -> Totals:
    """Score an opened source until it ends or `stop` is set; closes it. Returns what was done."""
    return _Run(source, stream, alerts, sinks).until(stop)


def next_hop(hop: int, wanted: int, window: int, behind: float, cost: float) -> int:
    """The hop to go on with, in samples: longer while audio waits, else back towards `wanted`.

    `behind`: seconds of audio that wait; `cost`: seconds that a window takes, with all that comes with it.
    Audio that came in a burst may wait, where windows are cheap.
    """
    if behind > hop / SAMPLE_RATE and cost > EASY * hop / SAMPLE_RATE:
        return min(2 * hop, max(wanted, window // wanted * wanted))
    if behind < wanted / SAMPLE_RATE and cost < EASY * hop / 2 / SAMPLE_RATE:
        return max(hop // 2 // wanted * wanted, wanted)
    return hop


class _Run:
    def __init__(self, source: Source, stream: Stream, alerts: Alerts | None, sinks: Sinks) -> None:
        self.source, self.stream, self.alerts, self.sinks = source, stream, alerts, sinks
        self.wanted_hop = stream.hop
        self.totals = Totals(longest_hop=stream.hop / SAMPLE_RATE)
        self.resample = resampler(source.sample_rate)
        self.outage: Outage | None = None  # that may still go on
        self.untidy = TIDY  # seconds of the stream: when memory is tidied next
        self.level, self.load = -np.inf, 0.0
        self.spent, self.cost = 0.0, 0.0  # seconds: since the last window, and for each on average

    def until(self, stop: Flag) -> Totals:
        try:
            while not stop.is_set() and (piece := self.source.read()) is not None:
                self._take(piece)
                self._warn()
        except AudioError as error:
            self.totals.error = error
        finally:
            gap = self.source.close()
        start = time.perf_counter()
        self._feed(self.resample(NOTHING, True))
        self._scores(self._guarded(self.stream.close))
        self.totals.busy += time.perf_counter() - start
        if gap is not None:
            self._outage(self.stream.seconds, self.stream.seconds + gap.seconds, gap.cause)
        self._tell_outage()
        self._alerts(self.alerts.reset() if self.alerts else [])
        self._warn()
        self.totals.windows, self.totals.without_speech = self.stream.scored, self.stream.without_speech
        return self.totals

    def _take(self, piece: Samples | Gap) -> None:
        start = time.perf_counter()
        if isinstance(piece, Gap):
            self._gap(piece)
        elif len(piece):
            before = self.stream.windows
            self._feed_finite(piece)
            self._pace(time.perf_counter() - start, self.stream.windows - before, len(piece))
        self.totals.busy += time.perf_counter() - start
        status = self._status(isinstance(piece, Gap) or len(piece) > 0)
        for tell in self.sinks.status:
            tell(status)

    def _feed_finite(self, piece: Samples) -> None:
        """Score a block; from its first sample that is NaN or infinite to its last there is a gap."""
        bad = np.flatnonzero(~np.isfinite(piece))
        first, last = (int(bad[0]), int(bad[-1]) + 1) if bad.size else (len(piece), len(piece))
        self._feed(self.resample(piece[:first], False))
        if bad.size:
            self._gap(Gap((last - first) / self.source.sample_rate, "NaN or infinity in the audio"))
            self._feed(self.resample(piece[last:], False))
        self.level = _level(piece[:first] if first else piece[last:])

    def _feed(self, samples: Samples) -> None:
        if len(samples):
            self._tell_outage()
        self.totals.audio += len(samples) / SAMPLE_RATE
        for take in self.sinks.audio:
            take(samples)
        self._scores(self._guarded(lambda: self.stream.feed(samples)))
        if self.stream.seconds >= self.untidy:
            tidy_memory()
            self.untidy = self.stream.seconds + TIDY
        if self.alerts is not None:
            self._alerts(self.alerts.idle(self.stream.seconds))

    def _gap(self, gap: Gap) -> None:
        self._feed(self.resample(NOTHING, True))
        self.resample = resampler(self.source.sample_rate)
        start = self.stream.seconds
        self._scores(self._guarded(lambda: self.stream.gap(gap.seconds)))
        self._alerts(self.alerts.reset() if self.alerts else [])
        self._outage(start, self.stream.seconds, gap.cause)

    def _outage(self, start: float, end: float, cause: str) -> None:
        """Keep an outage until audio comes again: what follows on it is the same one."""
        if self.outage is not None:
            start, cause = self.outage.start, self.outage.cause
        self.outage = Outage(start, end, cause)

    def _tell_outage(self) -> None:
        if self.outage is not None:
            self.totals.gaps += 1
            self.totals.lost += self.outage.end - self.outage.start
            self._tell(self.outage)
            self.outage = None

    def _guarded(self, score: Callable[[], list[Score]]) -> list[Score]:
        """Scores that are not finite (audio far too loud) are left out, and said."""
        try:
            return score()
        except AudioError as error:
            self.sinks.say(f"warning: {self.source.name}: {error}")
            return []

    def _scores(self, scores: list[Score]) -> None:
        for score in scores:
            self._tell(score)
            if self.alerts is not None:
                self._alerts(self.alerts.update(score))

    def _alerts(self, alerts: list[Alert]) -> None:
        for alert in alerts:
            self.totals.alerts += alert.state == "raised"
            self._tell(alert)

    def _tell(self, event: Event) -> None:
        for tell in self.sinks.event:
            tell(event)

    def _warn(self) -> None:
        for warning in self.source.warnings:
            self.sinks.say(f"warning: {self.source.name}: {warning}")
        self.source.warnings.clear()

    def _pace(self, seconds: float, windows: int, samples: int) -> None:
        """Account for the work on a block, and choose the hop to go on with."""
        self.load = SETTLE * self.load + (1 - SETTLE) * seconds * self.source.sample_rate / samples
        behind = self.source.waiting()
        if behind is None:
            return
        self.totals.longest_wait = max(self.totals.longest_wait, behind)
        self.spent += seconds
        if not windows:
            return
        cost, self.spent = self.spent / windows, 0.0
        self.cost = SETTLE * self.cost + (1 - SETTLE) * cost if self.cost else cost
        hop = next_hop(self.stream.hop, self.wanted_hop, self.stream.window, behind, self.cost)
        if hop > self.totals.longest_hop * SAMPLE_RATE:
            self.sinks.say(
                f"warning: a window takes {self.cost:.2f} s here, too long for a hop of "
                f"{self.stream.hop / SAMPLE_RATE:g} s: going on every {hop / SAMPLE_RATE:g} s"
            )
            self.totals.longest_hop = hop / SAMPLE_RATE
        self.stream.hop = hop

    def _status(self, receiving: bool) -> Status:
        return Status(
            seconds=self.stream.seconds,
            level=self.level if receiving else -np.inf,
            hop=self.stream.hop / SAMPLE_RATE,
            behind=self.source.waiting() or 0.0,
            real_time_factor=self.load,
            smoothed=self.alerts.smoothed if self.alerts else None,
            alert=self.alerts.alert if self.alerts else None,
            without_speech=self.stream.quiet,
            receiving=receiving,
        )


def _level(samples: Samples) -> float:
    """Root mean square, dB of full scale."""
    power = np.mean(np.square(samples, dtype=np.float64)) if len(samples) else 0.0
    return float(10 * np.log10(power + 1e-12))
