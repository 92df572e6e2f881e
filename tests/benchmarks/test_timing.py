"""The arithmetic of latency: known answers, and simulated machines that drift. Nothing here is timed."""

import ctypes
import random
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_bench import nvml
from nes2net_bench.latency.contention import CpuTimes, cpu_times
from nes2net_bench.latency.energy import open_meter
from nes2net_bench.latency.memory import Memory, process_memory
from nes2net_bench.latency.orders import Peak, Peaks, Served
from nes2net_bench.latency.roofline import best_of, computes_in, roofline
from nes2net_bench.latency.rounds import Turn, take_rounds
from nes2net_bench.latency.serving import kept_up, most_that_fit, serve, timetable
from nes2net_bench.latency.timing import ratio, stable, timing
from nes2net_bench.latency.workers import ArmFailed

SIMULATED = 300  # machines; a coverage of 95 % then has a standard deviation of 1.3 %


def test_percentiles_are_in_milliseconds_and_only_there_where_the_runs_can_tell() -> None:
    hundred = timing([i / 1000 for i in range(1, 101)])
    assert (hundred.samples, hundred.least, hundred.largest) == (100, 1, 100)
    assert hundred.p50 == pytest.approx(50.5) and hundred.mean == pytest.approx(50.5)
    assert hundred.p90 == pytest.approx(90.1) and hundred.p95 == pytest.approx(95.05)
    assert hundred.p99 == pytest.approx(99.01)
    fewer = timing([0.001] * 99)
    assert fewer.p99 is None and fewer.p95 is not None
    assert timing([0.001] * 19).p95 is None and timing([0.001] * 10).p90 is not None
    assert timing([0.001] * 9).p90 is None


def test_jitter_is_the_mean_step_from_run_to_run() -> None:
    assert timing([0.001, 0.003, 0.001, 0.003]).jitter == pytest.approx(2.0)
    assert timing([0.001, 0.001, 0.003, 0.003]).jitter == pytest.approx(2 / 3)  # the same values
    assert timing([0.001]).jitter is None


@pytest.mark.parametrize(
    ("windows", "expected"),
    [
        ([100, 110, 105], True),
        ([100, 110.1, 105], False),
        ([300, 100, 100, 101], True),  # the first was warming up
        ([100, 100, 100, 130], False),
        ([100, 108, 116], False),  # each step is small, the way is not
        ([100, 100], False),  # two windows tell nothing
    ],
)
def test_stable_means_that_the_last_three_windows_are_within_ten_percent(
    windows: list[float], expected: bool
) -> None:
    assert stable(windows) is expected


@given(st.lists(st.floats(0.01, 100), min_size=6, max_size=40), st.floats(0.05, 20))
def test_a_machine_that_slows_both_arms_of_a_round_alike_changes_no_ratio(
    drift: list[float], truth: float
) -> None:
    found = ratio([truth * slow for slow in drift], drift)
    assert found.estimate == pytest.approx(truth)
    assert (found.low, found.high) == (pytest.approx(truth), pytest.approx(truth))
    assert found.level == 0.95 and found.pairs == len(drift)


def test_few_rounds_give_all_that_was_seen_and_say_how_sure_that_is() -> None:
    found = ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (found.low, found.estimate, found.high, found.level) == (1, 2, 3, 0.75)


def simulate(
    draw: np.random.Generator, truth: float, drift: float, noise: float, rounds: int, in_turn: bool
) -> tuple[list[float], list[float]]:
    """Times of two arms on a machine whose speed walks at random, and now and then jumps."""
    steps = drift * draw.standard_normal(2 * rounds) + (draw.random(2 * rounds) < 0.05) * draw.normal(0, 0.7)
    slow = np.exp(np.cumsum(steps))
    noisy = np.exp(noise * draw.standard_normal(2 * rounds))
    times = slow * noisy
    if not in_turn:  # the whole of one arm, then the whole of the other
        return (truth * times[:rounds]).tolist(), times[rounds:].tolist()
    first = draw.random(rounds) < 0.5  # whose turn comes first, drawn anew in each round
    arm = np.where(first, times[0::2], times[1::2]) * truth
    return arm.tolist(), np.where(first, times[1::2], times[0::2]).tolist()


def coverage(truth: float, drift: float, noise: float, rounds: int, in_turn: bool) -> float:
    draw, hits = np.random.default_rng(0), 0
    for _ in range(SIMULATED):
        found = ratio(*simulate(draw, truth, drift, noise, rounds, in_turn))
        hits += found.low <= truth <= found.high
    return hits / SIMULATED


@settings(max_examples=8, derandomize=True, deadline=None)
@given(
    truth=st.floats(0.1, 3),
    drift=st.floats(0.0, 0.3),
    noise=st.floats(0.01, 0.2),
    rounds=st.integers(6, 30),
)
def test_intervals_of_arms_in_turn_hold_the_truth_on_machines_that_drift(
    truth: float, drift: float, noise: float, rounds: int
) -> None:
    assert coverage(truth, drift, noise, rounds, in_turn=True) > 0.90


def test_intervals_of_arms_one_after_the_other_do_not() -> None:
    assert coverage(0.5, 0.1, 0.05, 15, in_turn=False) < 0.5
    assert coverage(0.5, 0.1, 0.05, 15, in_turn=True) > 0.90


def test_each_round_has_one_turn_of_each_arm_in_an_order_of_its_own() -> None:
    order: list[str] = []

    def arm(name: str):
        def take() -> Turn:
            order.append(name)
            return Turn([0.1], [0.1])

        return take

    turns: dict[str, list[Turn]] = {name: [] for name in "abcd"}
    take_rounds({name: arm(name) for name in "abcd"}, 20, random.Random(0), turns, lambda *_: None)
    rounds = ["".join(order[i : i + 4]) for i in range(0, 80, 4)]
    assert all(sorted(each) == list("abcd") for each in rounds)
    assert len(set(rounds)) > 5
    assert {name: len(taken) for name, taken in turns.items()} == dict.fromkeys("abcd", 20)


def test_an_arm_that_fails_is_told_and_the_others_go_on() -> None:
    calls: Counter[str] = Counter()
    told: list[tuple[str, str]] = []

    def take(name: str):
        def turn() -> Turn:
            calls[name] += 1
            if name == "bad" and calls[name] == 3:
                raise ArmFailed("killed")
            return Turn([0.1], [0.1])

        return turn

    turns: dict[str, list[Turn]] = {"good": [], "bad": []}
    arms = {name: take(name) for name in turns}
    take_rounds(arms, 10, random.Random(0), turns, lambda name, error: told.append((name, str(error))))
    assert told == [("bad", "killed")] and calls == {"good": 10, "bad": 3}
    assert list(turns) == ["good"] and len(turns["good"]) == 10


@given(st.integers(0, 400), st.integers(1, 400), st.integers(1, 12))
def test_the_most_streams_that_fit_lie_between_what_was_seen(capacity: int, guess: int, trials: int) -> None:
    tried: list[int] = []

    def fits(streams: int) -> bool:
        tried.append(streams)
        return streams <= capacity

    most, least = most_that_fit(fits, guess, trials)
    assert most <= capacity and (least is None or least > capacity)
    assert most in {0, *tried} and (least is None or least in tried)
    assert len(tried) <= trials and len(set(tried)) == len(tried)


def test_enough_trials_find_the_exact_number() -> None:
    assert most_that_fit(lambda streams: streams <= 37, 30, 12) == (37, 38)
    assert most_that_fit(lambda streams: streams <= 0, 5, 12) == (0, 1)


def test_streams_that_wait_for_ever_longer_do_not_fit() -> None:
    easy = Served([0.1] * 200, [0.1] * 200, wall=40.0, cpu=20.0, memory=Memory(1, 1, 1, 1))
    assert kept_up(easy, 0.5, 1) == (pytest.approx(0.5), 0.0, True)
    late = Served([0.1] * 190 + [0.6] * 10, [0.1] * 200, 40.0, 20.0, easy.memory)
    assert kept_up(late, 0.5, 1) == (pytest.approx(0.5), pytest.approx(0.05), False)
    # within the hop so far, but the thread never waits: a backlog grows
    full = Served([0.3] * 200, [0.199] * 200, 40.0, 40.0, easy.memory)
    assert not kept_up(full, 0.5, 1)[2] and kept_up(full, 0.5, 2)[2]


def test_hops_are_scored_in_order_and_never_before_they_are_due() -> None:
    start, order = time.perf_counter(), {0: [], 1: [], 2: []}
    due = timetable(3, 0.02, 4, start, seed=1)
    heard: list[tuple[int, int, float]] = []

    def feed(stream: int):
        def score(hop: int) -> None:
            order[stream].append(hop)
            heard.append((stream, hop, time.perf_counter()))

        return score

    latency, service = serve([feed(i) for i in range(3)], due, at_once=2, paced=True)
    assert order == {stream: [0, 1, 2, 3] for stream in range(3)}
    moments = {(stream, hop): at for stream, hop, at in heard}
    counts: Counter[int] = Counter()
    for when, stream in due:
        assert moments[stream, counts[stream]] >= when
        counts[stream] += 1
    assert len(latency) == len(service) == 12
    assert all(waited >= worked >= 0 for waited, worked in zip(latency, service, strict=True))


def test_an_error_of_a_stream_reaches_the_caller() -> None:
    def broken(hop: int) -> None:
        raise RuntimeError("no frames")

    with pytest.raises(RuntimeError, match="no frames"):
        serve([broken], timetable(1, 0.01, 2, time.perf_counter(), 0), 1, paced=False)


def test_a_run_is_placed_against_the_nearer_of_two_ceilings() -> None:
    peaks = Peaks({"fp32": Peak(100e9, "x", 3)}, Peak(10e9, "x", 3), {})
    heavy = roofline(peaks, "fp32", macs=10_000_000_000, weights=100, seconds=0.4)
    assert heavy is not None and heavy.bound == "compute"
    assert (heavy.least, heavy.share_of_peak, heavy.share) == (200.0, 0.5, 0.5)  # 2 * 10 G / 100 G/s
    light = roofline(peaks, "fp32", macs=1_000_000_000, weights=1_000_000_000, seconds=0.4)
    assert light is not None and light.bound == "memory"
    assert (light.least, light.share_of_peak, light.share) == (100.0, pytest.approx(0.05), 0.25)
    assert roofline(peaks, "int8", 1, 1, 1.0) is None  # no such peak
    assert computes_in("fp16", "cpu") == "fp32" and computes_in("fp16", "cuda") == "fp16"


def test_the_better_of_two_measurements_of_a_machine_counts() -> None:
    one = Peaks({"fp32": Peak(1.0, "a", 3), "bf16": Peak(5.0, "a", 3)}, Peak(2.0, "a", 3), {})
    two = Peaks({"fp32": Peak(3.0, "b", 3)}, Peak(1.0, "b", 3), {})
    best = best_of(one, two)
    assert best.gemm["fp32"].by == "b" and best.gemm["bf16"].by == "a" and best.copy.by == "a"


def rapl(folder: Path, name: str, joules: int, most: int = 1_000_000) -> Path:
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{joules}\n")
    return folder / "energy_uj"


def test_rapl_adds_packages_and_survives_a_counter_that_goes_round(tmp_path: Path) -> None:
    first = rapl(tmp_path / "intel-rapl:0", "package-0", 999_000)
    second = rapl(tmp_path / "intel-rapl:1", "package-1", 0)
    rapl(tmp_path / "intel-rapl:0:0", "core", 0)
    meter = open_meter("cpu", tmp_path)
    assert meter.source == "RAPL, 2 package(s)" and meter.read is not None
    assert meter.read() == 0
    first.write_text("1000")  # 999,000 -> 1,000,000 -> 0 -> 1,000: 2,001 microjoules
    second.write_text("500000")
    assert meter.read() == pytest.approx(0.502001)


def test_energy_says_why_it_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no RAPL counters" in open_meter("cpu", tmp_path / "none").source
    monkeypatch.setattr("nes2net_bench.latency.energy.open_nvml", lambda: None)
    meter = open_meter("cuda")
    assert meter.read is None and meter.source.startswith("unavailable: no NVML")


class Nvml:
    """libnvidia-ml.so.1 of one card."""

    def __init__(self, energy: int | None) -> None:
        self.energy = energy

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, handle: object) -> int:  # noqa: N802
        return 0 if index == 0 else 6

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, value: object) -> int:  # noqa: N802
        if self.energy is None:
            return 3  # NVML_ERROR_NOT_SUPPORTED
        value._obj.value = self.energy
        return 0

    def nvmlDeviceGetName(self, handle: object, buffer: ctypes.Array, size: int) -> int:  # noqa: N802
        buffer.value = b"NVIDIA H100 80GB HBM3"
        return 0

    def nvmlDeviceGetMemoryInfo(self, handle: object, info: object) -> int:  # noqa: N802
        info._obj.total, info._obj.used = 80 << 30, 2 << 30
        return 0

    def nvmlDeviceGetMaxClockInfo(self, handle: object, kind: int, value: object) -> int:  # noqa: N802
        value._obj.value = {nvml.SM: 1980, nvml.MEMORY: 2619}[kind]
        return 0

    def __getattr__(self, name: str) -> object:
        return lambda *arguments: 3


@pytest.mark.parametrize("energy", [1_234_500, None])
def test_nvml_tells_a_card_and_its_energy(energy: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda name: Nvml(energy))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    opened = nvml.open_nvml()
    assert opened is not None
    card = opened.card()
    assert (card.name, card.memory, opened.memory_used()) == ("NVIDIA H100 80GB HBM3", 80 << 30, 2 << 30)
    assert (card.sm_clock_most, card.memory_clock_most, card.sm_clock) == (1980, 2619, None)
    meter = open_meter("cuda")
    if energy is None:
        assert meter.read is None and "no energy counter" in meter.source
    else:
        assert meter.read is not None and meter.read() == 1234.5
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert nvml.open_nvml() is None


def test_memory_is_read_as_linux_writes_it(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t  200 kB\nVmRSS:\t 100 kB\nRssAnon:\t 60 kB\nRssFile:\t 40 kB\n")
    assert process_memory(status) == Memory(200 * 1024, 100 * 1024, 60 * 1024, 40 * 1024)
    elsewhere = process_memory(tmp_path / "none")
    assert elsewhere.peak > 1 << 20 and elsewhere.anonymous is None


def test_cpu_time_of_others_is_what_is_busy_without_us(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 200 300 4000 50 6 7 80 0 0\ncpu0 1\n")
    times = cpu_times(stat)
    assert isinstance(times, CpuTimes)
    tick = 100  # a second, on every Linux of today
    assert times.busy == pytest.approx(613 / tick) and times.stolen == pytest.approx(80 / tick)
    assert times.all == pytest.approx(4743 / tick) and times.ours > 0
    assert cpu_times(tmp_path / "none") is None


def test_shares_never_leave_zero_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from nes2net_bench.latency import contention

    monkeypatch.setattr(contention, "cpu_times", lambda: CpuTimes(all=20, busy=12, stolen=1, ours=5))
    assert contention.shares_since(CpuTimes(all=0, busy=0, stolen=0, ours=1)) == (0.4, 0.05)
    assert contention.shares_since(None) == (None, None)
    monkeypatch.setattr(contention, "cpu_times", lambda: SimpleNamespace(all=20, busy=3, stolen=0, ours=5))
    assert contention.shares_since(CpuTimes(all=0, busy=0, stolen=0, ours=1)) == (0.0, 0.0)
