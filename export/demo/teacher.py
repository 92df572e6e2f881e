"""The teacher: experts over a clip's statistics, each trained for one kind of spoof, added as log odds.

An expert is extremely randomised trees and a strongly regularised logistic regression. Experts that look at
different things and are trained apart generalise to new speakers, channels and systems better than one that
looks at everything: their errors are not the same. What they agree on, a network can learn.
"""

from dataclasses import dataclass

import numpy as np
from augment import Audio
from features import Features, features
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

SHRINKAGE = 3e-4  # inverse strength of the regressions' penalty
SURE = 0.005  # the trees' probabilities stay this far from 0 and 1
TEMPERATURE = 3.0  # of the sum of log odds


@dataclass(frozen=True)
class Subject:
    """What an expert looks at, which spoofs it is taught, and how much its log odds count."""

    features: str
    spoofs: str  # "tts": whole synthesis; "copy": vocoded human speech
    weight: float


SUBJECTS = (
    Subject("cepstra", "tts", 2),
    Subject("modulation", "tts", 1),
    Subject("harmonics", "copy", 2),
    Subject("envelope", "tts", 1),
)


class Expert:
    """Trees and a regression on one group of statistics [clips, features]; labels: 1 is bona fide."""

    def __init__(self, x: Features, labels: NDArray[np.bool_], seed: int) -> None:
        self.mean, self.deviation = x.mean(0), x.std(0) + 1e-6
        self.trees = ExtraTreesClassifier(
            200, min_samples_leaf=3, class_weight="balanced", n_jobs=-1, random_state=seed
        ).fit(x, labels)
        self.trees.n_jobs = 1
        self.linear = LogisticRegression(C=SHRINKAGE, max_iter=500, class_weight="balanced").fit(
            self.scaled(x), labels
        )

    def scaled(self, x: Features) -> Features:
        return (x - self.mean) / self.deviation

    def log_odds(self, x: Features) -> NDArray[np.float64]:
        p = self.trees.predict_proba(x)[:, 1].clip(SURE, 1 - SURE)
        odds: NDArray[np.float64] = np.log(p / (1 - p)) + self.linear.decision_function(self.scaled(x))
        return odds


class Teacher:
    """All experts. `kinds` says for each crop what it is: human, tts or copy."""

    def __init__(
        self,
        crops: list[dict[str, Features]],
        kinds: NDArray[np.str_],
        levels: NDArray[np.float32],
        seed: int,
    ) -> None:
        self.levels = levels
        self.experts = {}
        for subject in SUBJECTS:
            known = np.flatnonzero((kinds == "human") | (kinds == subject.spoofs))
            x = np.stack([crops[i][subject.features] for i in known])
            self.experts[subject] = Expert(x, kinds[known] == "human", seed)

    def __call__(self, audio: Audio) -> tuple[NDArray[np.float32], Features]:
        """[batch, samples] -> log odds of bona fide [batch], all scaled statistics [batch, n]."""
        found = [features(one, self.levels) for one in audio]
        odds = np.zeros(len(audio))
        scaled = []
        for subject, expert in self.experts.items():
            x = np.stack([one[subject.features] for one in found])
            odds += subject.weight * expert.log_odds(x)
            scaled.append(expert.scaled(x).clip(-6, 6))
        return (odds / TEMPERATURE).astype(np.float32), np.concatenate(scaled, 1).astype(np.float32)
