"""Metrics of detectors. Convention: bona fide is the positive class, higher scores are more human."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve


@dataclass(frozen=True)
class EER:
    """Equal error rate: where as many bona fide trials are rejected as spoofs are accepted."""

    rate: float  # 0 to 1
    threshold: float  # a score
    bonafide: int
    spoof: int


def equal_error_rate(bonafide: ArrayLike, spoof: ArrayLike) -> EER:
    """EER of two lists of scores, interpolated on the ROC, where tied scores are one step.

    As speech-spoof-bench computes it (`metrics/eer.py`); without ties within one trial of the smaller
    class of what the ASVspoof scripts print. Raises ValueError for an empty or non-finite list.
    """
    positive, negative = np.asarray(bonafide, np.float64), np.asarray(spoof, np.float64)
    if not (positive.size and negative.size and np.isfinite(positive).all() and np.isfinite(negative).all()):
        raise ValueError("EER needs finite scores of both classes")
    labels = np.repeat([1, 0], [positive.size, negative.size])
    accepted, detected, thresholds = roc_curve(
        labels, np.concatenate([positive, negative]), drop_intermediate=False
    )
    gap = accepted - (1 - detected)  # spoof accepted minus bona fide rejected, by falling threshold
    i = int(np.argmax(gap >= 0))
    weight = gap[i] / (gap[i] - gap[i - 1])  # of the point before the crossing
    rate = weight * accepted[i - 1] + (1 - weight) * accepted[i]
    before = thresholds[i] if np.isinf(thresholds[i - 1]) else thresholds[i - 1]
    threshold = weight * before + (1 - weight) * thresholds[i]
    return EER(float(rate), float(threshold), positive.size, negative.size)
