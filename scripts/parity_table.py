"""How far bundles are from the official code: each golden checkpoint through nes2net-export and nes2net-run.

    python scripts/parity_table.py [--goldens FOLDER]

Prints a Markdown table: the largest difference between the score that `nes2net-run --segment full` prints and
the official code's logit, over all inputs of the golden.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import numpy as np
import soundfile
import typer

COMMITTED = Path(__file__).parents[1] / "tests/data/golden"


def parity_table(goldens: Annotated[Path, typer.Option(help="Folder with index.json.")] = COMMITTED) -> None:
    """Print the table."""
    index = json.loads((goldens / "index.json").read_text())
    waveforms = np.load(goldens / "waveforms.npz")
    print("| golden | front-end, aggregation | back-end, pooling | largest logit | difference | bound |")
    print("| --- | --- | --- | --- | --- | --- |")
    for golden in index["goldens"]:
        expected = np.load(goldens / golden["outputs"])
        with tempfile.TemporaryDirectory() as folder:
            scores = through_the_commands(golden, goldens, waveforms, Path(folder))
        index_of_score = golden["score"]["bonafide_index"]
        official = np.concatenate([expected[f"{name}.logits"][:, index_of_score] for name in waveforms.files])
        ssl, backend = golden["ssl"]["type"], golden["backend"]
        print(
            f"| {golden['name']} | {ssl}, {golden['aggregation']} | {backend['variant']}, {backend['pool']} "
            f"| {np.abs(official).max():.2f} | {np.abs(scores - official).max():.1e} "
            f"| {3 * golden['tolerance']['logits']:.1e} |",
            flush=True,
        )


def through_the_commands(
    golden: dict, goldens: Path, waveforms: np.lib.npyio.NpzFile, folder: Path
) -> np.ndarray:
    """Scores of all waveforms, in order."""
    command = [sys.executable, "-m", "nes2net_export", "-o", folder / "bundle"]
    command += ["--checkpoint", goldens / golden["checkpoint"]]
    command += [f"--attention-heads={golden['ssl']['heads']}", f"--dilation={golden['backend']['dilation']}"]
    command += [f"--activation={golden['backend']['activation'].lower()}"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    files = []
    for name in waveforms.files:
        for i, waveform in enumerate(waveforms[name]):
            files.append(folder / f"{name}_{i}.wav")
            soundfile.write(files[-1], waveform, 16_000, subtype="PCM_16")
    command = [sys.executable, "-m", "nes2net_runtime", "-b", folder / "bundle"]
    command += ["--segment=full", "--format=jsonl", *files]
    lines = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    return np.array([record["score"] for record in records if record["type"] == "score"])


if __name__ == "__main__":
    typer.run(parity_table)
