"""The model for speech-spoof-bench, run as that harness runs one: imported by name, loaded, fed, unloaded."""

import gc
import importlib
import json
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from nes2net_runtime import AudioError, BundleError, Detector
from nes2net_runtime.bundle import MANIFEST

MODEL = "nes2net_runtime.arena:Nes2Net"


def model_class() -> Any:
    module, name = MODEL.split(":")
    return getattr(importlib.import_module(module), name)


def run(model: Any, audios: list[np.ndarray], rates: list[int], size: int) -> list[float | None]:
    """The harness's loop over a data set; a batch that raises is tried again one by one."""
    scores: list[float | None] = []
    model.load()
    try:
        for i in range(0, len(audios), size):
            batch = audios[i : i + size], rates[i : i + size]
            try:
                scores += [float(score) for score in model.score_batch(*batch)]
            except Exception:
                for audio, rate in zip(*batch, strict=True):
                    try:
                        scores.append(float(model.score_batch([audio], [rate])[0]))
                    except Exception:
                        scores.append(None)
    finally:
        model.unload()
    return scores


@pytest.fixture(scope="module")
def audios() -> list[np.ndarray]:
    """Eleven waveforms of 25 ms to 9 s."""
    random = np.random.default_rng(0)
    seconds = (0.5, 9, 1, 4.0375, 2, 0.025, 5, 3, 0.7, 6, 1.5)
    return [0.1 * random.standard_normal(round(16_000 * s)).astype(np.float32) for s in seconds]


@pytest.fixture(scope="module")
def rates(audios) -> list[int]:
    """The harness gives 16 kHz; others must be right too."""
    return [(16_000, 8_000, 44_100, 48_000)[i % 4] for i in range(len(audios))]


@pytest.fixture(scope="module")
def expected(audios, rates) -> list[float]:
    detector = Detector()
    return [detector.score(a, r, "first")[0].score for a, r in zip(audios, rates, strict=True)]


@pytest.fixture(autouse=True)
def no_wish(monkeypatch) -> None:
    monkeypatch.delenv("NES2NET_BUNDLE", raising=False)


def test_what_the_harness_asks_for() -> None:
    cls = model_class()
    assert isinstance(cls.name, str) and cls.name
    assert cls.expected_sample_rate == 16_000
    assert cls.batch_size >= 1


@pytest.mark.parametrize("size", range(1, model_class().batch_size + 1))
def test_scores_are_the_detectors_in_batches_of_any_size(audios, rates, expected, size: int) -> None:
    assert run(model_class()(), audios, rates, size) == expected


def test_nothing_is_opened_before_load(monkeypatch) -> None:
    monkeypatch.setenv("NES2NET_BUNDLE", "/nonexistent")
    model = model_class()()
    with pytest.raises(BundleError, match=r"^NES2NET_BUNDLE=/nonexistent: .*no such bundle"):
        model.load()
    with pytest.raises(RuntimeError, match=r"load\(\) comes before score_batch\(\)"):
        model.score_batch([np.zeros(16_000, np.float32)], [16_000])


def test_the_bundle_is_that_of_the_environment(monkeypatch, uncalibrated: Path, audios, expected) -> None:
    """A bundle whose score is the other logit."""
    manifest = json.loads((uncalibrated / MANIFEST).read_text())
    manifest["score"]["bonafide_logit"] = 1 - manifest["score"]["bonafide_logit"]
    manifest["name"] = "other"
    (uncalibrated / MANIFEST).write_text(json.dumps(manifest))
    monkeypatch.setenv("NES2NET_BUNDLE", str(uncalibrated))
    model = model_class()()
    model.load()
    assert "other" in model.name
    score = model.score_batch(audios[:1], [16_000])[0]
    assert score == Detector(uncalibrated).score(audios[0], segment="first")[0].score
    assert score != pytest.approx(expected[0], abs=0.1)


def test_the_human_clip_is_more_human(examples: Path) -> None:
    clips = [soundfile.read(examples / f"{name}.flac", dtype="float32") for name in ("human", "synthetic")]
    human, synthetic = run(model_class()(), [a for a, _ in clips], [r for _, r in clips], 2)
    assert human > synthetic


def test_audio_that_cannot_be_scored_is_an_error_and_the_others_are_scored(audios, rates, expected) -> None:
    broken = [*audios[:2], np.array([0.1, np.nan], np.float32), np.zeros(0, np.float32), *audios[2:]]
    its_rates = [*rates[:2], 16_000, 16_000, *rates[2:]]
    assert run(model_class()(), broken, its_rates, 4) == [*expected[:2], None, None, *expected[2:]]
    model = model_class()()
    model.load()
    with pytest.raises(AudioError, match="NaN"):
        model.score_batch(broken[2:3], [16_000])
    with pytest.raises(ValueError):
        model.score_batch(audios[:2], [16_000])


def test_unload_frees_the_detector_and_load_opens_it_again(audios, expected) -> None:
    model = model_class()()
    model.load()
    detector = weakref.ref(model._detector)
    model.unload()
    gc.collect()
    assert detector() is None
    with pytest.raises(RuntimeError, match="load"):
        model.score_batch(audios[:1], [16_000])
    model.unload()  # twice is harmless
    model.load()
    assert model.score_batch(audios[:1], [16_000]) == expected[:1]


def test_importing_it_loads_neither_the_harness_nor_onnxruntime() -> None:
    code = (
        "import sys, importlib; importlib.import_module('nes2net_runtime.arena').Nes2Net(); "
        "print(*{'speech_spoof_bench', 'onnxruntime', 'torch'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
