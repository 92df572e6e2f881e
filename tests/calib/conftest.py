"""A detector whose scores are known, audio that has the scores it shall have, and the command."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
SPEAKERS = 12


@pytest.fixture
def bundle(tmp_path: Path, loudness) -> Path:
    return loudness(tmp_path / "loudness.nes2net")


def write_clip(path: Path, score: float, seconds: float, seed: int) -> None:
    """Audio of which every window has this score: full of random signs."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], round(16_000 * seconds))
    soundfile.write(path, (score + 5) / 10 * signs, 16_000)


@pytest.fixture(scope="session")
def trials() -> Callable[..., Path]:
    """(folder, counts of both classes, mean scores of both, …) -> a list, its audio beside it.

    Scores are normal with a deviation of 1 around the means; lengths vary by 40 % around `seconds`.
    """

    def make(
        folder: Path,
        counts: tuple[int, int] = (96, 72),
        means: tuple[float, float] = (1.0, -1.0),
        seconds: float = 2.0,
        speakers: int | None = SPEAKERS,
        swapped: bool = False,
    ) -> Path:
        folder.mkdir(parents=True)
        rng = np.random.default_rng(0)
        lines = ["file,label,system,speaker,condition"]
        for label, count, mean in zip(("bonafide", "spoof"), counts, means, strict=True):
            for i, score in enumerate(np.clip(rng.normal(mean, 1, count), -4.5, 4.5)):
                name = f"{label}{i:03}.wav"
                write_clip(folder / name, score, seconds * (0.6 + 0.1 * (i % 9)), len(lines))
                speaker = "-" if speakers is None else f"{label[0]}{i % speakers}"
                told = label if not swapped else "spoof" if label == "bonafide" else "bonafide"
                system = "-" if told == "bonafide" else f"A{1 + i % 3:02}"
                lines.append(f"{name},{told},{system},{speaker},{'wide' if i % 2 else 'narrow'}")
        (folder / "list.csv").write_text("\n".join(lines) + "\n")
        return folder / "list.csv"

    return make


@pytest.fixture(scope="session")
def usual(trials, tmp_path_factory) -> Path:
    """96 bona fide clips, 72 spoofs, 12 speakers of each."""
    return trials(tmp_path_factory.mktemp("audio") / "usual")


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Of the command: a cache of its own, one thread."""
    paths = os.pathsep.join(str(ROOT / package) for package in ("runtime", "calib"))
    own = {"PYTHONPATH": paths, "XDG_CACHE_HOME": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **own}


@pytest.fixture
def calib(environment) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`nes2net-calib ARGUMENTS` as a process of its own."""

    def call(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nes2net_calib", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return call
