"""What a report keeps of a stream in bounded memory: values over time, and the weightiest events."""

from bisect import bisect
from collections.abc import Callable, Sequence
from math import inf
from typing import Generic, NamedTuple, TypeVar

MOST_BINS = 2000
BIN = 0.05  # seconds, until there are too many
MOST_EVENTS = 200

T = TypeVar("T")


class Bin(NamedTuple):
    """The values in a stretch of time."""

    low: float
    high: float
    total: float
    number: int

    def join(self, other: "Bin") -> "Bin":
        low, high = min(self.low, other.low), max(self.high, other.high)
        return Bin(low, high, self.total + other.total, self.number + other.number)


class Envelope:
    """Lowest, highest and mean values in bins of time; where there are too many, they are joined in pairs."""

    def __init__(self) -> None:
        self.seconds = BIN  # of a bin
        self.bins: dict[int, Bin] = {}

    def add(self, at: float, low: float, high: float) -> None:
        """Values from `low` to `high` at `at` seconds."""
        self._put(int(at / self.seconds), Bin(low, high, (low + high) / 2, 1))
        while len(self.bins) > MOST_BINS:
            finer, self.bins, self.seconds = self.bins, {}, 2 * self.seconds
            for place, values in finer.items():
                self._put(place // 2, values)

    def extremes(self) -> tuple[float, float]:
        """The lowest and the highest value of all; (inf, -inf) where there is none."""
        lows, highs = (b.low for b in self.bins.values()), (b.high for b in self.bins.values())
        return min(lows, default=inf), max(highs, default=-inf)

    def runs(self, pause: float, cuts: Sequence[float]) -> list[list[tuple[float, Bin]]]:
        """(middle, values) of the bins in order, in runs.

        A run ends at a cut (seconds, ascending), and where `pause` seconds hold no value.
        """
        runs: list[list[tuple[float, Bin]]] = []
        before = 0  # cuts before the last bin
        for at, values in sorted(((i + 0.5) * self.seconds, values) for i, values in self.bins.items()):
            passed = bisect(cuts, at)
            if not runs or passed > before or at - runs[-1][-1][0] > pause + 1.5 * self.seconds:
                runs.append([])
            runs[-1].append((at, values))
            before = passed
        return runs

    def _put(self, place: int, values: Bin) -> None:
        self.bins[place] = self.bins[place].join(values) if place in self.bins else values


class Weightiest(Generic[T]):
    """Of many things those with the most weight, in the order in which they came; counts all."""

    def __init__(self, weight: Callable[[T], float]) -> None:
        self.kept: list[T] = []
        self.number = 0
        self._weight = weight

    def add(self, thing: T) -> None:
        """The next thing."""
        self.number += 1
        self.kept.append(thing)
        if len(self.kept) > MOST_EVENTS:
            self.kept.remove(min(self.kept, key=self._weight))
