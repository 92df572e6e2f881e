"""From scores to log-likelihood ratios: an affine map, by logistic regression."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.linear_model import LogisticRegression

from nes2net_calib.metrics import Scores


@dataclass(frozen=True)
class Affine:
    """llr = slope * score + offset; natural log, positive = bona fide."""

    slope: float
    offset: float

    def llr(self, scores: ArrayLike) -> Scores:
        """The llrs of scores."""
        return self.slope * np.asarray(scores, np.float64) + self.offset

    def score(self, llr: float) -> float:
        """The score that has this llr."""
        return (llr - self.offset) / self.slope


def fit_affine(bonafide: ArrayLike, spoof: ArrayLike) -> Affine:
    """The map from scores to llrs that the scores of both classes call for.

    Both classes weigh the same, however many trials they have: so the regression's log-odds are llrs. A class
    of n trials has the targets of Platt (1999), (n + 1) / (n + 2) and 1 / (n + 2) instead of 1 and 0, so that
    classes that nothing mixes have a finite slope. A slope that is not above 0 says that spoofs score no
    lower than bona fide trials.
    """
    positive, negative = np.asarray(bonafide, np.float64), np.asarray(spoof, np.float64)
    scores = np.concatenate([positive, negative])
    centre, spread = scores.mean(), scores.std()
    if spread == 0:
        return Affine(0.0, 0.0)
    is_bonafide = np.arange(scores.size) < positive.size
    n = np.where(is_bonafide, positive.size, negative.size)
    # Each trial stands twice: as what it is, and with the rest of its target's weight as what it is not.
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10).fit(
        np.tile((scores - centre) / spread, 2)[:, None],
        np.concatenate([is_bonafide, ~is_bonafide]),
        sample_weight=np.concatenate([(n + 1) / (n + 2) / n, 1 / (n + 2) / n]),
    )
    slope = float(model.coef_[0, 0] / spread)
    return Affine(slope, float(model.intercept_[0] - slope * centre))
