"""Fixtures of the runtime's tests: noise, a file of it, bundles with and without calibration, the command."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from stand_ins.machine import install
from stand_ins.onnxruntime_gpu import Machine

import nes2net_runtime
from nes2net_runtime.bundle import DEMO, MANIFEST
from nes2net_runtime.manifest import (
    Calibration,
)

PROVENANCE = {
    "protocol": "dev.tsv",
    "sha256": "ab" * 32,
    "bonafide": 1000,
    "spoof": 2100,
    "speakers": 24,
    "eer": 0.052,
    "cllr_before": 0.71,
    "cllr_after": 0.21,
    "created": "2026-12-01T10:00:00+00:00",
}


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What was tuned or built on this machine does not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """2.5 s of noise at 16 kHz."""
    return 0.1 * np.random.default_rng(0).standard_normal(40_000)


@pytest.fixture
def good(tmp_path: Path, noise: np.ndarray) -> Path:
    """A file that nothing is wrong with."""
    soundfile.write(tmp_path / "good.flac", noise, 16_000)
    return tmp_path / "good.flac"


@pytest.fixture
def uncalibrated(tmp_path: Path) -> Path:
    """A copy of the demo bundle without calibration and reports."""
    no_reports = shutil.ignore_patterns("reports")
    bundle = Path(shutil.copytree(DEMO, tmp_path / "bundle.nes2net", ignore=no_reports))

    def change(manifest: dict[str, Any]) -> None:
        manifest.pop("calibration", None)
        manifest["files"] = [f for f in manifest["files"] if not f["path"].startswith("reports/")]

    edit_manifest(bundle, change)
    return bundle


@pytest.fixture(scope="session")
def entry() -> Callable[..., dict[str, Any]]:
    """(changes) -> a calibration as the manifest has it."""
    usual = {"slope": 2.0, "offset": 0.5, "prior_spoof": 0.5, "threshold": 0.0, "chosen_by": "EER"}
    return lambda **changes: {**usual, "min_seconds": 0.5, "provenance": PROVENANCE, **changes}


@pytest.fixture(scope="session")
def calibration(entry) -> Callable[..., Calibration]:
    """(changes) -> a calibration."""
    return lambda **changes: msgspec.convert(entry(**changes), Calibration)


@pytest.fixture
def calibrated(uncalibrated: Path, entry) -> Callable[..., Path]:
    """(first={…}, full={…}, windows={…}) -> the bundle with these calibrations, of which this is unusual."""

    def calibrate(**rules: dict[str, Any]) -> Path:
        entries = {rule: entry(**changes) for rule, changes in rules.items()}
        edit_manifest(uncalibrated, lambda manifest: manifest.update(calibration=entries))
        return uncalibrated

    return calibrate


def edit_manifest(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


@pytest.fixture
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`nes2net-run ARGUMENTS` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1])}

    def call(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nes2net_runtime", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return call


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Machine]:
    """(what is installed) -> a machine with a GPU, made of stand-ins, until the test ends."""

    def make(**installed: Any) -> Machine:
        folder = tmp_path / "machine"
        folder.mkdir()
        return install(monkeypatch, folder, **installed)

    return make


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """10 s: both example clips."""
    examples = Path(__file__).parents[2] / "docs/examples"
    clips = [soundfile.read(examples / f"{name}.flac", dtype="float32")[0] for name in ("human", "synthetic")]
    return np.concatenate(clips)[:160_000]
