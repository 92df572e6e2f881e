"""The Python API."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_runtime import AudioError, Detector
from nes2net_runtime.bundle import DEMO
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.inference.sessions import normalize


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector(provider="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    """Ten files of six lengths, the last ones of several windows."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    paths = []
    for i, seconds in enumerate((1, 5, 1, 2, 9, 5, 3, 0.5, 13, 1)):
        paths.append(folder / f"{9 - i}.wav")
        soundfile.write(paths[-1], 0.1 * random.standard_normal(round(16_000 * seconds)), 16_000)
    return paths


@pytest.mark.parametrize("segment", ["first", "full", "windows"])
def test_scores_do_not_depend_on_the_batch_and_files_keep_their_order(detector, files, segment) -> None:
    alone = [next(detector.score_files([path], segment, batch_size=1)) for path in files]
    for batch_size in (2, 4, 7):
        together = list(detector.score_files(files, segment, batch_size=batch_size))
        assert [r.file for r in together] == [str(path) for path in files]
        for a, b in zip(alone, together, strict=True):
            assert [(s.start, s.end, s.tail) for s in a.scores] == [
                (s.start, s.end, s.tail) for s in b.scores
            ]
            np.testing.assert_allclose(
                [s.score for s in a.scores], [s.score for s in b.scores], rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("segment", ["first", "full", "windows"])
def test_a_waveform_scores_like_its_file(detector, files, segment) -> None:
    for result in detector.score_files(files, segment):
        waveform, rate = soundfile.read(result.file, dtype="float32")
        scores = detector.score(waveform, rate, segment)
        np.testing.assert_allclose([s.score for s in scores], [s.score for s in result.scores], atol=1e-5)


def test_times_mean_and_lowest(detector, files) -> None:
    result = next(detector.score_files([files[8]], hop=2.0))  # 13 s
    assert [s.start for s in result.scores] == [0, 2, 4, 6, 8, 13 - 64_600 / 16_000]
    assert [s.tail for s in result.scores] == [False] * 5 + [True]
    scores = [s.score for s in result.scores]
    assert result.mean == pytest.approx(np.mean(scores))
    assert result.lowest.score == min(scores)
    assert result.seconds == pytest.approx(13)


def test_one_detector_serves_several_threads(detector, files) -> None:
    expected = [r.mean for r in detector.score_files(files)]
    with ThreadPoolExecutor(4) as pool:
        runs = pool.map(lambda _: [r.mean for r in detector.score_files(files)], range(8))
    for run in runs:
        np.testing.assert_allclose(run, expected, atol=1e-5)


def test_a_file_of_other_rate_and_channels_scores_like_its_resampled_mix(detector, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    stereo = 0.1 * random.standard_normal((48_000 * 5, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, 48_000, subtype="FLOAT")
    from_file = next(detector.score_files([tmp_path / "a.wav"]))
    from_array = detector.score(stereo.mean(axis=1), 48_000)
    np.testing.assert_allclose([s.score for s in from_file.scores], [s.score for s in from_array], atol=1e-5)


def test_normalisation_is_per_row_with_the_biased_variance() -> None:
    """Over ten samples the unbiased variance would be 11 % larger; other rows do not matter."""
    random = np.random.default_rng(2)
    levels, offsets = [[1e-3], [1.0], [30.0]], [[0.5], [0.0], [-7.0]]
    batch = (random.standard_normal((3, 10)) * levels + offsets).astype(np.float32)
    exact = batch.astype(np.float64)
    variance = ((exact - exact.mean(1, keepdims=True)) ** 2).mean(1, keepdims=True)
    expected = (exact - exact.mean(1, keepdims=True)) / np.sqrt(variance + 1e-5)
    np.testing.assert_allclose(normalize(batch), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(normalize(batch)[1:2], normalize(batch[1:2]))


@pytest.mark.parametrize(
    ("waveform", "rate", "reason"),
    [
        (np.zeros(0, np.float32), 16_000, "no audio"),
        (np.array([0.0, np.nan], np.float32), 16_000, "NaN"),
        (np.array([0.0, -np.inf], np.float32), 16_000, "infinity"),
        (np.zeros((2, 800), np.float32), 16_000, "1-D float array"),
        (np.zeros(800, np.int16), 16_000, "1-D float array"),
        (np.zeros(800, np.float32), 0, "0 Hz"),
    ],
)
def test_waveforms_that_cannot_be_scored(detector, waveform, rate: int, reason: str) -> None:
    with pytest.raises(AudioError, match=reason):
        detector.score(waveform, rate)


def test_receipt_says_what_ran(detector) -> None:
    receipt = detector.receipt
    assert receipt.provider == "cpu"
    assert [stage.stage for stage in receipt.stages] == ["encoder", "context", "backend"]
    for stage in receipt.stages:
        assert stage.provider == "cpu"
        assert stage.nodes.keys() == {"cpu"} and stage.nodes["cpu"] > 10
    assert receipt.load_seconds > 0
    assert receipt.threads >= 1


def test_frames_of_long_audio_are_those_of_its_parts() -> None:
    """The encoder hears long audio in pieces, of a length that depends on its channels."""
    stages = Detector(threads=1).stages
    waveform = np.random.default_rng(0).standard_normal(40 * 16_000 + 123).astype(np.float32)
    frames = stages.encode(waveform)
    assert frames.shape[1] == (len(waveform) - 400) // 320 + 1
    whole = cpu_session(DEMO / "encoder.onnx", 1).run(None, {"waveform": waveform[None]})[0]
    np.testing.assert_allclose(frames, whole, rtol=1e-4, atol=1e-5)
