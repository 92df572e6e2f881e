"""Bootstrap intervals of metrics. Utterances of one speaker are alike, so whole speakers are drawn."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Statistic = Callable[[NDArray[np.float64], NDArray[np.float64]], float]


def interval(
    bonafide: ArrayLike,
    spoof: ArrayLike,
    bonafide_speakers: Sequence[str | None],
    spoof_speakers: Sequence[str | None],
    statistic: Statistic,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile interval of `statistic(bonafide, spoof)` over speakers drawn with replacement.

    Each score has a speaker; a spoof's is the voice that it has. None: the score is a speaker of its own. The
    two classes are drawn apart, also where they share speakers. Few speakers (under 20) make the interval too
    narrow. The statistic gets sorted scores: on one core, 1000 EERs of 10,000 trials take 0.3 s, of 600,000
    trials 10 s; least DCFs 20 s, least Cllrs 60 s. Raises ValueError for a class of a single speaker.
    """
    rng = np.random.default_rng(seed)
    classes = [_by_score(bonafide, bonafide_speakers), _by_score(spoof, spoof_speakers)]
    draws = []
    for _ in range(resamples):
        drawn = (
            np.repeat(scores, np.bincount(rng.integers(count, size=count), minlength=count)[speakers])
            for scores, speakers, count in classes
        )
        draws.append(statistic(*drawn))
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _by_score(
    scores: ArrayLike, speakers: Sequence[str | None]
) -> tuple[NDArray[np.float64], NDArray[np.intp], int]:
    """Scores in rising order, the number of each one's speaker, and how many speakers there are."""
    values = np.asarray(scores, np.float64)
    numbers: dict[str | int, int] = {}  # of speakers, by name or by the score's own index
    of_score = [
        numbers.setdefault(i if name is None else name, len(numbers)) for i, name in enumerate(speakers)
    ]
    if len(numbers) < 2 or len(of_score) != values.size:
        raise ValueError("an interval needs the speaker of each score, two speakers of a class at least")
    order = np.argsort(values)
    return values[order], np.array(of_score)[order], len(numbers)
