"""EER of a bundle on one split of the labelled corpus, as a whole and for each synthesis system.

    python export/demo/evaluate.py --corpus ../shared/corpus --split dev

`eval` is for reporting only: nothing is ever chosen by it. Utterances are scored by the papers' protocol,
`first`. The last line of stdout is one JSON document.
"""

import csv
import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from nes2net_calib.metrics import equal_error_rate
from nes2net_runtime import Detector


def evaluate(
    corpus: Annotated[Path, typer.Option(help="Folder with corpus.csv.")],
    split: Annotated[Literal["train", "dev", "eval"], typer.Option(help="Split to score.")] = "dev",
    bundle: Annotated[Path | None, typer.Option(help="Bundle.", show_default="the demo detector")] = None,
) -> None:
    """Score a split and print its EERs."""
    with (corpus / "corpus.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if row["split"] == split}
    detector = Detector(bundle)
    scores: dict[str, list[float]] = defaultdict(list)  # by system; "-" is bona fide
    for name, result in zip(
        rows, detector.score_files([corpus / name for name in rows], "first"), strict=True
    ):
        if result.error is not None:
            raise result.error
        scores[rows[name]["system"]].append(result.mean)
    bonafide = scores.pop("-")
    kinds = {row["system"]: row["type"] for row in rows.values()}

    whole = equal_error_rate(bonafide, [score for system in scores.values() for score in system])
    print(f"{split}: EER {100 * whole.rate:.1f} %, {whole.bonafide} bona fide, {whole.spoof} spoof")
    by_system = {system: equal_error_rate(bonafide, spoof) for system, spoof in sorted(scores.items())}
    for system, eer in by_system.items():
        print(f"  {system:6} {kinds[system]:18} {100 * eer.rate:5.1f} %  {eer.spoof:4} spoof")
    print(
        json.dumps(
            {
                "split": split,
                "bundle": detector.bundle.manifest.name,
                "checkpoint_sha256": detector.bundle.manifest.source.sha256,
                "eer": round(whole.rate, 4),
                "bonafide": whole.bonafide,
                "spoof": whole.spoof,
                "eer_by_system": {system: round(eer.rate, 4) for system, eer in by_system.items()},
            }
        )
    )


if __name__ == "__main__":
    typer.run(evaluate)
