"""Which trials each attack and condition is judged by."""

import numpy as np

from nes2net_calib.breakdown import breakdown
from nes2net_calib.metrics import equal_error_rate

# (bona fide, attack, condition, score)
TRIALS = [
    (True, None, "mp3", 2.0),
    (True, None, "none", 1.0),
    (False, "A02", "mp3", -1.0),
    (False, "A01", "none", 1.5),
    (False, "A01", "opus", -2.0),
    (False, None, None, 9.0),
    (True, None, "gsm", 3.0),
    (True, "ignored", None, 4.0),
]
LABELS, ATTACKS, CONDITIONS, SCORES = zip(*TRIALS, strict=True)


def test_attacks_meet_all_bona_fide_and_conditions_their_own_where_there_are_some() -> None:
    rows = breakdown(LABELS, ATTACKS, CONDITIONS)
    everyone = [0, 1, 6, 7]
    assert [
        (row.by, row.name, row.bonafide.tolist(), row.spoof.tolist(), row.own_bonafide) for row in rows
    ] == [
        ("attack", "A01", everyone, [3, 4], False),
        ("attack", "A02", everyone, [2], False),
        ("condition", "mp3", [0], [2], True),
        ("condition", "none", [1], [3], True),
        ("condition", "opus", everyone, [4], False),
    ]


def test_rows_select_scores() -> None:
    scores = np.array(SCORES)
    rates = {
        row.name: equal_error_rate(scores[row.bonafide], scores[row.spoof]).rate
        for row in breakdown(LABELS, ATTACKS, CONDITIONS)
    }
    assert rates == {"A01": 0.25, "A02": 0.0, "mp3": 0.0, "none": 1.0, "opus": 0.0}


def test_nothing_named_is_no_row() -> None:
    assert breakdown([True, False], [None, None], [None, None]) == []
