"""Which pieces of a signal are scored."""

import json
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_runtime import AudioError
from nes2net_runtime.segments import Cut, Segment, cut, repeat_to, round_hop

WINDOW, HOP, MAX_FULL = 64_600, 32_000, 960_000


def ramp(samples: int) -> np.ndarray:
    """Every sample tells its own position (exact in float32 up to 2^24)."""
    return np.arange(samples, dtype=np.float32)


def pieces(
    signal: np.ndarray, rule: str, window: int = WINDOW, hop: int = HOP, blocks: int = 32_000
) -> tuple[list[Segment], list[str]]:
    warnings: list[str] = []
    chunks = (signal[i : i + blocks] for i in range(0, len(signal), blocks))
    return list(cut(chunks, Cut(rule, window, hop, MAX_FULL), "x.wav", warnings)), warnings


@pytest.mark.parametrize("n", [1, 2, 399, 400, 64_599, 64_600, 64_601, 200_000])
@pytest.mark.parametrize("length", [400, 64_000, 64_600])
def test_short_audio_is_repeated_as_the_official_protocol_does(n: int, length: int) -> None:
    signal = ramp(n)
    expected = signal[np.arange(length) % n]  # out[k] = x[k mod n]
    if n <= length:
        assert np.array_equal(repeat_to(signal, length), expected)
    (segment,), warnings = pieces(signal, "first", window=length)
    assert np.array_equal(segment.samples, expected)
    assert (segment.start, segment.end, segment.tail) == (0, min(n, length), False)
    assert bool(warnings) == (n < 400)


def test_the_official_protocols_own_cases(goldens) -> None:
    path = goldens.folder / "rules.json"
    if not path.exists():
        pytest.skip("rules.json is beside the project only")
    for case in json.loads(path.read_text())["pad"]["list"]:
        (segment,), _ = pieces(ramp(case["n"]), "first", window=case["max_len"])
        assert len(segment.samples) == case["out_len"]
        assert segment.samples[-1] == case["out_last"]
        assert segment.samples.sum(dtype=np.float64) == case["index_sum"]


@pytest.mark.parametrize("n", [1, 399, 400, 401, 64_600, 100_000, MAX_FULL])
def test_full_takes_the_file_as_it_is(n: int) -> None:
    (segment,), warnings = pieces(ramp(n), "full")
    assert np.array_equal(segment.samples, ramp(n)[np.arange(max(n, 400)) % n])
    assert (segment.start, segment.end) == (0, n)
    assert len(warnings) == (n < 400)
    if n < 400:
        assert f"only {n} samples" in warnings[0]


def test_full_refuses_what_is_too_long_and_names_windows() -> None:
    with pytest.raises(AudioError, match=r"^x\.wav: longer than the 60 s .*--segment windows"):
        pieces(ramp(MAX_FULL + 1), "full")


@pytest.mark.parametrize("n", [1, 399, 400, 64_599])
def test_windows_of_short_audio_are_one_repeated_window(n: int) -> None:
    (segment,), warnings = pieces(ramp(n), "windows")
    assert np.array_equal(segment.samples, ramp(n)[np.arange(WINDOW) % n])
    assert (segment.start, segment.end, segment.tail) == (0, n, False)
    assert len(warnings) == (n < 400)


@pytest.mark.parametrize("n", [64_600, 64_601, 96_600, 96_599, 128_600, 500_000])
def test_default_windows_by_hand(n: int) -> None:
    starts = [start for start in range(0, n, HOP) if start + WINDOW <= n]
    tails = [n - WINDOW] if starts[-1] + WINDOW < n else []
    found, warnings = pieces(ramp(n), "windows")
    assert [s.start for s in found if not s.tail] == starts
    assert [s.start for s in found if s.tail] == tails
    assert warnings == []


@settings(deadline=None)  # a busy machine is no failure
@given(
    n=st.integers(400, 30_000),
    blocks=st.integers(1, 9_000).map(lambda b: max(b, 37)),
    window=st.integers(400, 9_000),
    hop=st.integers(1, 40).map(lambda frames: 320 * frames),
)
def test_windows_cover_the_signal_whatever_its_blocks(n: int, blocks: int, window: int, hop: int) -> None:
    signal = ramp(n)
    found, _ = pieces(signal, "windows", window, hop, blocks)
    whole, _ = pieces(signal, "windows", window, hop, n)
    assert [(s.start, s.end, s.tail) for s in found] == [(s.start, s.end, s.tail) for s in whole]
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(found, whole, strict=True))

    if n < window:
        assert [(s.start, s.end) for s in found] == [(0, n)]
        return
    grid, tails = [s for s in found if not s.tail], [s for s in found if s.tail]
    assert [s.start for s in grid] == list(range(0, n - window + 1, hop))
    assert [s.start for s in tails] == ([n - window] if grid[-1].end < n else [])
    assert found == grid + tails  # in order, the tail last
    for s in found:
        assert s.end - s.start == window
        assert np.array_equal(s.samples, signal[s.start : s.end])
    if hop <= window:
        heard = np.zeros(n, bool)
        for s in found:
            heard[s.start : s.end] = True
        assert heard.all()


def test_a_window_keeps_its_samples_while_later_ones_are_cut() -> None:
    """The ring is reused; what was given out is not."""
    block = np.zeros(8_000, np.float32)

    def blocks():
        for i in range(20):
            block[:] = i
            yield block  # one buffer, overwritten as a decoder may do

    found = list(cut(blocks(), Cut("windows", 8_000, 8_000, MAX_FULL), "x", []))
    assert [float(s.samples[0]) for s in found] == list(range(20))


def test_a_long_signal_is_cut_in_bounded_memory() -> None:
    block = np.ones(32_000, np.float32)
    tracemalloc.start()
    segments = sum(
        1 for _ in cut((block for _ in range(1_800)), Cut("windows", WINDOW, HOP, MAX_FULL), "x", [])
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert segments == 1_800 - 2 + 1  # an hour; the last grid window ends 1,400 samples before the end
    assert peak < 2_000_000  # the hour itself is 230 MB


@pytest.mark.parametrize("rule", ["first", "full"])
def test_no_more_is_read_than_is_needed(rule: str) -> None:
    read = []

    def endless():
        while len(read) < 1_000:
            read.append(1)
            yield np.ones(32_000, np.float32)

    if rule == "full":
        with pytest.raises(AudioError):
            list(cut(endless(), Cut(rule, WINDOW, HOP, MAX_FULL), "x", []))
    else:
        list(cut(endless(), Cut(rule, WINDOW, HOP, MAX_FULL), "x", []))
    assert len(read) == (3 if rule == "first" else 31)


@pytest.mark.parametrize("rule", ["first", "full", "windows"])
def test_no_sample_at_all_is_an_error(rule: str) -> None:
    with pytest.raises(AudioError):
        pieces(ramp(0), rule)


@pytest.mark.parametrize(
    ("seconds", "samples"),
    [(2, 32_000), (0.02, 320), (0.5, 8_000), (0.001, 320), (0.029, 320), (0.031, 640), (1.01, 16_000 + 320)],
)
def test_hops_are_whole_frames(seconds: float, samples: int) -> None:
    hop = round_hop(seconds)
    assert hop % 320 == 0 and hop >= 320
    if seconds != 1.01:  # half-way: either neighbour is right
        assert hop == samples
    assert abs(hop - seconds * 16_000) <= 320
