"""What a long measurement tells on its way."""

import time
from collections.abc import Callable, Sequence

from nes2net_bench.latency.arms import Absent
from nes2net_bench.latency.workers import ArmFailed
from nes2net_calib.progress import Say, Track


class Watch:
    """What is told on the way: lines, progress, arms that drop out, and how long each phase took."""

    def __init__(self, say: Say, track: Track, absent: Sequence[Absent]) -> None:
        self.say, self.absent = say, list(absent)
        self.phases: dict[str, float] = {}  # seconds
        self._track, self._phase, self._began = track, "", time.perf_counter()

    def track(self, phase: str, steps: int) -> Callable[[int], None]:
        """A phase begins, and the one before it ends; returns what is told of each step."""
        self.end()
        self._phase = phase
        return self._track(phase, steps)

    def end(self) -> None:
        """The phase ends."""
        now = time.perf_counter()
        if self._phase:
            self.phases[self._phase] = round(self.phases.get(self._phase, 0.0) + now - self._began, 1)
        self._phase, self._began = "", now

    def failed(self, name: str, error: ArmFailed) -> None:
        """An arm is out."""
        self.absent.append(Absent(name, str(error), error.crashed))
        self.say(f"{name}: {error}")
