"""Conditions: length, rate and band of what comes out; the same for the same audio."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_bench.drift.conditions import condition, recipe
from nes2net_runtime.errors import ProviderError

ALWAYS = ("telephony", "8khz", "gsm", "opus", "mp3", "noise-20")
NARROW = ("telephony", "8khz", "gsm")


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(48_123)).astype(np.float32)


def above(signal: np.ndarray, hertz: float) -> float:
    """Share of the energy above a frequency."""
    power = np.abs(np.fft.rfft(signal)) ** 2
    return float(power[np.fft.rfftfreq(len(signal), 1 / 16_000) > hertz].sum() / power.sum())


def snr(signal: np.ndarray, other: np.ndarray) -> float:
    return float(10 * np.log10(np.square(signal).mean() / np.square(other - signal).mean()))


@pytest.mark.parametrize("name", ALWAYS)
def test_length_stays_and_audio_changes(name: str, examples: Path, noise: np.ndarray) -> None:
    for clip in ("human", "synthetic"):
        speech, rate = soundfile.read(examples / f"{clip}.flac", dtype="float32")
        assert rate == 16_000
        for length in (len(speech), 16_001, 401):
            before = speech[:length].copy()
            after = condition(name)(before)
            assert after.shape == (length,) and after.dtype == np.float32
            assert np.isfinite(after).all() and np.array_equal(before, speech[:length])
            assert not np.array_equal(after, before)
            assert np.array_equal(after, condition(name)(before))  # every time the same
        level = np.sqrt(np.square(condition(name)(speech)).mean() / np.square(speech).mean())
        assert 0.5 < level < 1.5


def test_the_audio_as_it_is(noise: np.ndarray) -> None:
    assert np.array_equal(condition("clean")(noise), noise)


@pytest.mark.parametrize("name", NARROW)
def test_narrow_bands(name: str, noise: np.ndarray) -> None:
    assert above(noise, 4_000) > 0.45
    assert above(condition(name)(noise), 4_100) < 1e-3


def test_a_telephone_has_no_bass(noise: np.ndarray) -> None:
    heard = condition("telephony")(noise)
    assert 1 - above(heard, 200) < 0.01 < 1 - above(condition("8khz")(noise), 200)
    assert above(heard, 3_600) < 0.03 < above(condition("8khz")(noise), 3_600)


@pytest.mark.parametrize("below", [0, 6, 20, 40])
def test_noise_has_its_level(below: int, noise: np.ndarray) -> None:
    assert snr(noise, condition(f"noise-{below}")(noise)) == pytest.approx(below, abs=0.2)


def test_noise_is_the_signals_own(noise: np.ndarray) -> None:
    apply = condition("noise-10")
    other = noise.copy()
    other[0] += 1e-3
    first, second = apply(noise) - noise, apply(other) - other
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


@pytest.mark.parametrize(("name", "least"), [("opus", 5), ("mp3", 10)])
def test_codecs_keep_their_place(name: str, least: float, examples: Path) -> None:
    """A shift by one sample would show."""
    speech, _ = soundfile.read(examples / "human.flac", dtype="float32")
    after = condition(name)(speech)
    assert snr(speech, after) > least
    assert snr(speech[:-20], after[20:]) < snr(speech, after)


@pytest.mark.parametrize("name", ["", "noise", "noise-61", "noise--1", "noise-100", "clean ", "g711"])
def test_what_is_not_known(name: str) -> None:
    with pytest.raises(ProviderError, match=r"telephony.*noise-N"):
        condition(name)


def test_amr_where_there_is_an_encoder(examples: Path) -> None:
    try:
        apply = condition("amr")
    except ProviderError as error:
        assert "libsox-fmt-base" in str(error)
        pytest.skip("no AMR encoder is here: apt install sox libsox-fmt-base")
    assert recipe("amr").endswith(("sox", "ffmpeg"))
    speech, _ = soundfile.read(examples / "human.flac", dtype="float32")
    heard = apply(speech)
    assert heard.shape == speech.shape and above(heard, 4_100) < 1e-3
    lags = [np.corrcoef(speech[: -200 or None], heard[k : k + len(speech) - 200])[0, 1] for k in range(200)]
    assert max(lags) > 0.8 and np.argmax(lags) <= 100  # the encoder looks 5 ms ahead: 80 samples


def test_an_encoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from nes2net_bench.drift import conditions

    conditions._amr_encoder.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    try:
        with pytest.raises(ProviderError, match="apt install sox libsox-fmt-base"):
            condition("amr")
    finally:
        conditions._amr_encoder.cache_clear()


def test_recipes_are_apart() -> None:
    assert len({recipe(name) for name in (*ALWAYS, "clean", "noise-21")}) == len(ALWAYS) + 2
