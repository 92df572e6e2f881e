"""`nes2net-run --mic` as a process, listening to a sound server of its own, which has no sound card."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import soundfile
import soxr

import nes2net_runtime
from nes2net_runtime import Detector
from nes2net_runtime.errors import DeviceError
from nes2net_runtime.records import SCHEMA_FILE
from nes2net_runtime.streaming.microphone import import_sounddevice

SINK = "module-null-sink sink_name=vmic rate=48000 channels=1 format=float32le norewinds=1"
RATE = 48_000
PATIENCE = 120.0  # seconds that anything may take on a busy machine
SLACK = 2.0  # seconds that a device may be there again before it is open, on a busy machine
SAMPLE = 1e-9  # s: rounding
LATENCY = 0.3  # seconds of audio that may be under way to a listener
QUICK = ("--no-vad", "--window-samples=16000")  # a score after a second
COMMAND = [sys.executable, "-m", "nes2net_runtime"]

Record = dict[str, Any]


def until(true: Callable[[], object], what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


class VirtualMicrophone:
    """A PulseAudio daemon for this test alone; what is played into its sink is what its microphone hears."""

    def __init__(self, folder: Path) -> None:
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1]),
            "XDG_RUNTIME_DIR": str(folder),
            "XDG_CONFIG_HOME": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
        }
        self._socket = folder / "native"
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon, with its sink."""
        protocol = f"module-native-protocol-unix socket={self._socket} auth-anonymous=1"
        modules = ["-L", protocol, "-L", SINK]
        self._daemon = subprocess.Popen(
            ["pulseaudio", "-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no", *modules],
            env=self.environment,
            stderr=subprocess.DEVNULL,
        )
        until(lambda: self._pactl("set-default-source", "vmic.monitor").returncode == 0, "PulseAudio")

    def kill(self) -> None:
        """kill -9"""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._socket.unlink(missing_ok=True)

    def suspend(self) -> None:
        """The sink gives no more audio, in silence."""
        self.control("suspend-sink", "vmic", "1")

    def resume(self) -> None:
        self.control("suspend-sink", "vmic", "0")

    def unplug(self) -> None:
        self.control("unload-module", "module-null-sink")

    def plug_in(self) -> None:
        self.control("load-module", *SINK.split())
        self.control("set-default-source", "vmic.monitor")

    def play(self, signal: np.ndarray) -> None:
        """Play mono float32 at 48 kHz, to its end."""
        command = ["pacat", "--playback", "--device=vmic", "--raw", f"--rate={RATE}", "--channels=1"]
        subprocess.run(
            [*command, "--format=float32le"],
            env=self.environment,
            input=signal.astype("<f4").tobytes(),
            check=True,
            timeout=PATIENCE,
        )

    def listeners(self) -> str:
        """The streams that record now, a line each."""
        return self._pactl("list", "short", "source-outputs").stdout

    def control(self, *arguments: str) -> None:
        done = self._pactl(*arguments)
        assert done.returncode == 0, (arguments, done.stderr)

    def _pactl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["pactl", *arguments], env=self.environment, capture_output=True, text=True)


@contextmanager
def virtual_microphone() -> Iterator[VirtualMicrophone]:
    """One that is not started; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mic") as folder:  # mode 700; a socket's path must be short
        microphone = VirtualMicrophone(Path(folder))
        try:
            yield microphone
        finally:
            microphone.kill()


def list_devices(microphone: VirtualMicrophone, *options: str) -> str:
    command = [*COMMAND, "--list-devices", *options]
    done = subprocess.run(command, env=microphone.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class Listening:
    """A running `nes2net-run --mic --format jsonl`, and what it has said so far."""

    def __init__(self, microphone: VirtualMicrophone, errors: Path, *options: str | Path) -> None:
        self.records: list[Record] = []
        self._microphone, self._errors = microphone, errors
        with errors.open("wb") as stderr:
            self._process = subprocess.Popen(
                [*COMMAND, "--mic", "--format=jsonl", *map(str, options)],
                env=microphone.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: microphone.listeners() or self._process.poll() is not None, "the microphone is open")

    def of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["type"] == kind]

    def wait_for(self, kind: str, count: int = 1, after: float = 0.0) -> None:
        """Wait for so many records of a kind that start at `after` or later."""
        until(
            lambda: (
                len([r for r in self.of(kind) if r["start"] >= after]) >= count
                or self._process.poll() is not None
            ),
            f"{count} {kind} after {after} s; there are {self.records}, {self.errors}",
        )
        assert self._process.poll() is None, self.errors

    def end(self, how: signal.Signals = signal.SIGTERM) -> Record:
        """End it as its user would: it must exit with 0, its last record the summary, which is returned."""
        self._process.send_signal(how)
        assert self._process.wait(PATIENCE) == 0, self.errors
        self._reader.join()
        assert "Traceback" not in self.errors
        assert [r["type"] for r in self.records].index("summary") == len(self.records) - 1
        return self.records[-1]

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._errors.read_text()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self.records.append(json.loads(line))


@pytest.fixture(scope="module")
def sound_system() -> None:
    """Skips where something is missing."""
    missing = [tool for tool in ("pulseaudio", "pactl", "pacat") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    try:
        import_sounddevice()
    except DeviceError as error:
        pytest.skip(str(error))
    with virtual_microphone() as microphone:
        microphone.start()
        if "pulse" not in list_devices(microphone):
            pytest.skip("ALSA's plug-ins (libasound2-plugins) are not installed")


@pytest.fixture
def no_microphone(sound_system: None) -> Iterator[VirtualMicrophone]:
    """A sound server that is not running yet."""
    with virtual_microphone() as microphone:
        yield microphone


@pytest.fixture
def microphone(no_microphone: VirtualMicrophone) -> VirtualMicrophone:
    """A sound server with a microphone that hears nothing."""
    no_microphone.start()
    return no_microphone


@pytest.fixture
def listen(microphone: VirtualMicrophone, tmp_path: Path) -> Iterator[Callable[..., Listening]]:
    """(options) -> nes2net-run --mic, listening."""
    running: list[Listening] = []

    def start(*options: str | Path) -> Listening:
        running.append(Listening(microphone, tmp_path / "stderr", *options))
        return running[-1]

    yield start
    for process in running:
        process.kill()


def clip(path: Path, seconds: float) -> np.ndarray:
    """A clip at 48 kHz, repeated to a length."""
    samples, rate = soundfile.read(path, dtype="float32")
    return soxr.resample(np.resize(samples, round(seconds * rate)), rate, RATE, quality="HQ")


def ideal(played: np.ndarray, recorded: np.ndarray) -> np.ndarray:
    """What was played (48 kHz) as a recording (16 kHz) of it should be: in silence, where it is found.

    Played from any sample at 48 kHz on, it is recorded at one of three phases.
    """
    found = []
    for phase in range(3):
        wanted = soxr.resample(np.pad(played, (phase, 0)), RATE, 16_000, quality="HQ")
        length = len(recorded) + len(wanted)
        match = np.fft.irfft(np.fft.rfft(recorded, length) * np.fft.rfft(wanted, length).conj(), length)
        found.append((match.max(), 3 * int(match.argmax()) + phase))
    _, start = max(found)
    whole = np.zeros(3 * len(recorded), np.float32)
    whole[start : start + len(played)] = played
    return soxr.resample(whole, RATE, 16_000, quality="HQ")


def snr(wanted: np.ndarray, found: np.ndarray) -> float:
    """Signal-to-noise ratio in dB."""
    noise = np.mean(np.square(wanted.astype(np.float64) - found))
    return float(10 * np.log10(np.mean(np.square(wanted.astype(np.float64))) / max(noise, 1e-30)))


@pytest.mark.slow
def test_what_is_played_is_heard_recorded_and_scored_exactly(
    microphone: VirtualMicrophone, listen, examples: Path, tmp_path: Path
) -> None:
    """The recording is what was played, and the scores are those of the recording as a file."""
    played = np.concatenate([clip(examples / "human.flac", 5.2), clip(examples / "synthetic.flac", 5.2)])
    process = listen("--no-vad", "--record", tmp_path / "heard.flac")
    microphone.play(np.pad(played, (RATE // 2, 0)))
    process.wait_for("score", after=len(played) / RATE - 3)
    summary = process.end()
    assert (summary["failed"], summary["stream"]["gaps"], summary["stream"]["without_speech"]) == (0, 0, 0)
    scores = process.of("score")
    assert summary["segments"] == len(scores)

    command = [*COMMAND, tmp_path / "heard.flac", "--segment=windows", "--hop=0.5", "--format=jsonl"]
    again = subprocess.run(command, env=microphone.environment, capture_output=True, text=True)
    records = [record for record in map(json.loads, again.stdout.splitlines()) if record["type"] == "score"]
    of_file = {(r["start"], r["end"], r["tail"]): r["score"] for r in records}
    live = {(r["start"], r["end"], r["tail"]): r["score"] for r in scores}
    if summary["stream"]["longest_hop"] == 0.5:  # else the machine was too busy for so many windows
        assert list(live) == list(of_file)
    assert len(live) >= 3
    for window, score in live.items():
        assert score == pytest.approx(of_file[window], abs=1e-4)

    recorded, rate = soundfile.read(tmp_path / "heard.flac", dtype="float32")
    info = soundfile.info(tmp_path / "heard.flac")
    assert (rate, info.channels, info.subtype) == (16_000, 1, "PCM_24")
    assert summary["audio_seconds"] == pytest.approx(len(recorded) / 16_000, abs=1e-3)
    truth = ideal(played, recorded)
    measured = snr(truth, recorded)
    print(f"SNR of the recording: {measured:.1f} dB")
    assert measured > 100
    expected = {(s.start, s.end, s.tail): s.score for s in Detector(provider="cpu").score(truth, hop=0.5)}
    furthest = max(abs(score - expected[window]) for window, score in live.items())
    print(f"scores differ from those of what was played by {furthest:.1e} at most")
    assert furthest < 1e-3

    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    for record in process.records:
        validator.validate(record)


@pytest.mark.slow
def test_silence_is_not_scored_and_speech_is(
    microphone: VirtualMicrophone, listen, examples: Path, tmp_path: Path
) -> None:
    process = listen("--window-samples=32000", "--hop=0.2", "--record", tmp_path / "heard.flac")
    time.sleep(2.6)
    assert process.records == []
    microphone.play(clip(examples / "human.flac", 3))
    process.wait_for("score")
    summary = process.end()

    heard = soundfile.info(tmp_path / "heard.flac").frames
    windows = len(Detector(provider="cpu").score(np.zeros(heard), window_samples=32_000, hop=0.2))
    silent = summary["stream"]["without_speech"]
    if summary["stream"]["longest_hop"] == 0.2:  # else the machine was too busy for so many windows
        assert silent + summary["segments"] == windows
    assert silent >= 2 and summary["segments"] == len(process.of("score"))
    assert summary["stream"]["alerts"] == 0
    assert process.of("score")[0]["end"] > 2.6


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_good_order(how: signal.Signals, listen) -> None:
    """Also in silence: no score, no alert, a summary."""
    process = listen("--window-samples=16000", "--hop=0.1")
    time.sleep(1.5)
    summary = process.end(how)
    assert [record["type"] for record in process.records] == ["summary"]
    assert summary["segments"] == summary["stream"]["alerts"] == summary["stream"]["gaps"] == 0
    assert summary["stream"]["without_speech"] >= 1
    assert summary["audio_seconds"] > 1


TROUBLES = {  # what happens, and how it is over
    "suspended": (VirtualMicrophone.suspend, VirtualMicrophone.resume),
    "unplugged": (VirtualMicrophone.unplug, VirtualMicrophone.plug_in),
    "killed": (VirtualMicrophone.kill, VirtualMicrophone.start),
}


def make_trouble(kind: str, microphone: VirtualMicrophone, seconds: float) -> tuple[float, float]:
    """Make trouble, and end it after so many seconds; how long it lasted, at least and at most."""
    begin, finish = TROUBLES[kind]
    times = [time.monotonic()]
    for action in (lambda: begin(microphone), lambda: time.sleep(seconds), lambda: finish(microphone)):
        action()
        times.append(time.monotonic())
    return times[2] - times[1], times[3] - times[0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", TROUBLES)
def test_a_device_in_trouble_leaves_a_gap_and_comes_back(
    kind: str, microphone: VirtualMicrophone, listen, tmp_path: Path
) -> None:
    process = listen(*QUICK, "--hop=0.5", "--record", tmp_path / "heard.flac")
    process.wait_for("score")
    shortest, longest = make_trouble(kind, microphone, 3.8)
    process.wait_for("gap")
    (gap,) = process.of("gap")
    process.wait_for("score", count=2, after=gap["end"] - SAMPLE)
    summary = process.end()

    assert gap["cause"] == "no audio from the device"
    assert shortest - LATENCY < gap["end"] - gap["start"] < longest + SLACK
    assert process.of("gap") == [gap]
    assert summary["stream"]["gaps"] == 1
    assert summary["stream"]["lost_seconds"] == pytest.approx(gap["end"] - gap["start"], abs=2e-3)
    scores = process.of("score")
    assert [s["start"] for s in scores] == sorted(s["start"] for s in scores)
    assert all(s["end"] <= gap["start"] or s["start"] >= gap["end"] - SAMPLE for s in scores)
    heard = [soundfile.info(tmp_path / name).duration for name in ("heard.flac", "heard-2.flac")]
    assert heard[0] == pytest.approx(gap["start"])
    assert sum(heard) == pytest.approx(summary["audio_seconds"], abs=1e-3)
    first, *others = process.errors.splitlines()  # and nothing of what PortAudio says at a device's loss
    assert first == "warning: microphone: no audio from the device; opening it again"
    assert not [line for line in others if "warning" in line or "failed" in line]


@pytest.mark.slow
def test_a_hiccup_shorter_than_it_takes_to_open_the_device_again_is_a_gap_too(
    microphone: VirtualMicrophone, listen
) -> None:
    """The device goes on by itself as if nothing had happened: only its own times tell."""
    process = listen(*QUICK, "--hop=0.5")
    process.wait_for("score")
    shortest, longest = make_trouble("suspended", microphone, 0.6)
    process.wait_for("gap")
    (gap,) = process.of("gap")
    process.wait_for("score", after=gap["end"] - SAMPLE)
    process.end()
    assert shortest - LATENCY < gap["end"] - gap["start"] < longest + SLACK


@pytest.mark.slow
def test_a_device_that_does_not_come_back_leaves_a_gap_at_the_end(
    microphone: VirtualMicrophone, listen
) -> None:
    process = listen(*QUICK, "--hop=0.5")
    process.wait_for("score")
    begun = time.monotonic()
    microphone.kill()
    killed = time.monotonic()
    until(lambda: "opening it again" in process.errors, "the loss is noticed")
    time.sleep(1.5)  # and opening it again fails, more than once
    shortest = time.monotonic() - killed
    summary = process.end(signal.SIGINT)
    longest = time.monotonic() - begun
    (gap,) = process.of("gap")
    assert gap["cause"] == "no audio from the device"
    assert shortest - LATENCY < gap["end"] - gap["start"] < longest + LATENCY
    assert gap["start"] == pytest.approx(summary["audio_seconds"], abs=1e-3)
    assert process.errors.count("opening it again") == 1


@pytest.mark.slow
def test_a_machine_that_is_too_slow_scores_less_often_and_says_so(
    microphone: VirtualMicrophone, listen
) -> None:
    """Early scores of a window of 15 s, 50 a second; each takes longer than that."""
    options = ("--no-vad", "--window-samples=240000", "--hop=0.02", "--first-after=0.1", "--threads=1")
    process = listen(*options)
    until(lambda: "going on every" in process.errors, "the hop is longer")
    summary = process.end()
    assert re.search(
        r"warning: a window takes \d+\.\d\d s here, too long for a hop of 0\.02 s: going on every 0\.04 s\n",
        process.errors,
    )
    scores = process.of("score")
    assert summary["segments"] == len(scores)
    assert all(score["early"] for score in scores[:-1])
    assert 0.04 <= summary["stream"]["longest_hop"] <= 15
    assert summary["stream"]["longest_wait"] > 0.02


def one_line_error(microphone: VirtualMicrophone, *options: str) -> str:
    """What `nes2net-run --mic` says where it can't start: one line, exit code 3, nothing on stdout."""
    done = subprocess.run(
        [*COMMAND, "--mic", *options], env=microphone.environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    return done.stderr


def test_no_device_at_all(no_microphone: VirtualMicrophone) -> None:
    if not list_devices(no_microphone).startswith("no microphone: PortAudio finds no device that can record"):
        pytest.skip("this machine has a sound card")
    assert json.loads(list_devices(no_microphone, "--format=jsonl")) == []
    assert "nes2net-run --list-devices shows what is there" in one_line_error(no_microphone)
    assert "nes2net-run --list-devices shows what is there" in one_line_error(no_microphone, "--device=0")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--device=no such thing"], r"microphone no such thing: .*no such thing.*--list-devices"),
        (["--device=999"], r"microphone 999: .*--list-devices"),
        (["--device=99999999999"], r"microphone 99999999999: .*--list-devices"),
        (["--device=²"], "microphone ²: .*--list-devices"),
        (["--device=pulse", "--channels=40"], r"microphone pulse: has 32 channels, no 40"),
    ],
)
def test_devices_that_are_not_there(options: list[str], reason: str, microphone: VirtualMicrophone) -> None:
    assert re.fullmatch(rf"error: {reason}.*\n", one_line_error(microphone, *options))


def test_devices_are_listed(microphone: VirtualMicrophone) -> None:
    """For people, * marks the one that is taken without --device; and as JSON."""
    head, *lines = list_devices(microphone).splitlines()
    assert head.split() == ["name", "host", "channels", "Hz"]
    (default,) = [line for line in lines if line.startswith("*")]
    assert re.fullmatch(r"\* +\d+  default +ALSA +\d+  48000, 44100, 16000", default)

    devices = json.loads(list_devices(microphone, "--format=jsonl"))
    assert len(devices) == len(lines)
    assert [device["name"] for device in devices if device["default"]] == ["default"]
    (pulse,) = [device for device in devices if device["name"] == "pulse"]
    assert (pulse["host"], pulse["rates"]) == ("ALSA", [48_000, 44_100, 16_000])


def test_a_device_by_its_name(microphone: VirtualMicrophone, listen) -> None:
    process = listen(*QUICK, "--device=pulse", "--capture-rate=44100")
    process.wait_for("score")
    process.end()
    assert {record["file"] for record in process.of("score")} == {"microphone pulse"}
