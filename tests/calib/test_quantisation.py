"""Windows to quantise with: balanced, spread, of speech, the same each time."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_calib.protocols import Protocol, Trial, read_protocol
from nes2net_calib.quantisation import calibration_windows
from nes2net_runtime.errors import ProtocolError

WINDOW = 8_000  # half a second
CORPUS = Path(__file__).parents[3] / "shared/corpus/corpus.csv"


def speech(seconds: float, level: float, seed: int) -> np.ndarray:
    """Noise in syllables of 200 ms with pauses of 100 ms, on noise that is 60 dB lower."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.1, round(16_000 * seconds))
    syllables = np.arange(noise.size) % 4_800 < 3_200
    return level * noise * np.where(syllables, 1, 1e-3)


@pytest.fixture(scope="session")
def protocol(tmp_path_factory) -> Protocol:
    """40 bona fide clips of 8 speakers, 60 spoofs of 3 systems, 3 to 40 each, some of them mostly silence."""
    folder = tmp_path_factory.mktemp("quantisation")
    kinds = [(True, None, f"s{i % 8}", f"c{i % 2}") for i in range(40)]
    kinds += [
        (False, system, f"v{i % 5}", None) for system, n in (("A", 40), ("B", 17), ("C", 3)) for i in range(n)
    ]
    trials = []
    for i, (bonafide, system, speaker, condition) in enumerate(kinds):
        path = folder / f"{i}.wav"
        seconds = (0.2, 0.5, 3.0)[i % 3]
        quiet = np.zeros(40_000 if seconds == 3.0 else 0)
        sound = np.concatenate([quiet, speech(seconds, 0.03 + 0.97 * (i % 7) / 6, i), quiet])
        soundfile.write(path, sound + 0.002, 16_000, subtype="FLOAT")  # with an offset
        trials.append(Trial(str(i), path, bonafide, system, speaker, None, condition, i, ()))
    return Protocol("list.csv", "CSV", "", tuple(trials), ())


@pytest.fixture(scope="session")
def whose(protocol: Protocol):
    """(window) -> the trial that it is from."""
    audio = [(trial, soundfile.read(trial.path, dtype="float32")[0].tobytes()) for trial in protocol.trials]

    def find(window: np.ndarray) -> Trial:
        piece = window[1_000:2_000].tobytes()
        (trial,) = (trial for trial, samples in audio if piece in samples)
        return trial

    return find


def test_windows_are_balanced_and_spread(protocol: Protocol, whose) -> None:
    trials = [whose(window) for window in calibration_windows(protocol, 32, WINDOW)]
    assert [trial.bonafide for trial in trials] == [True, False] * 16
    assert len(set(trials)) == 32
    bonafide, spoof = trials[::2], trials[1::2]
    assert Counter(trial.condition for trial in bonafide) == {"c0": 8, "c1": 8}
    assert set(Counter(trial.speaker for trial in bonafide).values()) == {2}
    systems = Counter(trial.system for trial in spoof)
    assert systems["C"] == 3 and abs(systems["A"] - systems["B"]) <= 1
    for system in "AB":
        voices = Counter(trial.speaker for trial in spoof if trial.system == system)
        assert len(voices) == 5 and max(voices.values()) <= 2


@pytest.mark.parametrize("length", [400, WINDOW, 64_600])
def test_windows_are_exactly_as_long_and_short_audio_is_repeated(protocol: Protocol, length: int) -> None:
    windows = calibration_windows(protocol, 20, length)
    assert {(window.shape, window.dtype) for window in windows} == {((length,), np.dtype("float32"))}
    lengths = {soundfile.info(trial.path).frames: trial for trial in protocol.trials}
    repeated = 0
    for window in windows:
        for frames in lengths:
            if frames < length and np.array_equal(window[frames:], window[:-frames]):
                repeated += 1
    assert (repeated > 0) == (length > 3_200)


def test_the_seed_decides(protocol: Protocol) -> None:
    first, again, other = (calibration_windows(protocol, 12, WINDOW, seed) for seed in (5, 5, 6))
    assert all(map(np.array_equal, first, again))
    assert sum(map(np.array_equal, first, other)) < 6


def test_no_window_is_silent(protocol: Protocol) -> None:
    """Half of a window's 20 ms frames, at least, are as loud as the file's speech within 25 dB."""
    for seed in range(5):
        for window in calibration_windows(protocol, 60, WINDOW, seed):
            frames = (window - 0.002)[: WINDOW // 320 * 320].reshape(-1, 320)
            level = 20 * np.log10(frames.std(axis=1) + 1e-9)
            assert level.max() > -55  # the quietest clip's syllables are at -50 dB of full scale
            assert np.mean(level > level.max() - 28) >= 0.49


def test_silent_and_empty_files_are_passed_over(protocol: Protocol, tmp_path: Path) -> None:
    quiet = []
    for i, samples in enumerate(
        (np.zeros(20_000), np.full(20_000, 0.5), np.zeros(100), 1e-5 * speech(2, 1, 0))
    ):
        soundfile.write(tmp_path / f"{i}.wav", samples, 16_000, subtype="FLOAT")
        quiet.append(Trial(f"q{i}", tmp_path / f"{i}.wav", True, None, f"q{i}", None, None, 1000 + i, ()))
    spoofs = [trial for trial in protocol.trials if not trial.bonafide]
    humans = [trial for trial in protocol.trials if trial.bonafide][:6]
    mixed = Protocol("mixed.csv", "CSV", "", (*quiet, *humans, *spoofs), ())
    assert len(calibration_windows(mixed, 12, WINDOW)) == 12
    with pytest.raises(
        ProtocolError, match=r"^mixed\.csv: only 6 bona fide trials with speech: too few for 13"
    ):
        calibration_windows(mixed, 13, WINDOW)


@pytest.mark.skipif(not CORPUS.exists(), reason="no ../shared/corpus here")
def test_of_real_speech() -> None:
    windows = calibration_windows(read_protocol(CORPUS, split="dev"), 64, 64_600)
    levels = [20 * np.log10(window.std()) for window in windows]
    assert min(levels) > -45 and len({window.tobytes() for window in windows}) == 64
