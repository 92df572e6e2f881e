"""The README's commands and code, run as written in a folder that holds the files they name."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from nes2net_runtime.bundle import DEMO

EXAMPLES = Path(__file__).parents[1] / "docs/examples"
README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(console|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
COMMANDS = [
    line.removeprefix("$ ").split("  #")[0].strip()
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.splitlines()
    if line.startswith("$ nes2net-")
]
# Not here: what needs the network, a full-size model (1.3 GB, two minutes), or a microphone.
ELSEWHERE = ("hf:", "random:", "--mic")


def labelled_audio(folder: Path) -> None:
    """60 noisy pieces of each example clip by 6 speakers, as calls.csv and as ASVspoof 2021 lists them."""
    rng = np.random.default_rng(1)
    official = folder / "ASVspoof2021_LA_eval/flac"
    official.mkdir(parents=True)
    table, trials = ["file,label,speaker"], []
    for clip, label in (("human", "bonafide"), ("synthetic", "spoof")):
        whole = soundfile.read(EXAMPLES / f"{clip}.flac", dtype="float32")[0]
        for i in range(60):
            start = rng.integers(len(whole) - 40_000)
            piece = whole[start : start + 40_000] + 1e-4 * rng.standard_normal(40_000)
            name, speaker = f"LA_E_{label}{i}", f"{clip}{i % 6}"
            soundfile.write(official / f"{name}.flac", piece, 16_000)
            table.append(f"ASVspoof2021_LA_eval/flac/{name}.flac,{label},{speaker}")
            trials.append(
                f"{speaker} {name} none none {'-' if clip == 'human' else 'A01'} {label} notrim eval"
            )
    (folder / "calls.csv").write_text("\n".join(table) + "\n")
    (folder / "ASVspoof2021.LA.cm.trial_metadata.txt").write_text("\n".join(trials) + "\n")


@pytest.fixture
def folder(tmp_path: Path, committed_goldens) -> Path:
    """interview.wav, call.wav (stereo), calls/, eval/, labelled audio, a bundle `big`, Nes2Net_X.pth."""
    sound = 0.1 * np.random.default_rng(0).standard_normal((16_000 * 5, 2))
    for name in ("interview.wav", "call.wav", "calls/1.wav", "calls/2.flac", "eval/E1.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / name, sound, 16_000)
    labelled_audio(tmp_path)
    shutil.copytree(DEMO, tmp_path / "big")
    golden = next(g for g in committed_goldens.entries if g["family"] == "wav2vec2-itw")
    shutil.copy(committed_goldens.checkpoint(golden), tmp_path / "Nes2Net_X.pth")
    return tmp_path


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) >= 7
    assert sum(kind == "python" for kind, _ in BLOCKS) == 1


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in COMMANDS if not any(word in c for word in ELSEWHERE)])
def test_commands(folder: Path, command: str) -> None:
    if command.endswith("-o big"):
        shutil.rmtree(folder / "big")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        shlex.split(command),
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "XDG_CACHE_HOME": str(folder / "cache")},
    )
    assert done.returncode == 0, done.stderr


def test_python(folder: Path) -> None:
    (code,) = (block for kind, block in BLOCKS if kind == "python")
    prepare = (
        "import numpy as np\n"
        "waveform = np.random.default_rng(0).uniform(-0.1, 0.1, 48_000 * 5)\n"
        "blocks = waveform.astype(np.float32).reshape(-1, 1_600)\n"
    )
    done = subprocess.run([sys.executable, "-c", prepare + code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + 2
