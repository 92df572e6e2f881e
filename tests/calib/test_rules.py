"""What a calibration of one segment rule says of itself."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.rules import calibrate_rule
from nes2net_calib.scoring import LabelledScore


def scored(seconds: list[float]) -> list[LabelledScore]:
    """Scores of audio of these lengths, every second one bona fide, of 15 speakers a class."""
    rng = np.random.default_rng(0)
    scores = []
    for i, length in enumerate(seconds):
        human = i % 2 == 0
        trial = Trial(str(i), Path("x"), human, None if human else "A1", f"s{i % 30}", None, None, i + 1, ())
        scores.append(LabelledScore(trial, float(rng.normal(2 * human, 1)), length))
    return scores


def test_a_few_short_clips_do_not_say_from_which_length_a_calibration_holds() -> None:
    protocol = Protocol("list.csv", "CSV", "ab" * 32, (), ())
    for short, expected in ((3, 1.5), (10, 0.05)):  # of 600: 0.5 %, 1.7 %
        lengths = [0.05] * short + [1.5] * (600 - short)
        rule = calibrate_rule("first", scored(lengths), protocol, "eer", 0.5)
        assert rule.entry.min_seconds == expected


def test_the_actual_dcf_is_that_of_the_llrs_and_the_least_one_of_any_threshold() -> None:
    """ASVspoof 5: costs 1 and 10, 5 % spoofs; rejecting all humans costs 0.95, accepting all spoofs 0.5."""
    rule = calibrate_rule("first", scored([2.0] * 600), Protocol("list.csv", "CSV", "", (), ()), "eer", 0.5)
    bonafide, spoof = rule.llr.llr(rule.bonafide), rule.llr.llr(rule.spoof)

    def cost(threshold: float) -> float:
        return (0.95 * np.mean(bonafide < threshold) + 0.5 * np.mean(spoof >= threshold)) / 0.5

    assert rule.actual_dcf == pytest.approx(cost(np.log(0.5 / 0.95)))
    assert rule.least_dcf == pytest.approx(min(map(cost, [*bonafide, *spoof, np.inf])))
    assert 0 < rule.least_dcf <= rule.actual_dcf < 1


def test_the_intervals_of_all_groups_are_tracked_since_they_take_minutes_on_large_lists() -> None:
    begun: dict[str, int] = {}
    done: list[int] = []

    def track(what: str, total: int) -> Callable[[int], None]:
        begun[what] = total
        return done.append

    protocol = Protocol("list.csv", "CSV", "", (), ())
    rule = calibrate_rule("full", scored([2.0] * 200), protocol, "eer", 0.5, track)
    assert begun == {"intervals of full": 1 + len(rule.groups)}
    assert sum(done) == 1 + len(rule.groups) == 2
