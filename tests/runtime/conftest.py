"""Fixtures of the runtime's tests: two and a half seconds of noise, a file of it, the command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

import nes2net_runtime


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
def run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`nes2net-run ARGUMENTS` as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1])}

    def call(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nes2net_runtime", *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)

    return call
