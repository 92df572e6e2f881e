"""The labelled corpus, more spoofs made from its human clips, and seeded batches of augmented crops."""

import csv
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from augment import Audio, augment
from numpy.typing import NDArray
from torch.utils.data import Dataset
from vocoders import VOCODERS

WINDOW = 64_600  # samples that the official protocol scores


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


def vocoded_copies(clips: list[Clip], folder: Path, rounds: int, seed: int) -> list[Clip]:
    """Each human clip once through each vocoder a round; kept in `folder`, so that it is computed once."""
    folder.mkdir(parents=True, exist_ok=True)
    human = [clip for clip in clips if clip.bonafide]
    jobs = [(name, i) for name in VOCODERS for i in range(rounds)]
    caches = [folder / f"{name}-{i}-{seed}.npz" for name, i in jobs]
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        made = [
            pool.submit(_vocode, human, name, [seed, i, list(VOCODERS).index(name)], cache)
            for (name, i), cache in zip(jobs, caches, strict=True)
            if not cache.exists()
        ]
    for job in made:
        job.result()
    copies = []
    for (name, i), cache in zip(jobs, caches, strict=True):
        with np.load(cache) as made:
            copies += [
                Clip(f"{name}-{i}/{clip.file}", made[str(k)], False, name, clip.speaker, clip.file)
                for k, clip in enumerate(human)
            ]
    return copies


def _vocode(human: list[Clip], name: str, seed: list[int], cache: Path) -> None:
    """One vocoder's round over all clips, written whole or not at all."""
    rng = np.random.default_rng(seed)
    made = {str(k): _copy(clip.samples(), name, rng) for k, clip in enumerate(human)}
    np.savez(cache.with_suffix(".part.npz"), allow_pickle=False, **made)
    cache.with_suffix(".part.npz").rename(cache)


def _copy(x: Audio, vocoder: str, rng: np.random.Generator) -> NDArray[np.int16]:
    """A vocoded copy at its original's level."""
    y = VOCODERS[vocoder](x, rng)
    y *= np.sqrt((x @ x / len(x)) / np.maximum(y @ y / len(y), 1e-12))
    return (np.clip(y, -1, 1) * 32767).astype(np.int16)


def repeat(x: Audio, samples: int) -> Audio:
    """The first `samples`, a shorter clip repeated (out[k] = x[k mod n]): the official rule."""
    return np.resize(x, samples)


class Batches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Item s is step s's batch: audio [batch, samples], labels [batch] (1: bona fide); from (seed, s) alone.

    Half of a batch is human, speakers weighted by the root of their clips. Each of those has a partner: a
    vocoded copy of the same clip, or synthetic speech drawn alike over the corpus's systems.
    """

    def __init__(self, corpus: list[Clip], copies: list[Clip], steps: int, pairs: int, seed: int) -> None:
        self.human = [clip for clip in corpus if clip.bonafide]
        self.spoofs = [clip for clip in corpus if not clip.bonafide]
        self.copies: dict[str, list[Clip]] = {clip.file: [] for clip in self.human}
        for clip in copies:
            self.copies[clip.parent].append(clip)
        self.human_weights = _root_weights([clip.speaker for clip in self.human])
        self.spoof_weights = _root_weights([clip.system for clip in self.spoofs])
        self.steps, self.pairs, self.seed = steps, pairs, seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng([self.seed, step])
        samples = int(rng.choice([24_000, 32_000, 48_000, WINDOW], p=[0.4, 0.35, 0.15, 0.1]))
        pairs = max(self.pairs * 24_000 // samples, 1)  # about the same audio each step
        audio, labels = [], []
        for _ in range(pairs):
            human = self.human[rng.choice(len(self.human), p=self.human_weights)]
            copies = self.copies[human.file]
            if rng.random() < 0.5:
                spoof = copies[rng.integers(len(copies))]
            else:
                spoof = self.spoofs[rng.choice(len(self.spoofs), p=self.spoof_weights)]
            for clip in (human, spoof):
                audio.append(crop(clip, samples, rng))
                labels.append(int(clip.bonafide))
        return torch.from_numpy(np.stack(audio)), torch.tensor(labels)


def crop(clip: Clip, samples: int, rng: np.random.Generator) -> Audio:
    """A random, augmented piece of `samples` samples; shorter clips are repeated, as they are when scored."""
    needed = int(samples * 1.2)  # what a change of speed may use up
    start = int(rng.integers(max(len(clip.audio) - needed, 0) + 1))
    x = augment(clip.samples(start, start + needed), rng)
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
