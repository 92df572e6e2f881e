"""Bootstrap intervals of scores whose speakers differ."""

from statistics import NormalDist

import numpy as np
import pytest

from nes2net_calib.intervals import interval
from nes2net_calib.metrics import cllr, equal_error_rate, min_dcf

EER = NormalDist().cdf(-1)  # of the scores that `trials` draws: two standard deviations apart


def eer(bonafide, spoof) -> float:
    return equal_error_rate(bonafide, spoof).rate


def trials(speakers: int, each: int, seed: int, between: float = 0.8):
    """Scores of variance 1, of which `between` is the speakers', and their names, for both classes."""
    rng = np.random.default_rng(seed)
    names = [f"speaker {i}" for i in range(speakers) for _ in range(each)]
    bonafide, spoof = (
        mean
        + between**0.5 * np.repeat(rng.normal(size=speakers), each)
        + (1 - between) ** 0.5 * rng.normal(size=speakers * each)
        for mean in (1, -1)
    )
    return bonafide, spoof, names, names


def width(of: tuple[float, float]) -> float:
    return of[1] - of[0]


@pytest.mark.parametrize("statistic", [eer, cllr, lambda *scores: min_dcf(*scores).value])
def test_holds_the_point_estimate(statistic) -> None:
    for seed in range(5):
        bonafide, spoof, *speakers = trials(30, 10, seed)
        low, high = interval(bonafide, spoof, *speakers, statistic, resamples=200)
        assert low < statistic(bonafide, spoof) < high


def test_holds_the_true_eer_about_as_often_as_it_says_where_single_trials_would_not() -> None:
    by_speaker = by_trial = 0
    for seed in range(60):
        bonafide, spoof, *speakers = trials(40, 10, seed)
        nobody = [None] * len(bonafide)
        low, high = interval(bonafide, spoof, *speakers, eer, resamples=150, seed=seed)
        by_speaker += low <= EER <= high
        low, high = interval(bonafide, spoof, nobody, nobody, eer, resamples=150, seed=seed)
        by_trial += low <= EER <= high
    assert by_speaker >= 54
    assert by_trial <= 45


def test_narrows_with_the_root_of_speakers_not_with_more_of_each() -> None:
    few, many, longer = (
        width(interval(*trials(speakers, each, 0), eer, resamples=400))
        for speakers, each in ((25, 10), (400, 10), (25, 160))
    )
    assert few / many == pytest.approx(4, rel=0.3)
    assert longer > 0.6 * few


def test_a_single_utterance_of_everybody_is_one_trial_each() -> None:
    bonafide, spoof, *speakers = trials(300, 1, 0)
    nobody = [None] * 300
    assert interval(bonafide, spoof, *speakers, eer) == interval(bonafide, spoof, nobody, nobody, eer)


def test_a_higher_level_is_wider_and_the_seed_decides() -> None:
    of = trials(30, 10, 0)
    usual = interval(*of, eer, resamples=200)
    assert usual == interval(*of, eer, resamples=200)
    assert usual != interval(*of, eer, resamples=200, seed=1)
    assert width(interval(*of, eer, resamples=200, level=0.5)) < width(usual)


@pytest.mark.parametrize("speakers", [["a", "a", "a"], ["a", "b"], []])
def test_speakers_that_give_no_interval(speakers) -> None:
    with pytest.raises(ValueError, match="two speakers"):
        interval([1.0, 2.0, 3.0], [0.0, 1.0], speakers, ["a", "b"], eer)
