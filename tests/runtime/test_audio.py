"""Audio files of every kind as float32 mono at 16 kHz."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from nes2net_runtime import AudioError
from nes2net_runtime.audio import audio_info, find_audio, read_blocks

RATES = (8_000, 16_000, 22_050, 44_100, 48_000, 192_000)
KINDS = {  # container, subtype, rates and channel counts that it can hold, largest error of a sample
    "wav16": ("WAV", "PCM_16", RATES, (1, 2, 7), 1e-4),
    "wav24": ("WAV", "PCM_24", RATES, (1, 2, 7), 1e-6),
    "float": ("WAV", "FLOAT", RATES, (1, 2, 7), 1e-7),
    "ulaw": ("WAV", "ULAW", (8_000,), (1, 2), 0.02),
    "flac": ("FLAC", "PCM_16", RATES, (1, 2, 7), 1e-4),
    "vorbis": ("OGG", "VORBIS", RATES, (1, 2, 7), 0.2),
    "opus": ("OGG", "OPUS", (8_000, 16_000, 48_000), (1, 2), 0.2),
    "mp3": ("MP3", "MPEG_LAYER_III", (8_000, 16_000, 22_050, 44_100, 48_000), (1, 2), 0.2),
}
CASES = [
    (kind, rate, channels)
    for kind, (_, _, rates, counts, _) in KINDS.items()
    for rate in rates
    for channels in counts
]


def tones(rate: int, channels: int, seconds: float = 2.6) -> np.ndarray:
    """[samples, channels]: another tone in each channel, below every codec's cut-off."""
    time = np.arange(round(seconds * rate))[:, None] / rate
    return (0.5 * np.sin(2 * np.pi * (300 + 150 * np.arange(channels)) * time)).astype(np.float32)


def read(path: Path, channel: int | None = None) -> tuple[np.ndarray, list[str]]:
    warnings: list[str] = []
    return np.concatenate(list(read_blocks(path, channel, warnings))), warnings


@pytest.mark.parametrize(("kind", "rate", "channels"), CASES)
def test_every_format_rate_and_channel_count(kind: str, rate: int, channels: int, tmp_path: Path) -> None:
    """Blocks are the one-shot resampling of the averaged channels of what libsndfile decodes."""
    container, subtype, _, _, tolerance = KINDS[kind]
    path = tmp_path / f"x.{container.lower()}"
    written = tones(rate, channels)
    soundfile.write(path, written, rate, subtype=subtype, format=container)

    samples, warnings = read(path)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert warnings == []
    decoded, decoded_rate = soundfile.read(path, dtype="float32", always_2d=True)
    mono = decoded.mean(axis=1, dtype=np.float32)
    expected = mono if decoded_rate == 16_000 else soxr.resample(mono, decoded_rate, 16_000, quality="HQ")
    np.testing.assert_allclose(samples, expected, atol=1e-6)

    # and it is what was written, independently of the reader: same length, same average of the channels
    assert abs(len(samples) - len(written) * 16_000 / rate) <= 2
    truth = tones(16_000, channels).mean(axis=1)
    middle = slice(8_000, 32_000)
    assert np.abs(samples[middle] - truth[middle]).max() <= tolerance + (5e-3 if rate != 16_000 else 0)


def test_what_the_header_says(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.flac", tones(44_100, 2), 44_100)
    info = audio_info(tmp_path / "x.flac")
    assert (info.sample_rate, info.channels, info.frames) == (44_100, 2, 114_660)
    assert info.seconds == pytest.approx(2.6)


@pytest.mark.parametrize("rate", [16_000, 48_000])
@pytest.mark.parametrize("channel", [1, 4, 7])
def test_one_channel_is_that_channel(channel: int, rate: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tones(rate, 7), rate, subtype="FLOAT")
    samples, _ = read(tmp_path / "x.wav", channel)
    expected = tones(16_000, 7)[:, channel - 1]
    middle = slice(1_000, -1_000)
    assert np.abs(samples[middle] - expected[middle]).max() < 5e-3


def test_a_channel_that_is_not_there(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", tones(16_000, 2), 16_000)
    with pytest.raises(AudioError, match=r"x\.wav: has 2 channels, no channel 3"):
        read(tmp_path / "x.wav", 3)


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0x7FFF_FFFF])
def test_a_wav_written_to_a_pipe_is_whole(size: int, tmp_path: Path) -> None:
    """Its header promises the largest length there is, and that is no damage."""
    soundfile.write(tmp_path / "x.wav", tones(16_000, 1), 16_000, subtype="PCM_16")
    data = bytearray((tmp_path / "x.wav").read_bytes())
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    (tmp_path / "x.wav").write_bytes(data)
    samples, warnings = read(tmp_path / "x.wav")
    assert len(samples) == len(tones(16_000, 1)) and warnings == []


def test_a_flac_written_to_a_pipe_is_whole(tmp_path: Path) -> None:
    """An encoder that can't seek back leaves the number of samples at 0: unknown, no damage."""
    soundfile.write(tmp_path / "x.flac", tones(16_000, 1), 16_000)
    data = bytearray((tmp_path / "x.flac").read_bytes())
    data[21] &= 0xF0  # STREAMINFO: 36 bits of total samples
    data[22:26] = bytes(4)
    (tmp_path / "x.flac").write_bytes(data)
    samples, warnings = read(tmp_path / "x.flac")
    assert len(samples) == len(tones(16_000, 1)) and warnings == []


def test_folders_are_searched_in_sorted_order(tmp_path: Path) -> None:
    names = [
        "b/2.flac",
        "b/1.WAV",
        "a/z/x.mp3",
        "a/y.ogg",
        "c.opus",
        "a.wav/inside.wav",
        "notes.txt",
        "b/x.pdf",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"?")
    found = list(find_audio([tmp_path]))
    assert [error for _, error in found] == [None] * 6
    assert [path.relative_to(tmp_path).as_posix() for path, _ in found] == [
        *["c.opus", "a/y.ogg", "a/z/x.mp3", "a.wav/inside.wav", "b/1.WAV", "b/2.flac"]
    ]


def test_named_files_are_taken_as_named_and_in_order(tmp_path: Path) -> None:
    for name in ("b.wav", "a.txt"):
        (tmp_path / name).write_bytes(b"?")
    (tmp_path / "empty").mkdir()
    paths = [tmp_path / name for name in ("b.wav", "none.wav", "a.txt", "empty", "b.wav")]
    found = list(find_audio(paths))
    assert [path for path, _ in found] == paths
    assert [error is None for _, error in found] == [True, False, True, False, True]
    assert "no such file or folder" in str(found[1][1])
    assert "no audio files in this folder" in str(found[3][1])


def test_a_name_that_is_too_long_does_not_end_the_search(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"?")
    found = list(find_audio(["x" * 300, tmp_path / "a.wav"]))
    assert isinstance(found[0][1], AudioError)
    assert found[1] == (tmp_path / "a.wav", None)
