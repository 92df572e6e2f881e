"""Figures from timings: percentiles, jitter, stability, and ratios of arms on a machine that drifts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from scipy.stats import quantile_test

LEVEL = 0.95
WITHIN = 0.10  # windows that are this close are stable, as perf_analyzer and trtexec have it
WINDOWS = 3  # successive ones


@dataclass(frozen=True)
class Timing:
    """Of runs, in milliseconds. A percentile that so few runs can't tell is None."""

    samples: int
    p50: float
    p90: float | None  # from 10 runs on
    p95: float | None  # 20
    p99: float | None  # 100
    mean: float
    least: float
    largest: float
    jitter: float | None  # mean absolute difference of successive runs (as RFC 3550 means it)


@dataclass(frozen=True)
class Ratio:
    """An arm's time over the reference's, of measurements that were taken together."""

    estimate: float  # median over pairs
    low: float
    high: float
    level: float  # that the interval has at least; fewer than 6 pairs can't have 95 %
    pairs: int


def timing(seconds: Sequence[float]) -> Timing:
    """Summarise runs, given in seconds and in the order they were made; at least one."""
    values = 1e3 * np.asarray(seconds, np.float64)

    def percentile(percent: int) -> float | None:
        return float(np.percentile(values, percent)) if len(values) * (100 - percent) >= 100 else None

    return Timing(
        samples=len(values),
        p50=float(np.median(values)),
        p90=percentile(90),
        p95=percentile(95),
        p99=percentile(99),
        mean=float(values.mean()),
        least=float(values.min()),
        largest=float(values.max()),
        jitter=float(np.abs(np.diff(values)).mean()) if len(values) > 1 else None,
    )


def ratio(arm: Sequence[float], reference: Sequence[float], level: float = LEVEL) -> Ratio:
    """Median of the ratios of two arms, pair by pair, with a rank interval.

    A pair's two values were taken one soon after the other, so a machine that slows down slows both. The
    interval is that of order statistics (sign test inverted): it supposes nothing of the distribution, not
    even symmetry, only that pairs are drawn alike.
    """
    ratios = np.asarray(arm, np.float64) / np.asarray(reference, np.float64)
    interval = quantile_test(ratios, q=1.0, p=0.5).confidence_interval(level)
    low, high = float(interval.low), float(interval.high)
    if not (np.isfinite(low) and np.isfinite(high)):  # too few pairs for this level: all that was seen
        low, high, level = float(ratios.min()), float(ratios.max()), 1 - 2 * 0.5 ** len(ratios)
    return Ratio(median(ratios.tolist()), low, high, level, len(ratios))


def stable(windows: Sequence[float], within: float = WITHIN) -> bool:
    """Whether the last three windows' medians are within 10 % of one another; fewer windows never are."""
    last = windows[-WINDOWS:]
    return len(last) == WINDOWS and max(last) <= (1 + within) * min(last)


def trend(windows: Sequence[float]) -> float:
    """Largest change from one window to the next, as a share: 0.1 is 10 %."""
    return max((abs(b / a - 1) for a, b in pairwise(windows)), default=0.0)
