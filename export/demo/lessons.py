"""Lessons: crops with the teacher's answers; made once, in parts, and kept.

Scrambled crops have no label, but the teacher has an answer.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from augment import Audio, scramble
from data import WINDOW, Speech
from features import Features, features
from numpy.typing import NDArray
from teacher import Teacher

LENGTHS = {24_000: 0.35, 32_000: 0.35, 48_000: 0.2, WINDOW: 0.1}  # samples of a crop, share of parts
PART = 400  # crops in a part, and half as many scrambled ones
TEACHER_PARTS = 30  # parts that the teacher is fitted to, all of them as they are
AUGMENTED = 0.3  # of the crops in lessons


@dataclass(frozen=True)
class Part:
    """Lessons of one length."""

    audio: NDArray[np.int16]  # [crops, samples]
    log_odds: NDArray[np.float32]  # [crops]: the teacher's, of bona fide
    statistics: NDArray[np.float16]  # [crops, n]


def fit_teacher(speech: Speech, levels: NDArray[np.float32], seed: int) -> Teacher:
    """A teacher of TEACHER_PARTS parts."""
    _share(speech=speech, levels=levels)
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = list(pool.map(_heard, [[seed, 0, i] for i in range(TEACHER_PARTS)]))
    statistics = np.concatenate([heard for heard, _ in parts])
    return Teacher(statistics, np.array([kind for _, kinds in parts for kind in kinds]), levels, seed)


def make_lessons(speech: Speech, teacher: Teacher, parts: int, folder: Path, seed: int) -> list[Part]:
    """The parts in `folder`, made where they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    _share(speech=speech, teacher=teacher)
    caches = [folder / f"{i}-{seed}.npz" for i in range(parts)]
    with ProcessPoolExecutor(initializer=torch.set_num_threads, initargs=(1,)) as pool:
        list(pool.map(_make, [[seed, 1, i] for i in range(parts)], caches))
    made = []
    for cache in caches:
        with np.load(cache) as part:
            made.append(Part(part["audio"], part["log_odds"], part["statistics"]))
    return made


_shared: dict[str, object] = {}  # what forked workers see without a copy


def _share(**things: object) -> None:
    _shared.update(things)


def _draw(seed: list[int], augmented: float) -> tuple[Audio, list[str]]:
    samples = int(np.random.default_rng(seed).choice(list(LENGTHS), p=list(LENGTHS.values())))
    speech = _shared["speech"]
    assert isinstance(speech, Speech)
    return speech.draw(PART, samples, seed, augmented)


def _heard(seed: list[int]) -> tuple[Features, list[str]]:
    audio, kinds = _draw(seed, 0)
    levels = _shared["levels"]
    assert isinstance(levels, np.ndarray)
    return np.stack([features(one, levels) for one in audio]), kinds


def _make(seed: list[int], cache: Path) -> None:
    """One part, written whole or not at all."""
    if cache.exists():
        return
    teacher = _shared["teacher"]
    assert isinstance(teacher, Teacher)
    crops, _ = _draw(seed, AUGMENTED)
    rng = np.random.default_rng([*seed, 1])
    pairs = rng.permutation(len(crops)).reshape(2, -1)
    scrambled = [scramble(crops[a], crops[b], rng) for a, b in pairs.T]
    audio = np.concatenate([crops, np.stack(scrambled)])
    log_odds, statistics = teacher(audio)
    part = cache.with_suffix(".part.npz")
    np.savez(
        part,
        audio=(audio * 32767).astype(np.int16),
        log_odds=log_odds,
        statistics=statistics.astype(np.float16),
    )
    part.rename(cache)
