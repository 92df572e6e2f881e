"""From llrs to alerts: smoothing, patience, hysteresis, pauses."""

from itertools import pairwise
from math import exp

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nes2net_runtime import Score
from nes2net_runtime.manifest import (
    AlertRule,
)
from nes2net_runtime.streaming.alerts import PAUSE, Alert, Alerts, usual_rule

HOP = 0.5


def rule(smoothing=0.0, patience=0.0, alert_llr=-2.0, clear_llr=0.0) -> AlertRule:
    return AlertRule(smoothing=smoothing, patience=patience, alert_llr=alert_llr, clear_llr=clear_llr)


def window(i: int, llr: float | None) -> Score:
    return Score(HOP * i, HOP * i + 4, 0.0, llr=llr)


def run(llrs: list[float | None], how: AlertRule) -> list[Alert]:
    """The alerts of windows one after the other, and of the stream's end."""
    alerts = Alerts(how)
    return [a for i, llr in enumerate(llrs) for a in alerts.update(window(i, llr))] + alerts.reset()


def test_an_alert_is_raised_and_ends() -> None:
    raised, ended = run([3, 1, -3, -5, -1, -4, 2, 3], rule())
    assert (raised.state, raised.start, raised.end, raised.raised, raised.llr) == (
        "raised",
        1.0,
        5.0,
        5.0,
        -3,
    )
    assert (ended.state, ended.start, ended.raised, ended.llr) == ("ended", 1.0, 5.0, -5)
    assert ended.end == 6.5  # the last window below alert_llr; -1 in between does not end it


def test_smoothing_is_exponential_in_time() -> None:
    alerts = Alerts(rule(smoothing=2.0, alert_llr=-100))
    alerts.update(window(0, 4.0))
    assert alerts.smoothed == 4.0
    alerts.update(window(1, 0.0))
    assert alerts.smoothed == pytest.approx(4 * exp(-0.5 / 2))
    alerts.update(window(3, 0.0))  # a second later, whatever the hop
    assert alerts.smoothed == pytest.approx(4 * exp(-1.5 / 2))


def test_patience_waits_until_it_has_lasted() -> None:
    how = rule(patience=1.0)
    assert run([3, -3, -3, 3], how) == []
    raised, _ = run([3, -3, -3, -3, 3], how)
    assert (raised.start, raised.raised) == (0.5, 5.5)
    assert run([3, -3, -3, 3, -3, -3, 3], how) == []  # each begins anew


def test_a_pause_ends_an_alert_and_forgets() -> None:
    alerts = Alerts(rule(smoothing=10.0))
    (raised,) = alerts.update(window(0, -5.0))
    assert alerts.idle(raised.end + PAUSE) == []
    (ended,) = alerts.idle(raised.end + PAUSE + 0.1)
    assert ended.state == "ended" and alerts.smoothed is None and alerts.alert is None
    alerts.update(window(100, 3.0))
    assert alerts.smoothed == 3.0


def test_a_window_after_a_pause_ends_it_too() -> None:
    alerts = Alerts(rule())
    alerts.update(window(0, -5.0))
    ended, raised = alerts.update(window(100, -5.0))
    assert (ended.state, raised.state, raised.start) == ("ended", "raised", 50.0)


def test_windows_without_llr_change_nothing() -> None:
    with_none = run([3, None, -3, None, 3], rule())
    alerts = Alerts(rule())
    without = [
        a for i, llr in ((0, 3), (2, -3), (4, 3)) for a in alerts.update(window(i, llr))
    ] + alerts.reset()
    assert with_none == without and len(without) == 2


@given(
    st.lists(st.floats(-20, 20), max_size=60),
    st.floats(0, 5),
    st.floats(0, 3),
    st.floats(-5, 5),
    st.floats(0, 5),
)
def test_raised_and_ended_take_turns(
    llrs: list[float], smoothing: float, patience: float, alert: float, margin: float
) -> None:
    events = run(list(llrs), rule(smoothing, patience, alert, alert + margin))
    assert [event.state for event in events] == ["raised", "ended"] * (len(events) // 2)
    for raised, ended in zip(events[::2], events[1::2], strict=True):
        assert raised.start == ended.start < raised.raised <= ended.end
        assert ended.llr <= raised.llr < alert
    assert all(a.end <= b.raised for a, b in pairwise(events[1::2]))


@given(st.lists(st.floats(-20, 20), max_size=60), st.floats(-5, 5), st.floats(0, 5))
def test_a_stricter_threshold_never_alarms_sooner(llrs: list[float], alert: float, stricter: float) -> None:
    lax, strict = (run(list(llrs), rule(alert_llr=value, clear_llr=6)) for value in (alert, alert - stricter))
    if strict:
        assert lax and lax[0].raised <= strict[0].raised


def test_the_usual_rule_is_below_the_labels_threshold(calibration) -> None:
    how = usual_rule(calibration(threshold=0.5))
    assert how.alert_llr == -1.5 and how.clear_llr == 0.5
