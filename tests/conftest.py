"""Fixtures that all packages' tests share."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper, numpy_helper

from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.manifest import (
    Stage,
    Tensor,
)

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).parents[2] / "shared"


class Goldens:
    """Small checkpoints with random weights, and what the official code computes with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = json.loads((folder / "index.json").read_text())
        self.entries: list[dict[str, Any]] = index["goldens"]
        with np.load(folder / "waveforms.npz") as waveforms:
            self.waveforms = dict(waveforms)

    def outputs(self, golden: Mapping[str, Any]) -> dict[str, np.ndarray]:
        with np.load(self.folder / golden["outputs"]) as outputs:
            return dict(outputs)

    def checkpoint(self, golden: Mapping[str, Any]) -> Path:
        return self.folder / golden["checkpoint"]

    @staticmethod
    def untold(golden: Mapping[str, Any]) -> dict[str, Any]:
        """What a checkpoint of this golden does not tell, as `Untold` and the command's options name it."""
        told = {
            "dilation": golden["backend"]["dilation"],
            "activation": golden["backend"]["activation"].lower(),
        }
        return {"attention_heads": golden["ssl"]["heads"], **told}


COMMITTED = Goldens(DATA / "golden")
ALL = Goldens(SHARED / "golden") if (SHARED / "golden/index.json").exists() else None


def pytest_configure() -> None:
    """Commands under test take Ctrl-C also where the tests run in a shell's background, which ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`golden`: every golden of ../shared/golden where it is there, else the few that are committed."""
    if "golden" in metafunc.fixturenames:
        entries = (ALL or COMMITTED).entries
        metafunc.parametrize("golden", entries, ids=[entry["name"] for entry in entries])


@pytest.fixture(scope="session")
def goldens() -> Goldens:
    return ALL or COMMITTED


@pytest.fixture(scope="session")
def committed_goldens() -> Goldens:
    return COMMITTED


@pytest.fixture(scope="session")
def examples() -> Path:
    """The folder with one human and one synthetic clip."""
    return Path(__file__).parents[1] / "docs" / "examples"


@pytest.fixture
def on_terminal() -> Callable[[Sequence[str | Path], Mapping[str, str]], str]:
    """(command, environment) -> what it shows where its stderr is a terminal; it must exit with 0."""
    pty = pytest.importorskip("pty")

    def show(command: Sequence[str | Path], environment: Mapping[str, str]) -> str:
        main, terminal = pty.openpty()
        variables = {**environment, "TERM": "xterm-256color", "COLUMNS": "100"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=variables)
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(main, 65536)
            except OSError:  # the terminal's last writer has gone
                break
            if not chunk:
                break
            shown += chunk
        os.close(main)
        assert process.wait() == 0
        return shown.decode(errors="replace")

    return show


def loudness_graph(work: int) -> onnx.ModelProto:
    """waveform -> logits [0, 10 * mean |x| - 5]; a convolution of `work` channels takes time to no effect."""
    nodes = [
        helper.make_node("Abs", ["waveform"], ["rectified"]),
        helper.make_node("ReduceMean", ["rectified", "time"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "ten"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "five"], ["loudness"]),
        helper.make_node("Unsqueeze", ["waveform", "time"], ["channels"]),
        helper.make_node("Conv", ["channels", "filters"], ["filtered"]),
        helper.make_node("ReduceMean", ["filtered", "all"], ["filtered mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["filtered mean", "time"], ["column"]),
        helper.make_node("Mul", ["column", "zero"], ["nothing"]),
        helper.make_node("Add", ["loudness", "nothing"], ["score"]),
        helper.make_node("Concat", ["nothing", "score"], ["logits"], axis=1),
    ]
    constants = {
        "time": np.array([1]),
        "all": np.array([1, 2]),
        "ten": np.float32(10),
        "five": np.float32(5),
        "zero": np.float32(0),
        "filters": np.ones((work, 1, 50), np.float32),
    }
    graph = helper.make_graph(
        nodes,
        "loudness",
        [helper.make_tensor_value_info("waveform", TensorProto.FLOAT, ["batch", "samples"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


@pytest.fixture(scope="session")
def loudness(tmp_path_factory) -> Callable[..., Path]:
    """(folder, work, changes of the source) -> a bundle whose score is 10 * mean |x| - 5."""

    def make(folder: Path, work: int = 1, **source: object) -> Path:
        folder.mkdir()
        (folder / "detector.onnx").write_bytes(loudness_graph(work).SerializeToString())
        demo = read_bundle(DEMO).manifest
        stage = Stage(
            name="detector",
            file="detector.onnx",
            precision="fp32",
            inputs=[Tensor(name="waveform", type="float32", shape=["batch", "samples"])],
            outputs=[Tensor(name="logits", type="float32", shape=["batch", 2])],
        )
        manifest = replace(
            demo,
            name="loudness",
            source=replace(demo.source, **source),
            score=replace(demo.score, bonafide_logit=1),
            files=list_files(folder),
            stages=[stage],
            calibration=None,
        )
        write_manifest(folder, manifest)
        return folder

    return make
