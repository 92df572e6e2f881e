"""Bootstrap intervals of the difference between two detectors that heard the same trials.

Both get the same speakers in every draw, so that what makes a draw easy or hard for both cancels: the
difference is known far better than either figure. As nes2net_calib.intervals draws them: whole speakers with
replacement, the two classes apart; a spoof's speaker is the voice that it has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nes2net_calib.intervals import Statistic
from nes2net_calib.metrics import Scores

Interval = tuple[float, float]
RESAMPLES = 1000
LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """A figure of the reference and of a candidate, and their difference; intervals of 95 %."""

    reference: float
    candidate: float
    difference: float  # candidate - reference
    reference_interval: Interval | None  # None: a class has a single speaker
    candidate_interval: Interval | None
    difference_interval: Interval | None


@dataclass(frozen=True)
class Trials:
    """What both detectors heard."""

    bonafide: NDArray[np.bool_]
    speakers: NDArray[np.str_]

    def of(self, chosen: NDArray[np.intp]) -> "Trials":
        """Some of them."""
        return Trials(self.bonafide[chosen], self.speakers[chosen])


def paired(
    trials: Trials,
    reference: Scores,
    candidate: Scores,
    statistics: Mapping[str, tuple[Statistic, Statistic]],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Paired]:
    """Statistics of both detectors' scores and of their difference.

    A pair has one function for the reference and one for the candidate, since each may have its own map to
    llrs; they get the scores of bona fide and of spoofed trials, sorted.
    """
    systems = [
        [_of_class(trials, scores, mask) for mask in (True, False)] for scores in (reference, candidate)
    ]
    speakers = [np.unique(trials.speakers[trials.bonafide == mask]).size for mask in (True, False)]
    figures = {
        name: [
            function(*(scores for scores, _ in system))
            for function, system in zip(pair, systems, strict=True)
        ]
        for name, pair in statistics.items()
    }
    drawn: dict[str, list[list[float]]] = {name: [] for name in statistics}
    rng = np.random.default_rng(seed)
    for _ in range(resamples if min(speakers) > 1 else 0):
        times = [np.bincount(rng.integers(n, size=n), minlength=n) for n in speakers]
        resampled = [
            [np.repeat(scores, n[of]) for (scores, of), n in zip(system, times, strict=True)]
            for system in systems
        ]
        for name, pair in statistics.items():
            drawn[name].append(
                [function(*classes) for function, classes in zip(pair, resampled, strict=True)]
            )
    return {name: _paired(figures[name], drawn[name]) for name in statistics}


def _of_class(trials: Trials, scores: Scores, mask: bool) -> tuple[Scores, NDArray[np.intp]]:
    """Scores of a class in rising order, and the number of each one's speaker, in the order of the trials.

    As nes2net_calib.intervals numbers them: the same draws, and so the same interval of either detector.
    """
    chosen = np.flatnonzero(trials.bonafide == mask)
    names = trials.speakers[chosen].tolist()
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([known[name] for name in names], np.intp)
    order = np.argsort(scores[chosen], kind="stable")
    return scores[chosen][order], numbers[order]


def _paired(figures: Sequence[float], drawn: Sequence[Sequence[float]]) -> Paired:
    reference, candidate = figures
    if not drawn:
        return Paired(reference, candidate, candidate - reference, None, None, None)
    draws = np.array(drawn)
    first, second, difference = map(_interval, (draws[:, 0], draws[:, 1], draws[:, 1] - draws[:, 0]))
    return Paired(reference, candidate, candidate - reference, first, second, difference)


def _interval(draws: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
