"""A stream's report: one HTML page that needs nothing else, with waveform, llrs, alerts and gaps over time.

Memory is constant: time is kept in bins, which are joined in pairs where there are too many.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import TextIO

import numpy as np

from nes2net_runtime.alerts import Alert
from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.bundle import AlertRule, Manifest
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.live import Event
from nes2net_runtime.live_output import meaning_of_alerts
from nes2net_runtime.output import clock, count
from nes2net_runtime.results import Outage, Score

PAGE = Path(__file__).parent / "live_report.html"
MOST_BINS = 2000
BIN = 0.05  # seconds, until there are too many
MOST_ROWS = 500  # of a table
WIDTH, LEFT, WAVE, GAP, LLR, AXIS = 1000, 46, 90, 14, 190, 26  # the drawing's measures


class Envelope:
    """Lowest and highest value in bins of time."""

    def __init__(self) -> None:
        self.seconds = BIN  # of a bin
        self.bins: dict[int, tuple[float, float]] = {}

    def add(self, at: float, low: float, high: float) -> None:
        """Values at `at` seconds."""
        i = int(at / self.seconds)
        before = self.bins.get(i, (low, high))
        self.bins[i] = min(low, before[0]), max(high, before[1])
        if len(self.bins) > MOST_BINS:
            finer, self.bins, self.seconds = self.bins, {}, 2 * self.seconds
            for j, (least, most) in finer.items():
                least2, most2 = self.bins.get(j // 2, (least, most))
                self.bins[j // 2] = min(least, least2), max(most, most2)

    def points(self) -> list[tuple[float, float, float]]:
        """(time, low, high) of each bin that holds values, in order."""
        return [((i + 0.5) * self.seconds, *self.bins[i]) for i in sorted(self.bins)]

    def runs(self, pause: float) -> list[list[tuple[float, float, float]]]:
        """The points, in runs of which neighbours are at most `pause` seconds (and a bin) apart."""
        runs: list[list[tuple[float, float, float]]] = []
        for point in self.points():
            if not runs or point[0] - runs[-1][-1][0] > pause + self.seconds:
                runs.append([])
            runs[-1].append(point)
        return runs


class Report:
    """Collects a stream's audio and events; `write` makes the page."""

    def __init__(self, out: TextIO, name: str, manifest: Manifest, rule: AlertRule | None) -> None:
        self._out, self._name, self._manifest, self._rule = out, name, manifest, rule
        self._wave, self._values = Envelope(), Envelope()
        self._seconds = 0.0
        self._alerts: list[Alert] = []
        self._gaps: list[Outage] = []
        self._numbers = {"windows": 0, "alerts": 0, "gaps": 0}
        self._lost = 0.0

    def audio(self, samples: Samples) -> None:
        """The next samples, at 16 kHz."""
        step = round(BIN * SAMPLE_RATE)
        for at in range(0, len(samples), step):
            part = samples[at : at + step]
            self._wave.add(self._seconds, float(part.min()), float(part.max()))
            self._seconds += len(part) / SAMPLE_RATE

    def event(self, event: Event) -> None:
        """The next score, alert or gap."""
        if isinstance(event, Score):
            self._numbers["windows"] += 1
            value = event.score if self._rule is None else event.llr
            if value is not None:
                self._values.add(event.end - BIN / 2, value, value)
        elif isinstance(event, Outage):
            self._numbers["gaps"] += 1
            self._lost += event.end - event.start
            self._seconds = event.end
            self._gaps = [*self._gaps, event][-MOST_ROWS:]
        elif event.state == "ended":
            self._numbers["alerts"] += 1
            self._alerts = [*self._alerts, event][-MOST_ROWS:]

    def write(self) -> None:
        """Write the page."""
        m, rule = self._manifest, self._rule
        facts = [
            ("Detector", f"{m.name} ({m.precision}), checkpoint SHA-256 {m.source.sha256 or '-'}"),
            ("Length", clock(self._seconds) + (f", {self._lost:.1f} s of it lost" if self._gaps else "")),
            ("Windows scored", f"{self._numbers['windows']}"),
            (
                "Made with",
                ", ".join(f"{k} {v}" for k, v in installed_versions("nes2net-edge", "onnxruntime").items()),
            ),
        ]
        facts.append(("Alerts", meaning_of_alerts(rule)[0]))
        self._out.write(
            Template(PAGE.read_text(encoding="utf-8")).substitute(
                name=escape(self._name),
                verdict=escape(self._verdict()),
                what="llr" if rule else "score",
                picture=self._picture(),
                alerts=_table(
                    ["from", "to", "raised at", "lowest llr"],
                    [[clock(a.start), clock(a.end), clock(a.raised), f"{a.llr:+.1f}"] for a in self._alerts],
                    "No alerts.",
                ),
                gaps=_table(
                    ["from", "to", "seconds", "why"],
                    [[clock(g.start), clock(g.end), f"{g.end - g.start:.1f}", g.cause] for g in self._gaps],
                    "Nothing was lost.",
                ),
                facts=_table(None, facts, ""),
            )
        )

    def _verdict(self) -> str:
        alerts = self._numbers["alerts"]
        if self._rule is None:
            return "Not calibrated: scores without alerts."
        if not self._numbers["windows"]:
            return "Nothing was scored: no speech was heard."
        return f"{count(alerts, 'alert')}." if alerts else "No alert."

    def _picture(self) -> str:
        total = max(self._seconds, 1.0)
        height = WAVE + GAP + LLR + AXIS

        def x(seconds: float) -> float:
            return LEFT + (WIDTH - LEFT) * seconds / total

        values = [v for _, low, high in self._values.points() for v in (low, high)]
        marks = [] if self._rule is None else [self._rule.alert_llr, self._rule.clear_llr]
        low, high = min([*values, *marks, -1.0]) - 0.5, max([*values, *marks, 1.0]) + 0.5

        def y(value: float) -> float:
            return WAVE + GAP + LLR * (high - value) / (high - low)

        parts = [
            f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Waveform and '
            f'{"llr" if self._rule else "score"} over {escape(clock(total))}">'
        ]
        for gap in self._gaps:
            parts.append(_band(x(gap.start), x(gap.end), height - AXIS, "gap", f"gap: {gap.cause}"))
        for alert in self._alerts:
            text = f"alert, {clock(alert.start)} to {clock(alert.end)}, llr down to {alert.llr:+.1f}"
            parts.append(_band(x(alert.start), x(alert.end), height - AXIS, "alert", text))
        loudest = max((max(-low, high) for _, low, high in self._wave.points()), default=0.0) or 1.0
        middle, scale = WAVE / 2, WAVE / 2 / loudest
        for run in self._wave.runs(4 * self._wave.seconds):
            parts.append(
                _area([(x(t), middle - scale * high, middle - scale * low) for t, low, high in run], "wave")
            )
        for value in _ticks(low, high):
            parts.append(
                f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
            )
            parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:+g}</text>')
        for mark, name in zip(marks, ("alert", "clear"), strict=False):
            parts.append(
                f'<line class="mark {name}" x1="{LEFT}" x2="{WIDTH}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>'
            )
        for run in self._values.runs(5.0):
            parts.append(_area([(x(t), y(high), y(low)) for t, low, high in run], "range"))
            points = " ".join(f"{x(t):.1f},{y((low + high) / 2):.1f}" for t, low, high in run)
            parts.append(f'<polyline class="llr" points="{points}"/>')
            if len(run) == 1:
                parts.append(f'<circle class="dot" cx="{x(run[0][0]):.1f}" cy="{y(run[0][1]):.1f}" r="2"/>')
        for seconds in _ticks(0, total, 8):
            parts.append(
                f'<text x="{x(seconds):.1f}" y="{height - 6}" text-anchor="middle">{_short(seconds)}</text>'
            )
        return "\n".join([*parts, "</svg>"])


def _short(seconds: float) -> str:
    text = clock(seconds)
    return text.removesuffix(".0")


def _ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between `low` and `high`; for times the steps of a clock."""
    span = (high - low) / count
    steps = [0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400]
    step = next((s for s in steps if s >= span), steps[-1] * np.ceil(span / steps[-1]))
    return [float(i * step) for i in range(int(np.ceil(low / step)), int(np.floor(high / step)) + 1)]


def _band(left: float, right: float, height: float, kind: str, text: str) -> str:
    width = max(right - left, 1.5)
    return (
        f'<rect class="{kind}" x="{left:.1f}" y="0" width="{width:.1f}" height="{height}">'
        f"<title>{escape(text)}</title></rect>"
    )


def _area(points: Sequence[tuple[float, float, float]], kind: str) -> str:
    """Between an upper and a lower line: (x, top, bottom)."""
    outline = [f"{x:.1f},{top:.1f}" for x, top, _ in points]
    outline += [f"{x:.1f},{max(bottom, top + 0.6):.1f}" for x, top, bottom in reversed(points)]
    return f'<polygon class="{kind}" points="{" ".join(outline)}"/>'


def _table(head: Sequence[str] | None, rows: Sequence[Sequence[str]], empty: str) -> str:
    if not rows:
        return f"<p>{empty}</p>"
    lines = [] if head is None else ["<thead><tr>" + "".join(f"<th scope=col>{h}" for h in head) + "</thead>"]
    lines += [f"<tr><th scope=row>{escape(r[0])}" + "".join(f"<td>{escape(c)}" for c in r[1:]) for r in rows]
    return "<div class=wide><table>\n" + "\n".join(lines) + "\n</table></div>"
