"""Draws a stream as SVG: waveform above, llrs below, alerts and gaps across both.

x is in per cent of the width, which is the page's, and y in pixels, so that text and lines are as large on a
telephone as on a screen. Curves stretch: each is in an SVG of its own, ACROSS units wide.
"""

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import ceil, floor, log10

from nes2net_runtime.live.history import Bin, Envelope
from nes2net_runtime.manifest import (
    AlertRule,
)
from nes2net_runtime.output import clock
from nes2net_runtime.results import Outage
from nes2net_runtime.streaming.alerts import PAUSE, Alert

WAVE, TOP, BOTTOM, HEIGHT = 80, 116, 316, 342  # the picture's parts from above, pixels
LANES = {"alert": 86, "gap": 96}  # where marks are
ACROSS = 1000
CLOCK = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
Height = Callable[[float], float]


def draw(
    seconds: float,
    wave: Envelope,
    windows: Envelope,
    line: Envelope,
    alerts: Sequence[Alert],
    gaps: Sequence[Outage],
    rule: AlertRule | None,
) -> str:
    """The picture of `seconds` of a stream: `windows` are llrs (scores without a rule), `line` smoothed."""
    total = max(seconds, 1.0)
    thresholds = [] if rule is None else [rule.alert_llr, rule.clear_llr]
    low, high = windows.extremes() if windows.bins else (-1.0, 1.0)
    low, high = min(low, *thresholds, 0.0), max(high, *thresholds, 0.0)
    margin = max(0.08 * (high - low), 0.1)
    low, high = low - margin, high + margin
    cuts = [gap.start for gap in gaps]
    loudest = max(map(abs, wave.extremes())) if wave.bins else 0.0

    def of_wave(value: float) -> float:
        return WAVE / 2 * (1 - value / (loudest or 1.0))

    def of_llr(value: float) -> float:
        return (BOTTOM - TOP) * (high - value) / (high - low)

    kind = "llr" if rule else "score"
    spoken = f"Waveform and {kind} over {clock(seconds)}; the tables below list the alerts and gaps in it."
    parts = [f'<svg width="100%" height="{HEIGHT}" role="img" aria-label="{spoken}">']
    for alert in alerts:
        parts.append(_region(alert, total, "alert", f"alert, llr down to {signed(alert.llr, '.1f')}"))
    for gap in gaps:
        parts.append(_region(gap, total, "gap", f"{gap.end - gap.start:.1f} s lost, {gap.cause}"))
    parts += _value_axis(low, high, kind, of_llr)
    parts += _time_axis(total)
    parts += _curves(0, WAVE, [_area("wave", run, total, of_wave) for run in wave.runs(0, cuts)])
    curves = [_area("range", run, total, of_llr) for run in windows.runs(PAUSE, cuts)]
    curves += [_middle("line", run, total, of_llr) for run in line.runs(PAUSE, cuts)]
    parts += _curves(TOP, BOTTOM - TOP, curves)
    if rule is not None:
        y = TOP + of_llr(rule.alert_llr), TOP + of_llr(rule.clear_llr)
        parts.append(_across("threshold alert", y[0]) + _across("threshold", y[1]))
        parts.append(
            _text("name alert", "100%", y[0] + 9, "alert") + _text("name", "100%", y[1] - 1, "clear")
        )
    return "\n".join([*parts, "</svg>"])


def signed(value: float, digits: str = ".3g") -> str:
    """A number with its sign, typeset."""
    return "0" if value == 0 else f"{value:+{digits}}".replace("-", "\u2212")


def _value_axis(low: float, high: float, kind: str, y: Height) -> Iterator[str]:
    yield _text("value", -8, WAVE / 2 + 4, "audio")
    yield _text("value", -8, TOP - 2, kind)
    power = 10 ** floor(log10((high - low) / 7))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= (high - low) / 7)
    for value in _multiples(step, low, high):
        yield _across("grid", TOP + y(value))
        if y(value) > 10:  # below the axis' name
            yield _text("value", -8, TOP + y(value) + 4, signed(value))


def _time_axis(total: float) -> Iterator[str]:
    wanted = total / 8
    step = next((step for step in CLOCK if step >= wanted), CLOCK[-1] * ceil(wanted / CLOCK[-1]))
    for i, seconds in enumerate(_multiples(step, 0, total)):
        x = _percent(seconds, total)
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM + 5}"/>'
        yield _text("time second" if i % 2 else "time", x, HEIGHT - 8, clock(seconds).removesuffix(".0"))


def _multiples(step: float, low: float, high: float) -> list[float]:
    return [i * step for i in range(ceil(low / step), floor(high / step) + 1)]


def _percent(seconds: float, total: float) -> str:
    return f"{100 * seconds / total:.2f}%"


def _text(kind: str, x: float | str, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y:.1f}">{escape(text)}</text>'


def _across(kind: str, y: float) -> str:
    return f'<line class="{kind}" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _region(region: Alert | Outage, total: float, kind: str, text: str) -> str:
    """A pale band from top to bottom, and a mark between the curves that shows however short it is."""
    text = f"{clock(region.start)} to {clock(region.end)}: {text}"
    where = f'x="{_percent(region.start, total)}" width="{_percent(region.end - region.start, total)}"'
    return (
        f'<g class="region {kind}"><title>{escape(text)}</title>'
        f'<rect {where} height="{BOTTOM}"/><rect class="mark" {where} y="{LANES[kind]}" height="6"/></g>'
    )


def _curves(y: float, height: float, curves: Sequence[str]) -> list[str]:
    box = f'viewBox="0 0 {ACROSS} {height}" preserveAspectRatio="none"'
    return [f'<svg class="curves" y="{y}" width="100%" height="{height}" {box}>', *curves, "</svg>"]


def _area(kind: str, run: Sequence[tuple[float, Bin]], total: float, y: Height) -> str:
    """Between the highest and the lowest values."""
    above = [f"{ACROSS * t / total:.1f},{y(values.high):.1f}" for t, values in run]
    below = [f"{ACROSS * t / total:.1f},{y(values.low):.1f}" for t, values in reversed(run)]
    return f'<polygon class="{kind}" points="{" ".join(above + below)}"/>'


def _middle(kind: str, run: Sequence[tuple[float, Bin]], total: float, y: Height) -> str:
    """Along the mean values; a single one is a dot."""
    points = [f"{ACROSS * t / total:.1f},{y(values.total / values.number):.1f}" for t, values in run]
    return f'<polyline class="{kind}" points="{" ".join(points if len(points) > 1 else 2 * points)}"/>'
