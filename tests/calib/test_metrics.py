"""Metrics against what the published implementations print, and against their definitions."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from sklearn.metrics import roc_curve

from nes2net_calib.metrics import Costs, act_dcf, cllr, decisions, equal_error_rate, min_cllr, min_dcf

GOLDEN = json.loads((Path(__file__).parents[1] / "data" / "golden" / "metrics.json").read_text())
DEFINITIONS = ("roc", "bench", "itw", "asvspoof", "ctrsvdd")
METRICS = (lambda *scores: equal_error_rate(*scores).rate, min_dcf, act_dcf, cllr, min_cllr)

SCORES = st.lists(st.floats(-20, 20), min_size=1, max_size=30)
TIED = st.lists(st.integers(-5, 5), min_size=1, max_size=30)  # small integers: ties are frequent
COSTS = st.builds(Costs, st.floats(0.01, 0.99), st.floats(0.1, 10), st.floats(0.1, 10))
INCREASING = st.lists(st.floats(-1e3, 1e3), min_size=11, max_size=11, unique=True).map(sorted)  # of -5 to 5


def exactly(value):
    return pytest.approx(value, abs=1e-9)


@pytest.fixture(params=GOLDEN["cases"])
def case(request):
    """Scores of bona fide and spoof, and what each published implementation prints for them."""
    scores = GOLDEN["cases"][request.param]
    return scores["bonafide"], scores["spoof"], GOLDEN["expected"][request.param]


def test_every_golden_definition_is_tested_here(case) -> None:
    row_order = {"eer_itw_row_order_range"}
    assert set(case[2]) - row_order == set(GOLDEN["definitions"])
    assert set(GOLDEN["definitions"]) == {
        "eer_speech_spoof_bench",
        "eer_itw",
        "eer_asvspoof_det",
        "eer_speech_df_arena",
        "eer_ctrsvdd",
        "mindcf_ctrsvdd",
        "asvspoof5_track1",
    }


@pytest.mark.parametrize("definition", ["roc", "bench"])
def test_speech_spoof_bench(case, definition) -> None:
    bonafide, spoof, expected = case
    eer = equal_error_rate(bonafide, spoof, definition)
    assert 100 * eer.rate == exactly(expected["eer_speech_spoof_bench"]["eer_percent"])
    assert eer.threshold == exactly(expected["eer_speech_spoof_bench"]["threshold"])
    assert (eer.bonafide, eer.spoof) == (len(bonafide), len(spoof))


def test_in_the_wild(case) -> None:
    bonafide, spoof, expected = case
    rate = equal_error_rate(bonafide, spoof, "itw").rate
    low, high = expected["eer_itw_row_order_range"]
    assert low - 1e-9 <= rate <= high + 1e-9
    if low == high:
        assert rate == exactly(expected["eer_itw"])


def test_asvspoof_scripts_and_arena(case) -> None:
    bonafide, spoof, expected = case
    eer = equal_error_rate(bonafide, spoof, "asvspoof")
    for name in ("eer_asvspoof_det", "eer_speech_df_arena"):
        assert eer.rate == exactly(expected[name]["eer"]), name
        assert eer.threshold == exactly(expected[name]["threshold"]), name
    rates = decisions(bonafide, spoof, eer.threshold)
    assert rates.f1 == exactly(expected["eer_speech_df_arena"]["f1_bonafide"])
    assert rates.accuracy == exactly(expected["eer_speech_df_arena"]["accuracy"])


def test_ctrsvdd(case) -> None:
    bonafide, spoof, expected = case
    eer = equal_error_rate(bonafide, spoof, "ctrsvdd")
    assert eer.rate == exactly(expected["eer_ctrsvdd"])
    assert np.isfinite(eer.threshold)
    assert min_dcf(bonafide, spoof, Costs(0.5, 1, 1)).value / 2 == exactly(expected["mindcf_ctrsvdd"])


def test_asvspoof5(case) -> None:
    bonafide, spoof, expected = case
    expected = expected["asvspoof5_track1"]
    eer = equal_error_rate(bonafide, spoof, "asvspoof")
    least, actual = min_dcf(bonafide, spoof), act_dcf(bonafide, spoof)
    assert eer.rate == exactly(expected["eer"])
    assert eer.threshold == exactly(expected["eer_threshold"])
    assert least.value == exactly(expected["min_dcf"])
    assert least.threshold == exactly(expected["min_dcf_threshold"])
    assert actual.value == exactly(expected["act_dcf"])
    assert actual.threshold == exactly(expected["act_dcf_threshold"])
    assert cllr(bonafide, spoof) == exactly(expected["cllr_bits"])


@given(bonafide=SCORES | TIED, spoof=SCORES | TIED)
def test_the_eer_is_where_the_roc_meets_the_diagonal(bonafide, spoof) -> None:
    labels = [1] * len(bonafide) + [0] * len(spoof)
    accepted, detected, _ = roc_curve(labels, bonafide + spoof)
    meeting = brentq(lambda rate: 1 - rate - np.interp(rate, accepted, detected), 0, 1)
    assert equal_error_rate(bonafide, spoof).rate == pytest.approx(meeting, abs=1e-6)


def test_the_bench_does_not_look_above_the_highest_score() -> None:
    """At the highest score all spoofs are accepted and half of bona fide rejected; above it, none and all."""
    saturated = [0.0, 1.0], [1.0, 1.0, 1.0, 1.0]
    assert equal_error_rate(*saturated, "roc").rate == exactly(2 / 3)
    assert equal_error_rate(*saturated, "bench").rate == exactly(3 / 4)


@pytest.mark.parametrize("definition", DEFINITIONS)
@given(bonafide=TIED, spoof=TIED, increasing=INCREASING)
def test_an_increasing_map_leaves_every_eer(definition, bonafide, spoof, increasing) -> None:
    there = equal_error_rate(bonafide, spoof, definition).rate
    mapped = [increasing[i + 5] for i in bonafide], [increasing[i + 5] for i in spoof]
    assert 0 <= there <= 1
    assert equal_error_rate(*mapped, definition).rate == exactly(there)


@given(bonafide=TIED, spoof=TIED, increasing=INCREASING, costs=COSTS)
def test_an_increasing_map_leaves_the_least_costs(bonafide, spoof, increasing, costs) -> None:
    mapped = [increasing[i + 5] for i in bonafide], [increasing[i + 5] for i in spoof]
    assert min_dcf(*mapped, costs).value == exactly(min_dcf(bonafide, spoof, costs).value)
    assert min_cllr(*mapped) == exactly(min_cllr(bonafide, spoof))


@given(bonafide=SCORES | TIED, spoof=SCORES | TIED, costs=COSTS)
def test_the_least_costs_are_no_more_than_the_actual_ones_nor_than_knowing_nothing(
    bonafide, spoof, costs
) -> None:
    assert 0 <= min_dcf(bonafide, spoof, costs).value <= min(1, act_dcf(bonafide, spoof, costs).value) + 1e-12
    assert -1e-12 <= min_cllr(bonafide, spoof) <= min(1, cllr(bonafide, spoof)) + 1e-12


@given(bonafide=SCORES | TIED, spoof=SCORES | TIED, costs=COSTS)
def test_exchanging_classes_and_signs_changes_nothing(bonafide, spoof, costs) -> None:
    back = -np.array(spoof), -np.array(bonafide)
    exchanged = Costs(1 - costs.prior_spoof, costs.spoof_accepted, costs.bonafide_rejected)
    assert equal_error_rate(*back).rate == exactly(equal_error_rate(bonafide, spoof).rate)
    assert min_dcf(*back, exchanged).value == exactly(min_dcf(bonafide, spoof, costs).value)
    assert cllr(*back) == exactly(cllr(bonafide, spoof))
    assert min_cllr(*back) == exactly(min_cllr(bonafide, spoof))


@given(bonafide=SCORES, spoof=SCORES)
def test_separated_classes_cost_nothing(bonafide, spoof) -> None:
    apart = np.array(bonafide) + 50, np.array(spoof)
    assert [equal_error_rate(*apart, definition).rate for definition in DEFINITIONS] == [0] * 5
    assert min_dcf(*apart).value == 0
    assert min_cllr(*apart) == 0


def test_cllr_of_true_llrs_is_already_the_least() -> None:
    """Of scores 1 and 2, three quarters and a quarter are bona fide: llrs of ±ln 3, and h(1/4) bits."""
    bonafide, spoof = np.log([3, 3, 3, 1 / 3]), np.log([3, 1 / 3, 1 / 3, 1 / 3])
    bits = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert cllr(bonafide, spoof) == exactly(bits)
    assert min_cllr(bonafide, spoof) == exactly(bits)
    assert min_cllr([1, 1, 1, 0], [1, 0, 0, 0]) == exactly(bits)
    assert cllr([0.0], [0.0]) == exactly(1)
    assert cllr([-1e4], [1e4]) == pytest.approx(1e4 / np.log(2))  # without overflow


def test_decisions_at_a_threshold() -> None:
    rates = decisions([0, 1, 2, 3], [-1, 1], threshold=1)
    assert (rates.bonafide_rejected, rates.spoof_accepted) == (1 / 4, 1 / 2)
    assert rates.accuracy == exactly(4 / 6)
    assert rates.f1 == exactly(3 / 4)


def test_accepting_every_spoof_costs_ten_times_its_prior() -> None:
    assert act_dcf([9.0], [9.0], Costs(0.05, 1, 10)).value == exactly(0.5 / 0.5)
    assert act_dcf([-9.0], [-9.0], Costs(0.05, 1, 10)).value == exactly(0.95 / 0.5)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("scores", [([], [1.0]), ([1.0], []), ([np.nan], [1.0]), ([1.0], [np.inf])], ids=str)
def test_lists_that_have_no_metric(metric, scores) -> None:
    with pytest.raises(ValueError, match="finite scores of both classes"):
        metric(*scores)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (1, 1, 1), (0.5, 0, 1), (0.5, 1, -1), (np.nan, 1, 1)])
def test_costs_that_are_none(wrong) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Costs(*wrong)
