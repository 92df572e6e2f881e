"""A stream's report: one HTML page that needs nothing else, with waveform, llrs, alerts and gaps over time.

Its size and the memory that it takes are bounded, however long the stream.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from html import escape
from math import log10
from pathlib import Path
from string import Template
from typing import TextIO

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.live.history import BIN, Envelope, Weightiest
from nes2net_runtime.live.loop import Event
from nes2net_runtime.live.output import meaning_of_alerts
from nes2net_runtime.live.picture import draw, signed
from nes2net_runtime.manifest import (
    AlertRule,
    Manifest,
)
from nes2net_runtime.output import clock, count
from nes2net_runtime.records import printable
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert, Alerts

PAGE = Path(__file__).parent / "report.html"
NO_LINE = "<p class=note>No line: no full window yet, not enough speech in it, or silence.</p>"


class Report:
    """Collects a stream's audio and events; `write` makes the page."""

    def __init__(self, out: TextIO, name: str, manifest: Manifest, rule: AlertRule | None) -> None:
        self._out, self._manifest, self._rule = out, manifest, rule
        self._name = "stdin" if name == "-" else printable(name)
        self._began = datetime.now(timezone.utc)
        self._wave, self._windows, self._line = Envelope(), Envelope(), Envelope()
        self._alerts: Weightiest[Alert] = Weightiest(lambda alert: -alert.llr)
        self._gaps: Weightiest[Outage] = Weightiest(lambda gap: gap.end - gap.start)
        self._smoothing = None if rule is None else Alerts(rule)
        self._on: Alert | None = None
        self._scored, self._seconds, self._lost = 0, 0.0, 0.0

    def audio(self, samples: Samples) -> None:
        """The next samples, at 16 kHz."""
        step = round(BIN * SAMPLE_RATE)
        for part in (samples[at : at + step] for at in range(0, len(samples), step)):
            seconds = len(part) / SAMPLE_RATE
            self._wave.add(self._seconds + seconds / 2, float(part.min()), float(part.max()))
            self._seconds += seconds

    def event(self, event: Event) -> None:
        """The next score, alert or gap."""
        if isinstance(event, Score):
            self._score(event)
        elif isinstance(event, Alert):
            self._on = event if event.state == "raised" else None
            if self._on is None:
                self._alerts.add(event)
        else:
            self._gap(event)

    def write(self) -> None:
        """Write the page."""
        if self._on is not None:  # the stream broke off
            self._alerts.add(replace(self._on, end=self._seconds))
        alerts, gaps = self._alerts, self._gaps
        alert_rows = [
            (clock(a.start), clock(a.end), clock(a.raised), signed(a.llr, ".1f")) for a in alerts.kept
        ]
        gap_rows = [(clock(g.start), clock(g.end), f"{g.end - g.start:.1f} s", g.cause) for g in gaps.kept]
        none = "No alerts." if self._rule else "Not calibrated: no alerts come."
        self._out.write(
            Template(PAGE.read_text(encoding="utf-8")).substitute(
                name=escape(self._name),
                verdict=escape(self._verdict()),
                picture=self._figure() if self._seconds else "",
                alerts=_left_out(alerts, "alerts with the lowest llr")
                + _table(("from", "to", "raised at", "lowest llr"), alert_rows, none),
                gaps=_left_out(gaps, "longest gaps")
                + _table(("from", "to", "lost", "why"), gap_rows, "Nothing was lost."),
                facts=_table(None, self._facts(), ""),
            )
        )

    def _score(self, score: Score) -> None:
        self._scored += 1
        value = line = score.score
        if self._smoothing is not None:
            if score.llr is None:
                return
            self._smoothing.update(score)
            value, line = score.llr, self._smoothing.smoothed or 0.0
        at = max(score.end - BIN / 2, 0.0)
        self._windows.add(at, value, value)
        self._line.add(at, line, line)

    def _gap(self, gap: Outage) -> None:
        self._seconds = gap.end
        self._lost += gap.end - gap.start
        if self._smoothing is not None:
            self._smoothing.reset()
        self._gaps.add(gap)

    def _verdict(self) -> str:
        scored, alerts = count(self._scored, "window"), self._alerts.number
        length = clock(self._seconds) + (f" ({clock(self._lost)} of it lost)" if self._lost else "")
        if not self._scored:
            return f"Nothing was scored in {length}."
        if self._rule is None:
            return f"{scored} scored in {length}. Not calibrated: no alerts come."
        return f"{count(alerts, 'alert') if alerts else 'No alert'} in {length}; {scored} scored."

    def _facts(self) -> list[tuple[str, str]]:
        m, versions = self._manifest, installed_versions("nes2net-edge", "onnxruntime")
        peak = max(map(abs, self._wave.extremes())) if self._wave.bins else 0.0
        return [
            ("Detector", f"{m.name}, {m.precision}"),
            ("Checkpoint", f"SHA-256 {m.source.sha256 or '-'}"),
            ("Decision", meaning_of_alerts(self._rule)[0]),
            ("Loudest", f"{signed(20 * log10(peak), '.1f')} dB of full scale" if peak else "all silent"),
            ("Began", f"{self._began:%Y-%m-%d %H:%M:%S} UTC"),
            ("Made with", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ]

    def _figure(self) -> str:
        alerts, gaps, rule = self._alerts.kept, self._gaps.kept, self._rule
        picture = draw(self._seconds, self._wave, self._windows, self._line, alerts, gaps, rule)
        smooth = rule.smoothing if rule else 0.0
        several = any(values.number > 1 for values in self._windows.bins.values())
        line = (
            f"smoothed over {smooth:g} s" if smooth else "mean" if several else "of each window, at its end"
        )
        keys = [("wave", "audio"), ("line", f"{'llr' if rule else 'score'}, {line}")]
        windows = "lowest to highest window" if several else "single windows"
        keys += [("range", windows)] * bool(smooth or several)
        if rule is not None:
            keys.append(("threshold alert", f"below {signed(rule.alert_llr)} alerts begin"))
            keys.append(("threshold", f"above {signed(rule.clear_llr)} they end"))
        keys += [("alert", "alert")] * bool(alerts) + [("gap", "audio lost")] * bool(gaps)
        key = "".join(f'<li><i class="{kind}"></i>{text}' for kind, text in keys)
        return f"<figure><div class=picture>{picture}</div><ul class=key>{key}</ul></figure>{NO_LINE}"


def _left_out(events: Weightiest[Alert] | Weightiest[Outage], which: str) -> str:
    kept = len(events.kept)
    return f"<p>The {kept} {which}, of {events.number}:</p>" if kept < events.number else ""


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]], empty: str) -> str:
    if not rows:
        return f"<p>{empty}</p>"
    lines = [] if head is None else ["<thead><tr>" + "".join(f"<th scope=col>{h}" for h in head) + "</thead>"]
    lines += [f"<tr><th scope=row>{escape(r[0])}" + "".join(f"<td>{escape(c)}" for c in r[1:]) for r in rows]
    return "<div class=wide><table>\n" + "\n".join(lines) + "\n</table></div>"
