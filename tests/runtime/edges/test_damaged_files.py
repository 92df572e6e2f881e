"""Damage and oddities of files that a reader meets: each named, the others scored."""

import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_runtime import AudioError

OWNER_WITHOUT_ROOT = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


def outcome(probe, *paths: Path):
    return list(probe("first").score_files(paths))


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        *[("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"), ("WAV", "ULAW"), ("AIFF", "PCM_16")],
        *[("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")],
    ],
)
def test_a_file_cut_in_half_is_scored_with_a_warning(probe, wav, noise, tmp_path, container, subtype) -> None:
    path = tmp_path / f"cut.{container.lower()}"
    soundfile.write(path, noise(160_000), 16_000, format=container, subtype=subtype)
    whole = path.read_bytes()
    (result,) = outcome(probe, path)
    assert result.warnings == [] and result.seconds == pytest.approx(10)
    path.write_bytes(whole[: len(whole) // 2])
    cut, good = outcome(probe, path, wav("good.wav"))
    assert cut.error is None and 2 < cut.seconds < 8
    assert any("truncated" in warning for warning in cut.warnings)
    assert good.error is None and good.warnings == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_what_is_not_finite_fails_its_file_or_its_channel_alone(probe, wav, rate, value) -> None:
    signal = np.full((rate, 2), 0.25, np.float32)
    signal[rate // 2, 1] = value
    path, detector = wav("x.wav", signal, rate, "FLOAT"), probe("first")
    (mixed,) = detector.score_files([path])
    assert isinstance(mixed.error, AudioError) and "NaN or infinity (first at 0.500 s)" in str(mixed.error)
    left, right = detector.score_files([path], channels="each")
    assert left.error is None and isinstance(right.error, AudioError)


@pytest.mark.parametrize("samples", [[np.inf, -np.inf], [3e38, 3e38]], ids=["inf-inf", "overflow"])
def test_channels_whose_average_is_not_finite_fail_without_noise(probe, wav, samples) -> None:
    """Opposite infinities, or a sum past float32: a named error, no warning of numpy's."""
    path = wav("x.wav", np.tile(np.array(samples, np.float32), (1_000, 1)), subtype="FLOAT")
    (result,) = outcome(probe, path)
    assert isinstance(result.error, AudioError)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_plain_file_is_named_and_not_waited_for(probe, wav, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "folder.wav").mkdir(parents=True)
    os.mkfifo(folder / "pipe.wav")
    (folder / "broken.wav").symlink_to("nowhere")
    (folder / "linked.wav").symlink_to(wav("good.wav"))
    found = {Path(r.file).name: r.error and str(r.error) for r in outcome(probe, folder)}
    assert found.keys() == {"pipe.wav", "broken.wav", "linked.wav"}
    assert "not a file" in found["pipe.wav"] and "no such file" in found["broken.wav"]
    assert found["linked.wav"] is None


@pytest.mark.parametrize("locked", ["folder", "file", "file in a locked folder"])
def test_what_may_not_be_read_fails_alone(command, wav, bundle, tmp_path: Path, locked: str) -> None:
    """Root reads everything, so it gives that right up first."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("root reads everything here, and there is no setpriv to give that up")
    (tmp_path / "locked").mkdir()
    wav("locked/a.wav"), wav("good.wav")
    (tmp_path / ("locked/a.wav" if locked == "file" else "locked")).chmod(0)
    name = "locked" if locked == "folder" else "locked/a.wav"
    try:
        prefix = OWNER_WITHOUT_ROOT if os.geteuid() == 0 else ()
        done = command(name, "good.wav", "--format=jsonl", "--bundle", bundle, prefix=prefix)
    finally:
        for path in ("locked", "locked/a.wav"):
            (tmp_path / path).chmod(0o700)
    assert done.returncode == 1, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(r["type"], r.get("file")) for r in records[:-1]] == [
        *[("error", name), ("score", "good.wav"), ("file", "good.wav")]
    ]
    assert "Permission denied" in records[0]["error"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="resource is POSIX")
def test_three_hours_of_a_telephone_line_take_no_more_memory_than_one_minute(
    command, bundle, tmp_path
) -> None:
    """All 5,399 windows at the default hop; decoded, the file is 690 MB."""
    second = (0.1 * np.sin(np.arange(8_000) / 7)).astype(np.float32)
    peaks = []
    for name, seconds, windows in (("minute.wav", 60, 29), ("hours.wav", 10_800, 5_399)):
        with soundfile.SoundFile(tmp_path / name, "w", 8_000, 1, "ULAW") as file:
            for _ in range(0, seconds, 60):
                file.write(np.tile(second, 60))
        code = (
            "import resource, sys, threading\nfrom nes2net_runtime import Detector\n"
            "(r,) = Detector(sys.argv[1], threads=1).score_files([sys.argv[2]])\n"
            "print(len(r.scores), r.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        )
        prefix = (sys.executable, "-c", code, str(bundle), str(tmp_path / name))
        done = command(prefix=prefix)  # what follows is ignored by the code
        count, heard, peak = done.stdout.split()
        assert (int(count), float(heard)) == (windows, pytest.approx(seconds, abs=0.01))
        peaks.append(int(peak) / 1024)
    assert peaks[1] - peaks[0] < 40  # MiB
