"""Arms take turns: in every round each has one, in an order drawn anew, so that drift meets all alike."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from nes2net_bench.latency.workers import ArmFailed

SWEEP_ROUNDS = 6  # beside windows of fresh processes: the fewest whose ratios have a 95 % interval


@dataclass(frozen=True)
class Turn:
    """Runs of one arm, one after the other, after one that is not counted."""

    wall: list[float]  # seconds of each run
    cpu: list[float]  # the same, of CPU time over all threads
    joules: float | None = None  # of a run

    @property
    def median(self) -> float:
        """Seconds of a run."""
        return median(self.wall)

    @property
    def cpu_median(self) -> float:
        """CPU seconds of a run."""
        return median(self.cpu)


Take = Callable[[], Turn]


def take_rounds(
    arms: Mapping[str, Take],
    rounds: int,
    draw: random.Random,
    turns: dict[str, list[Turn]],
    failed: Callable[[str, ArmFailed], None],
    advance: Callable[[int], None] = lambda count: None,
) -> None:
    """Add `rounds` turns of each arm to `turns`; an arm that fails is told to `failed`, and has no more."""
    alive = [name for name in arms if name in turns]
    for _ in range(rounds):
        draw.shuffle(alive)
        for name in list(alive):
            try:
                turns[name].append(arms[name]())
            except ArmFailed as error:
                alive.remove(name)
                del turns[name]
                failed(name, error)
            advance(1)
