"""How a bundle may do on spoofs that dev lacks: what to choose detectors by, since eval is not for that.

    python export/demo/outlook.py --corpus DIR --work DIR

Dev has few kinds of synthesis, easy to tell, and 29 vocoded clips. So its people are also scored against
copies of themselves by each of the vocoders (vocoders.py; other parameters than in training), and against
dev's own spoofs through a room, a codec and a telephone. `outlook` is the EER of a mixture: each group's
share of spoofs accepted counts with its weight, whatever its number of clips.

For the detector of commit c9b9f84 the outlook is 19 %, where dev alone says 8.6 % and eval said 20.2 %.
The last line of stdout is one JSON document.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from augment import Audio, add_noise, band_limit, code, reverberate
from data import Clip, read_corpus, vocoded_copies
from numpy.typing import NDArray

from nes2net_calib.metrics import equal_error_rate
from nes2net_runtime import Detector

COPIES, SEED = 4, 7  # of each human clip, each by another vocoder
# Groups of spoofs: prefixes of corpus systems, vocoders of copies.
WEIGHTS = {
    "T01": 30,
    "T04": 35,
    "T06": 10,
    "T07": 15,
    "T12": 10,
    "V02": 20,
    "statistical": 40,
    "mlsa": 40,
    "hifi-gan": 40,
    "world": 20,
    "griffin-lim": 20,
    "codec2": 15,
}


def outlook(
    corpus: Annotated[Path, typer.Option(help="Folder with corpus.csv.")],
    work: Annotated[Path, typer.Option(help="Folder where copies are kept.")],
    bundle: Annotated[Path | None, typer.Option(help="Bundle.", show_default="the demo detector")] = None,
) -> None:
    """Print EERs of dev's people against each group of spoofs, and of the mixture."""
    detector = Detector(bundle)
    dev = read_corpus(corpus, "dev")
    human = [clip for clip in dev if clip.bonafide]
    clips = dev + vocoded_copies(human, work / "dev-copies", COPIES, SEED)
    scores = scored(detector, [clip.samples() for clip in clips])
    people = scores[[clip.bonafide for clip in clips]]
    groups = {
        name: scores[[not clip.bonafide and clip.system.startswith(name) for clip in clips]]
        for name in sorted({group(clip) for clip in clips if not clip.bonafide})
    }
    report = {name: equal_error_rate(people, spoof).rate for name, spoof in groups.items()}
    report |= channels(detector, dev)
    report["outlook"] = mixture(people, {name: groups[name] for name in WEIGHTS})
    for name, rate in report.items():
        print(f"{name:12} {100 * rate:5.1f} %")
    print(json.dumps({name: round(float(rate), 4) for name, rate in report.items()}))


def group(clip: Clip) -> str:
    """T01 of T01_espeak; a copy's vocoder."""
    return clip.system.split("_")[0] if clip.system[0] in "TV" else clip.system


def scored(detector: Detector, clips: list[Audio]) -> NDArray[np.float64]:
    """Scores by the papers' protocol."""
    return np.array([detector.score(clip, 16_000, segment="first")[0].score for clip in clips])


def channels(detector: Detector, dev: list[Clip]) -> dict[str, float]:
    """EER of dev through each channel."""
    bonafide = np.array([clip.bonafide for clip in dev])
    rates = {}
    for name, channel in CHANNELS.items():
        rng = np.random.default_rng(SEED)
        scores = scored(detector, [np.clip(channel(clip.samples(), rng), -1, 1) for clip in dev])
        rates[name] = equal_error_rate(scores[bonafide], scores[~bonafide]).rate
    return rates


CHANNELS = {
    "room": lambda x, rng: add_noise(reverberate(x, rng), rng.uniform(12, 25), rng),
    "codec": lambda x, rng: code(np.clip(x, -1, 1), rng),
    "telephone": lambda x, rng: add_noise(band_limit(x, rng, 8000), rng.uniform(18, 30), rng),
}


def mixture(people: NDArray[np.float64], spoofs: dict[str, NDArray[np.float64]]) -> float:
    """Rate at which as many people are rejected as spoofs are accepted, groups weighted."""
    thresholds = np.sort(np.concatenate([people, *spoofs.values()]))
    rejected = np.searchsorted(np.sort(people), thresholds) / len(people)
    shares = [1 - np.searchsorted(np.sort(scores), thresholds) / len(scores) for scores in spoofs.values()]
    accepted = np.average(shares, axis=0, weights=[WEIGHTS[name] for name in spoofs])
    crossing = np.abs(accepted - rejected).argmin()
    return float(accepted[crossing] + rejected[crossing]) / 2


if __name__ == "__main__":
    typer.run(outlook)
