"""The map from scores to llrs, and the thresholds that are chosen on them."""

from math import ceil, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_calib.fit import fit_affine
from nes2net_calib.metrics import Costs, cllr, decisions, min_cllr
from nes2net_calib.thresholds import Target, threshold_of, why

seeds = st.integers(0, 2**32 - 1)


def normal(seed: int, counts: tuple[int, int] = (300, 200), distance: float = 2.0, spread: float = 1.0):
    """Scores of both classes; with equal spreads their true llr is distance * score."""
    rng = np.random.default_rng(seed)
    bonafide = rng.normal(distance / 2, 1, counts[0])
    return bonafide, rng.normal(-distance / 2, spread, counts[1])


def test_finds_the_true_llr_of_normal_scores() -> None:
    """Two normal classes of equal variance have llr = distance / variance * score, whatever their counts."""
    for distance in (0.5, 2.0, 3.0):
        fitted = fit_affine(*normal(0, (60_000, 20_000), distance))
        assert fitted.slope == pytest.approx(distance, rel=0.02)
        assert fitted.offset == pytest.approx(0, abs=0.03)


@given(seed=seeds, scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
@settings(max_examples=50, deadline=None)
def test_llrs_do_not_depend_on_the_scale_of_scores(seed: int, scale: float, shift: float) -> None:
    bonafide, spoof = normal(seed)
    plain = fit_affine(bonafide, spoof)
    other = fit_affine(scale * bonafide + shift, scale * spoof + shift)
    np.testing.assert_allclose(other.llr(scale * bonafide + shift), plain.llr(bonafide), rtol=1e-6, atol=1e-6)


@given(seed=seeds, distance=st.floats(0.3, 4), spread=st.floats(0.3, 3), scale=st.floats(0.01, 100))
@settings(max_examples=60, deadline=None)
def test_cllr_never_rises_and_comes_near_the_least(seed, distance, spread, scale) -> None:
    bonafide, spoof = (scale * scores for scores in normal(seed, (400, 300), distance, spread))
    fitted = fit_affine(bonafide, spoof)
    after = cllr(fitted.llr(bonafide), fitted.llr(spoof))
    assert after <= cllr(bonafide, spoof) + 0.01  # what the targets of Platt cost
    assert min_cllr(bonafide, spoof) <= after <= 1.001
    if 0.9 < spread < 1.1:
        assert after < min_cllr(bonafide, spoof) + 0.05


def test_a_class_weighs_the_same_however_often_it_is_there() -> None:
    bonafide, spoof = normal(3, (4000, 3000))
    plain = fit_affine(bonafide, spoof)
    for more in (fit_affine(np.tile(bonafide, 5), spoof), fit_affine(bonafide, np.tile(spoof, 20))):
        np.testing.assert_allclose(
            [more.slope, more.offset], [plain.slope, plain.offset], rtol=0.01, atol=0.01
        )


@pytest.mark.parametrize("n", [1, 50, 1000])
def test_separated_classes_have_the_llrs_that_their_number_can_show(n: int) -> None:
    """The log odds of Platt's targets: n + 1 to 1."""
    fitted = fit_affine([3.0] * n, [-7.0] * n)
    assert fitted.llr(3.0) == pytest.approx(log(n + 1), rel=1e-6)
    assert fitted.llr(-7.0) == pytest.approx(-log(n + 1), rel=1e-6)


def test_a_detector_that_ranks_wrongly_has_no_rising_map() -> None:
    bonafide, spoof = normal(0)
    assert fit_affine(spoof, bonafide).slope < 0
    assert fit_affine([1.0] * 50, [1.0] * 60).slope == 0


def test_score_is_the_inverse_of_llr() -> None:
    fitted = fit_affine(*normal(1))
    assert fitted.score(float(fitted.llr(0.7))) == pytest.approx(0.7)


def test_equal_error_rates() -> None:
    bonafide, spoof = normal(0, (3000, 2000))
    rates = decisions(bonafide, spoof, threshold_of("eer", bonafide, spoof))
    assert rates.bonafide_rejected == pytest.approx(rates.spoof_accepted, abs=1 / 2000)


def test_costs_decide_alone() -> None:
    """Bayes: accepting costs 10 * 5 %, rejecting 1 * 95 %; the trials have no say."""
    costs = Costs(0.05, 1, 10)
    assert (
        threshold_of(costs, *normal(0)) == threshold_of(costs, *normal(1)) == pytest.approx(log(0.5 / 0.95))
    )


@given(seed=seeds, rate=st.floats(0.001, 0.5), decimals=st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_targets_are_met_and_nothing_is_given_away(seed: int, rate: float, decimals: int) -> None:
    """The next distinct llr, in the easier direction, would miss the target. Ties are kept together."""
    bonafide, spoof = (np.round(scores, decimals) for scores in normal(seed, (130, 110)))
    every = np.unique(np.concatenate([bonafide, spoof]))

    threshold = threshold_of(Target("spoof accepted", rate), bonafide, spoof)
    assert decisions(bonafide, spoof, threshold).spoof_accepted <= rate + 1e-9
    below = every[every < threshold][-1]
    assert decisions(bonafide, spoof, below).spoof_accepted > rate

    threshold = threshold_of(Target("bona fide rejected", rate), bonafide, spoof)
    assert decisions(bonafide, spoof, threshold).bonafide_rejected <= rate + 1e-9
    above = every[every > threshold][0]
    assert decisions(bonafide, spoof, above + 1e-9).bonafide_rejected > rate


@pytest.mark.parametrize("error", ["spoof accepted", "bona fide rejected"])
def test_targets_where_the_other_class_does_not_mix(error) -> None:
    for bonafide, spoof in ((np.arange(10.0), np.arange(-10.0, 0)), (np.arange(-10.0, 0), np.arange(10.0))):
        rates = decisions(bonafide, spoof, threshold_of(Target(error, 0.01), bonafide, spoof))
        assert getattr(rates, error.replace("bona fide", "bonafide").replace(" ", "_")) == 0


@given(rate=st.floats(0.0001, 0.5))
def test_a_target_needs_so_many_trials_that_its_rate_could_be_seen(rate: float) -> None:
    """Rule of three: without an error in n trials, a rate above 3/n would have shown one (95 %)."""
    n = Target("spoof accepted", rate).trials
    assert (1 - rate) ** n < 0.051
    assert n <= ceil(3 / rate)


def test_reasons_are_words() -> None:
    assert why("eer") == "equal error rates"
    assert why(Costs()) == "least expected cost"
    assert why(Target("spoof accepted", 0.005)) == "spoof accepted at most 0.5 %"
