"""The command on streams: what it writes, how it ends, and what it does where the machine is too slow."""

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
from hypothesis import given
from hypothesis import strategies as st

from nes2net_runtime import Detector
from nes2net_runtime.live.loop import next_hop
from nes2net_runtime.records import SCHEMA_FILE

SCHEMA = json.loads(SCHEMA_FILE.read_text())
EASY = ("--alert-llr", "50", "--clear-llr", "60", "--patience", "0")  # whatever is heard raises an alert


@pytest.fixture(scope="module")
def speech(tmp_path_factory) -> Path:
    """11.6 s of the example clips, at 16 kHz."""
    folder = Path(__file__).parents[2] / "docs/examples"
    clips = [soundfile.read(folder / f"{name}.flac")[0] for name in ("human", "synthetic", "synthetic")]
    path = tmp_path_factory.mktemp("speech") / "speech.flac"
    soundfile.write(path, np.concatenate(clips), 16_000, "PCM_16")
    return path


def records(stdout: str) -> list[dict]:
    lines = [json.loads(line) for line in stdout.splitlines()]
    for line in lines:
        jsonschema.validate(line, SCHEMA)
    return lines


def test_a_file_as_a_stream_has_the_scores_of_its_windows(run, speech: Path) -> None:
    done = run("--stream", speech, "--format", "jsonl", *EASY)
    assert done.returncode == 0, done.stderr
    *events, summary = records(done.stdout)
    scores = [r for r in events if r["type"] == "score"]
    expected = Detector().score(soundfile.read(speech, dtype="float32")[0], hop=0.5)
    assert [(r["start"], r["end"], r["tail"]) for r in scores] == [(s.start, s.end, s.tail) for s in expected]
    np.testing.assert_allclose([r["score"] for r in scores], [s.score for s in expected], atol=1e-4)
    raised, ended = (r for r in events if r["type"] == "alert")
    assert (raised["state"], ended["state"]) == ("raised", "ended")
    assert (raised["start"], ended["end"]) == (0.0, expected[-1].end)
    assert events.index(raised) == 1  # after the window that raised it
    assert summary["stream"]["alerts"] == 1 and summary["segments"] == len(expected)
    assert summary["audio_seconds"] == pytest.approx(expected[-1].end, abs=1e-3)


def test_csv_and_labels(run, speech: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    done = run("--stream", speech, "--format", "csv", "--labels", labels, *EASY)
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert {row["type"] for row in rows} == {"score", "alert"}
    assert [row["note"] for row in rows if row["type"] == "alert"] == ["raised", "ended"]
    start, end, text = labels.read_text().rstrip("\n").split("\t")
    assert float(start) == 0 and float(end) > 11 and text.startswith("synthetic")


def test_text_is_a_line_a_window(run, speech: Path) -> None:
    done = run("--stream", speech, *EASY)
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["at", "label", "p_spoof", "llr", "score"]
    assert "ALERT     sounds synthetic since 0:00.0" in lines[1]
    assert lines[-1].strip().startswith("alert over: 0:00.0 to 0:11.")
    assert re.search(r"windows scored, 1 alert, 0 gaps, load [\d.]+ % of real time", done.stderr)
    assert "\x1b" not in done.stdout + done.stderr


def test_the_bundles_decision_defaults_are_taken(run, speech: Path) -> None:
    rule = Detector().bundle.manifest.streaming.rule
    assert (rule.smoothing, rule.patience) == (0, 0)
    stderr = run("--stream", speech).stderr
    assert f"alert: the llr of a window is below {rule.alert_llr:+.3g}; over when it is above" in stderr
    stderr = run("--stream", speech, "--smoothing=2", "--patience=1.5").stderr
    assert f"the llr, smoothed over 2 s, stays below {rule.alert_llr:+.3g} for 1.5 s; over" in stderr


def test_the_work_at_the_end_counts(run, examples: Path) -> None:
    """A clip shorter than a window is scored when it ends, and not before."""
    done = run("--stream", examples / "human.flac", "--format", "jsonl")
    *_, summary = records(done.stdout)
    assert summary["segments"] == 1 and summary["stream"]["work_seconds"] > 0.005


def test_without_a_calibration_there_are_scores_and_no_alerts(run, speech: Path, uncalibrated: Path) -> None:
    done = run("--stream", speech, "--bundle", uncalibrated, "--format", "jsonl")
    *events, summary = records(done.stdout)
    assert {r["type"] for r in events} == {"score"} and all(r["llr"] is None for r in events)
    assert summary["stream"]["alerts"] == 0
    assert "not calibrated" in done.stderr
    for option in ("--on-alert=true", "--smoothing=1", "--labels=x.txt"):
        done = run("--stream", speech, "--bundle", uncalibrated, option)
        assert done.returncode == 2 and "no alerts come without a calibration" in " ".join(
            done.stderr.split()
        )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--mic", "FILE"], "--mic takes no files"),
        (["--mic", "--realtime"], "--mic takes no files"),
        (["--stream"], "0 are named"),
        (["--stream", "FILE", "FILE"], "2 are named"),
        (["-", "FILE"], "2 are named"),
        (["--stream", "."], "a folder"),
        (["FILE", "--record", "x.flac"], "--record is for streams"),
        (["FILE", "--vad"], "--vad is for streams"),
        (["--stream", "FILE", "--segment", "first"], "--segment is for files"),
        (["--stream", "FILE", "--scores", "x"], "--scores is for files"),
        (["--stream", "FILE", "--channels", "each"], "each is for files"),
        (["-", "--raw", "s17le:1:1"], "encodings: s16le"),
        (["-", "--raw", "s16le:16000:99"], "1 to 64 channels"),
        (["--stream", "FILE", "--alert-llr", "2", "--clear-llr", "1"], "is below --alert-llr"),
        (["--stream", "FILE", "--on-alert", "no-such-program"], "no such program"),
    ],
)
def test_wrong_usage_says_why(run, speech: Path, arguments: list[str], reason: str) -> None:
    done = run(*(speech if a == "FILE" else a for a in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert reason in re.sub(r"[\s│]+", " ", done.stderr)


def test_a_missing_or_damaged_file_is_one_line(run, tmp_path: Path, speech: Path) -> None:
    done = run("--stream", tmp_path / "none.wav")
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "no such file" in done.stderr
    broken = tmp_path / "nan.wav"
    sound = soundfile.read(speech, dtype="float32")[0]
    sound[100_000] = np.nan
    soundfile.write(broken, sound, 16_000, "FLOAT")
    done = run("--stream", broken, "--format", "jsonl")
    lines = records(done.stdout)
    assert done.returncode == 1
    assert "score" in {r["type"] for r in lines}  # what came before is scored
    (error,) = (r for r in lines if r["type"] == "error")
    assert "NaN or infinity (first at 6.250 s)" in error["error"]
    assert lines[-1]["type"] == "summary" and lines[-1]["failed"] == 1


@pytest.mark.parametrize("option", ["--record", "--report", "--labels", "-o"])
def test_an_output_never_overwrites_the_audio(run, speech: Path, tmp_path: Path, option: str) -> None:
    audio = tmp_path / "audio.flac"
    audio.write_bytes(speech.read_bytes())
    arguments = [audio, option, audio] if option == "-o" else ["--stream", audio, option, audio]
    done = run(*arguments)
    assert done.returncode == 2 and "would be overwritten" in " ".join(done.stderr.split())
    assert audio.read_bytes() == speech.read_bytes()


def test_onnxruntime_sends_nothing(tmp_path: Path, speech: Path) -> None:
    """Its telemetry would keep an id of the machine in the user's cache folder."""
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | {
        "HOME": str(tmp_path)
    }
    environment |= {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / ".cache")}
    command = [sys.executable, "-m", "nes2net_runtime", str(speech)]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0
    assert not list(tmp_path.rglob("*.onnxruntime*"))


def test_nan_in_a_pipe_is_a_gap(tmp_path: Path, run, speech: Path) -> None:
    sound = soundfile.read(speech, dtype="float32")[0]
    sound[80_000:81_600] = np.nan
    command = [sys.executable, "-m", "nes2net_runtime", "-", "--raw", "f32le:16000:1", "--format", "jsonl"]
    done = subprocess.run(command, input=sound.astype("<f4").tobytes(), capture_output=True)
    assert done.returncode == 0, done.stderr
    lines = records(done.stdout.decode())
    (gap,) = (r for r in lines if r["type"] == "gap")  # however many blocks of the pipe it is in
    assert gap["start"] == pytest.approx(5.0) and gap["end"] == pytest.approx(5.1)
    scores = [r for r in lines if r["type"] == "score"]
    assert any(r["end"] <= 5.0 for r in scores) and any(r["start"] == pytest.approx(5.1) for r in scores)
    assert not any(r["start"] < 5.0 < r["end"] for r in scores)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_stream_in_good_order(speech: Path, tmp_path: Path, number: int) -> None:
    """With everything written: the summary, the recording, the report."""
    files = ("--record", tmp_path / "r.flac", "--report", tmp_path / "r.html")
    command = [
        sys.executable,
        "-m",
        "nes2net_runtime",
        "--realtime",
        speech,
        "--format",
        "jsonl",
        *files,
        *EASY,
    ]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as process:
        first = process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
    assert process.returncode == 0
    *events, summary = records(first + rest)
    assert summary["type"] == "summary" and 4 < summary["audio_seconds"] < 10
    assert events[-1]["type"] == "alert" and events[-1]["state"] == "ended"
    assert soundfile.info(tmp_path / "r.flac").duration == pytest.approx(summary["audio_seconds"], abs=0.01)
    assert "</html>" in (tmp_path / "r.html").read_text()


@pytest.mark.slow
def test_in_real_time_a_file_takes_its_time(run, speech: Path) -> None:
    start = time.monotonic()
    done = run("--realtime", speech, "--format", "jsonl")
    lines = records(done.stdout)
    assert time.monotonic() - start > 11
    assert lines[-1]["stream"]["gaps"] == 0
    expected = Detector().score(soundfile.read(speech, dtype="float32")[0], hop=0.5)
    starts = {s.start: s.score for s in expected}
    for line in lines[:-1]:
        if line["type"] == "score":
            assert line["score"] == pytest.approx(starts[line["start"]], abs=1e-4)


def seconds_of_a_window(bundle: Path, samples: int) -> float:
    detector = Detector(bundle, threads=1)
    start = time.perf_counter()
    for _ in range(3):
        detector.score(np.ones(samples, np.float32), window_samples=samples)
    return (time.perf_counter() - start) / 3


@pytest.mark.slow
def test_too_slow_for_the_hop_it_makes_fewer_windows(run, loudness, speech: Path, tmp_path: Path) -> None:
    """Nothing is lost, and it is said."""
    slow = loudness(tmp_path / "slow", 600)
    hop = max(0.02, seconds_of_a_window(slow, 64_600) / 3)
    done = run("--realtime", speech, "--bundle", slow, "--hop", f"{hop}", "--threads=1", "--format=jsonl")
    *events, summary = records(done.stdout)
    assert {r["type"] for r in events} == {"score"}
    stream = summary["stream"]
    assert stream["gaps"] == 0 and stream["longest_hop"] > 1.5 * hop
    assert "too long for a hop" in done.stderr
    assert summary["audio_seconds"] == pytest.approx(soundfile.info(speech).duration, abs=0.01)
    assert events[-1]["end"] == pytest.approx(summary["audio_seconds"], abs=1e-3)


@pytest.mark.slow
def test_too_slow_for_every_hop_it_loses_audio_and_says_so(loudness, tmp_path: Path) -> None:
    """A window of 25 ms that takes longer than that; its longest hop is a window."""
    slow = loudness(tmp_path / "slow", 4_000)
    while seconds_of_a_window(slow, 400) < 0.06:
        work = len(list(tmp_path.iterdir())) * 8_000
        slow = loudness(tmp_path / f"slow{work}", work)
    sound = (8_000 * np.sin(np.arange(16_000 * 40))).astype("<i2").tobytes()
    options = (
        "--bundle",
        slow,
        "--window-samples",
        "400",
        "--hop",
        "0.02",
        "--threads",
        "1",
        "--format",
        "jsonl",
    )
    command = [sys.executable, "-m", "nes2net_runtime", "-", "--realtime", *map(str, options)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.write(sound)  # as fast as it goes: four times what may wait
        process.stdin.close()
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        lines = records(process.stdout.read().decode())
    assert process.returncode == 0
    summary = lines[-1]
    lost = sum(r["end"] - r["start"] for r in lines if r["type"] == "gap")
    assert lost > 25
    assert lost + summary["audio_seconds"] == pytest.approx(40, abs=0.5)  # all of it is accounted for
    assert summary["stream"]["lost_seconds"] == pytest.approx(lost, abs=0.01)


@given(st.integers(1, 200), st.integers(1, 12), st.floats(0, 20), st.floats(0, 5))
def test_the_hop_stays_between_what_is_wanted_and_a_window(
    wanted: int, doublings: int, behind: float, cost: float
) -> None:
    wanted, window = 320 * wanted, 64_600
    hop = wanted
    for _ in range(doublings):
        hop = next_hop(hop, wanted, window, behind, cost)
        assert hop % wanted == 0
        assert wanted <= hop <= max(wanted, window)


def test_the_hop_grows_while_audio_waits_and_comes_back() -> None:
    hop, hops = 8_000, []
    for behind in (1.0, 3.0, 9.0, 9.0):
        hop = next_hop(hop, 8_000, 64_600, behind, 2.0)
        hops.append(hop)
    assert hops == [16_000, 32_000, 64_000, 64_000]
    assert next_hop(64_000, 8_000, 64_600, 0.1, 2.0) == 64_000  # still too slow for half of it
    for _ in range(3):
        hop = next_hop(hop, 8_000, 64_600, 0.1, 0.1)
    assert hop == 8_000
