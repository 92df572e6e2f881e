"""The teacher: classifiers over statistics of cepstra, and the lessons that a network learns from them.

Trees and a strongly regularised logistic regression over a clip's statistics generalise to new speakers far
better than a network trained on the same few labels does, and err on different clips. A network that learns
their function, on crops of the corpus and on scrambled ones where no label holds, takes over part of that.
"""

import numpy as np
import torch
from augment import Audio, scramble
from data import Batches
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression
from spectrum import cepstra
from torch import Tensor
from torch.utils.data import Dataset

CEPSTRA = 60
STATISTICS = 8 * CEPSTRA
SCRAMBLED = 2  # crops for each labelled one
SHRINKAGE = 3e-4  # inverse strength of the regression's penalty
SHARPEN = 1.5  # times the sum of both log odds, which averaging and the penalty draw together


def statistics(audio: Audio, levels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Statistics [480] of the first 60 cepstra of a clip.

    Mean, deviation, deviation of change, both deviations' logarithms, and three percentiles.
    """
    x = cepstra(audio, levels)[:, :CEPSTRA]
    spread = np.concatenate([x.std(0), np.diff(x, axis=0).std(0)])
    percentiles = np.percentile(x, [10, 50, 90], axis=0).ravel()
    return np.concatenate([x.mean(0), spread, np.log(spread + 1e-3), percentiles]).astype(np.float32)


class Teacher:
    """Extremely randomised trees and a logistic regression, fitted to labelled crops; added as log odds."""

    def __init__(self, batches: Batches, levels: NDArray[np.float32], seed: int) -> None:
        self.levels = levels
        crops = [batches[step] for step in range(len(batches))]
        x = np.stack([statistics(audio, levels) for group, _ in crops for audio in group.numpy()])
        labels = torch.cat([group for _, group in crops]).numpy()
        self.mean, self.deviation = x.mean(0), x.std(0)
        self.trees = ExtraTreesClassifier(
            400, min_samples_leaf=2, class_weight="balanced", random_state=seed
        ).fit(x, labels)
        self.linear = LogisticRegression(C=SHRINKAGE, max_iter=500).fit(
            (x - self.mean) / self.deviation, labels
        )

    def __call__(self, audio: Audio) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """[batch, samples] -> probability of bona fide [batch], scaled statistics [batch, 480]."""
        x = np.stack([statistics(one, self.levels) for one in audio])
        scaled = (x - self.mean) / self.deviation
        p = self.trees.predict_proba(x)[:, 1].clip(0.01, 0.99)
        log_odds = np.log(p / (1 - p)) + self.linear.decision_function(scaled)
        return (1 / (1 + np.exp(-SHARPEN * log_odds))).astype(np.float32), scaled


class Lessons(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Item s: step s's crops and scrambled ones, as (audio, the teacher's target [batch], statistics)."""

    def __init__(self, batches: Batches, teacher: Teacher) -> None:
        self.batches, self.teacher = batches, teacher

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        crops = self.batches[step][0].numpy()
        rng = np.random.default_rng([self.batches.seed, step, 1])
        groups = [crops]
        for _ in range(SCRAMBLED):
            others = crops[rng.permutation(len(crops))]
            groups.append(np.stack([scramble(a, b, rng) for a, b in zip(crops, others, strict=True)]))
        audio = np.concatenate(groups)
        target, features = self.teacher(audio)
        return torch.from_numpy(audio), torch.from_numpy(target), torch.from_numpy(features)
