"""When streams raise alerts: the search over rules, counts and intervals, and the whole way on speech."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import poisson

from nes2net_calib.streaming import DELAY, LEAD, best_rule, outcome, poisson_interval
from nes2net_runtime import Score
from nes2net_runtime.manifest import (
    AlertRule,
)

CORPUS = Path(__file__).parents[3] / "shared/corpus/corpus.csv"
HOP = 0.5


def windows(llrs: list[float]) -> list[Score]:
    """A window every half second, of 4 s."""
    return [Score(HOP * i, HOP * i + 4.0, 0.0, llr=llr) for i, llr in enumerate(llrs)]


def change(human: float, voice: float, after: float = 1.0) -> list[Score]:
    """llrs of a change after LEAD seconds: a window tells the voice `after` seconds into it."""
    return [
        Score(s.start, s.end, 0.0, llr=human if s.end < LEAD + after else voice) for s in windows([0] * 32)
    ]


def test_false_alarms_and_delays_are_counted() -> None:
    rule = AlertRule(smoothing=0, patience=0, alert_llr=-2, clear_llr=0)
    genuine = windows([5, 5, -3, -1, -3, 5, 5, -2.5, 1])  # -1 does not end the first alert
    found = outcome(rule, genuine, [change(5, -3), change(5, -3, after=2.0), change(5, -1)])
    assert found.false_alarms == 2
    assert found.detected == 2
    assert found.median_delay == pytest.approx(2.0)


def test_patience_costs_its_seconds_and_saves_an_alarm() -> None:
    hasty, patient = (
        AlertRule(smoothing=0, patience=patience, alert_llr=-2, clear_llr=0) for patience in (0.0, 1.0)
    )
    genuine = windows([5, -3, 5, 5])
    quick, late = (outcome(rule, genuine, [change(5, -3)]) for rule in (hasty, patient))
    assert (quick.false_alarms, late.false_alarms) == (1, 0)
    assert late.median_delay - quick.median_delay == pytest.approx(1.0)


def test_the_best_rule_has_the_fewest_false_alarms_of_the_quick_ones() -> None:
    genuine = windows([5.0] * 20 + [-3.0] + [5.0] * 20)  # one moment that a lax rule takes for a voice
    best = best_rule(genuine, [change(6, -8)] * 3, threshold=0.0)
    assert best.false_alarms == 0 and best.detected == 3
    assert best.median_delay <= DELAY
    lax = AlertRule(smoothing=0, patience=0, alert_llr=0, clear_llr=0)
    assert outcome(lax, genuine, [change(6, -8)]).false_alarms == 1


def test_where_nothing_is_quick_enough_the_quickest_is_taken() -> None:
    best = best_rule(windows([5.0] * 9), [change(5, -3, after=6.0)] * 3, threshold=0.0)
    assert best.median_delay == pytest.approx(6.0)


@given(st.integers(1, 200))
def test_the_poisson_interval_is_exact(events: int) -> None:
    low, high = poisson_interval(events)
    assert poisson.sf(events - 1, low) == pytest.approx(0.025, rel=1e-6)
    assert poisson.cdf(events, high) == pytest.approx(0.025, rel=1e-6)


def test_without_an_alarm_three_events_bound_the_mean() -> None:
    low, high = poisson_interval(0)
    assert low == 0
    assert poisson.cdf(0, high) == pytest.approx(0.05)


def test_audio_that_is_no_speech_leaves_streams_as_they_were(calib, bundle: Path, usual: Path) -> None:
    done = calib(bundle, "--protocol", usual, "--segment", "windows")
    assert done.returncode == 0
    assert "too small for decision defaults of streams" in done.stderr
    assert json.loads((bundle / "manifest.json").read_text())["streaming"] is None


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.exists(), reason="../shared/corpus is not here")
def test_the_whole_way_on_speech(calib, environment, tmp_path: Path) -> None:
    copy = tmp_path / "copy.nes2net"
    options = ("--protocol", CORPUS, "--split", "dev", "--segment", "windows", "-o", copy, "--json")
    done = calib(*options)
    assert done.returncode == 0, done.stderr
    streaming = json.loads(done.stdout)["streaming"]
    manifest = json.loads((copy / "manifest.json").read_text())
    assert manifest["streaming"] == streaming
    evidence = streaming["evidence"]
    assert evidence["hours"] == pytest.approx(8.2 / 60, abs=0.02)
    assert evidence["changes"] >= 20
    low, high = evidence["false_alarms_per_hour"]
    assert low <= evidence["false_alarms"] / evidence["hours"] <= high
    assert streaming["rule"]["alert_llr"] <= streaming["rule"]["clear_llr"]
    assert "changes from a human" in (copy / "reports/calibration.html").read_text()
    command = [sys.executable, "-m", "nes2net_runtime", "--info", "--bundle", str(copy)]
    shown = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "false alarms" in shown.stdout
