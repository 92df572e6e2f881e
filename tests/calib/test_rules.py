"""What a calibration of one segment rule says of itself."""

from pathlib import Path

import numpy as np

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
