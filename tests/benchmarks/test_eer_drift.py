"""Drift: paired intervals with known truth, known changes of scores, and the command with its cache."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from math import sqrt
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from msgspec.structs import replace
from onnx import numpy_helper
from scipy.stats import norm
from typer.testing import CliRunner

from nes2net_bench.documents import read_document
from nes2net_bench.drift import conditions
from nes2net_bench.drift.intervals import Paired, Trials, paired
from nes2net_bench.drift.measure import compare, score_change
from nes2net_bench.drift.results import aligned
from nes2net_bench.drift.scores import Scoring, local_workers, ray_workers, score_list
from nes2net_calib.intervals import interval
from nes2net_calib.metrics import equal_error_rate, min_cllr, min_dcf
from nes2net_calib.protocols import Trial, read_protocol
from nes2net_calib.score_cache import Heard
from nes2net_runtime.bundle import DEMO, MANIFEST, Bundle, read_bundle, sha256
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.manifest import Calibration

ROOT = Path(__file__).parents[2]


def eer(bonafide: np.ndarray, spoof: np.ndarray) -> float:
    return equal_error_rate(bonafide, spoof).rate


def draw(
    rng: np.random.Generator, speakers: int = 60, each: int = 6, separation: float = 2.0
) -> tuple[Trials, np.ndarray]:
    """Scores of unit variance around +-separation/2, half of it from the speaker: EER Phi(-separation/2)."""
    names = np.array([f"{i:03d}" for i in range(2 * speakers)]).repeat(each)
    bonafide = np.arange(2 * speakers).repeat(each) < speakers
    noise = rng.standard_normal(2 * speakers).repeat(each) + rng.standard_normal(names.size)
    return Trials(bonafide, names), np.where(bonafide, 1, -1) * separation / 2 + noise / sqrt(2)


class TestPairedIntervals:
    def test_no_difference_is_exactly_none(self) -> None:
        trials, scores = draw(np.random.default_rng(1))
        statistics = {"eer": (eer, eer), "cllr": (min_cllr, min_cllr)}
        statistics["dcf"] = (lambda *s: min_dcf(*s).value,) * 2
        found = paired(trials, scores, 3 * scores - 7, statistics, 100)  # the order is the same
        for one in found.values():
            assert one.difference == 0 and one.difference_interval == (0, 0)
            low, high = one.reference_interval
            assert low < one.reference < high

    def test_each_system_alone_is_what_calibration_says(self) -> None:
        trials, scores = draw(np.random.default_rng(2))
        other = scores + np.random.default_rng(3).normal(0, 0.5, scores.size)
        found = paired(trials, scores, other, {"eer": (eer, eer)}, 200)["eer"]
        human = trials.bonafide
        for values, got in ((scores, found.reference_interval), (other, found.candidate_interval)):
            arguments = values[human], values[~human], trials.speakers[human], trials.speakers[~human]
            assert got == interval(*arguments, eer, resamples=200)

    def test_a_known_difference_is_inside_as_often_as_said(self) -> None:
        truth = norm.cdf(-0.8) - norm.cdf(-1)
        rng, inside, widths = np.random.default_rng(4), 0, []
        for _ in range(60):
            trials, scores = draw(rng)
            weaker = scores - np.where(trials.bonafide, 0.2, -0.2)
            found = paired(trials, scores, weaker, {"eer": (eer, eer)}, 200)["eer"]
            low, high = found.difference_interval
            inside += low <= truth <= high
            apart = [end[1] - end[0] for end in (found.reference_interval, found.candidate_interval)]
            widths.append((high - low) / np.hypot(*apart))
        assert 51 <= inside <= 60  # 57 expected; fewer than 51 with a probability of 0.3 %
        assert np.median(widths) < 0.5  # two detectors with trials of their own would have 1

    def test_whole_speakers_are_drawn(self) -> None:
        """Repeating every trial tells nothing new."""
        trials, scores = draw(np.random.default_rng(5), each=1)
        other = scores + np.random.default_rng(6).normal(0, 0.5, scores.size)
        ten = Trials(trials.bonafide.repeat(10), trials.speakers.repeat(10))
        once = paired(trials, scores, other, {"eer": (eer, eer)}, 300)["eer"]
        often = paired(ten, scores.repeat(10), other.repeat(10), {"eer": (eer, eer)}, 300)["eer"]
        assert np.ptp(often.difference_interval) > 0.7 * np.ptp(once.difference_interval)

    def test_a_single_speaker_has_no_interval(self) -> None:
        trials = Trials(np.array([True, True, False]), np.array(["a", "a", "b"]))
        found = paired(trials, np.array([1.0, 2, 0]), np.array([1.0, -1, 0]), {"eer": (eer, eer)})["eer"]
        assert found == Paired(0, found.candidate, found.candidate, None, None, None)
        assert found.candidate > 0


def calibration(slope: float, offset: float, threshold: float) -> Calibration:
    demo = read_bundle(DEMO).manifest.calibration
    assert demo is not None
    return replace(demo["first"], slope=slope, offset=offset, threshold=threshold)


class TestScores:
    def test_changes_and_flips_by_hand(self) -> None:
        bonafide = np.array([True, True, True, False, False, False])
        before = np.array([2.0, 1.0, -1.0, -2.0, 0.5, -0.5])
        after = np.array([2.0, -1.0, 1.0, -2.0, -0.5, 0.5])
        zero = calibration(2, 0, 0)
        found = score_change(bonafide, before, after, (zero, zero))
        assert found.mean_absolute == pytest.approx(1.0) and found.largest == 2
        assert found.mean_absolute_deviations == pytest.approx(1 / before.std())
        assert found.pearson == pytest.approx(np.corrcoef(before, after)[0, 1])
        flips = found.flips
        assert flips is not None and flips.share == pytest.approx(4 / 6)
        assert (flips.bonafide_lost, flips.bonafide_won, flips.spoof_lost, flips.spoof_won) == (1, 1, 1, 1)
        own = calibration(2, 3, 3)  # decides as `zero` does, of its own scores
        assert score_change(bonafide, before, before, (zero, own)).flips.share == 0
        assert score_change(bonafide, before, before, (zero, None)).flips is None

    def test_order_alone_is_spearmans(self) -> None:
        values = np.linspace(-1, 1, 50)
        found = score_change(values > 0, values, np.exp(5 * values), (None, None))
        assert found.spearman == pytest.approx(1) and found.pearson < 0.9
        constant = score_change(values > 0, values, np.zeros(50), (None, None))
        assert constant.pearson is None and constant.spearman is None

    def test_groups_and_what_is_not_calibrated(self) -> None:
        def trial(i: int, system: str | None) -> Trial:
            return Trial(str(i), Path(f"{i}.wav"), system is None, system, None, None, None, i, ())

        trials = [trial(i, [None, "A", "B"][i % 3]) for i in range(90)]
        rng = np.random.default_rng(0)
        before = np.array([{None: 4.0, "A": -4.0, "B": 3.9}[t.system] for t in trials]) + rng.normal(0, 1, 90)
        after = before - np.array([6.0 if t.system == "B" else 0 for t in trials])
        found = compare("other", "first", "clean", trials, (before, after), (None, None), 100)
        assert not found.calibrated and set(found.metrics) == {"eer", "min_dcf", "min_cllr"}
        a, b = found.groups
        assert (a.name, a.spoof, a.bonafide, a.eer.difference) == ("A", 30, 30, 0)
        assert b.name == "B" and b.eer.difference < -0.3 and b.eer.difference_interval[1] < 0
        both = calibration(1, 0, 0)
        known = compare("other", "first", "clean", trials, (before, after), (both, both), 100).metrics
        assert known["cllr"].difference < 0 and known["act_dcf"].difference < 0

    def test_only_what_all_have_heard_is_compared(self) -> None:
        def one(i: int) -> tuple[Trial, ...]:
            return (Trial(str(i), Path(str(i)), True, None, None, None, None, i, ()),)

        wanted = [one(0), one(1), one(2)]
        heard = [[Heard(1, [1.0, 2.0]), None, Heard(1, [3.0])], [Heard(1, [4.0, 5.0]), Heard(1, [9.0])] * 2]
        trials, scores = aligned(wanted, [heard[0], [heard[1][0], heard[1][1], Heard(1, [6.0])]])
        assert [trial.id for trial in trials] == ["0", "0", "2"]
        assert [list(own) for own in scores] == [[1, 2, 3], [4, 5, 6]]


# From here on the work of the command, with detectors whose score is a known function of the audio.


@pytest.fixture
def bundles(loudness: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path]:
    """Scores 10 mean|x| - 5 and 8 mean|x| - 5; the first is calibrated: bona fide from -4.42 on."""
    paths = []
    for name, factor in (("ten", 10), ("eight", 8)):
        path = loudness(tmp_path / f"{name}.nes2net")
        manifest = read_bundle(path).manifest
        model = onnx.load(path / "detector.onnx")
        (ten,) = (tensor for tensor in model.graph.initializer if tensor.name == "ten")
        ten.CopyFrom(numpy_helper.from_array(np.float32(factor), "ten"))
        onnx.save(model, path / "detector.onnx")
        own = {"first": calibration(1, 0, -4.42)} if name == "ten" else None
        manifest = replace(manifest, name=name, calibration=own, files=list_files(path))
        write_manifest(path, manifest)
        paths.append(path)
    return paths[0], paths[1]


LEVELS = {True: (0.05, 0.06, 0.07, 0.08), False: (0.03, 0.04, 0.05, 0.065)}  # mean |x| of the clips


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Loud bona fide and quiet spoofed clips: noise of four seconds, of two speakers a class."""
    rows = ["file,label,system,speaker"]
    rng = np.random.default_rng(0)
    for bonafide, levels in LEVELS.items():
        for i, level in enumerate(levels):
            name = f"{'human' if bonafide else 'spoof'}-{i}.wav"
            noise = rng.standard_normal(64_600)
            soundfile.write(tmp_path / name, level * noise / np.abs(noise).mean(), 16_000, subtype="FLOAT")
            rows.append(f"{name},{'bonafide' if bonafide else 'spoof'},A,{'hs'[bonafide]}{i % 2}")
    path = tmp_path / "list.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def run(cache: Path, *options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/eer_drift.py", *map(str, options)]
    variables = {**os.environ, "XDG_CACHE_HOME": str(cache), **environment}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables)


def drift(cache: Path, bundles: tuple[Path, Path], listed: Path, *more: str | Path) -> dict:
    options = ("--reference", bundles[0], "--candidate", bundles[1], "--protocol", listed)
    done = run(cache, *options, "--workers", "1", "--resamples", "100", *more)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["type"] == "drift"
    return {**document["results"], "said": done.stderr}


def scores_files(cache: Path) -> list[Path]:
    return sorted((cache / "nes2net-edge/scores").glob("*.jsonl"))


def test_scores_that_are_known(bundles: tuple[Path, Path], listed: Path, tmp_path: Path) -> None:
    found = drift(tmp_path / "cache", bundles, listed, "--segment", "first", "-o", tmp_path / "d.json")
    (comparison,) = found["comparisons"]
    levels = np.array([*LEVELS[True], *LEVELS[False]])
    assert comparison["scores"]["mean_absolute"] == pytest.approx(2 * levels.mean(), rel=1e-3)
    assert comparison["scores"]["largest"] == pytest.approx(2 * levels.max(), rel=1e-3)
    assert comparison["scores"]["spearman"] == pytest.approx(1)
    human = levels[:4]
    assert comparison["metrics"]["eer"]["reference"] == pytest.approx(eer(human, levels[4:]))
    assert comparison["metrics"]["eer"]["difference"] == 0
    # At -4.42 the first accepts mean |x| from 0.058 on, the second from 0.0725 on.
    flips = comparison["scores"]["flips"]
    assert (flips["bonafide_lost"], flips["spoof_won"]) == (2, 1) and flips["share"] == 3 / 8
    assert comparison["calibrated"] and comparison["metrics"]["cllr"]["reference"] > 0
    assert comparison["groups"][0]["name"] == "A" and comparison["groups"][0]["spoof"] == 4
    assert [curve["system"] for curve in found["det"]] == ["ten", "eight"]
    for one in found["det"]:  # from everything accepted to nothing
        assert one["spoof_accepted"] == sorted(one["spoof_accepted"]) and len(one["spoof_accepted"]) > 3
        assert one["bonafide_rejected"] == sorted(one["bonafide_rejected"], reverse=True)
    assert read_document(tmp_path / "d.json").results["comparisons"] == found["comparisons"]


@pytest.mark.slow
def test_the_second_run_takes_kept_scores(bundles: tuple[Path, Path], listed: Path, tmp_path: Path) -> None:
    cache, options = tmp_path / "cache", ("--segment", "first", "--condition", "noise-10")
    first = drift(cache, bundles, listed, *options)
    assert "kept" not in first["said"]
    files = scores_files(cache)
    assert len(files) == 4  # two bundles, two conditions
    second = drift(cache, bundles, listed, *options)
    assert second["comparisons"] == first["comparisons"]
    assert second["said"].count("8 of 8 kept") == 4
    # Kept scores are what is used, and noise is not taken for the audio as it is.
    (noisy, *_) = [file for file in files if "noise-10" in file.name]
    lines = [json.loads(line) for line in noisy.read_text().splitlines() if line]
    noisy.write_text(
        "\n".join(
            json.dumps([key, [seconds, [score + 100 for score in own]]]) for key, (seconds, own) in lines
        )
    )
    clean, changed = drift(cache, bundles, listed, *options)["comparisons"]
    assert clean == first["comparisons"][0]
    assert changed["scores"]["mean_absolute"] == pytest.approx(100, abs=1)
    with soundfile.SoundFile(listed.parent / "human-0.wav", "r+") as file:  # other audio is scored anew
        file.write(np.zeros(16_000))
    assert "7 of 8 kept" in drift(cache, bundles, listed, *options)["said"]


@pytest.mark.slow
def test_a_killed_run_goes_on(loudness: Callable[..., Path], listed: Path, tmp_path: Path) -> None:
    """Enough clips for many tasks, and a detector that takes its time."""
    rows = listed.read_text().splitlines()
    samples, rate = soundfile.read(tmp_path / "human-0.wav")
    for i in range(150):
        soundfile.write(tmp_path / f"more-{i}.wav", samples * (0.5 + i / 300), rate, subtype="FLOAT")
        rows.append(f"more-{i}.wav,{'bonafide' if i % 2 else 'spoof'},A,m{i % 5}")
    listed.write_text("\n".join(rows) + "\n")
    slow = loudness(tmp_path / "slow.nes2net", 200)
    other = loudness(tmp_path / "other.nes2net", 200)
    write_manifest(other, replace(read_bundle(other).manifest, name="other"))
    cache = tmp_path / "cache"
    command = [sys.executable, "benchmarks/eer_drift.py", "--reference", slow, "--candidate", other]
    command += ["--protocol", listed, "--segment", "first", "--workers", "1", "--resamples", "100"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    null = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=ROOT, stdout=null, stderr=null, env=environment, start_new_session=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (scores_files(cache) and scores_files(cache)[0].read_bytes().count(b"\n") >= 8):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
    kept = len([line for line in scores_files(cache)[0].read_text().splitlines() if line])
    assert 8 <= kept < 158
    done = run(cache, *command[2:])
    assert done.returncode == 0, done.stderr
    assert f"{kept} of 158 kept" in done.stderr
    results = json.loads(done.stdout.splitlines()[-1])["results"]
    assert results["comparisons"][0]["bonafide"] + results["comparisons"][0]["spoof"] == 158


@pytest.mark.slow
def test_windows_and_full(bundles: tuple[Path, Path], listed: Path, tmp_path: Path) -> None:
    """Clips of one speaker are joined: a pair has 8 s, and so windows at 0, 2 and 4 s and the tail."""
    found = drift(tmp_path / "cache", bundles, listed, "--segment", "windows", "--segment", "full")
    full, windows = found["comparisons"]
    assert (full["rule"], full["bonafide"], full["spoof"]) == ("full", 4, 4)
    assert windows["rule"] == "windows"
    assert windows["bonafide"] == windows["spoof"] == 2 * 4
    assert not full["calibrated"] and "cllr" not in full["metrics"]  # the bundle is for `first` alone


@pytest.mark.slow
def test_a_condition_is_the_same_for_both_classes(
    bundles: tuple[Path, Path], examples: Path, tmp_path: Path
) -> None:
    """One clip under both labels gets the same scores."""
    rows = ["file,label,system,speaker"]
    for name in ("human", "synthetic"):
        data = (examples / f"{name}.flac").read_bytes()
        for label in ("bonafide", "spoof"):
            (tmp_path / f"{name}-{label}.flac").write_bytes(data)
            rows.append(f"{name}-{label}.flac,{label},-,{name}")
    listed = tmp_path / "both.csv"
    listed.write_text("\n".join(rows) + "\n")
    cache = tmp_path / "cache"
    names = ("telephony", "opus", "mp3", "noise-20")
    options = [part for name in names for part in ("--condition", name)]
    found = drift(cache, bundles, listed, "--segment", "first", *options)
    means = []
    for comparison in found["comparisons"]:
        assert comparison["metrics"]["eer"]["reference"] == pytest.approx(0.5)
        means.append(comparison["scores"]["mean_absolute"])
    assert [comparison["condition"] for comparison in found["comparisons"]] == ["clean", *names]
    assert len({round(mean, 7) for mean in means}) == len(means)  # each changed the audio


@pytest.mark.slow
def test_damaged_audio_is_an_error_or_left_out(
    bundles: tuple[Path, Path], listed: Path, tmp_path: Path
) -> None:
    (tmp_path / "human-1.wav").write_bytes(b"RIFF no audio")
    options = ("--reference", bundles[0], "--candidate", bundles[1], "--protocol", listed, "--workers", "1")
    done = run(tmp_path / "cache", *options, "--segment", "first", "--condition", "opus")
    assert done.returncode == 3 and "1 recordings can't be scored" in done.stderr
    assert "human-1.wav" in done.stderr and "Traceback" not in done.stderr
    found = drift(tmp_path / "cache", bundles, listed, "--segment", "first", "--partial")
    assert (found["comparisons"][0]["bonafide"], found["comparisons"][0]["spoof"]) == (3, 4)


@pytest.mark.slow
def test_a_regression_is_exit_4(bundles: tuple[Path, Path], listed: Path, tmp_path: Path) -> None:
    """A candidate that scores by the other logit hears nothing: an EER of 50 %."""
    deaf = bundles[1]
    manifest = read_bundle(deaf).manifest
    write_manifest(deaf, replace(manifest, score=replace(manifest.score, bonafide_logit=0)))
    options = ("--reference", bundles[0], "--candidate", deaf, "--protocol", listed, "--segment", "first")
    done = run(tmp_path / "cache", *options, "--workers", "1", "--max-eer-rise", "1", "--resamples", "100")
    assert done.returncode == 4, done.stderr
    assert "EER is" in done.stderr.splitlines()[-1]
    assert json.loads(done.stdout.splitlines()[-1])["type"] == "drift"  # the figures are there all the same
    done = run(tmp_path / "cache", *options, "--workers", "1", "--max-eer-rise", "50", "--resamples", "100")
    assert done.returncode == 0


def test_wrong_usage(
    bundles: tuple[Path, Path], listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = runpy.run_path(str(ROOT / "benchmarks/eer_drift.py"))["app"]
    pair = ("--reference", bundles[0], "--candidate", bundles[1], "--protocol", listed)

    def refused(code: int, words: str, *options: str | Path) -> None:
        done = CliRunner().invoke(app, [str(option) for option in options])
        assert done.exit_code == code, done.output
        assert words in " ".join(done.stderr.split()) and not done.stdout
        if code == 3:
            assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1

    refused(3, "no such bundle", "--reference", tmp_path / "none")
    refused(3, "noise-N", *pair, "--condition", "vinyl")
    refused(3, "not known", *pair, "--condition", "noise-99")
    refused(2, "exclude", *pair, "--ray", "127.0.0.1:1", "--workers", "2")
    refused(2, "--protocol", "--split", "dev")
    refused(2, "name the provider", *pair, "--provider", "auto")
    refused(3, "'ten'", "--reference", bundles[0], "--candidate", bundles[0], "--protocol", listed)
    monkeypatch.setenv("PATH", "")
    conditions._amr_encoder.cache_clear()
    refused(3, "apt install sox libsox-fmt-base", *pair, "--condition", "amr")
    conditions._amr_encoder.cache_clear()


def test_a_missing_package_is_one_line() -> None:
    code = (
        "import runpy, sys; sys.modules[sys.argv[2]] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    for script, package, extra in (
        ("macs", "torch", "export,bench,cpu"),
        ("eer_drift", "scipy", "bench,cpu"),
    ):
        command = [sys.executable, "-c", code, f"benchmarks/{script}.py", package]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 3
        assert done.stderr == f"error: {package} is not installed: pip install 'nes2net-edge[{extra}]'\n"


@pytest.mark.slow
def test_with_nothing_named(tmp_path: Path) -> None:
    done = run(tmp_path, "--plots", tmp_path / "plots", "--workers", "1")
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])["results"]
    (comparison,) = results["comparisons"]
    assert results["reference"]["precision"] == "fp32" and results["candidates"][0]["precision"] == "fp16"
    assert 0 < comparison["scores"]["mean_absolute_deviations"] < 0.1
    assert comparison["metrics"]["eer"]["difference_interval"] is None  # one speaker a class
    assert "nothing of error rates" in results["note"] and results["note"] in done.stderr
    assert (tmp_path / "plots/det.png").read_bytes().startswith(b"\x89PNG")
    assert "demo-fp16: EER" in (tmp_path / "plots/det.svg").read_text()
    assert str(tmp_path) not in json.dumps(results)


def test_committed_figures_are_of_the_shipped_detector() -> None:
    """Its error rates on eval are those that another command, with other code, wrote into the demo's log."""
    committed = read_document(ROOT / "benchmarks/results/drift-demo.json").results
    assert committed["reference"]["manifest_sha256"] == sha256(DEMO / MANIFEST)
    assert {one["precision"] for one in committed["candidates"]} == {"fp16", "int8", "int4"}
    assert {one["rule"] for one in committed["comparisons"]} == {"first", "full", "windows"}
    logged = json.loads((ROOT / "export/demo/eval.jsonl").read_text().splitlines()[-1])
    assert logged["split"] == committed["protocol"]["split"] == "eval"
    first = [one for one in committed["comparisons"] if one["rule"] == "first"]
    assert len(first) == 3
    for one in first:
        assert (one["bonafide"], one["spoof"]) == (logged["all"]["bonafide"], logged["all"]["spoof"])
        error, cost = one["metrics"]["eer"], one["metrics"]["cllr"]
        assert [round(x, 4) for x in (error["reference"], *error["reference_interval"])] == [
            logged["all"]["eer"],
            *logged["all"]["interval"],
        ]
        assert round(cost["reference"], 4) == logged["cllr"]
        assert {g["name"]: round(g["eer"]["reference"], 4) for g in one["groups"]} == {
            name: system["eer"] for name, system in logged["systems"].items()
        }


def scored_by(run_tasks, bundle: Bundle, listed: Path, lines: list[str]) -> Sequence[Heard | None]:
    how = Scoring(run_tasks, "cpu", 1, lines.append, lambda what, total: lambda count: None)
    wanted = [(trial,) for trial in read_protocol(listed).trials]
    heard, problems = score_list(bundle, wanted, "first", "clean", how)
    assert not problems
    return heard


@pytest.mark.slow
def test_ray_scores_as_workers_do(
    bundles: tuple[Path, Path], listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A local cluster of two nodes."""
    utilities = pytest.importorskip("ray.cluster_utils", reason="ray is not installed")
    bundle = read_bundle(bundles[0])
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "workers"))
    with local_workers(1) as workers:
        expected = scored_by(workers, bundle, listed, [])
    assert [round(heard.scores[0] + 5, 3) for heard in expected] == [
        round(10 * level, 3) for levels in LEVELS.values() for level in levels
    ]
    cluster = utilities.Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "ray"))
        with ray_workers(cluster.address, 1) as spread:
            assert scored_by(spread, bundle, listed, []) == expected
        again: list[str] = []
        with ray_workers(cluster.address, 1) as spread:
            assert scored_by(spread, bundle, listed, again) == expected
        assert again == ["ten: first, clean: 8 of 8 kept from an earlier run"]
    finally:
        cluster.shutdown()


def test_no_cluster_is_one_line() -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    with pytest.raises(ProviderError, match="no cluster answers"), ray_workers("nowhere://x", 1):
        pass
