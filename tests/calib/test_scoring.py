"""Which audio each segment rule is calibrated on."""

from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
from msgspec.structs import replace

from nes2net_calib.protocols import Trial
from nes2net_calib.score_cache import Heard, ScoreCache, cache_path
from nes2net_calib.scoring import score_signals, signals
from nes2net_runtime import Detector
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.manifest import (
    File,
)

WINDOW = 64_600


@pytest.fixture
def trial(tmp_path: Path):
    """(seconds, speaker, bona fide, system, condition) -> a trial of its own, with audio of this length."""
    numbers: Iterator[int] = iter(range(10_000))

    def make(seconds: float, speaker="ann", bonafide=True, system=None, condition=None) -> Trial:
        number = next(numbers)
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, np.full(round(8_000 * seconds), 0.1), 8_000)
        return Trial(path.stem, path, bonafide, system, speaker, None, condition, number, ())

    return make


def test_first_takes_every_trial_and_full_those_that_it_can_take_at_once(trial) -> None:
    trials = [trial(0.1), trial(60), trial(60.001), trial(1)]
    assert signals(trials, "first", WINDOW) == [(t,) for t in trials]
    assert signals(trials, "full", WINDOW) == [(trials[0],), (trials[1],), (trials[3],)]


def test_early_scores_the_first_seconds_of_each_trial(trial, tmp_path: Path) -> None:
    """Repeated to a window, as `first` does with clips of that length."""
    trials = [trial(0.9), trial(1.0), trial(2.5), trial(9.0)]
    made = signals(trials, "early", WINDOW)
    assert made == [(t,) for t in trials[1:]]
    detector = Detector()
    scores, problems = score_signals(detector, made, "early", ScoreCache(tmp_path / "cache", print))
    assert not problems
    assert [scores[i].trial for i in range(6)] == [trials[1], trials[2], trials[2], *[trials[3]] * 3]
    assert {one.seconds for one in scores} == {1.0}
    whole = soundfile.read(trials[3].path, dtype="float32")[0]
    (expected,) = detector.score(whole[: 2 * 8_000], 8_000, "first")
    assert scores[4].score == pytest.approx(expected.score, abs=0.02)  # the resampler's last few milliseconds


def test_lengths_that_are_known_are_not_read_again(tmp_path: Path) -> None:
    lengths = {"a": 70.0, "b": 3.0, "c": 2.0}
    trials = [Trial(id, tmp_path / id, True, None, "ann", None, None, 1, ()) for id in lengths]
    asked: list[str] = []

    @cache
    def length(trial: Trial) -> float:
        asked.append(trial.id)
        return lengths[trial.id]

    assert signals(trials, "full", WINDOW, length) == [(trials[1],), (trials[2],)]
    assert signals(trials, "windows", WINDOW, length) == [(trials[0],), (trials[1], trials[2])]
    assert asked == ["a", "b", "c"]


def test_windows_join_what_is_alike_to_20_seconds(trial) -> None:
    kinds = list(product(("ann", "bob"), ((True, None), (False, "A1"), (False, "A2")), ("wide", None)))
    trials = [trial(3, speaker, *label, condition) for _ in range(9) for speaker, label, condition in kinds]
    made = signals(trials, "windows", WINDOW)
    assert len(made) == 2 * len(kinds)  # 7 clips are 21 s; the other 2 fill a window
    assert sorted(len(signal) for signal in made) == [2] * len(kinds) + [7] * len(kinds)
    for signal in made:
        assert len({(t.speaker, t.bonafide, t.system, t.condition) for t in signal}) == 1
        assert [t.line for t in signal] == sorted(t.line for t in signal)
    assert sorted(t.line for signal in made for t in signal) == [t.line for t in trials]  # each one once


def test_windows_leave_out_what_fills_none(trial) -> None:
    whole, short = trial(4.0375, "ann"), trial(4.0, "bob")
    strangers = [trial(3, None) for _ in range(5)] + [trial(30, None)]
    made = signals([whole, short, *strangers], "windows", WINDOW)
    assert set(made) == {(whole,), (strangers[-1],)}


def test_a_joined_signal_is_scored_window_by_window(trial, bundle: Path, tmp_path: Path) -> None:
    detector = Detector(bundle, "cpu", threads=1)
    clips = []
    for level in (0.2, 0.6):
        clips.append(trial(3))
        soundfile.write(clips[-1].path, np.full(48_000, level), 16_000, subtype="FLOAT")
    cache = ScoreCache(tmp_path / "cache.jsonl", pytest.fail)
    scores, problems = score_signals(detector, signals(clips, "windows", WINDOW), "windows", cache)
    expected = []
    for start in (0, 96_000 - WINDOW):  # the next one on the grid, at 32,000, ends after the audio
        low = max(0, 48_000 - start) / WINDOW
        expected.append(10 * (0.2 * low + 0.6 * (1 - low)) - 5)
    assert [one.score for one in scores] == pytest.approx(expected, abs=1e-3)
    assert {one.seconds for one in scores} == {WINDOW / 16_000}
    assert problems == {}


def test_first_and_full_tell_how_much_they_heard(trial, bundle: Path, tmp_path: Path) -> None:
    detector = Detector(bundle, "cpu", threads=1)
    clips = [(trial(1.5),), (trial(9),)]
    for rule, seconds in (("first", [1.5, 4.0375]), ("full", [1.5, 9.0])):
        cache = ScoreCache(tmp_path / f"{rule}.jsonl", pytest.fail)
        scores, _ = score_signals(detector, clips, rule, cache)
        assert [one.seconds for one in scores] == pytest.approx(seconds, abs=1e-3)


def test_long_recordings_and_strangers_are_windows_on_their_own(trial, bundle: Path, tmp_path: Path) -> None:
    detector = Detector(bundle, "cpu", threads=1)
    made = signals([trial(25), trial(6, None)], "windows", WINDOW)
    cache = ScoreCache(tmp_path / "cache.jsonl", pytest.fail)
    scores, problems = score_signals(detector, made, "windows", cache)
    assert [one.trial.speaker for one in scores] == ["ann"] * 12 + [None] * 2  # each 2 s, and at the end
    assert problems == {}


@pytest.mark.parametrize("rule", ["first", "full", "windows"])
def test_what_cannot_be_read_is_a_problem_of_its_signal(trial, bundle: Path, tmp_path: Path, rule) -> None:
    detector = Detector(bundle, "cpu", threads=1)
    good, text, gone, other = trial(6), trial(1), trial(1, bonafide=False), trial(7, "bob")
    text.path.write_text("not audio")
    gone.path.unlink()
    cache = ScoreCache(tmp_path / "cache.jsonl", pytest.fail)
    made = signals([good, text, gone, other], rule, WINDOW)
    scores, problems = score_signals(detector, made, rule, cache)
    if rule == "windows":  # joined ones have a problem together; what can't be read alone fills nothing
        assert list(problems) == [text] and {one.trial for one in scores} == {other}
    else:
        assert list(problems) == [text, gone] and [one.trial for one in scores] == [good, other]
        assert "no such file" in problems[gone]
    assert problems[text].startswith(f"{text.path}: not audio")
    assert len(cache.known) == len(made) - len(problems)


def test_joined_audio_is_no_less_sound_than_single_clips(trial, bundle: Path, tmp_path: Path) -> None:
    """Each of what is wrong is found, and named by its own file and trial."""
    detector = Detector(bundle, "cpu", threads=1)
    whole, cut, silent, other = trial(6, "ann"), trial(6, "ann"), trial(6, "bob"), trial(6, "bob")
    cut.path.write_bytes(cut.path.read_bytes()[:-1_000])
    soundfile.write(silent.path, np.zeros(48_000), 8_000)
    cache = ScoreCache(tmp_path / "cache.jsonl", pytest.fail)
    made = signals([whole, cut, silent, other], "windows", WINDOW)
    assert made == [(whole, cut), (silent, other)]
    scores, problems = score_signals(detector, made, "windows", cache)
    assert (scores, set(problems)) == ([], {cut, silent})
    assert problems[cut].startswith(f"{cut.path}: truncated or damaged")
    assert problems[silent].startswith(f"{silent.path}: all silent")


def test_the_same_audio_twice_is_scored_once_and_counts_twice(trial, bundle: Path, tmp_path: Path) -> None:
    detector = Detector(bundle, "cpu", threads=1)
    clips = [(trial(1),), (trial(1, bonafide=False),), (trial(2),)]
    cache, seen = ScoreCache(tmp_path / "cache.jsonl", pytest.fail), []
    scores, _ = score_signals(detector, clips, "first", cache, seen.append)
    assert [one.trial for one in scores] == [clip for (clip,) in clips]
    assert len(cache.known) == 2
    assert sum(seen) == 3


def test_a_cache_keeps_whole_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "cache.jsonl"
    cache = ScoreCache(path, pytest.fail)
    heard = {f"key {i}": Heard(1.5 + i, [0.25 * i, -1e-7, 1 / 3]) for i in range(20)}
    for key, value in heard.items():
        cache.add(key, value)
    assert ScoreCache(path, pytest.fail).known == heard
    whole = path.read_bytes()
    for cut in range(1, 60):
        path.write_bytes(whole[:-cut])
        known = ScoreCache(path, pytest.fail).known
        assert known.items() <= heard.items() and len(known) >= 18
    path.write_bytes(whole[:-3] + b"\xff\xfe")
    again = ScoreCache(path, pytest.fail)
    again.add("key 19", heard["key 19"])
    assert ScoreCache(path, pytest.fail).known == heard


def test_caches_of_what_scores_otherwise_are_apart(bundle: Path, loudness, tmp_path: Path) -> None:
    manifest = read_bundle(bundle).manifest
    assert cache_path(manifest, "cpu", "first") == cache_path(manifest, "cpu", "first")
    other = read_bundle(loudness(tmp_path / "other", work=3)).manifest
    page, *weights = (File(path=name, bytes=1, sha256=name) for name in ("reports/a.html", "w.data", "w.bin"))
    with_page = manifest.with_files([*manifest.files, page])
    assert cache_path(with_page, "cpu", "first") == cache_path(manifest, "cpu", "first")
    window = replace(manifest, audio=replace(manifest.audio, window_samples=32_000))
    logit = replace(manifest, score=replace(manifest.score, bonafide_logit=0))
    manifests = [other, window, logit, *(manifest.with_files([*manifest.files, file]) for file in weights)]
    paths = {
        cache_path(manifest, "cpu", "first"),
        cache_path(manifest, "cuda", "first"),
        cache_path(manifest, "cpu", "full"),
        *(cache_path(unlike, "cpu", "first") for unlike in manifests),
    }
    assert len(paths) == 3 + len(manifests)
