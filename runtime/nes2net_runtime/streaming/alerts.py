"""From the llrs of a stream's windows to alerts: smoothing, hysteresis, patience.

    smoothed += (1 - exp(-step / smoothing)) * (llr - smoothed)        step: seconds since the last window

    clear_llr  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ x over ─ ─
    alert_llr  ─ ─ ─ ─ x ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ x ─ ─ ─ ─ ─ ─ ─
                       |patience| raised

An alert is raised once the smoothed llr was below alert_llr for `patience` seconds. It is over when the
smoothed llr is above clear_llr, when no speech came for PAUSE seconds, or at a gap. llrs are smoothed, not
probabilities: they go on to tell where a probability saturates.
"""

from dataclasses import dataclass
from math import exp
from typing import Literal

from nes2net_runtime.manifest import (
    AlertRule,
    Calibration,
)
from nes2net_runtime.results import Score

PAUSE = 5.0  # seconds without a scored window after which the past no longer counts
# Where the bundle has a calibration, and no decision defaults that were measured.
USUAL = {"smoothing": 2.0, "patience": 1.0, "below_threshold": 2.0}


@dataclass(frozen=True)
class Alert:
    """The stream sounds synthetic. Times in seconds of the signal."""

    state: Literal["raised", "ended"]
    start: float  # where the first window began whose smoothed llr was below alert_llr
    end: float  # where the last such window ended; of an alert that was just raised, up to now
    raised: float  # when it was raised: the end of the window that raised it
    llr: float  # the lowest smoothed llr


def usual_rule(calibration: Calibration) -> AlertRule:
    """A rule for a bundle that has no measured one: `below_threshold` nats under the label's threshold."""
    return AlertRule(
        smoothing=USUAL["smoothing"],
        patience=USUAL["patience"],
        alert_llr=calibration.threshold - USUAL["below_threshold"],
        clear_llr=calibration.threshold,
    )


class Alerts:
    """The state between windows: the smoothed llr, and the alert that is on."""

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.smoothed: float | None = None
        self.alert: Alert | None = None  # that is on
        self._last = 0.0  # end of the last window
        self._below: tuple[float, float] | None = None  # start and end of the first window of a run below

    def update(self, score: Score) -> list[Alert]:
        """Take a window's score; windows without llr change nothing."""
        if score.llr is None:
            return []
        events = self.reset() if score.end - self._last > PAUSE else []
        if self.smoothed is None:
            self.smoothed = score.llr
        else:
            weight = 1 - exp(-(score.end - self._last) / self.rule.smoothing) if self.rule.smoothing else 1.0
            self.smoothed += weight * (score.llr - self.smoothed)
        self._last = score.end
        if self.alert is not None:
            return events + self._go_on(self.smoothed, score.end)
        if self.smoothed >= self.rule.alert_llr:
            self._below = None
            return events
        self._below = self._below or (score.start, score.end)
        start, since = self._below
        if score.end - since < self.rule.patience:
            return events
        self.alert = Alert("raised", start, score.end, score.end, self.smoothed)
        return [*events, self.alert]

    def idle(self, now: float) -> list[Alert]:
        """Time has gone on to `now` (seconds) without a window."""
        return self.reset() if now - self._last > PAUSE else []

    def reset(self) -> list[Alert]:
        """Forget the past, at a gap or the end; an alert that was on ends."""
        ended = [] if self.alert is None else [self._ended(self.alert)]
        self.smoothed = self.alert = self._below = None
        return ended

    def _go_on(self, smoothed: float, end: float) -> list[Alert]:
        assert self.alert is not None
        if smoothed > self.rule.clear_llr:
            ended = self._ended(self.alert)
            self.alert = self._below = None
            return [ended]
        last = end if smoothed < self.rule.alert_llr else self.alert.end
        self.alert = Alert("raised", self.alert.start, last, self.alert.raised, min(smoothed, self.alert.llr))
        return []

    @staticmethod
    def _ended(alert: Alert) -> Alert:
        return Alert("ended", alert.start, alert.end, alert.raised, alert.llr)
