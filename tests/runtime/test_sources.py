"""Files and pipes as sources of a stream, as fast as they are read and in real time."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import nes2net_runtime
from nes2net_runtime import AudioError
from nes2net_runtime.streaming.ring import OVERFLOW
from nes2net_runtime.streaming.sources import (
    BACKLOG,
    FileSource,
    Gap,
    LiveSource,
    PipeSource,
    RawFormat,
    Source,
)

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1])}
SUBTYPES = {"s16le": "PCM_16", "s32le": "PCM_32", "f32le": "FLOAT", "u8": "PCM_U8"}  # as libsndfile has them


def raw_pcm(path: Path, signal: np.ndarray, encoding: str) -> tuple[bytes, np.ndarray]:
    """A signal [samples, channels] as headerless PCM by libsndfile, and as libsndfile reads it again."""
    options = {"subtype": SUBTYPES[encoding], "endian": "LITTLE", "format": "RAW"}
    soundfile.write(path, signal, 16_000, **options)
    truth, _ = soundfile.read(
        path, samplerate=16_000, channels=signal.shape[1], dtype="float32", always_2d=True, **options
    )
    return path.read_bytes(), truth


def noise_of(samples: int, channels: int) -> np.ndarray:
    """Noise that reaches both ends of full scale."""
    signal = np.random.default_rng(7).uniform(-1, 1, (samples, channels))
    signal[0], signal[1], signal[2] = -1, 1, 0
    return signal


def rest_of(source: Source) -> tuple[np.ndarray, list[Gap]]:
    """Read an open source to its end, and close it."""
    blocks, gaps = [np.zeros(0, np.float32)], []
    while (piece := source.read()) is not None:
        if isinstance(piece, Gap):
            gaps.append(piece)
        else:
            assert piece.dtype == np.float32 and piece.ndim == 1
            blocks.append(piece)
    assert source.close() is None
    return np.concatenate(blocks), gaps


def until(true: Callable[[], bool]) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def pipe() -> Iterator[tuple[FileIO, FileIO]]:
    """The two ends of a pipe: to read from, to write to; both unbuffered."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


@pytest.fixture
def writing(pipe) -> Iterator[Callable[..., FileIO]]:
    """(data, sizes, pause) -> the end to read from, into which a thread writes data in such pieces."""
    reader, writer = pipe
    threads: list[threading.Thread] = []

    def write(data: bytes, sizes: list[int], pause: float) -> None:
        at = 0
        for i in range(len(data)):
            if at >= len(data):
                break
            piece = data[at : at + sizes[i % len(sizes)]]
            while piece:
                piece = piece[writer.write(piece) :]
            at += sizes[i % len(sizes)]
            time.sleep(pause)
        writer.close()

    def start(data: bytes, sizes: list[int], pause: float = 0.0) -> FileIO:
        threads.append(threading.Thread(target=write, args=(data, sizes, pause)))
        threads[-1].start()
        return reader

    yield start
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s16le", RawFormat("s16le", 16_000, 1)),
        ("u8:8000", RawFormat("u8", 8_000, 1)),
        ("f32le:48000:2", RawFormat("f32le", 48_000, 2)),
        ("s32le:1000:64", RawFormat("s32le", 1_000, 64)),
        ("s16le:768000:1", RawFormat("s16le", 768_000, 1)),
    ],
)
def test_raw_formats(text: str, expected: RawFormat) -> None:
    assert RawFormat.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    (
        *("", "wav", "s24le", "S16LE", "s16be:16000:1", ":16000:1", "s16le:", "s16le:16000:", "s16le:16k"),
        *("s16le:16000.0:1", "s16le:-16000:1", "s16le:16000:1:1", "s16le 16000 1", "s16le:16000:²"),
    ),
)
def test_what_is_no_raw_format(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not ENCODING:RATE:CHANNELS; encodings: s16le, .*u8") as caught:
        RawFormat.parse(text)
    assert str(caught.value).startswith(repr(text))


@pytest.mark.parametrize("text", ["s16le:999", "s16le:768001", "s16le:0:1", "u8:8000:0", "f32le:48000:65"])
def test_raw_formats_that_are_out_of_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="1000 to 768000 Hz and 1 to 64 channels"):
        RawFormat.parse(text)


@pytest.mark.parametrize("encoding", SUBTYPES)
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_samples_are_those_that_libsndfile_reads(encoding: str, channels: int, tmp_path: Path) -> None:
    """Each channel is exactly that channel; the mix is their average."""
    data, truth = raw_pcm(tmp_path / "x.raw", noise_of(500, channels), encoding)
    raw = RawFormat(encoding, 16_000, channels)
    assert np.abs(truth).max() > 0.99
    for channel in range(1, channels + 1):
        mono = raw.decode(data, channel)
        assert mono.dtype == np.float32
        np.testing.assert_array_equal(mono, truth[:, channel - 1])
    np.testing.assert_allclose(raw.decode(data), truth.astype(np.float64).mean(axis=1), rtol=0, atol=2e-7)


@pytest.mark.parametrize("encoding", SUBTYPES)
def test_full_scale_and_silence_by_hand(encoding: str) -> None:
    values = {
        "s16le": np.array([-32768, 16384, 0], "<i2"),
        "s32le": np.array([-(2**31), 2**30, 0], "<i4"),
        "f32le": np.array([-1, 0.5, 0], "<f4"),
        "u8": np.array([0, 192, 128], "u1"),
    }
    assert RawFormat(encoding, 16_000, 1).decode(values[encoding].tobytes()).tolist() == [-1, 0.5, 0]


def test_numbers_that_no_sound_has_are_kept_without_complaint() -> None:
    """NaN (a signalling one too), infinity and what overflows in the mix: the stream deals with them."""
    bits = np.array([0x7FA00000, 0, 0x7F800000, 0, 0x7F7FFFFF, 0x7F7FFFFF, 0, 0], "<u4")
    mono = RawFormat("f32le", 16_000, 2).decode(bits.tobytes())  # warnings are errors in these tests
    assert np.isfinite(mono).tolist() == [False, False, False, True]


@pytest.mark.parametrize(
    ("encoding", "channels", "sizes"),
    [
        ("s16le", 1, [1]),
        ("s16le", 2, [3, 5, 1, 400, 7]),
        ("s32le", 3, [11, 12, 13, 5_000]),
        ("f32le", 2, [1_000_000]),
        ("u8", 5, [4, 1, 6, 64]),
    ],
)
def test_a_pipe_gives_every_frame_however_it_is_cut(
    encoding: str, channels: int, sizes: list[int], writing, tmp_path: Path
) -> None:
    frames = 2_000 if max(sizes) < 100 else 40_000
    data, truth = raw_pcm(tmp_path / "x.raw", noise_of(frames, channels), encoding)
    source = PipeSource(RawFormat(encoding, 16_000, channels), channels, writing(data, sizes))
    source.open()
    samples, gaps = rest_of(source)
    np.testing.assert_array_equal(samples, truth[:, channels - 1])
    assert (gaps, source.warnings, source.name, source.seconds) == ([], [], "-", None)


def test_a_frame_that_is_cut_waits_for_its_rest(pipe) -> None:
    """Where nothing comes for a while a read returns, with no samples."""
    reader, writer = pipe
    source = PipeSource(RawFormat.parse("s16le:16000:2"), 2, reader)
    source.open()
    assert source.waiting() is None

    def after(data: bytes) -> list[float]:
        writer.write(data)
        piece = source.read()
        assert isinstance(piece, np.ndarray)
        return (32768 * piece).tolist()

    assert after(np.array([1, 2, 3], "<i2").tobytes()) == [2]
    assert after(b"\x04") == []
    assert after(b"\x00") == [4]
    start = time.monotonic()
    nothing = source.read()
    assert isinstance(nothing, np.ndarray) and len(nothing) == 0
    assert time.monotonic() - start < 30
    assert after(np.array([5, 6], "<i2").tobytes()) == [6]
    writer.close()
    assert source.read() is None and source.warnings == []
    source.close()


def test_what_is_left_over_of_a_frame_at_the_end_is_said(writing) -> None:
    data = np.arange(8, dtype="<i2").tobytes() + b"\x01\x02\x03"
    source = PipeSource(RawFormat.parse("s16le:16000:2"), 1, writing(data, [6]))
    source.open()
    samples, _ = rest_of(source)
    assert (32768 * samples).tolist() == [0, 2, 4, 6]
    assert source.warnings == ["ends within a frame: 3 bytes are left over"]


def test_a_pipe_that_closes_at_once_is_empty(writing) -> None:
    source = PipeSource(RawFormat.parse("s16le"), None, writing(b"", [1]))
    source.open()
    samples, gaps = rest_of(source)
    assert (len(samples), gaps, source.warnings) == (0, [], [])


def test_a_channel_that_a_pipe_lacks(pipe) -> None:
    with pytest.raises(AudioError, match="stdin: has 2 channels, no channel 3"):
        PipeSource(RawFormat.parse("s16le:16000:2"), 3, pipe[0])


def test_a_terminal_is_no_pipe() -> None:
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    with os.fdopen(main, "rb", buffering=0), os.fdopen(terminal, "rb", buffering=0) as stdin:
        source = PipeSource(RawFormat.parse("s16le"), None, stdin)
        with pytest.raises(AudioError, match=r"stdin: is a terminal; pipe raw PCM into it: arecord"):
            source.open()


def test_a_stdin_that_is_closed_is_an_error_in_one_line() -> None:
    command = f"exec {sys.executable} -m nes2net_runtime - <&-"
    done = subprocess.run(["sh", "-c", command], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert re.fullmatch(r"error: stdin: is closed; pipe raw PCM into it: arecord .*\n", done.stderr)


@pytest.mark.parametrize("realtime", [False, True])
def test_a_stdin_that_cannot_be_read_is_an_error_in_one_line(realtime: bool, tmp_path: Path) -> None:
    """Opened for writing only: select says that there is something, read fails."""
    command = [sys.executable, "-m", "nes2net_runtime", "-", *(["--realtime"] if realtime else [])]
    with (tmp_path / "x").open("wb") as file:
        done = subprocess.run(
            command, env=ENVIRONMENT, stdin=file, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 1, done.stderr
    assert "error: stdin: can't be read (Bad file descriptor)\n" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def second(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A stereo file of 1.03 s at 16 kHz, and what is in it."""
    signal = noise_of(16_480, 2).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", signal, 16_000, subtype="FLOAT")
    return tmp_path / "x.wav", signal


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("channel", [None, 2])
def test_a_file_is_given_exactly(live: bool, channel: int | None, second) -> None:
    path, signal = second
    file = FileSource(path, channel)
    source = LiveSource(file) if live else file
    start = time.monotonic()
    source.open()
    samples, gaps = rest_of(source)
    took = time.monotonic() - start
    truth = signal.mean(axis=1, dtype=np.float32) if channel is None else signal[:, channel - 1]
    np.testing.assert_array_equal(samples, truth)
    assert source.name == str(path)
    assert source.seconds == pytest.approx(1.03)
    assert (gaps, source.warnings, source.sample_rate) == ([], [], 16_000)
    if live:
        assert took >= 0.8 * 1.03


def test_a_file_comes_in_small_blocks(second) -> None:
    """A view of what is heard moves on smoothly."""
    source = FileSource(second[0])
    source.open()
    assert source.waiting() is None
    while (piece := source.read()) is not None:
        assert isinstance(piece, np.ndarray) and len(piece) <= 1_600
    assert source.read() is None


def test_a_live_file_shows_how_much_waits(second) -> None:
    source = LiveSource(FileSource(second[0]))
    source.open()
    until(lambda: source.waiting() >= 1)
    assert source.waiting() == pytest.approx(1, abs=0.11)
    samples, _ = rest_of(source)
    assert len(samples) == 16_480 and source.waiting() == 0


@pytest.mark.parametrize("live", [False, True])
def test_a_file_that_is_missing(live: bool, tmp_path: Path) -> None:
    file = FileSource(tmp_path / "none.wav")
    with pytest.raises(AudioError, match=r"none\.wav: no such file"):
        (LiveSource(file) if live else file).open()


@pytest.mark.parametrize("live", [False, True])
def test_a_file_with_nan_ends_with_an_error_after_what_is_before_it(live: bool, tmp_path: Path) -> None:
    """The reader decodes blocks of two seconds: the first comes, the second is bad."""
    signal = noise_of(16_000 * 3, 1)
    signal[40_000] = np.nan
    soundfile.write(tmp_path / "x.wav", signal, 16_000, subtype="FLOAT")
    source = LiveSource(FileSource(tmp_path / "x.wav")) if live else FileSource(tmp_path / "x.wav")
    source.open()
    heard = 0
    with pytest.raises(AudioError, match=r"holds NaN or infinity \(first at 2\.500 s\)"):
        while (piece := source.read()) is not None:
            assert isinstance(piece, np.ndarray)
            heard += len(piece)
    source.close()
    assert heard == 32_000


def test_closing_a_live_file_ends_it_at_once(tmp_path: Path) -> None:
    """What came and was not read is a gap."""
    soundfile.write(tmp_path / "x.wav", np.tile(noise_of(16_000, 1), (100, 1)), 16_000)
    source = LiveSource(FileSource(tmp_path / "x.wav"))
    source.open()
    until(lambda: source.waiting() > 1)
    start = time.monotonic()
    gap = source.close()
    assert time.monotonic() - start < 30  # the file plays for 100 s
    assert gap is not None and gap.seconds > 1
    assert gap.cause == "ended before it was scored"


def test_a_live_pipe_is_read_as_it_comes(writing, tmp_path: Path) -> None:
    data, truth = raw_pcm(tmp_path / "x.raw", noise_of(16_000, 2), "s16le")
    source = LiveSource(PipeSource(RawFormat.parse("s16le:16000:2"), 1, writing(data, [6_401], 0.05)))
    source.open()
    samples, gaps = rest_of(source)
    np.testing.assert_array_equal(samples, truth[:, 0])
    assert (gaps, source.warnings, source.name, source.seconds) == ([], [], "-", None)


def test_a_live_pipe_that_is_written_faster_than_it_is_read_has_gaps(pipe) -> None:
    """Its writer never waits; each gap is where audio is lost, and as long."""
    reader, writer = pipe
    rate, seconds = 8_000, round(3 * BACKLOG)
    source = LiveSource(PipeSource(RawFormat("s16le", rate, 1), None, reader))
    source.open()
    numbers = 1 + np.arange(rate * seconds) % 30_000
    for second in np.split(numbers.astype("<i2"), seconds):
        writer.write(second.tobytes())
    writer.close()
    at, gaps = 0, []
    while (piece := source.read()) is not None:
        if isinstance(piece, Gap):
            gaps.append(piece)
            at += round(piece.seconds * rate)
        else:
            np.testing.assert_array_equal(32768 * piece, numbers[at : at + len(piece)])
            at += len(piece)
    source.close()
    assert at == len(numbers)
    assert {gap.cause for gap in gaps} == {OVERFLOW}
    assert gaps[0].seconds > 10  # the backlog was full; a pipe holds 4 s


def scores_of(output: str) -> list[dict[str, Any]]:
    return [record for record in map(json.loads, output.splitlines()) if record["type"] == "score"]


@pytest.mark.parametrize("realtime", [False, True])
def test_a_pipe_scores_like_its_file(realtime: bool, run, examples: Path, tmp_path: Path) -> None:
    """Stereo at 8 kHz, two clips on one side, the second channel taken; written at once."""
    clips = [soundfile.read(examples / f"{name}.flac")[0] for name in ("human", "synthetic")]
    signal = np.concatenate(clips)[::2]
    data, truth = raw_pcm(tmp_path / "x.raw", np.stack([signal[::-1], signal], 1), "s16le")
    soundfile.write(tmp_path / "x.wav", truth, 8_000, subtype="PCM_16")
    scored = run(tmp_path / "x.wav", "--channels=2", "--segment=windows", "--hop=0.5", "--format=jsonl")
    assert scored.returncode == 0, scored.stderr

    command = [sys.executable, "-m", "nes2net_runtime", "-", "--raw=s16le:8000:2", "--channels=2"]
    streamed = subprocess.run(
        [*command, "--format=jsonl", *(["--realtime"] if realtime else [])],
        env=ENVIRONMENT,
        input=data,
        capture_output=True,
    )
    assert streamed.returncode == 0, streamed.stderr
    scores, expected = scores_of(streamed.stdout.decode()), scores_of(scored.stdout)
    assert len(scores) == len(expected) >= 7
    for a, b in zip(scores, expected, strict=True):
        assert (a["file"], a["channel"]) == ("-", 2)
        assert (a["start"], a["end"], a["tail"]) == (b["start"], b["end"], b["tail"])
        assert a["score"] == pytest.approx(b["score"], abs=1e-4)
        assert a["label"] == b["label"]
    summary = json.loads(streamed.stdout.splitlines()[-1])
    assert summary["type"] == "summary"
    assert summary["audio_seconds"] == pytest.approx(len(signal) / 8_000, abs=1e-3)
