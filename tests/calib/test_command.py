"""nes2net-calib: from a list and a bundle to labels, in processes of its own."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_calib.metrics import equal_error_rate
from nes2net_runtime.bundle import MANIFEST, read_bundle
from nes2net_runtime.info import damaged_files

RULES = ("first", "full", "windows", "early")


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def known_scores(protocol: Path) -> dict[bool, list[float]]:
    """What the loudness detector makes of a list's clips, by being bona fide."""
    scores: dict[bool, list[float]] = {True: [], False: []}
    for row in csv.DictReader(protocol.read_text().splitlines()):
        samples, _ = soundfile.read(protocol.parent / row["file"])
        scores[row["label"] == "bonafide"].append(10 * float(np.abs(samples).mean()) - 5)
    return scores


def lines_of(cache: Path) -> int:
    return sum(
        line.startswith(b"[") for path in cache.rglob("*.jsonl") for line in path.read_bytes().split(b"\n")
    )


def test_the_whole_way_from_a_list_to_labels(calib, environment, bundle: Path, usual: Path) -> None:
    before = content(bundle)
    done = calib(bundle, "--protocol", usual)
    assert done.returncode == 0, done.stderr

    manifest = read_bundle(bundle).manifest
    assert list(manifest.calibration) == list(RULES)
    assert damaged_files(read_bundle(bundle)) == []
    added = {
        "reports/calibration.html",
        *(f"reports/calibration-{p}.png" for p in ("det", "scores", "reliability")),
    }
    after = content(bundle)
    assert after.keys() - before.keys() == added
    assert {name for name in before if before[name] != after[name]} == {MANIFEST}

    scores = known_scores(usual)
    for rule in ("first", "full"):
        entry = manifest.calibration[rule]
        expected = equal_error_rate(scores[True], scores[False])
        assert (entry.provenance.bonafide, entry.provenance.spoof, entry.provenance.speakers) == (96, 72, 12)
        assert entry.provenance.eer == pytest.approx(expected.rate)
        assert (entry.threshold - entry.offset) / entry.slope == pytest.approx(expected.threshold, abs=1e-3)
        assert entry.slope == pytest.approx(2, rel=0.4)  # of normal classes, 2 apart
        assert entry.provenance.cllr_after < entry.provenance.cllr_before
        assert (entry.prior_spoof, entry.chosen_by, entry.costs) == (0.5, "equal error rates", None)
    assert manifest.calibration["first"].min_seconds == manifest.calibration["full"].min_seconds == 1.2
    windows = manifest.calibration["windows"]
    assert windows.min_seconds == 64_600 / 16_000
    assert windows.provenance.bonafide >= 50 and windows.provenance.spoof >= 50
    assert windows.slope > 1.5 * manifest.calibration["first"].slope  # of means of several clips

    run = [sys.executable, "-m", "nes2net_runtime", "--bundle", bundle, usual.parent, "--format=jsonl"]
    labels = subprocess.run([*run, "--segment=first"], env=environment, capture_output=True, text=True)
    files = [record for line in labels.stdout.splitlines() if (record := json.loads(line))["type"] == "file"]
    assert len(files) == 168
    wrong = sum(record["label"] not in Path(record["file"]).name for record in files)
    assert wrong / 168 == pytest.approx(manifest.calibration["first"].provenance.eer, abs=0.01)


def test_what_is_printed(calib, bundle: Path, usual: Path) -> None:
    done = calib(bundle, "--protocol", usual)
    assert "loudness, calibrated on list.csv" in done.stdout
    rows = {line[:25].strip(): line[25:].split() for line in done.stdout.splitlines()}
    assert rows["bona fide / spoof scores"][:6] == ["96", "/", "72", "96", "/", "72"]
    for row in ("least DCF", "actual DCF"):
        assert all(0 < float(value) < 2 for value in rows[row]) and len(rows[row]) == 4
    costs = "with ASVspoof 5's costs: bona fide rejected 1, spoof accepted 10, 5 % spoofs; 1: no detector"
    assert f"DCF: {costs}\n" in done.stdout
    (attack,) = (line.split() for line in done.stdout.splitlines() if line.startswith(" A01"))
    assert attack[3] == attack[6] == "24"  # spoofs that first and full heard
    assert any(line.startswith(" narrow (condition)") for line in done.stdout.splitlines())
    assert max(map(len, done.stdout.splitlines())) <= 100
    assert "first: 168 scores of 168 recordings\n" in done.stderr
    assert f"nes2net-run --bundle {bundle} FILE" in done.stderr
    assert "scoring" not in done.stderr  # no progress bar: stderr is no terminal
    assert "\x1b" not in done.stdout + done.stderr


def test_each_long_step_has_its_bar_on_a_terminal(
    on_terminal, environment, bundle: Path, usual: Path
) -> None:
    command = [sys.executable, "-m", "nes2net_calib", bundle, "--protocol", usual]
    shown = on_terminal(command, environment)
    steps = ("scoring first", "lengths", "scoring full", "scoring windows", "intervals of windows")
    for step in (*steps, "scoring early"):
        assert step in shown


def test_json_is_the_whole_result(calib, bundle: Path, usual: Path, tmp_path: Path) -> None:
    done = calib(bundle, "--protocol", usual, "--json", "-o", tmp_path / "copy")
    result = json.loads(done.stdout)
    assert (result["schema"], result["type"], result["bundle"]) == (1, "calibration", str(tmp_path / "copy"))
    manifest = json.loads((tmp_path / "copy" / MANIFEST).read_text())
    assert {rule: r["calibration"] for rule, r in result["rules"].items()} == manifest["calibration"]
    assert result["protocol"]["sha256"] == manifest["calibration"]["first"]["provenance"]["sha256"]
    assert result["dcf_costs"] == {"prior_spoof": 0.05, "bonafide_rejected": 1, "spoof_accepted": 10}
    for rule in result["rules"].values():
        assert 0 < rule["least_dcf"] <= rule["actual_dcf"]
        low, high = rule["eer_interval"]
        assert 0 <= low <= rule["calibration"]["provenance"]["eer"] <= high < 0.5
        assert abs(rule["bonafide_rejected"] - rule["spoof_accepted"]) < 0.03
        assert {group["name"] for group in rule["groups"]} == {"A01", "A02", "A03", "narrow", "wide"}
    assert result["left_out"] == {}


@pytest.mark.slow
def test_a_copy_leaves_the_bundle_as_it_is(calib, bundle: Path, usual: Path, tmp_path: Path) -> None:
    before = content(bundle)
    (bundle / "stray.txt").write_text("not the bundle's")
    copy = tmp_path / "new" / "copy.nes2net"
    assert calib(bundle, "--protocol", usual, "-o", copy, "--segment=first").returncode == 0
    (bundle / "stray.txt").unlink()
    assert content(bundle) == before
    assert content(copy).keys() > before.keys() and "stray.txt" not in content(copy)
    assert damaged_files(read_bundle(copy)) == []
    assert list(read_bundle(copy).manifest.calibration) == ["first"]

    again = calib(bundle, "--protocol", usual, "-o", copy, "--segment=first")
    assert again.returncode == 3 and "--force replaces it" in again.stderr
    assert "scores of" not in again.stderr  # said before the work
    done = calib(copy, "--protocol", usual, "-o", copy, "--segment=full", "--force")
    assert done.returncode == 0, done.stderr
    assert list(read_bundle(copy).manifest.calibration) == ["first", "full"]
    assert "as before: the calibration of first" in done.stderr


def slow_run(environment, bundle: Path, protocol: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "nes2net_calib", bundle, "--protocol", protocol, "--segment=first"]
    return subprocess.Popen(
        [*command, "--threads=1"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stop_midway(process: subprocess.Popen, cache: Path, how: signal.Signals) -> tuple[int, str, str]:
    """How many scores were kept when the process was stopped, and what it had to say."""
    deadline = time.monotonic() + 60
    while lines_of(cache) < 10:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(how)
    out, error = process.communicate(timeout=60)
    return lines_of(cache), out, error


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(calib, environment, loudness, usual: Path, tmp_path: Path) -> None:
    slow, cache = loudness(tmp_path / "slow", work=24), tmp_path / "cache"
    before = content(slow)
    kept, *_ = stop_midway(slow_run(environment, slow, usual), cache, signal.SIGKILL)
    assert 10 <= kept < 168
    assert content(slow) == before
    (path,) = cache.rglob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'\n["half a li')  # as a machine that went down may leave it

    done = calib(slow, "--protocol", usual, "--segment=first")
    assert done.returncode == 0, done.stderr
    assert f"first: 168 scores of 168 recordings, {kept} of them scored before" in done.stderr
    assert lines_of(cache) == 168 + 1  # nothing was scored twice
    resumed = read_bundle(slow).manifest.calibration["first"]

    whole = loudness(tmp_path / "whole", work=24)
    environment["XDG_CACHE_HOME"] = str(tmp_path / "another")
    assert "scored before" not in calib(whole, "--protocol", usual, "--segment=first").stderr
    entry = read_bundle(whole).manifest.calibration["first"]
    assert (entry.slope, entry.offset, entry.threshold) == (resumed.slope, resumed.offset, resumed.threshold)


@pytest.mark.slow
def test_ctrl_c_says_that_the_scores_are_kept(
    calib, environment, loudness, usual: Path, tmp_path: Path
) -> None:
    slow = loudness(tmp_path / "slow", work=24)
    process = slow_run(environment, slow, usual)
    kept, out, error = stop_midway(process, tmp_path / "cache", signal.SIGINT)
    assert (process.returncode, out) == (130, "")
    assert error.splitlines()[-1] == "interrupted: the scores are kept; the same command goes on from here"
    assert f"{kept} of them scored before" in calib(slow, "--protocol", usual, "--segment=first").stderr


@pytest.mark.slow
def test_scores_are_known_by_content(calib, bundle: Path, usual: Path, tmp_path: Path, loudness) -> None:
    """Of the audio, whatever its name, and of the graphs, whatever the bundle's manifest says."""
    calib(bundle, "--protocol", usual, "--segment=first")
    moved = Path(shutil.copytree(usual.parent, tmp_path / "moved")) / "list.csv"
    twin = loudness(tmp_path / "twin")
    assert "168 of them scored before" in calib(twin, "--protocol", moved, "--segment=first").stderr
    samples, rate = soundfile.read(moved.parent / "spoof000.wav")
    soundfile.write(moved.parent / "spoof000.wav", -samples, rate)
    assert "167 of them scored before" in calib(twin, "--protocol", moved, "--segment=first").stderr
    other = loudness(tmp_path / "other", work=2)
    assert "scored before" not in calib(other, "--protocol", moved, "--segment=first").stderr


def test_without_a_cache_folder_it_still_works(
    calib, environment, bundle: Path, usual: Path, tmp_path
) -> None:
    (tmp_path / "cache").write_text("a file where a folder must be")
    done = calib(bundle, "--protocol", usual, "--segment=first")
    assert done.returncode == 0
    assert done.stderr.count("scores are not kept for a later run") == 1


@pytest.mark.parametrize(
    "made, options, reason",
    [
        (
            {"counts": (49, 72)},
            [],
            "too small to calibrate first: 49 bona fide and 72 spoof trials; at least 50",
        ),
        ({"counts": (96, 20)}, [], "more than 2 points"),
        ({"speakers": 4}, [], "too few speakers to calibrate first: 4 in the bona fide trials; at least 5"),
        ({"swapped": True}, [], "are the labels swapped"),
        ({"means": (0.0, 0.0), "swapped": True}, [], "are the labels swapped"),
        (
            {},
            ["--target-spoof-accepted=0.01"],
            "too small to show spoof accepted at most 1 % with first: 72 spoof trials; 300 are needed",
        ),
        ({}, ["--target-bonafide-rejected=0.02"], "96 bona fide trials; 150 are needed"),
    ],
    ids=lambda value: str(value) if isinstance(value, list | dict) else "",
)
def test_what_is_refused_and_why(calib, bundle: Path, trials, tmp_path: Path, made, options, reason) -> None:
    before = content(bundle)
    done = calib(bundle, "--protocol", trials(tmp_path / "audio", **made, seconds=0.2), *options)
    assert (done.returncode, done.stdout) == (3, "")
    *_, error = done.stderr.splitlines()
    assert error.startswith("error: list.csv: ") and reason in error
    assert content(bundle) == before


def test_random_weights_are_refused(calib, loudness, usual: Path, tmp_path: Path) -> None:
    done = calib(loudness(tmp_path / "random", random=True), "--protocol", usual)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.strip() == (
        f"error: {tmp_path / 'random'}: has random weights; only a trained detector can be calibrated"
    )


def test_windows_are_left_out_where_speakers_are_not_told(
    calib, bundle: Path, trials, tmp_path: Path
) -> None:
    done = calib(bundle, "--protocol", trials(tmp_path / "audio", speakers=None, seconds=0.5))
    assert done.returncode == 0, done.stderr
    calibration = read_bundle(bundle).manifest.calibration
    assert list(calibration) == ["first", "full"]
    assert calibration["first"].provenance.speakers is None
    assert "windows: 168 of 168 files fill no window, not even joined with others" in done.stderr
    assert "warning: list.csv: too small to calibrate windows: 0 bona fide and 0 spoof windows" in done.stderr
    assert re.search(r"96 / 72 +96 / 72 +not calibrated", done.stdout)


def test_windows_of_a_few_long_recordings_are_no_evidence(
    calib, bundle: Path, trials, tmp_path: Path
) -> None:
    """Four recordings of nobody in particular give 200 windows, of four people at most."""
    counted = {"counts": (4, 4), "seconds": 120, "speakers": None}
    done = calib(bundle, "--protocol", trials(tmp_path / "audio", **counted), "--segment=windows")
    assert done.returncode == 3
    assert (
        "too few speakers to calibrate windows: 4 in the bona fide windows (a recording of nobody named"
        in done.stderr
    )


def test_full_is_left_out_where_files_are_too_long(calib, bundle: Path, trials, tmp_path: Path) -> None:
    protocol = trials(tmp_path / "audio", seconds=1.0)
    for i, clip in enumerate(sorted(protocol.parent.glob("spoof*.wav"))):
        level = np.abs(soundfile.read(clip)[0]).mean()
        soundfile.write(clip, np.full(1_000 * (60 if i == 0 else 61), level), 1_000)
    done = calib(bundle, "--protocol", protocol, "--segment=first", "--segment=full")
    assert done.returncode == 0, done.stderr
    assert "full: 71 of 168 files are longer than the 60 s that full takes at once" in done.stderr
    assert "too small to calibrate full: 96 bona fide and 1 spoof trials" in done.stderr
    assert list(read_bundle(bundle).manifest.calibration) == ["first"]


def test_a_rule_alone_that_cannot_be_calibrated_is_refused(
    calib, bundle: Path, trials, tmp_path: Path
) -> None:
    done = calib(
        bundle, "--protocol", trials(tmp_path / "a", speakers=None, seconds=0.2), "--segment=windows"
    )
    assert done.returncode == 3
    assert "error: list.csv: too small to calibrate windows" in done.stderr


@pytest.fixture
def powerless() -> list[str]:
    """The beginning of a command that file permissions bind, also where root runs the tests."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root may write anywhere, and there is no setpriv to change that")
    return ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


def test_a_bundle_that_cannot_be_written_needs_a_copy(
    environment, bundle: Path, usual: Path, tmp_path: Path, powerless
) -> None:
    command = [
        *powerless,
        sys.executable,
        "-m",
        "nes2net_calib",
        bundle,
        "--protocol",
        usual,
        "--segment=first",
    ]
    bundle.chmod(0o555)
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        copied = subprocess.run([*command, "-o", tmp_path / "copy"], env=environment)
        inside = [*command, "-o", bundle / "new" / "copy"]
        refused = subprocess.run(inside, env=environment, capture_output=True, text=True)
    finally:
        bundle.chmod(0o755)
    assert done.returncode == 3
    assert done.stderr.strip() == (  # and nothing else: said before the work
        f"error: {bundle}: can't be written (Permission denied); -o writes a copy elsewhere"
    )
    assert refused.returncode == 3
    assert refused.stderr.strip() == (
        f"error: {bundle / 'new' / 'copy'}: can't be written (Permission denied); choose another -o"
    )
    assert copied.returncode == 0
    assert read_bundle(tmp_path / "copy").manifest.calibration.keys() == {"first"}


def damage(protocol: Path) -> None:
    """Clips 3 (line 5), 4 (line 6) and 99 (line 101) of the list can't be scored."""
    folder = protocol.parent
    (folder / "bonafide003.wav").write_text("not audio")
    soundfile.write(folder / "bonafide004.wav", np.zeros(16_000), 16_000)
    whole = (folder / "spoof003.wav").read_bytes()
    (folder / "spoof003.wav").write_bytes(whole[: len(whole) // 2])


@pytest.mark.slow
def test_audio_that_cannot_be_scored_is_listed(calib, bundle: Path, trials, tmp_path: Path) -> None:
    protocol = trials(tmp_path / "audio", seconds=0.5)
    damage(protocol)
    before = content(bundle)
    done = calib(bundle, "--protocol", protocol, "--segment=first")
    assert done.returncode == 3 and content(bundle) == before
    title, *lines = done.stderr.splitlines()[-4:]
    assert title == (
        "error: list.csv: 3 of 168 recordings can't be scored; repair them, or leave them out with --partial:"
    )
    assert [line.split(": ")[0] for line in lines] == ["  line 5", "  line 6", "  line 101"]
    for line, reason in zip(lines, ("not audio", "all silent", "truncated"), strict=True):
        assert reason in line

    done = calib(bundle, "--protocol", protocol, "--segment=first", "--segment=full", "--partial")
    assert done.returncode == 0, done.stderr
    assert "warning: list.csv: 3 of 168 recordings can't be scored, left out:\n  line 5" in done.stderr
    for entry in read_bundle(bundle).manifest.calibration.values():
        assert (entry.provenance.bonafide, entry.provenance.spoof) == (94, 71)


@pytest.mark.slow
def test_problems_of_the_list_are_printed_line_by_line(calib, bundle: Path, trials, tmp_path: Path) -> None:
    protocol = trials(tmp_path / "audio", seconds=0.2)
    (protocol.parent / "bonafide000.wav").unlink()
    protocol.write_text(protocol.read_text().replace("spoof000.wav,spoof", "spoof000.wav,fake"))
    done = calib(bundle, "--protocol", protocol)
    assert done.returncode == 3
    first, second, third, *_ = done.stderr.splitlines()
    assert first.startswith(f"error: {protocol}: 2 problems")
    assert second == "  line 2: no audio for 'bonafide000.wav'"
    assert third.startswith("  line 98: unknown label 'fake'")
    done = calib(bundle, "--protocol", protocol, "--partial", "--segment=first")
    assert done.returncode == 0
    assert "warning: list.csv: left out:\n  line 2: no audio for 'bonafide000.wav'\n  line 98" in done.stderr


@pytest.mark.slow
def test_a_split_must_be_chosen_where_there_are_several(
    calib, bundle: Path, usual: Path, tmp_path: Path
) -> None:
    lines = [line.split(",")[:2] for line in usual.read_text().splitlines()[1:]]
    rows = [f"{file},{label},{'train' if i % 6 == 0 else 'dev'}" for i, (file, label) in enumerate(lines)]
    (tmp_path / "split.csv").write_text("\n".join(["file,label,split", *rows]))
    options = [bundle, "--protocol", tmp_path / "split.csv", "--audio", usual.parent, "--segment=first"]
    done = calib(*options)
    assert done.returncode == 3
    assert "has several splits; choose one with --split: dev, train or all" in done.stderr
    for split, counts in {"dev": (80, 60), "all": (96, 72)}.items():
        done = calib(*options, "--split", split)
        assert done.returncode == 0, done.stderr
        assert f"calibrated on split.csv, split {split}" in done.stdout
        provenance = read_bundle(bundle).manifest.calibration["first"].provenance
        assert (provenance.split, provenance.bonafide, provenance.spoof) == (split, *counts)
        assert f"List<td>split.csv, split {split} (CSV)" in (bundle / "reports/calibration.html").read_text()


def test_trials_that_the_official_scoring_leaves_out_are_counted(
    calib, bundle: Path, usual: Path, tmp_path: Path
) -> None:
    lines = []
    for i, row in enumerate(csv.DictReader(usual.read_text().splitlines())):
        id = f"CtrSVDD_{i % 12:04}_D_{i:07}"
        (tmp_path / f"{id}.wav").symlink_to(usual.parent / row["file"])
        human = row["label"] == "bonafide"
        system, label = ("-", "bonafide") if human else ("A14" if i % 9 == 0 else "A09", "deepfake")
        lines.append(f"jvsmusic CtrSVDD_{i % 12:04} {id} - {system} {label}")
    (tmp_path / "dev.txt").write_text("\n".join(lines))
    done = calib(bundle, "--protocol", tmp_path / "dev.txt", "--segment=first")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0] == (
        "dev.txt: 8 trials left out: the official scoring of CtrSVDD counts neither attack A14 nor anything "
        "of acesinger; --split all takes them, too"
    )
    assert "first: 160 scores of 160 recordings\n" in done.stderr


@pytest.mark.slow
def test_a_threshold_by_costs(calib, bundle: Path, usual: Path) -> None:
    options = [bundle, "--protocol", usual, "--segment=first", "--threshold=cost"]
    assert calib(*options).returncode == 0
    entry = read_bundle(bundle).manifest.calibration["first"]
    assert entry.threshold == pytest.approx(np.log(0.05 * 10 / 0.95))  # ASVspoof 5's
    assert (entry.chosen_by, entry.prior_spoof) == ("least expected cost", 0.05)
    done = calib(*options, "--prior-spoof=0.5", "--cost-spoof-accepted=4", "--cost-bonafide-rejected=2")
    assert done.returncode == 0
    entry = read_bundle(bundle).manifest.calibration["first"]
    assert entry.threshold == pytest.approx(np.log(2))
    assert entry.prior_spoof == entry.costs.prior_spoof == 0.5
    assert (entry.costs.bonafide_rejected, entry.costs.spoof_accepted) == (2, 4)


@pytest.mark.slow
def test_a_threshold_by_a_target(calib, bundle: Path, usual: Path) -> None:
    options = [bundle, "--protocol", usual, "--segment=first", "--prior-spoof=0.02", "--json"]
    done = calib(*options, "--target-spoof-accepted=0.05")
    result = json.loads(done.stdout)["rules"]["first"]
    assert result["spoof_accepted"] == pytest.approx(3 / 72)  # 3.6 allowed
    assert result["bonafide_rejected"] > result["calibration"]["provenance"]["eer"]
    assert result["calibration"]["chosen_by"] == "spoof accepted at most 5 %"
    assert result["calibration"]["prior_spoof"] == 0.02
    result = json.loads(calib(*options, "--target-bonafide-rejected=0.1").stdout)["rules"]["first"]
    assert result["bonafide_rejected"] == pytest.approx(9 / 96)


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--threshold=eer", "--target-spoof-accepted=0.1"], "exclude each other"),
        (["--target-bonafide-rejected=0.1", "--target-spoof-accepted=0.1"], "exclude each other"),
        (["--cost-spoof-accepted=3"], "--threshold cost"),
        (["--prior-spoof=1"], "'--prior-spoof': '1' is not a number from 0.0001 to 0.9999"),
        (["--target-spoof-accepted=0"], "'0' is not a number from 0.0001 to 0.5"),
        (["--cost-spoof-accepted=nan", "--threshold=cost"], "'nan' is not a number from 0.0001 to 1000"),
        (["--cost-spoof-accepted=ten", "--threshold=cost"], "'ten' is not a number"),
        (["--segment=middle"], "middle"),
        (["--force"], "--force replaces a bundle at -o alone, which is not given"),
    ],
)
def test_wrong_usage(calib, bundle: Path, usual: Path, options, reason) -> None:
    done = calib(bundle, "--protocol", usual, *options)
    assert done.returncode == 2
    assert reason in re.sub(r"[\s│]+", " ", done.stderr)
    assert calib(bundle).returncode == 2


def test_help_fits_a_terminal_of_80_columns(calib, environment) -> None:
    environment["COLUMNS"] = "80"
    shown = calib("--help").stdout
    assert "--target-bonafide-rejected " in shown and "--cost-bonafide-rejected " in shown
    assert "\u2026" not in shown  # nothing is cut off


@pytest.mark.parametrize("missing", ["sklearn", "matplotlib"])
def test_a_missing_extra_is_named(environment, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; from nes2net_calib.cli import main; main()"
    command = [sys.executable, "-c", code]
    done = subprocess.run([*command, "--protocol=x"], env=environment, capture_output=True, text=True)
    assert done.returncode == 3
    assert done.stderr.strip() == (
        f"error: {missing} is not installed: pip install 'nes2net-edge[calib,cpu]' calibrates bundles"
    )
    done = subprocess.run([*command, "--version"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "nes2net-edge 0." in done.stdout


def test_a_closed_stdout_is_no_error(environment, bundle: Path, usual: Path) -> None:
    command = [sys.executable, "-m", "nes2net_calib", bundle, "--protocol", usual, "--segment=first"]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert read_bundle(bundle).manifest.calibration is not None


def test_the_demo_detector_is_calibrated_where_no_bundle_is_named(
    calib, environment, examples: Path, tmp_path: Path
) -> None:
    """On pieces of the two example clips; then they have their labels."""
    rng = np.random.default_rng(0)
    rows = ["file,label"]
    for name, label in (("human", "bonafide"), ("synthetic", "spoof")):
        samples, rate = soundfile.read(examples / f"{name}.flac")
        for i in range(50):
            start, length = (
                rng.integers(len(samples) // 4),
                rng.integers(len(samples) // 2, len(samples) * 3 // 4),
            )
            soundfile.write(tmp_path / f"{name}{i}.wav", samples[start : start + length], rate)
            rows.append(f"{name}{i}.wav,{label}")
    (tmp_path / "list.csv").write_text("\n".join(rows))
    copy = tmp_path / "copy"
    done = calib("--protocol", tmp_path / "list.csv", "-o", copy, "--segment=first", "--threads=1")
    assert done.returncode == 0, done.stderr
    assert read_bundle(copy).manifest.name == "demo"
    run = [sys.executable, "-m", "nes2net_runtime", "--bundle", copy, "--segment=first", "--format=jsonl"]
    clips = [examples / "human.flac", examples / "synthetic.flac"]
    records = subprocess.run([*run, *clips], env=environment, capture_output=True, text=True).stdout
    labels = [
        record["label"] for line in records.splitlines() if (record := json.loads(line))["type"] == "file"
    ]
    assert labels == ["bonafide", "spoof"]
