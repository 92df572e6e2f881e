"""The labelled corpus, more spoofs made from its human clips, and seeded batches of augmented crops."""

import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from augment import Audio, augment, effects
from numpy.typing import NDArray
from vocoders import VOCODERS

WINDOW = 64_600  # samples that the official protocol scores
PART = 60  # clips that are vocoded and kept together
SHARES = (0.45, 0.25, 0.3)  # of crops that are human, whole synthesis, vocoded copies
SILENT = 30  # root mean square of 16-bit samples; a vocoder may fail


@dataclass(frozen=True)
class Clip:
    """One utterance at 16 kHz. `parent`: the human clip that a vocoded copy was made from, else empty."""

    file: str
    audio: NDArray[np.int16]
    bonafide: bool
    system: str
    speaker: str
    parent: str

    def samples(self, start: int = 0, stop: int | None = None) -> Audio:
        """A piece of the clip as float32 in [-1, 1)."""
        return np.divide(self.audio[start:stop], 32768, dtype=np.float32)


def read_corpus(corpus: Path, split: str) -> list[Clip]:
    """Read all clips of one split (train, dev or eval) named in `corpus.csv`."""
    with (corpus / "corpus.csv").open(newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["split"] == split]
    return [
        Clip(
            row["file"],
            soundfile.read(corpus / row["file"], dtype="int16")[0],
            row["label"] == "bonafide",
            row["system"],
            row["speaker"],
            row["parent"],
        )
        for row in rows
    ]


def vocoded_copies(
    human: list[Clip], folder: Path, each: int, seed: int, names: tuple[str, ...] = tuple(VOCODERS)
) -> list[Clip]:
    """Each clip through `each` of the vocoders, drawn for it; kept in `folder`, so computed once."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [human[i : i + PART] for i in range(0, len(human), PART)]
    caches = [folder / f"{i}-{len(part)}-{each}-{seed}.npz" for i, part in enumerate(parts)]
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [
            pool.submit(_vocode, part, names, each, [seed, i], cache)
            for i, (part, cache) in enumerate(zip(parts, caches, strict=True))
            if not cache.exists()
        ]
    for job in jobs:
        job.result()
    copies = []
    for part, cache in zip(parts, caches, strict=True):
        with np.load(cache) as made:
            for key in made:
                name, k = key.split("/")
                parent = part[int(k)]
                if np.mean(made[key].astype(float) ** 2) < SILENT**2:
                    continue
                copies.append(
                    Clip(f"{name}/{parent.file}", made[key], False, name, parent.speaker, parent.file)
                )
    return copies


def _vocode(human: list[Clip], names: tuple[str, ...], each: int, seed: list[int], cache: Path) -> None:
    """Copies of some clips, written whole or not at all."""
    rng = np.random.default_rng(seed)
    made = {
        f"{name}/{k}": _copy(clip.samples(), str(name), rng)
        for k, clip in enumerate(human)
        for name in rng.choice(names, each, replace=False)
    }
    np.savez(cache.with_suffix(".part.npz"), allow_pickle=False, **made)
    cache.with_suffix(".part.npz").rename(cache)


def _copy(x: Audio, vocoder: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """A vocoded copy at its original's level; for a third, of the clip as another room or device hears it."""
    if rng.random() < 0.35:
        x = effects(x, rng)
    y = np.nan_to_num(VOCODERS[vocoder](x, rng), posinf=0, neginf=0)
    y *= np.sqrt((x @ x / len(x)) / np.maximum(y @ y / len(y), 1e-12))
    return (np.clip(y, -1, 1) * 32767).astype(np.int16)


def repeat(x: Audio, samples: int) -> Audio:
    """The first `samples`, a shorter clip repeated (out[k] = x[k mod n]): the official rule."""
    return np.resize(x, samples)


@dataclass(frozen=True)
class Speech:
    """Everything to learn from: human clips, synthetic ones, and vocoded copies of the human ones."""

    human: list[Clip]
    tts: list[Clip]
    copies: list[Clip]

    def draw(self, crops: int, samples: int, seed: list[int], augmented: float) -> tuple[Audio, list[str]]:
        """Crops [crops, samples] and what they are (human, tts, copy), from the seed alone.

        A share `augmented` of them went through random effects. Speakers and systems are weighted by the root
        of their clips.
        """
        rng = np.random.default_rng(seed)
        pools = {"human": self.human, "tts": self.tts, "copy": self.copies}
        weights = {
            kind: _root_weights([clip.system if kind == "tts" else clip.speaker for clip in clips])
            for kind, clips in pools.items()
        }
        kinds = [str(kind) for kind in rng.choice(list(pools), crops, p=SHARES)]
        drawn = [pools[kind][rng.choice(len(pools[kind]), p=weights[kind])] for kind in kinds]
        return np.stack([crop(clip, samples, rng, augmented) for clip in drawn]), kinds


def crop(clip: Clip, samples: int, rng: np.random.Generator, augmented: float) -> Audio:
    """A random, augmented piece of `samples` samples; shorter clips are repeated, as they are when scored."""
    needed = int(samples * 1.2)  # what a change of speed may use up
    start = int(rng.integers(max(len(clip.audio) - needed, 0) + 1))
    x = augment(clip.samples(start, start + needed), rng, augmented)
    if len(x) >= samples:
        start = int(rng.integers(len(x) - samples + 1))
        return x[start : start + samples]
    return repeat(np.roll(x, -int(rng.integers(len(x)))) if rng.random() < 0.5 else x, samples)


def _root_weights(groups: list[str]) -> NDArray[np.float64]:
    """Probability of each item such that a group of n items has a share of about sqrt(n)."""
    sizes = Counter(groups)
    weights: NDArray[np.float64] = np.array([sizes[group] ** -0.5 for group in groups])
    weights /= weights.sum()
    return weights
