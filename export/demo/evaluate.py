"""EER and Cllr of a bundle on one split of the labelled corpus: whole, by system, by bandwidth.

    python export/demo/evaluate.py --corpus ../shared/corpus --split dev

`eval` is for reporting only: nothing is ever chosen by it. `make evaluate-demo` runs it on a committed
detector and adds the last line of stdout, one JSON document, with the commit to `eval.jsonl`. Utterances are
scored by the papers' protocol, `first`. Intervals are of 95 %, over speakers drawn with replacement.
"""

import csv
import json
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nes2net_calib.intervals import interval
from nes2net_calib.metrics import cllr, equal_error_rate
from nes2net_calib.protocols import Trial, read_protocol
from nes2net_runtime import Detector

NARROW = 5000.0  # Hz; recordings below come from telephones and 8 kHz files


@dataclass(frozen=True)
class Scored:
    """A trial and what the detector says of it."""

    trial: Trial
    score: float
    llr: float | None


def evaluate(
    corpus: Annotated[Path, typer.Option(help="Folder with corpus.csv.")],
    split: Annotated[Literal["train", "dev", "eval"], typer.Option(help="Split to score.")] = "dev",
    bundle: Annotated[Path | None, typer.Option(help="Bundle.", show_default="the demo detector")] = None,
    log: Annotated[Path | None, typer.Option(help="File to add the result and the commit to.")] = None,
) -> None:
    """Score a split and print its error rates."""
    protocol = read_protocol(corpus / "corpus.csv", split=split)
    detector = Detector(bundle)
    scored = []
    results = detector.score_files([trial.path for trial in protocol.trials], "first")
    for trial, result in zip(protocol.trials, results, strict=True):
        if result.error is not None:
            raise result.error
        scored.append(Scored(trial, result.mean, result.llr))
    bonafide = [one for one in scored if one.trial.bonafide]
    spoof = [one for one in scored if not one.trial.bonafide]
    with (corpus / "corpus.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}

    by_system: dict[str, list[Scored]] = defaultdict(list)
    for one in spoof:
        by_system[one.trial.system or "?"].append(one)
    narrow = [one for one in bonafide if float(rows[one.trial.id]["bandwidth_hz"]) < NARROW]
    wide = [one for one in bonafide if one not in narrow]
    report = {
        "split": split,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "bundle": detector.bundle.manifest.name,
        "checkpoint_sha256": detector.bundle.manifest.source.sha256,
        "all": error_rate(f"{split}: all", bonafide, spoof),
        "narrow_band": error_rate(f"bona fide under {NARROW:.0f} Hz", narrow, spoof),
        "wide_band": error_rate("bona fide above", wide, spoof),
        **log_loss(bonafide, spoof),
        "systems": {name: error_rate(name, bonafide, by_system[name]) for name in sorted(by_system)},
    }
    line = json.dumps(report)
    if log:
        with log.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    print(line)


def error_rate(name: str, bonafide: Sequence[Scored], spoof: Sequence[Scored]) -> dict[str, Any]:
    """EER and its interval as fractions, and counts; printed as a line."""
    scores = [[one.score for one in group] for group in (bonafide, spoof)]
    voices = [[one.trial.speaker or one.trial.id for one in group] for group in (bonafide, spoof)]
    rate = equal_error_rate(*scores).rate
    try:
        between = interval(*scores, *voices, lambda b, s: equal_error_rate(b, s).rate)
    except ValueError:  # one voice alone
        between = None
    spread = f"{100 * between[0]:5.1f} to {100 * between[1]:4.1f}" if between else ""
    print(f"{name:28} {100 * rate:5.1f} %  {spread:13}  {len(bonafide):4} bona fide {len(spoof):4} spoof")
    return {
        "eer": round(rate, 4),
        "interval": between and [round(edge, 4) for edge in between],
        "bonafide": len(bonafide),
        "spoof": len(spoof),
    }


def log_loss(bonafide: Sequence[Scored], spoof: Sequence[Scored]) -> dict[str, float]:
    """Cllr in bits of the scores taken as llrs, and of the llrs where the bundle is calibrated."""
    found = {"cllr_uncalibrated": cllr([one.score for one in bonafide], [one.score for one in spoof])}
    llrs = [[one.llr for one in group if one.llr is not None] for group in (bonafide, spoof)]
    if all(llrs):
        found["cllr"] = cllr(*llrs)
        found["without_llr"] = float(len(bonafide) + len(spoof) - sum(map(len, llrs)))
    for name, value in found.items():
        print(f"{name:28} {value:.3f}")
    return {name: round(value, 4) for name, value in found.items()}


def commit() -> str:
    """The commit that is checked out, with a + where files differ from it."""
    here = Path(__file__).parent
    command = ["git", "-C", here, "describe", "--always", "--abbrev=10", "--dirty=+"]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"


if __name__ == "__main__":
    typer.run(evaluate)
