"""Calibrated bundles: llr, probability of spoof and label of scores that a calibration holds for."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from nes2net_runtime import BundleError, Detector, FileResult
from nes2net_runtime.bundle import MANIFEST, read_bundle
from nes2net_runtime.decisions import decide, decide_llr

WINDOW = 64_600
RULES = ("first", "full", "windows")


def audio(seconds: float, seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).standard_normal(round(16_000 * seconds))
    return (0.1 * samples).astype(np.float32)


def scored(bundle: Path, path: Path, **how) -> FileResult:
    (result,) = Detector(bundle, "cpu", threads=1).score_files([path], **how)
    assert result.error is None
    return result


@given(llr=st.floats(-600, 600), prior=st.floats(1e-6, 1 - 1e-6))
def test_p_spoof_is_bayes_rule(calibration, llr: float, prior: float) -> None:
    """Posterior odds of spoof are prior odds times the likelihood ratio of spoof to bona fide."""
    p = decide_llr(llr, calibration(prior_spoof=prior)).p_spoof
    likelihood = math.exp(-llr)  # of spoof, bona fide having 1
    assert p == pytest.approx(prior * likelihood / (prior * likelihood + (1 - prior)), rel=1e-9, abs=0)


@given(
    score=st.floats(width=32, allow_nan=False, allow_infinity=False),
    prior=st.floats(0, 1, exclude_min=True, exclude_max=True),
)
def test_every_finite_score_has_a_finite_llr_and_a_probability(
    calibration, score: float, prior: float
) -> None:
    decision = decide(score, calibration(slope=1e9, offset=-1e9, prior_spoof=prior))
    assert math.isfinite(decision.llr)
    assert 0 <= decision.p_spoof <= 1


@given(a=st.floats(-50, 50), b=st.floats(-50, 50))
def test_more_human_is_never_more_likely_a_spoof(calibration, a: float, b: float) -> None:
    low, high = (decide(score, calibration(threshold=1.5)) for score in sorted((a, b)))
    assert low.llr <= high.llr and low.p_spoof >= high.p_spoof
    assert (low.label, high.label) != ("bonafide", "spoof")


def test_the_threshold_itself_is_bona_fide(calibration) -> None:
    entry = calibration(threshold=-1.25)
    assert decide_llr(-1.25, entry).label == "bonafide"
    assert decide_llr(math.nextafter(-1.25, -2), entry).label == "spoof"


def test_an_llr_of_0_leaves_the_prior_as_it_is(calibration) -> None:
    assert decide_llr(0.0, calibration(prior_spoof=0.05)).p_spoof == pytest.approx(0.05)
    assert decide_llr(math.log(19), calibration(prior_spoof=0.95)).p_spoof == pytest.approx(0.5)


@pytest.mark.parametrize("segment", RULES)
def test_each_segment_rule_has_its_own_calibration(calibrated, tmp_path: Path, segment) -> None:
    slopes = {"first": 1.5, "full": 2.5, "windows": 3.5}
    bundle = calibrated(**{rule: {"slope": slope, "offset": -slope} for rule, slope in slopes.items()})
    soundfile.write(tmp_path / "a.wav", audio(9), 16_000, subtype="FLOAT")
    result = scored(bundle, tmp_path / "a.wav", segment=segment)
    assert len(result.scores) == (4 if segment == "windows" else 1)
    for score in result.scores:
        assert score.llr == pytest.approx(slopes[segment] * (score.score - 1))
        assert score.p_spoof == pytest.approx(1 / (1 + math.exp(score.llr)))
        assert score.label == ("bonafide" if score.llr >= 0 else "spoof")
    waveform = Detector(bundle, "cpu", threads=1).score(audio(9), segment=segment)
    np.testing.assert_allclose([s.llr for s in waveform], [s.llr for s in result.scores], atol=1e-4)
    assert result.warnings == []


@pytest.mark.parametrize("segment", RULES)
def test_a_file_is_judged_by_its_mean_llr(calibrated, tmp_path: Path, examples: Path, segment) -> None:
    parts = [soundfile.read(examples / f"{name}.flac", dtype="float32")[0] for name in ("human", "synthetic")]
    soundfile.write(tmp_path / "a.wav", np.concatenate([parts[0]] * 4 + [parts[1]]), 16_000)
    plain = scored(calibrated(), tmp_path / "a.wav", segment=segment)
    scores = sorted(score.score for score in plain.scores)
    cut = (plain.mean + scores[0]) / 2  # between the lowest window and the mean
    entry = {"slope": 3.0, "offset": 0.0, "threshold": 3 * cut, "prior_spoof": 0.01}
    result = scored(calibrated(**{segment: entry}), tmp_path / "a.wav", segment=segment)
    assert result.llr == pytest.approx(np.mean([score.llr for score in result.scores]))
    assert result.p_spoof == pytest.approx(1 / (1 + 99 * math.exp(result.llr)))
    assert result.label == "bonafide"
    assert result.spoof_segments == sum(score < cut for score in scores)
    assert (result.spoof_segments > 0) == (segment == "windows")  # the short synthetic part shows
    assert result.mean == pytest.approx(plain.mean)


def test_audio_shorter_than_a_window_is_what_first_hears(calibrated, good: Path) -> None:
    bundle = calibrated(first={"offset": 7.0}, windows={"offset": -7.0})
    short = scored(bundle, good)
    assert short.llr == pytest.approx(2 * short.mean + 7)
    assert short.scores == scored(bundle, good, segment="first").scores
    (alone,) = Detector(bundle, "cpu", threads=1).score(audio(WINDOW / 16_000))
    assert alone.llr == pytest.approx(2 * alone.score - 7)  # a window, whole


def test_short_audio_has_no_label_without_a_calibration_of_first(calibrated, good: Path) -> None:
    result = scored(calibrated(windows={}), good)
    assert (result.llr, result.p_spoof, result.label, result.spoof_segments) == (None,) * 4
    assert result.scores[0].label is None
    assert result.warnings == ["shorter than a window, and not calibrated for --segment first: no label"]
    assert scored(calibrated(first={}), good).label is not None


def test_windows_of_another_length_have_no_llr(calibrated, good: Path) -> None:
    bundle = calibrated(first={}, full={}, windows={})
    for segment in ("first", "windows"):
        other = scored(bundle, good, segment=segment, window_samples=32_000)
        assert other.llr is None and other.scores[0].llr is None
        assert other.warnings == []  # said once for the run, not for each file
        assert scored(bundle, good, segment=segment, window_samples=WINDOW).llr is not None
    assert scored(bundle, good, segment="full", window_samples=32_000).llr is not None  # has no windows


@pytest.mark.parametrize("segment", RULES)
def test_audio_shorter_than_that_of_the_calibration_has_no_llr(calibrated, tmp_path: Path, segment) -> None:
    bundle = calibrated(**{rule: {"min_seconds": 1.25} for rule in RULES})
    for samples, labelled in ((19_999, False), (20_000, True)):
        path = tmp_path / f"{samples}.wav"
        soundfile.write(path, audio(2)[:samples], 16_000)
        result = scored(bundle, path, segment=segment)
        assert (result.llr is not None, result.label is not None) == (labelled, labelled)
        assert math.isfinite(result.mean)
        warning = "shorter than the 1.25 s that the calibration holds from: a score, but no label"
        assert result.warnings == ([] if labelled else [warning])


def test_a_calibration_on_long_audio_holds_for_a_first_window_and_not_for_few_windows(
    calibrated, tmp_path: Path
) -> None:
    """`first` hears no more than a window, however long the audio of its calibration was."""
    bundle = calibrated(first={"min_seconds": 8.0}, windows={"min_seconds": 8.0})
    soundfile.write(tmp_path / "a.wav", audio(5), 16_000)
    assert scored(bundle, tmp_path / "a.wav", segment="first").label is not None
    assert scored(bundle, tmp_path / "a.wav").label is None
    soundfile.write(tmp_path / "a.wav", audio(8), 16_000)
    assert scored(bundle, tmp_path / "a.wav").label is not None


@pytest.mark.parametrize("segment", RULES)
@pytest.mark.parametrize("seconds", [1, 9])
def test_silence_has_no_label(calibrated, tmp_path: Path, segment, seconds: int) -> None:
    bundle = calibrated(first={}, full={}, windows={})
    silence = np.zeros(16_000 * seconds, np.float32)
    soundfile.write(tmp_path / "silent.wav", silence, 16_000)
    result = scored(bundle, tmp_path / "silent.wav", segment=segment)
    assert (result.llr, result.p_spoof, result.label) == (None, None, None)
    assert result.warnings == ["all silent (every sample is zero): the score means nothing"]
    detector = Detector(bundle, "cpu", threads=1)
    assert detector.score(silence, segment=segment)[0].label is None
    silence[-1] = 0.1
    soundfile.write(tmp_path / "click.wav", silence, 16_000)
    heard = segment != "first" or seconds == 1  # the first window of 9 s is silent
    assert (scored(bundle, tmp_path / "click.wav", segment=segment).label is not None) == heard
    assert (detector.score(silence, segment=segment)[0].label is not None) == heard


def test_an_uncalibrated_bundle_gives_scores_alone(uncalibrated: Path, good: Path) -> None:
    assert read_bundle(uncalibrated).manifest.calibration is None
    for segment in RULES:
        result = scored(uncalibrated, good, segment=segment)
        assert (result.llr, result.p_spoof, result.label, result.spoof_segments) == (None,) * 4
        assert {(s.llr, s.p_spoof, s.label) for s in result.scores} == {(None, None, None)}
        assert result.warnings == []


@pytest.mark.parametrize(
    "change",
    [
        {"slope": 0},
        {"slope": -1},
        {"slope": 1e300},
        {"slope": None},
        {"offset": 1e300},
        {"offset": "NaN"},
        {"threshold": -1e300},
        {"prior_spoof": 0},
        {"prior_spoof": 1},
        {"min_seconds": -1},
        {"costs": {"prior_spoof": 0.5, "bonafide_rejected": 0, "spoof_accepted": 1}},
        {"provenance": {}},
        {"gain": 1},
    ],
    ids=json.dumps,
)
def test_calibrations_that_are_refused(calibrated, change) -> None:
    bundle = calibrated(windows=change)
    with pytest.raises(BundleError, match=r"manifest\.json: damaged") as caught:
        read_bundle(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(calibrated, number: str) -> None:
    manifest = calibrated(first={"offset": 123456.0}) / MANIFEST
    text = manifest.read_text()
    assert text.count("123456.0") == 1
    manifest.write_text(text.replace("123456.0", number))
    with pytest.raises(BundleError, match=r"manifest\.json: damaged"):
        read_bundle(manifest.parent)


def test_a_rule_that_is_none_is_refused(calibrated) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json: damaged .*middle"):
        read_bundle(calibrated(middle={}))
