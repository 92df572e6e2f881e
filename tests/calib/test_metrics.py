"""EER against published implementations."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nes2net_calib.metrics import equal_error_rate

SCORES = st.lists(st.floats(-20, 20), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def metrics(committed_goldens):
    return json.loads((committed_goldens.folder / "metrics.json").read_text())


def test_every_case_agrees_with_speech_spoof_bench(metrics) -> None:
    for name, case in metrics["cases"].items():
        expected = metrics["expected"][name]["eer_speech_spoof_bench"]["eer_percent"] / 100
        assert equal_error_rate(case["bonafide"], case["spoof"]).rate == pytest.approx(expected, abs=1e-9), (
            name
        )


def test_lists_without_ties_agree_with_the_asvspoof_scripts(metrics) -> None:
    for name in (
        "gauss_200_800",
        "llr_like_150_850",
        "chance_100_100",
        "imbalanced_1000_20",
        "large_scale_50_50",
    ):
        case, expected = metrics["cases"][name], metrics["expected"][name]["eer_asvspoof_det"]["eer"]
        smaller = min(len(case["bonafide"]), len(case["spoof"]))
        assert abs(equal_error_rate(case["bonafide"], case["spoof"]).rate - expected) <= 1 / smaller


@given(bonafide=SCORES, spoof=SCORES)
def test_exchanging_classes_and_signs_changes_nothing(bonafide, spoof) -> None:
    there = equal_error_rate(bonafide, spoof).rate
    back = equal_error_rate(-np.array(spoof), -np.array(bonafide)).rate
    assert 0 <= there <= 1
    assert back == pytest.approx(there, abs=1e-9)


@pytest.mark.parametrize(("bonafide", "spoof"), [([], [1.0]), ([1.0], []), ([np.nan], [1.0])])
def test_lists_that_have_no_eer(bonafide, spoof) -> None:
    with pytest.raises(ValueError, match="finite scores of both classes"):
        equal_error_rate(bonafide, spoof)
