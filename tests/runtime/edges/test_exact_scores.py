"""Scores that are known exactly: the probe bundle's logits are numbers of the segment itself."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_runtime import AudioError, Detector

WINDOW = 64_600


def one(detector: Detector, path: Path, **options):
    (result,) = detector.score_files([path], **options)
    return result


@pytest.mark.parametrize("batch_size", [1, 3, 4, 64])
@pytest.mark.parametrize(("probe_name", "edge"), [("first", "start"), ("last", "end")])
def test_windows_are_scored_where_they_are(probe, wav, probe_name, edge, batch_size, noise) -> None:
    path, signal = wav("x.wav", 9.3), noise(148_800)
    result = one(probe(probe_name), path, hop=1.0, batch_size=batch_size)
    starts = [*range(0, 148_800 - WINDOW + 1, 16_000), 148_800 - WINDOW]
    at = np.array(starts) if edge == "start" else np.array(starts) + WINDOW - 1
    assert [s.score for s in result.scores] == signal[at].tolist()
    assert [s.start for s in result.scores] == [start / 16_000 for start in starts]
    assert [s.end for s in result.scores] == [(start + WINDOW) / 16_000 for start in starts]


def test_results_keep_the_order_of_files_of_mixed_lengths(probe, wav, noise) -> None:
    lengths = [400, 9_000, 401, 9_000, 70_000, 400, 1_000, 70_000, 399, 9_000]
    paths = [wav(f"{i}.wav", noise(n, seed=i)) for i, n in enumerate(lengths)]
    results = list(probe("first").score_files(paths, "full", batch_size=2))
    assert [r.file for r in results] == [str(path) for path in paths]
    assert [r.mean for r in results] == [float(noise(n, seed=i)[0]) for i, n in enumerate(lengths)]
    assert [s.end for r in results for s in r.scores] == [n / 16_000 for n in lengths]


def test_a_result_comes_before_the_last_file_is_read(probe, wav) -> None:
    paths = [wav(f"{i}.wav", 5.0, seed=i) for i in range(8)]
    results = probe("first").score_files(paths, "first", batch_size=2)
    assert next(results).file == str(paths[0])
    paths[-1].unlink()
    assert [r.error is None for r in results] == [True] * 6 + [False]


def test_channels_by_number_each_and_mixed(probe, wav) -> None:
    levels = np.array([0.5, -0.25, 0.125], np.float32)
    path, detector = wav("x.wav", np.tile(levels, (70_000, 1))), probe("first")
    assert one(detector, path).mean == pytest.approx(0.125, abs=1e-7)
    assert [one(detector, path, channels=n).mean for n in (1, 2, 3)] == levels.tolist()
    each = list(detector.score_files([path], channels="each"))
    assert [(r.channel, r.mean) for r in each] == [(1, 0.5), (2, -0.25), (3, 0.125)]


@pytest.mark.parametrize("n", [401, 1_000, 2_500])
def test_windows_are_normalised_after_they_are_repeated_with_the_biased_variance(probe, noise, n) -> None:
    """mean(x^2) of a normalised window is v / (v + 1e-5), v its biased variance; 0.25 % apart at 400."""
    detector, signal = probe("mean_square", normalize="per-window"), noise(n) * np.float32(0.01) + 0.3
    window = signal.astype(np.float32)[np.arange(400) % n].astype(np.float64)
    biased = ((window - window.mean()) ** 2).mean()
    (score,) = detector.score(signal.astype(np.float32), segment="first", window_samples=400)
    assert score.score == pytest.approx(biased / (biased + 1e-5), rel=2e-5)
    assert score.score != pytest.approx(biased / (biased * 400 / 399 + 1e-5), rel=2e-4)
    (long,) = detector.score(signal.astype(np.float32), segment="first", window_samples=3_000)
    window = signal.astype(np.float32)[np.arange(3_000) % n].astype(np.float64)
    assert long.score == pytest.approx(window.var() / (window.var() + 1e-5), rel=2e-5)


def test_a_detector_that_takes_the_waveform_as_it_is_does_not_normalise(probe, noise) -> None:
    signal = noise(1_000) + np.float32(0.3)
    (score,) = probe("mean_square").score(signal, segment="full")
    assert score.score == pytest.approx((signal.astype(np.float64) ** 2).mean(), rel=1e-5)


@pytest.mark.parametrize("channels", [0, -1, "left"])
def test_channels_that_are_none_are_refused(probe, wav, channels) -> None:
    path = wav("x.wav", np.full((1_000, 2), 0.5, np.float32))
    with pytest.raises(ValueError):
        list(probe("first").score_files([path], channels=channels))


@pytest.mark.parametrize(
    "options",
    [{"segment": "middle"}, {"window_samples": 399}, {"window_samples": -5}, {"hop": float("nan")}],
    ids=str,
)
def test_options_that_mean_nothing_are_refused(detector, noise, options) -> None:
    with pytest.raises(ValueError):
        detector.score(noise(1_000), **options)


def test_no_limit_on_full_can_be_asked_for(probe, noise) -> None:
    assert len(probe("first").score(noise(1_000_000), segment="full", max_seconds=float("inf"))) == 1


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_a_waveform_beyond_float32_is_refused(probe) -> None:
    with pytest.raises(AudioError):
        probe("first").score(np.full(1_000, 1e300))


def test_samples_that_vanish_in_resampling_are_no_audio(probe, tmp_path: Path) -> None:
    """Three samples at 192 kHz are none at 16 kHz; zeros made up for them must not be scored."""
    detector = probe("first")
    with pytest.raises(AudioError):
        detector.score(np.full(3, 0.5, np.float32), 192_000)
    soundfile.write(tmp_path / "x.wav", np.full(3, 0.5), 192_000)
    assert isinstance(one(detector, tmp_path / "x.wav").error, AudioError)


def test_a_score_that_is_not_finite_is_an_error_of_its_file(probe, wav) -> None:
    loud = wav("loud.wav", np.full(1_000, 1e30, np.float32), subtype="FLOAT")  # its square overflows
    results = list(probe("mean_square").score_files([loud, wav("good.wav")]))
    assert [r.error is None for r in results] == [False, True]
