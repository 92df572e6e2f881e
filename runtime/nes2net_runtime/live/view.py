"""The live view on a terminal: level, the last minute, the state, and how well the machine keeps up.

microphone                                                   0:12:34.5
level  ████████████▌                                            -23 dB
llr    ▅▅▆▆▇▇▇▇▆▅▅▄▃▂▂▁▁▁▁▁                                       -3.1
state  SYNTHETIC since 12:30.1
every 0.5 s, load 4 %, 0.0 s behind, 0.0 s lost, 1 alert
"""

import time
from collections import deque

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nes2net_runtime.live.loop import Event, Status
from nes2net_runtime.live.output import event_line
from nes2net_runtime.manifest import (
    AlertRule,
)
from nes2net_runtime.output import clock, count
from nes2net_runtime.records import printable
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert

MINUTE = 60  # columns of the score line, one a second
FRAMES_PER_SECOND = 5
QUIETEST = -60.0  # dB of full scale: the left end of the level meter
BARS = "▁▂▃▄▅▆▇█"
EIGHTHS = " ▏▎▍▌▋▊▉"


class LiveView:
    """Draws on stderr while it is open; alerts and gaps stay above as lines."""

    def __init__(self, name: str, rule: AlertRule | None) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._live = Live(console=self.console, auto_refresh=False, transient=True)
        self._name, self._rule = printable(name), rule
        self._line: deque[float | None] = deque([None] * MINUTE, MINUTE)  # one value a second
        self._second = 0
        self._score: Score | None = None
        self._alerts, self._lost = 0, 0.0
        self._drawn = 0.0

    def __enter__(self) -> "LiveView":
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """A line above the view."""
        self.console.print(printable(line), markup=False, emoji=False, soft_wrap=True)

    def event(self, event: Event) -> None:
        """Take an event in; alerts and gaps are lines of their own."""
        if isinstance(event, Score):
            self._score = event
            return
        if isinstance(event, Outage):
            self._lost += event.end - event.start
            self._score = None
        else:
            self._alerts += event.state == "raised"
        style = "bold red" if isinstance(event, Alert) and event.state == "raised" else "yellow"
        self.console.print(Text(event_line(event, self._rule is not None), style=style))

    def status(self, status: Status) -> None:
        """Draw, some times a second."""
        now = time.monotonic()
        if int(status.seconds) > self._second:
            self._line.extend([None] * (int(status.seconds) - self._second - 1))
            self._line.append(self._shown(status))
            self._second = int(status.seconds)
        if now - self._drawn >= 1 / FRAMES_PER_SECOND:
            self._drawn = now
            self._live.update(self._render(status), refresh=True)

    def _shown(self, status: Status) -> float | None:
        """The value of the score line: the smoothed llr, or the score where there is none."""
        if status.without_speech or not status.receiving or self._score is None:
            return None
        return status.smoothed if self._rule is not None else self._score.score

    def _render(self, status: Status) -> RenderableType:
        width = min(self.console.width - 18, MINUTE)
        value = self._shown(status)
        grid = Table.grid(padding=(0, 1))
        grid.add_column(style="dim")
        grid.add_column(width=width)
        grid.add_column(justify="right", width=8)
        level = "" if status.level < QUIETEST else f"{status.level:.0f} dB"
        grid.add_row(
            "", Text(self._name, style="bold", no_wrap=True, overflow="ellipsis"), clock(status.seconds)
        )
        grid.add_row("level", _meter(status.level, width), level)
        number = "" if value is None else f"{value:+.1f}"
        grid.add_row("llr" if self._rule else "score", self._minute(width), number)
        grid.add_row("state", self._state(status), "")
        return Group(Text(), grid, Text(self._numbers(status), style="dim"))

    def _minute(self, width: int) -> Text:
        """The last minute: a column a second, green for human, red below the alert's llr."""
        low, high = (
            (-6.0, 6.0) if self._rule is None else (self._rule.alert_llr - 4, self._rule.clear_llr + 6)
        )
        line = Text()
        for value in list(self._line)[-width:]:
            if value is None:
                line.append("·", style="dim")
                continue
            place = min(max((value - low) / (high - low), 0.0), 0.999)
            line.append(BARS[int(place * len(BARS))], style=self._colour(value))
        return line

    def _colour(self, value: float) -> str:
        if self._rule is None:
            return "cyan"
        if value < self._rule.alert_llr:
            return "red"
        return "green" if value > self._rule.clear_llr else "yellow"

    def _state(self, status: Status) -> Text:
        if not status.receiving:
            return Text("no audio", style="bold yellow")
        if status.alert is not None:
            return Text(f"SYNTHETIC since {clock(status.alert.start)}", style="bold red")
        if status.without_speech:
            return Text("no speech", style="dim")
        if self._score is None:
            return Text("listening", style="dim")
        if status.smoothed is None or self._rule is None:
            return Text("not calibrated: higher is more human", style="cyan")
        colour = self._colour(status.smoothed)
        words = {"green": "sounds human", "yellow": "unclear", "red": "sounds synthetic?"}
        return Text(words[colour], style=colour)

    def _numbers(self, status: Status) -> str:
        load = f"load {100 * status.real_time_factor:.0f} %"
        alerts = f", {count(self._alerts, 'alert')}" if self._rule else ""
        return (
            f"every {status.hop:g} s, {load}, {status.behind:.1f} s behind, {self._lost:.1f} s lost{alerts}; "
            "Ctrl-C ends"
        )


def _meter(level: float, width: int) -> Text:
    eighths = round(8 * width * min(max(1 - level / QUIETEST, 0.0), 1.0))
    bar = "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()
    return Text(bar, style="red" if level > -3 else "green" if level > -50 else "dim")
