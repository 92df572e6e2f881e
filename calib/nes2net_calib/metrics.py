"""Metrics of detectors. Convention: bona fide is the positive class, higher scores are more human.

All take the scores of bona fide and of spoofed trials, and raise ValueError for an empty or non-finite list.
"""

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import isotonic_regression
from scipy.special import xlog1py, xlogy
from sklearn.metrics import roc_curve

Scores = NDArray[np.float64]
Definition = Literal["roc", "bench", "itw", "asvspoof", "ctrsvdd"]


@dataclass(frozen=True)
class EER:
    """Equal error rate: where as many bona fide trials are rejected as spoofs are accepted."""

    rate: float  # 0 to 1
    threshold: float  # a score
    bonafide: int
    spoof: int


@dataclass(frozen=True)
class Costs:
    """What wrong decisions cost, and how often spoofs come; the defaults are those of ASVspoof 5, track 1."""

    prior_spoof: float = 0.05  # between 0 and 1
    bonafide_rejected: float = 1.0  # a miss, C_miss
    spoof_accepted: float = 10.0  # a false alarm, C_fa

    def __post_init__(self) -> None:
        if not (0 < self.prior_spoof < 1 and self.bonafide_rejected > 0 and self.spoof_accepted > 0):
            raise ValueError("costs are above 0, and the prior of spoof is between 0 and 1")

    @property
    def weights(self) -> tuple[float, float]:
        """Of the rates of bona fide rejected and spoof accepted, in the expected cost."""
        return self.bonafide_rejected * (1 - self.prior_spoof), self.spoof_accepted * self.prior_spoof

    @property
    def threshold(self) -> float:
        """The llr (natural log) from which accepting costs less than rejecting."""
        rejected, accepted = self.weights
        return float(np.log(accepted / rejected))


@dataclass(frozen=True)
class DCF:
    """Detection cost, where 1 is what accepting all or rejecting all costs, whichever is cheaper."""

    value: float
    threshold: float


@dataclass(frozen=True)
class Decisions:
    """How well scores of at least a threshold tell bona fide; all rates from 0 to 1."""

    bonafide_rejected: float
    spoof_accepted: float
    accuracy: float  # of all trials
    f1: float  # of bona fide


def equal_error_rate(bonafide: ArrayLike, spoof: ArrayLike, definition: Definition = "roc") -> EER:
    """EER of two lists of scores.

    The definitions differ on short lists and on ties:
    - `roc`: interpolated on the ROC, where tied scores are one step.
    - `bench`: what speech-spoof-bench prints (`metrics/eer.py`): `roc`, but for a crossing above the highest
      score, where it takes the mean of the two rates.
    - `itw`: what Cal_EER_in_the_wild.py of the Nes2Net authors prints: interpolated, each trial a step. Its
      sort is not stable: with ties it depends on the order of the trials and on the machine.
    - `asvspoof`: what the scripts of ASVspoof 2021 (eval_metrics_DF.py) and 5 (calculate_modules.py) and of
      Speech DF Arena (utils/metrics.py) print: the mean of the two rates where they are closest, each trial a
      step, bona fide first among tied ones. The threshold is the highest rejected score.
    - `ctrsvdd`: what EER_minDCF.py of the Nes2Net authors prints: the same on scikit-learn's thinned ROC.
    """
    positive, negative = _checked(bonafide, spoof)
    rate, threshold = _DEFINITIONS[definition](positive, negative)
    return EER(float(rate), float(threshold), positive.size, negative.size)


def min_dcf(bonafide: ArrayLike, spoof: ArrayLike, costs: Costs = Costs()) -> DCF:
    """Least cost that any threshold gives; the threshold is the highest rejected score.

    As calculate_modules.py of ASVspoof 5. EER_minDCF.py (CtrSVDD) prints half of `Costs(0.5, 1, 1)`.
    """
    rejected, accepted, thresholds = _steps(*_checked(bonafide, spoof))
    miss, false_alarm = costs.weights
    cost = miss * rejected + false_alarm * accepted
    i = np.argmin(cost)
    return DCF(float(cost[i] / min(costs.weights)), float(thresholds[i]))


def act_dcf(bonafide_llr: ArrayLike, spoof_llr: ArrayLike, costs: Costs = Costs()) -> DCF:
    """Cost of llrs (natural log) at the costs' own threshold, as calculate_modules.py of ASVspoof 5."""
    rates = decisions(bonafide_llr, spoof_llr, costs.threshold)
    miss, false_alarm = costs.weights
    cost = miss * rates.bonafide_rejected + false_alarm * rates.spoof_accepted
    return DCF(cost / min(costs.weights), costs.threshold)


def decisions(bonafide: ArrayLike, spoof: ArrayLike, threshold: float) -> Decisions:
    """Rates at a threshold; accuracy and F1 as Speech DF Arena has them (`utils/metrics.py`)."""
    positive, negative = _checked(bonafide, spoof)
    rejected = int(np.count_nonzero(positive < threshold))
    accepted = int(np.count_nonzero(negative >= threshold))
    detected, wrong = positive.size - rejected, rejected + accepted
    return Decisions(
        bonafide_rejected=rejected / positive.size,
        spoof_accepted=accepted / negative.size,
        accuracy=1 - wrong / (positive.size + negative.size),
        f1=2 * detected / (2 * detected + wrong),
    )


def cllr(bonafide_llr: ArrayLike, spoof_llr: ArrayLike) -> float:
    """Cost of llrs (natural log) over all priors, in bits: 0 is perfect, 1 is what no information costs.

    Brümmer and du Preez 2006; as calculate_modules.py of ASVspoof 5.
    """
    positive, negative = _checked(bonafide_llr, spoof_llr)
    cost = np.logaddexp(0, -positive).mean() + np.logaddexp(0, negative).mean()
    return float(cost / 2 / np.log(2))


def min_cllr(bonafide: ArrayLike, spoof: ArrayLike) -> float:
    """Cllr after the best increasing map of scores to llrs (pool adjacent violators), in bits: 0 to 1."""
    positive, negative = _checked(bonafide, spoof)
    distinct, place = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    of_bonafide = np.bincount(place[: positive.size], minlength=distinct.size) / positive.size
    of_spoof = np.bincount(place[positive.size :], minlength=distinct.size) / negative.size
    both = of_bonafide + of_spoof
    posterior = isotonic_regression(of_bonafide / both, weights=both).x  # at equal priors
    cost = xlogy(of_bonafide, posterior) + xlog1py(of_spoof, -posterior)
    return float(-cost.sum() / 2 / np.log(2))


def _checked(bonafide: ArrayLike, spoof: ArrayLike) -> tuple[Scores, Scores]:
    positive, negative = np.asarray(bonafide, np.float64), np.asarray(spoof, np.float64)
    if not (positive.size and negative.size and np.isfinite(positive).all() and np.isfinite(negative).all()):
        raise ValueError("metrics need finite scores of both classes")
    return positive, negative


def _steps(
    bonafide: Scores, spoof: Scores, sort: Literal["stable", "quicksort"] = "stable"
) -> tuple[Scores, Scores, Scores]:
    """Bona fide rejected, spoof accepted and the highest rejected score, after each trial by rising score.

    One longer than there are trials: nothing is rejected at first, with 0.001 below the lowest score.
    """
    scores = np.concatenate([bonafide, spoof])
    order = np.argsort(scores, kind=sort)
    rejected = np.concatenate([[0], np.cumsum(order < bonafide.size)])
    accepted = spoof.size - (np.arange(scores.size + 1) - rejected)
    highest = np.concatenate([[scores[order[0]] - 0.001], scores[order]])
    return rejected / bonafide.size, accepted / spoof.size, highest


def _crossing(bonafide: Scores, spoof: Scores, last: bool) -> tuple[float, float]:
    """EER and threshold between the two neighbouring distinct scores where the rates cross.

    They are found by bisection of the sorted lists, and resampled lists come sorted (`intervals.py`): those
    cost next to nothing. `last`: the ROC has a last point above the highest score.
    """
    classes = np.sort(bonafide, kind="stable"), np.sort(spoof, kind="stable")

    def rates(threshold: float) -> tuple[float, float]:
        below, spoof_below = (int(np.searchsorted(scores, threshold)) for scores in classes)
        return below / bonafide.size, (spoof.size - spoof_below) / spoof.size

    def crossed(threshold: float) -> bool:
        rejected, accepted = rates(threshold)
        return rejected >= accepted

    firsts = [(scores, bisect_left(scores, True, key=crossed)) for scores in classes]
    before = max(scores[i - 1] for scores, i in firsts if i)
    after = min((scores[i] for scores, i in firsts if i < scores.size), default=None)
    rejected, accepted = rates(before)
    if after is None and not last:
        return (rejected + accepted) / 2, before
    then_rejected, then_accepted = (1.0, 0.0) if after is None else rates(after)
    gap, then_gap = accepted - rejected, then_accepted - then_rejected
    weight = gap / (gap - then_gap)
    threshold = before if after is None else (1 - weight) * before + weight * after
    return (1 - weight) * rejected + weight * then_rejected, threshold


def _closest(rejected: Scores, accepted: Scores, thresholds: Scores) -> tuple[float, float]:
    i = np.argmin(np.abs(rejected - accepted))
    return (rejected[i] + accepted[i]) / 2, thresholds[i]


def _in_the_wild(bonafide: Scores, spoof: Scores) -> tuple[float, float]:
    rejected, accepted, scores = _steps(bonafide, spoof, "quicksort")
    rejected, accepted, scores = rejected[:-1], accepted[:-1], scores[1:]  # before each trial, not after it
    gap = accepted - rejected
    i = np.flatnonzero(np.diff(np.sign(gap)))[0]  # there is one: before the last trial one rate is at its end
    weight = gap[i] / (gap[i] - gap[i + 1])
    rate, threshold = ((1 - weight) * values[i] + weight * values[i + 1] for values in (rejected, scores))
    return rate, threshold


def _ctrsvdd(bonafide: Scores, spoof: Scores) -> tuple[float, float]:
    scores = np.concatenate([bonafide, spoof])
    accepted, detected, thresholds = roc_curve(np.arange(scores.size) < bonafide.size, scores)
    return _closest(1 - detected, accepted, np.minimum(thresholds, scores.max()))  # the first one is infinite


_DEFINITIONS: dict[Definition, Callable[[Scores, Scores], tuple[float, float]]] = {
    "roc": lambda bonafide, spoof: _crossing(bonafide, spoof, last=True),
    "bench": lambda bonafide, spoof: _crossing(bonafide, spoof, last=False),
    "itw": _in_the_wild,
    "asvspoof": lambda bonafide, spoof: _closest(*_steps(bonafide, spoof)),
    "ctrsvdd": _ctrsvdd,
}
