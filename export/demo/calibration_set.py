"""What the demo detector is calibrated on: dev, and vocoded copies of dev's people.

    python export/demo/calibration_set.py --corpus DIR --out SET
    make calibrate-demo CORPUS=SET

Dev's own spoofs are easy: llrs fitted to them alone are too sure of themselves where systems are new. So each
human clip is there twice more, through two of the vocoders (vocoders.py, other draws than outlook.py's), and
scores of spoofs spread as far as they may elsewhere. `--out` gets dev-with-copies.csv and its audio.
"""

import csv
from pathlib import Path
from typing import Annotated

import soundfile
import typer
from augment import RATE
from data import read_corpus, vocoded_copies

COPIES, SEED = 2, 8  # of each human clip, each by another vocoder


def calibration_set(
    corpus: Annotated[Path, typer.Option(help="Folder with corpus.csv.")],
    out: Annotated[Path, typer.Option(help="Folder that is made.")],
) -> None:
    """Write clips and their labels."""
    dev = read_corpus(corpus, "dev")
    copies = vocoded_copies([clip for clip in dev if clip.bonafide], out / "made", COPIES, SEED)
    (out / "audio").mkdir(exist_ok=True)
    with (out / "dev-with-copies.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(("file", "label", "system", "speaker", "split"))
        for i, clip in enumerate(dev + copies):
            file = f"audio/{i:04}.flac"
            soundfile.write(out / file, clip.audio, RATE)
            label = "bonafide" if clip.bonafide else "spoof"
            writer.writerow((file, label, clip.system, clip.speaker, "dev"))


if __name__ == "__main__":
    typer.run(calibration_set)
