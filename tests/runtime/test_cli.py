"""nes2net-run: formats, options, streams and exit codes."""

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import soundfile

from nes2net_runtime.records import SCHEMA_FILE, json_schema


@pytest.fixture
def stereo(tmp_path: Path, noise: np.ndarray) -> Path:
    soundfile.write(tmp_path / "stereo.flac", np.stack([noise, noise[::-1]], 1), 16_000)
    return tmp_path / "stereo.flac"


def test_text_is_a_line_a_file_and_stderr_has_the_rest(
    run, uncalibrated: Path, good: Path, stereo: Path
) -> None:
    done = run(good, stereo, "--bundle", uncalibrated)
    assert done.returncode == 0
    header, *lines = done.stdout.splitlines()
    assert header.split() == ["score", "lowest", "at", "windows", "file"]
    assert [line.split()[-1] for line in lines] == [str(good), str(stereo)]
    assert all(re.match(r" +[+-]\d+\.\d{3} +[+-]\d+\.\d{3} +0:00\.0 +1 +/", line) for line in lines)
    assert "2 files, 2 windows, 0:05.0 of audio" in done.stderr
    assert done.stderr.count("not calibrated") == 1
    assert "nes2net-calib BUNDLE --protocol FILE" in done.stderr
    assert "scoring" not in done.stderr  # no progress bar: stderr is no terminal
    assert "\x1b" not in done.stdout + done.stderr


def test_every_jsonl_line_is_valid_by_the_published_schema(
    run, good: Path, stereo: Path, tmp_path: Path
) -> None:
    done = run(good, tmp_path / "none.wav", stereo, "--format=jsonl", "--receipt", "--channels=each")
    assert done.returncode == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for record in records:
        validator.validate(record)
    kinds = [record["type"] for record in records]
    assert kinds == ["score", "file", "error", *["score", "file"] * 2, "receipt", "summary"]
    assert [r["channel"] for r in records if r["type"] == "file"] == [1, 1, 2]
    assert {r["schema"] for r in records} == {1}
    assert (records[-1]["files"], records[-1]["failed"], records[-1]["segments"]) == (4, 1, 3)


def test_the_published_schema_is_that_of_the_types() -> None:
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


def test_the_schema_refuses_what_is_no_record() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    assert not validator.is_valid({"type": "score", "schema": 1, "file": "a.wav"})
    assert not validator.is_valid({"type": "verdict", "schema": 1})


def test_csv_has_a_row_a_window_and_a_failure(run, tmp_path: Path, noise: np.ndarray) -> None:
    long = tmp_path / 'with "quotes", and comma.wav'
    soundfile.write(long, np.tile(noise, 4), 16_000)
    done = run(long, tmp_path / "none.wav", "--format=csv")
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [row["file"] for row in rows] == [str(long)] * 4 + [str(tmp_path / "none.wav")]
    assert [float(row["start"]) for row in rows[:-1]] == [0, 2, 4, 5.9625]
    assert [row["tail"] for row in rows[:-1]] == ["0", "0", "0", "1"]
    assert all(np.isfinite(float(row["score"])) for row in rows[:-1])
    assert rows[-1]["score"] == "" and "no such file" in rows[-1]["error"]


def test_official_score_file(run, good: Path, stereo: Path, tmp_path: Path) -> None:
    done = run(
        good, stereo, "--format=jsonl", "--scores", tmp_path / "scores.txt", "-o", tmp_path / "out.jsonl"
    )
    assert done.returncode == 0
    assert done.stdout == ""
    records = map(json.loads, (tmp_path / "out.jsonl").read_text().splitlines())
    means = [record["score"] for record in records if record["type"] == "file"]
    lines = [line.split(" ") for line in (tmp_path / "scores.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == ["good", "stereo"]
    np.testing.assert_allclose([float(score) for _, score in lines], means, rtol=1e-7)


def test_score_file_warns_of_one_name_twice(run, good: Path, tmp_path: Path, noise: np.ndarray) -> None:
    (tmp_path / "other").mkdir()
    soundfile.write(tmp_path / "other/good.flac", noise, 16_000)
    done = run(good, tmp_path / "other", "--scores", tmp_path / "scores.txt")
    assert "the score file has good twice" in done.stderr


def test_channels(run, stereo: Path, tmp_path: Path) -> None:
    signal, rate = soundfile.read(stereo)
    soundfile.write(tmp_path / "mix.wav", signal.mean(axis=1), rate, subtype="FLOAT")
    soundfile.write(tmp_path / "right.wav", signal[:, 1], rate, subtype="FLOAT")

    def scores(*arguments: str | Path) -> list[float]:
        lines = map(json.loads, run(*arguments, "--format=jsonl").stdout.splitlines())
        return [record["score"] for record in lines if record["type"] == "file"]

    assert scores(stereo) == pytest.approx(scores(tmp_path / "mix.wav"), abs=1e-4)
    assert scores(stereo, "--channels=2") == pytest.approx(scores(tmp_path / "right.wav"), abs=1e-5)
    assert scores(stereo, "--channels=each")[1:] == pytest.approx(scores(stereo, "--channels=2"), abs=1e-5)


def test_hop_is_rounded_to_frames_and_said(run, good: Path) -> None:
    assert "hop: 0.52 s (a multiple of 320 samples)" in run(good, "--hop=0.515").stderr
    assert "hop:" not in run(good, "--hop=0.5").stderr


def test_info_and_version(run) -> None:
    done = run("--info")
    assert done.returncode == 0
    assert "all hashes match" in done.stdout and "onnxruntime" in done.stdout
    document = json.loads(run("--info", "--format=jsonl").stdout)
    assert document["damaged"] == []
    assert document["manifest"]["schema"] == 1
    assert "cpu" in document["machine"]["providers"]
    version = run("--version")
    assert version.returncode == 0
    assert re.match(r"nes2net-edge \d+\.\d+\.\d+, onnxruntime", version.stdout)


def test_receipt(run, good: Path) -> None:
    done = run(good, "--receipt", "--provider=cpu", "--threads=1")
    assert re.search(r"receipt: demo on cpu, onnxruntime \S+, 1 threads, loaded in", done.stderr)
    assert re.search(r"context +fp32 +cpu .*\d+ nodes on cpu", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["a.wav", "--channels=0"], "not mix, each or a channel's number from 1"),
        (["a.wav", "--segment=middle"], "middle"),
        (["a.wav", "--window-samples=399"], "greater than or equal to 400"),
        (["a.wav", "--batch-size=0"], "batch-size"),
        (["a.wav", "-o", "/nonexistent/out"], "can't be written"),
        (["--format=csv"], "name at least one audio file or folder"),
    ],
)
def test_wrong_usage_exits_with_2(run, good: Path, arguments: list[str], reason: str) -> None:
    done = run(*arguments, cwd=good.parent)
    assert done.returncode == 2
    assert reason in re.sub(r"[\s│]+", " ", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_bundle_that_cannot_be_used_exits_with_3(run, good: Path) -> None:
    done = run(good, "--bundle", good.parent)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert "Traceback" in run(good, "--bundle", good.parent, "--debug").stderr


def test_a_closed_stdout_ends_quietly(good: Path) -> None:
    command = f"{sys.executable} -m nes2net_runtime {' '.join([str(good)] * 50)} --format=jsonl | head -n 1"
    done = subprocess.run(
        ["bash", "-c", f"{command}; echo ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.stdout.splitlines()[1:] == ["0"]
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.mark.slow
def test_ctrl_c_exits_with_130(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(16_000 * 1800, np.int16), 16_000)
    command = [sys.executable, "-m", "nes2net_runtime", str(tmp_path / "long.flac"), "--hop=0.02"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # the header: scoring has begun
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in stderr


@pytest.mark.slow
def test_progress_is_a_bar_on_a_terminal_and_colourless_if_asked(on_terminal, good: Path) -> None:
    command = [sys.executable, "-m", "nes2net_runtime", *[good] * 40]
    for variables, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        shown = on_terminal(command, {**os.environ, **variables})
        assert "scoring" in shown and "/40" in shown
        assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", shown)) == coloured
