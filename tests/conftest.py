"""Fixtures that all packages' tests share."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
