"""What goes wrong with files: a named error or warning, the others still scored, exit code 1."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

RATE = 16_000


def cut_short(path: Path, signal: np.ndarray, **options: str) -> None:
    soundfile.write(path, np.tile(signal, 4), RATE, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])


def with_value(path: Path, signal: np.ndarray, value: float) -> None:
    signal = signal.copy()
    signal[8000] = value
    soundfile.write(path, signal, RATE, subtype="FLOAT")


ERRORS = {
    "empty.wav": (lambda p, x: p.write_bytes(b""), "empty file"),
    "text.wav": (lambda p, x: p.write_text("no audio at all " * 100), "not audio that libsndfile reads"),
    "random.mp3": (
        lambda p, x: p.write_bytes(bytes(range(256)) * 40),
        "not audio that libsndfile reads|damaged",
    ),
    "video.mp4": (lambda p, x: p.write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500)), "convert it first: ffmpeg"),
    "zero.wav": (lambda p, x: soundfile.write(p, x[:0], RATE), r"holds no audio \(0 samples\)"),
    "nan.wav": (lambda p, x: with_value(p, x, np.nan), r"NaN or infinity \(first at 0\.500 s\)"),
    "infinity.wav": (lambda p, x: with_value(p, x, np.inf), r"NaN or infinity \(first at 0\.500 s\)"),
    "channels.wav": (lambda p, x: soundfile.write(p, np.stack([x] * 65, 1), RATE), "65 channels"),
    "missing.wav": (lambda p, x: None, "no such file"),
    "folder.wav": (lambda p, x: p.mkdir(), "no audio files in this folder"),
    "raw.raw": (lambda p, x: p.write_bytes(bytes(1000)), "raw audio has no header"),
}
WARNINGS = {
    "cut.wav": (lambda p, x: cut_short(p, x), r"truncated or damaged after 6\.0 s"),
    "cut.flac": (
        lambda p, x: cut_short(p, x),
        r"truncated or damaged after \d\.\d s \(flac decoder lost sync\)",
    ),
    "cut.mp3": (
        lambda p, x: cut_short(p, x),
        r"truncated or damaged after \d\.\d s \(the header promises 10\.0 s\)",
    ),
    "silent.wav": (lambda p, x: soundfile.write(p, 0 * x, RATE), "all silent"),
    "n300.wav": (lambda p, x: soundfile.write(p, x[:300], RATE), r"only 300 samples \(19 ms\)"),
}
FINE = {
    "n400.wav": lambda p, x: soundfile.write(p, x[:400], RATE),
    "telephone.wav": lambda p, x: soundfile.write(p, x, 8000, subtype="ULAW"),
    "studio.flac": lambda p, x: soundfile.write(p, np.repeat(x, 6), 96_000),
    "r192k.wav": lambda p, x: soundfile.write(p, np.repeat(x, 12), 192_000),
    "seven.wav": lambda p, x: soundfile.write(p, np.stack([x] * 7, 1), 44_100),
    "piped.wav": lambda p, x: piped(p, x),
}


def piped(path: Path, signal: np.ndarray) -> None:
    """A WAV whose sizes were not known when its header was written."""
    soundfile.write(path, signal, RATE)
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\xff"
    at = content.index(b"data") + 4
    content[at : at + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(content)


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_names_the_file_and_the_others_are_scored(run, good: Path, noise, name: str) -> None:
    make, reason = ERRORS[name]
    make(good.parent / name, noise)
    done = run(name, good.name, cwd=good.parent)
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert error.startswith(f"error: {name}: ")
    assert re.search(reason, error), error
    assert "Traceback" not in done.stderr
    failed, scored = done.stdout.splitlines()[1:]
    assert failed.split() == ["failed", name]
    assert scored.endswith(good.name) and "failed" not in scored


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_names_the_file_and_it_is_scored(
    run, uncalibrated: Path, good: Path, noise, name: str
) -> None:
    make, reason = WARNINGS[name]
    make(good.parent / name, noise)
    done = run(name, "--bundle", uncalibrated, cwd=good.parent)
    assert done.returncode == 0, done.stderr
    (warning,) = (line for line in done.stderr.splitlines() if line.startswith("warning: "))
    assert warning.startswith(f"warning: {name}: ")
    assert re.search(reason, warning), warning
    assert "failed" not in done.stdout


def test_what_is_odd_and_fine(run, uncalibrated: Path, tmp_path: Path, noise) -> None:
    for name, make in FINE.items():
        make(tmp_path / name, noise)
    done = run(tmp_path, "--bundle", uncalibrated)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(FINE)
    assert "warning" not in done.stderr and "error" not in done.stderr


def test_nothing_but_a_folder_without_audio_exits_with_2(run, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no audio files in this folder" in done.stderr


def test_all_inputs_failing_exits_with_1(run, tmp_path: Path) -> None:
    done = run(tmp_path / "a.wav", tmp_path / "b.wav")
    assert done.returncode == 1
    assert "2 files, 2 failed" in done.stderr


def test_an_unreadable_folder_and_file(good: Path) -> None:
    """As an ordinary user: root may read everything."""
    closed = good.parent / "closed"
    closed.mkdir()
    secret = good.parent / "secret.wav"
    secret.write_bytes(good.read_bytes())
    for path in (closed, secret):
        path.chmod(0)
    code = (
        "import os, sys\n"
        "from nes2net_runtime import Detector\n"
        "detector = Detector()\n"
        "if os.getuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "for result in detector.score_files(sys.argv[1:]):\n    print(result.error or 'scored')\n"
    )
    for parent in list(good.parents)[:4]:  # pytest's are private
        parent.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, closed, secret, good], capture_output=True, text=True, cwd=good.parent
    )
    assert done.returncode == 0, done.stderr
    folder, file, scored = done.stdout.splitlines()
    assert folder == f"{closed}: folder can't be read (Permission denied)"
    assert file == f"{secret}: can't be read (Permission denied)"
    assert scored == "scored"


@pytest.mark.slow
def test_three_hours_take_no_more_memory_than_a_minute(tmp_path: Path, noise) -> None:
    """Peak resident memory of scoring with few windows: the whole file as float32 would be 690 MB."""
    minute = np.tile(noise, 24)
    soundfile.write(tmp_path / "minute.flac", minute, RATE)
    with soundfile.SoundFile(tmp_path / "hours.flac", "w", RATE, 1) as file:
        for _ in range(180):
            file.write(minute)
    code = (
        "import resource, sys\nfrom nes2net_runtime import Detector\n"
        "(result,) = Detector(threads=1).score_files([sys.argv[1]], hop=60.0, batch_size=2)\n"
        "print(len(result.scores), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    peaks = []
    for name, windows in (("minute.flac", 2), ("hours.flac", 181)):
        done = subprocess.run([sys.executable, "-c", code, tmp_path / name], capture_output=True, text=True)
        count, peak = map(int, done.stdout.split())
        assert count == windows
        peaks.append(peak / 1024)
    assert peaks[1] - peaks[0] < 40  # MiB


def test_a_long_file_is_too_long_for_full_before_it_is_decoded_whole(run, tmp_path: Path, noise) -> None:
    soundfile.write(tmp_path / "long.wav", np.tile(noise, 30), RATE)
    done = run(tmp_path / "long.wav", "--segment=full")
    assert done.returncode == 1
    assert "longer than the 60 s that --segment full takes at once; use --segment windows" in done.stderr
