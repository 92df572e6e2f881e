"""--record: what is kept is what the detector heard, so that it gives the same scores again."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

import nes2net_runtime
from nes2net_runtime.live.recorder import Recorder
from nes2net_runtime.results import Outage

SAME = 1e-4  # DESIGN.md 5
HOP = ("--hop", "0.5")


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """11.6 s of the example clips, at 16 kHz, below full scale."""
    folder = Path(__file__).parents[2] / "docs/examples"
    clips = [soundfile.read(folder / f"{name}.flac")[0] for name in ("human", "synthetic", "synthetic")]
    return 0.9 * np.concatenate(clips)


def scores(stdout: str) -> np.ndarray:
    """start, end, score of each window."""
    records = [json.loads(line) for line in stdout.splitlines()]
    return np.array([(r["start"], r["end"], r["score"]) for r in records if r["type"] == "score"])


def gaps(stdout: str) -> list[tuple[float, float]]:
    records = [json.loads(line) for line in stdout.splitlines()]
    return [(r["start"], r["end"]) for r in records if r["type"] == "gap"]


def again(run, path: Path) -> np.ndarray:
    done = run(path, "--segment", "windows", *HOP, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    return scores(done.stdout)


@pytest.mark.parametrize("rate", [16_000, 22_050])
def test_the_recording_has_the_scores_of_the_stream(run, speech, tmp_path: Path, rate: int) -> None:
    heard, recording = tmp_path / "heard.wav", tmp_path / "recording.flac"
    at_rate = soxr.resample(speech, 16_000, rate)
    soundfile.write(heard, np.stack([at_rate, 0.5 * at_rate], axis=1), rate, "PCM_16")
    done = run("--stream", heard, "--no-vad", *HOP, "--record", recording, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    live = scores(done.stdout)
    assert len(live) > 10
    np.testing.assert_allclose(again(run, recording), live, atol=SAME)
    kept = soundfile.info(recording)
    assert (kept.format, kept.subtype, kept.samplerate, kept.channels) == ("FLAC", "PCM_24", 16_000, 1)
    assert [path.name for path in tmp_path.iterdir() if path != heard] == ["recording.flac"]


def test_after_a_gap_another_file_begins(speech: np.ndarray, run, tmp_path: Path) -> None:
    bad = np.full(32_000, np.nan)
    sent = np.concatenate([speech[:80_000], bad, speech[80_000:]]).astype("<f4").tobytes()
    command = [sys.executable, "-m", "nes2net_runtime", "-", "--raw", "f32le:16000:1", "--no-vad", *HOP]
    environment = {**os.environ, "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1])}
    done = subprocess.run(
        [*command, "--record", tmp_path / "call.flac", "--format", "jsonl"],
        input=sent,
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["call-2.flac", "call.flac"]
    live, lost = scores(done.stdout.decode()), gaps(done.stdout.decode())
    [(start, end)] = lost
    assert (start, end) == (5.0, 7.0)
    before, after = live[live[:, 0] < start], live[live[:, 0] >= end]
    assert len(before) > 2 and len(after) > 2 and len(before) + len(after) == len(live)
    np.testing.assert_allclose(again(run, tmp_path / "call.flac"), before, atol=SAME)
    np.testing.assert_allclose(again(run, tmp_path / "call-2.flac"), after - [end, end, 0], atol=SAME)


def test_files_are_numbered_and_none_is_empty(tmp_path: Path, noise: np.ndarray) -> None:
    recorder = Recorder(tmp_path / "a.b.flac", pytest.fail)
    block = noise.astype(np.float32)
    for event in (Outage(1, 2, "x"), Outage(2, 3, "x"), Outage(5, 6, "x")):
        recorder.audio(block)
        recorder.audio(block[:0])
        recorder.event(event)
        recorder.event(event)
        recorder.audio(block[:0])
    recorder.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.b-2.flac", "a.b-3.flac", "a.b.flac"]
    for path in tmp_path.iterdir():
        np.testing.assert_allclose(soundfile.read(path)[0], block, atol=2**-23)


def test_samples_beyond_full_scale_are_clipped_and_counted(tmp_path: Path) -> None:
    said: list[str] = []
    recorder = Recorder(tmp_path / "loud.flac", said.append)
    recorder.audio(np.array([0.5, 1.5, -2.0, 1.0, -1.0], np.float32))
    recorder.close()
    assert said == [f"warning: {tmp_path / 'loud.flac'}: 2 samples beyond full scale were clipped"]
    np.testing.assert_allclose(soundfile.read(tmp_path / "loud.flac")[0], [0.5, 1, -1, 1, -1], atol=2**-22)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_stops_the_recording_and_not_the_stream(run, speech, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "heard.wav", speech, 16_000)
    (tmp_path / "full.flac").symlink_to("/dev/full")
    done = run(
        "--stream", tmp_path / "heard.wav", *HOP, "--record", tmp_path / "full.flac", "--format", "jsonl"
    )
    assert done.returncode == 0, done.stderr
    assert len(scores(done.stdout)) > 10
    warnings = [line for line in done.stderr.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1 and "recording has stopped" in warnings[0]


@pytest.mark.parametrize("where", ["no/such/folder/x.flac", "folder"])
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_where_it_cant_be_written_nothing_begins(
    run, speech, tmp_path: Path, where: str, format: str
) -> None:
    soundfile.write(tmp_path / "heard.wav", speech, 16_000)
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    done = run("--stream", tmp_path / "heard.wav", "--record", tmp_path / where, "--format", format)
    assert done.returncode in (2, 3)
    [line] = done.stderr.splitlines()
    assert line.startswith("error: ") and where in line and "can't be written" in line
    assert done.stdout == ""
    assert sorted(tmp_path.rglob("*")) == before
