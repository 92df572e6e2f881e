"""A stream's scores are those of `--segment windows`, however the signal comes."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from onnxruntime.quantization import QuantType, quantize_dynamic

from nes2net_runtime import AudioError, Detector, Score
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest

SAME = 1e-4  # DESIGN.md 5
ONE_STEP = 2e-2  # of INT8: sums in another order may fall on the other side of a rounding
EXAMPLES = Path(__file__).parents[2] / "docs/examples"


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """15 s: both example clips, twice, the second time quieter."""
    clips = [soundfile.read(EXAMPLES / f"{name}.flac", dtype="float32")[0] for name in ("human", "synthetic")]
    return np.concatenate([*clips, *(0.3 * clip for clip in clips)])


@pytest.fixture(scope="module")
def fp32() -> Detector:
    return Detector(threads=1)


@pytest.fixture(scope="module")
def int8(tmp_path_factory) -> Detector:
    """The demo detector with a dynamically quantised context network."""
    folder = Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("int8") / "int8.nes2net"))
    quantize_dynamic(DEMO / "context.onnx", folder / "context.onnx", weight_type=QuantType.QInt8)
    write_manifest(folder, read_bundle(DEMO).manifest.with_files(list_files(folder)))
    return Detector(folder, threads=1)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory) -> Detector:
    """The demo detector, told to normalise each window."""
    folder = Path(shutil.copytree(DEMO, tmp_path_factory.mktemp("normal") / "normal.nes2net"))
    manifest = read_bundle(DEMO).manifest
    audio = replace(manifest.audio, normalize="per-window", frames_reusable=False)
    write_manifest(folder, replace(manifest, audio=audio))
    return Detector(folder, threads=1)


def cut(signal: np.ndarray, sizes: Sequence[int]) -> Iterator[np.ndarray]:
    """The signal in pieces of these sizes, over and over."""
    at = i = 0
    while at < len(signal):
        yield signal[at : at + sizes[i % len(sizes)]]
        at += sizes[i % len(sizes)]
        i += 1


def streamed(detector: Detector, pieces: Iterator[np.ndarray], **options: float) -> list[Score]:
    stream = detector.stream(**options)
    return [score for piece in pieces for score in stream.feed(piece)] + stream.close()


def assert_same(
    scores: Sequence[Score], expected: Sequence[Score], later: float = 0.0, within: float = SAME
) -> None:
    """The same windows, and scores within a tolerance."""
    assert [(s.start, s.end, s.tail) for s in scores] == [
        (pytest.approx(e.start + later), pytest.approx(e.end + later), e.tail) for e in expected
    ]
    np.testing.assert_allclose([s.score for s in scores], [e.score for e in expected], atol=within)
    if within == SAME:
        assert [s.label for s in scores] == [e.label for e in expected]


sizes = st.lists(st.integers(1, 100_000), min_size=1, max_size=6)


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=sizes, length=st.integers(1, 120_000), hop=st.sampled_from([0.5, 1.0, 3.3, 6.0]))
@pytest.mark.parametrize("kind", ["fp32", "int8", "normalized"])
def test_scores_are_those_of_windows(
    request, kind: str, speech: np.ndarray, sizes: list[int], length: int, hop: float
) -> None:
    """Pieces of 1 to 100,000 samples, tails, signals shorter than a window, hops longer than one."""
    detector: Detector = request.getfixturevalue(kind)
    signal = speech[:length]
    within = ONE_STEP if kind == "int8" else SAME
    expected = detector.score(signal, hop=hop)
    assert_same(streamed(detector, cut(signal, sizes), hop=hop), expected, within=within)


@pytest.mark.slow
def test_sample_by_sample(fp32: Detector, speech: np.ndarray) -> None:
    signal = speech[:100_001]
    assert_same(streamed(fp32, cut(signal, [1]), hop=0.5), fp32.score(signal, hop=0.5))


@pytest.mark.parametrize("length", [1, 399, 400, 64_599, 64_600, 64_601, 64_920])
def test_lengths_where_something_changes(fp32: Detector, speech: np.ndarray, length: int) -> None:
    signal = speech[:length]
    assert_same(streamed(fp32, cut(signal, [1600]), hop=0.5), fp32.score(signal, hop=0.5))


@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stretches=st.lists(st.tuples(st.integers(0, 90_000), st.floats(0.001, 100)), min_size=1, max_size=3),
    sizes=sizes,
)
def test_after_a_gap_all_begins_anew(
    fp32: Detector, speech: np.ndarray, stretches: list[tuple[int, float]], sizes: list[int]
) -> None:
    """Each stretch has the scores of a signal of its own, at its place in time."""
    stream, at = fp32.stream(hop=0.5), 0.0
    for length, gap in stretches:
        signal = speech[:length]
        scores = [score for piece in cut(signal, sizes) for score in stream.feed(piece)] + stream.gap(gap)
        assert_same(scores, fp32.score(signal, hop=0.5) if length else [], later=at)
        at += length / 16_000 + round(gap * 16_000) / 16_000
        assert stream.seconds == pytest.approx(at)
    assert stream.close() == []


def test_frames_are_computed_once(fp32: Detector, speech: np.ndarray, monkeypatch) -> None:
    encoded: list[int] = []
    encode = fp32.stages.encode
    monkeypatch.setattr(fp32.stages, "encode", lambda heard: encoded.append(len(heard)) or encode(heard))
    streamed(fp32, cut(speech[: 64_600 + 10 * 8000], [1600]), hop=0.5)
    assert encoded == [64_400] + 10 * [25 * 320 + 80]  # 201 frames, then 25 a hop


def test_early_scores_repeat_what_there_is(fp32: Detector, speech: np.ndarray) -> None:
    scores = streamed(fp32, cut(speech[:80_000], [1000]), hop=0.5, first_after=1.0)
    early = [score for score in scores if score.early]
    assert [(s.start, s.end) for s in early] == [(0.0, 1.0 + 0.5 * i) for i in range(7)]
    for score in early:
        (expected,) = fp32.score(speech[: round(score.end * 16_000)], segment="first")
        assert score.score == pytest.approx(expected.score, abs=SAME)
    assert_same([s for s in scores if not s.early], fp32.score(speech[:80_000], hop=0.5))


def test_early_scores_have_a_calibration_of_their_own(fp32: Detector, speech: np.ndarray) -> None:
    calibration = fp32.bundle.manifest.calibration["early"]
    (first, *_) = streamed(fp32, cut(speech[:80_000], [1000]), first_after=1.0)
    assert first.llr == pytest.approx(calibration.slope * first.score + calibration.offset)
    (sooner, *_) = streamed(fp32, cut(speech[:80_000], [1000]), first_after=0.5)
    assert sooner.early and sooner.llr is None  # shorter than it holds for


def test_windows_without_speech_are_not_scored(fp32: Detector, speech: np.ndarray) -> None:
    """Silence and noise; what has speech enough is scored as without voice activity detection."""
    noise = 0.02 * np.random.default_rng(0).standard_normal(160_000).astype(np.float32)
    signal = np.concatenate([np.zeros(160_000, np.float32), speech, noise])
    stream = fp32.stream(hop=0.5, min_speech=0.25)
    scores = [score for piece in cut(signal, [1600]) for score in stream.feed(piece)] + stream.close()
    everything = {s.start: s for s in fp32.score(signal, hop=0.5)}
    assert 20 <= len(scores) <= 40
    assert stream.scored == len(scores) and stream.without_speech == len(everything) - len(scores)
    assert min(s.end for s in scores) > 10 and max(s.start for s in scores) < 10 + len(speech) / 16_000
    assert_same(scores, [everything[s.start] for s in scores])


@pytest.mark.parametrize("sound", ["silence", "noise", "hum", "clicks", "music"])
def test_what_is_no_speech_is_not_scored(fp32: Detector, sound: str) -> None:
    time = np.arange(16_000 * 20) / 16_000
    rng = np.random.default_rng(1)
    chords = sum(np.sin(2 * np.pi * 220 * 2 ** (n / 12) * time) for n in (0, 4, 7, 12))
    signal = {
        "silence": np.zeros(time.size),
        "noise": 0.1 * rng.standard_normal(time.size),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * time) + 0.1 * np.sin(2 * np.pi * 150 * time),
        "clicks": np.where(rng.random(time.size) < 1e-4, 0.8, 0.0),
        "music": 0.1 * chords * (1 - (2 * time) % 1),
    }[sound]
    assert streamed(fp32, cut(signal.astype(np.float32), [1600]), min_speech=0.25) == []


def test_the_hop_may_change_on_the_way(fp32: Detector, speech: np.ndarray) -> None:
    stream, scores = fp32.stream(hop=0.5), []
    for i, piece in enumerate(cut(speech, [8000])):
        stream.hop = (8000, 16_000, 32_000)[i % 3]
        scores += stream.feed(piece)
    everything = {s.start: s.score for s in fp32.score(speech, hop=0.5)}
    assert len(scores) > 5
    for score in scores:
        assert score.score == pytest.approx(everything[score.start], abs=SAME)


def test_bad_samples_change_nothing(fp32: Detector, speech: np.ndarray) -> None:
    stream = fp32.stream(hop=0.5)
    scores = stream.feed(speech[:40_000])
    for bad in (np.array([np.nan], np.float32), np.array([np.inf], np.float32), np.zeros((2, 2), np.float32)):
        with pytest.raises(AudioError):
            stream.feed(bad)
    assert_same(
        scores + stream.feed(speech[40_000:90_000]) + stream.close(), fp32.score(speech[:90_000], hop=0.5)
    )
    with pytest.raises(ValueError, match="closed"):
        stream.feed(speech[:10])


def test_silence_has_no_label(fp32: Detector) -> None:
    scores = streamed(fp32, cut(np.zeros(80_000, np.float32), [1600]))
    assert scores and all(score.label is None and score.llr is None for score in scores)


def test_memory_does_not_grow(fp32: Detector) -> None:
    """20 minutes in one piece, then in many: the resident set stays."""
    psutil = pytest.importorskip("psutil")
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000 * 60).astype(np.float32)
    stream: Callable[[np.ndarray], list[Score]] = fp32.stream(hop=2.0, min_speech=0.0).feed
    sizes = []
    for _ in range(6):
        stream(noise)
        sizes.append(psutil.Process().memory_info().rss)
    assert max(sizes[2:]) - sizes[2] < 4 << 20
