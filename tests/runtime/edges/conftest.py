"""Fixtures of the runtime's tests: small signals and files, bundles whose scores are known, the command."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner, Result

import nes2net_runtime
from nes2net_runtime import Detector
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.cli import app
from nes2net_runtime.manifest import (
    Stage,
    Tensor,
)

PROBES = ("first", "last", "mean_square", "maximum")  # the logits of the probe bundle


@pytest.fixture(scope="session")
def detector() -> Detector:
    """The demo detector on one thread."""
    return Detector(threads=1)


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """(samples, seed) -> float32 noise on the 16-bit grid, so that PCM files keep it exactly."""

    def make(samples: int, seed: int = 0) -> np.ndarray:
        values = np.random.default_rng(seed).integers(-8192, 8192, samples)
        return (values / 32768).astype(np.float32)

    return make


@pytest.fixture
def wav(tmp_path: Path, noise) -> Callable[..., Path]:
    """(name, seconds or samples array, rate, subtype) -> a WAV file in tmp_path."""

    def write(
        name: str, audio: float | np.ndarray = 1.0, rate: int = 16_000, subtype: str = "PCM_16", seed: int = 0
    ) -> Path:
        samples = audio if isinstance(audio, np.ndarray) else noise(round(audio * rate), seed)
        soundfile.write(tmp_path / name, samples, rate, subtype=subtype, format="WAV")
        return tmp_path / name

    return write


def probe_graph() -> onnx.ModelProto:
    """waveform [batch, samples] -> the four numbers of PROBES of each row."""

    def ints(name: str, value: int) -> TensorProto:
        return numpy_helper.from_array(np.array([value], np.int64), name)

    nodes = [
        helper.make_node("Gather", ["waveform", "zero"], ["first"], axis=1),
        helper.make_node("Gather", ["waveform", "end"], ["last"], axis=1),
        helper.make_node("Mul", ["waveform", "waveform"], ["square"]),
        helper.make_node("ReduceMean", ["square", "one"], ["mean_square"], keepdims=1),
        helper.make_node("ReduceMax", ["waveform", "one"], ["maximum"], keepdims=1),
        helper.make_node("Concat", list(PROBES), ["logits"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(PROBES)])],
        [ints("zero", 0), ints("end", -1), ints("one", 1)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.fixture(scope="session")
def write_bundle() -> Callable[..., Path]:
    """(folder, model, logit, changes of `audio`) -> a single-graph bundle with this model in it."""

    def write(folder: Path, model: onnx.ModelProto, logit: int = 0, **audio: Any) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(model, folder / "detector.onnx")
        demo = read_bundle(DEMO).manifest
        stage = Stage(
            name="detector",
            file="detector.onnx",
            precision="fp32",
            inputs=[Tensor(name="waveform", type="float32", shape=["batch", "samples"])],
            outputs=[Tensor(name="logits", type="float32", shape=["batch", len(PROBES)])],
        )
        manifest = replace(
            demo,
            name="probe",
            stages=[stage],
            files=list_files(folder),
            score=replace(demo.score, bonafide_logit=logit),
            audio=replace(demo.audio, **audio),
        )
        write_manifest(folder, manifest)
        return folder

    return write


@pytest.fixture
def probe(tmp_path: Path, write_bundle) -> Callable[..., Detector]:
    """(which of PROBES, changes of `audio`) -> a detector whose score is that number of the segment."""

    def make(which: str, **audio: Any) -> Detector:
        folder = tmp_path / f"bundles/{which}-{len(list(tmp_path.glob('bundles/*')))}"
        return Detector(write_bundle(folder, probe_graph(), PROBES.index(which), **audio), threads=1)

    return make


@pytest.fixture
def bundle(tmp_path: Path, write_bundle) -> Path:
    """A small whole bundle that a test may damage."""
    return write_bundle(tmp_path / "small.nes2net", probe_graph())


@pytest.fixture
def edit_manifest() -> Callable[..., None]:
    """(bundle, function) -> apply the function to the manifest as a dict, and write it back."""

    def edit(bundle: Path, change: Callable[[dict[str, Any]], Any]) -> None:
        manifest = json.loads((bundle / "manifest.json").read_text())
        change(manifest)
        (bundle / "manifest.json").write_text(json.dumps(manifest))

    return edit


@pytest.fixture
def run(monkeypatch, tmp_path: Path) -> Callable[..., Result]:
    """`nes2net-run ARGUMENTS` in this process, in tmp_path: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TERM", "dumb")

    def call(*arguments: str | Path) -> Result:
        return CliRunner().invoke(app, ["--threads=1", *map(str, arguments)], prog_name="nes2net-run")

    return call


@pytest.fixture
def environment() -> dict[str, str]:
    """Environment of a subprocess that finds the package under test, without wishes about colour."""
    unwanted = {"FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "PYTHONWARNINGS"}
    root = str(Path(nes2net_runtime.__file__).parents[1])
    return {k: v for k, v in os.environ.items() if k not in unwanted} | {"PYTHONPATH": root}


@pytest.fixture
def command(environment, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`nes2net-run ARGUMENTS` as a process of its own in tmp_path."""

    def call(
        *arguments: str | Path,
        prefix: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        line = [*prefix, sys.executable, "-m", "nes2net_runtime", *map(str, arguments)]
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.run(
            line, cwd=tmp_path, env=environment | (env or {}), text=True, timeout=300, **streams
        )

    return call
