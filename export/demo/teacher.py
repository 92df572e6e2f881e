"""The teacher: classifiers over a clip's statistics, for whole synthesis and for vocoded copies, added.

For each kind of spoof there are extremely randomised trees and a strongly regularised logistic regression;
their log odds are added. They are taught clips as they are: noise, rooms and codecs in their training took
more from them than they gave back through such channels. Networks of any kind, taught the same statistics
and labels, do worse on synthesisers that they have not heard.
"""

import numpy as np
from augment import Audio
from features import Features, features
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.linear_model import LogisticRegression

SHRINKAGE = 3e-4  # inverse strength of the regressions' penalty
SURE = 0.005  # the trees' probabilities stay this far from 0 and 1
TEMPERATURE = 2.0  # of the sum of log odds


class Classifier:
    """Trees and a regression on scaled statistics [clips, n]; labels: 1 is bona fide."""

    def __init__(self, x: Features, labels: NDArray[np.bool_], seed: int) -> None:
        self.trees = ExtraTreesClassifier(
            200, min_samples_leaf=3, class_weight="balanced", n_jobs=-1, random_state=seed
        ).fit(x, labels)
        self.trees.n_jobs = 1
        self.linear = LogisticRegression(C=SHRINKAGE, max_iter=300, class_weight="balanced").fit(x, labels)

    def log_odds(self, x: Features) -> NDArray[np.float64]:
        """Of bona fide [clips]."""
        p = self.trees.predict_proba(x)[:, 1].clip(SURE, 1 - SURE)
        odds: NDArray[np.float64] = np.log(p / (1 - p)) + self.linear.decision_function(x)
        return odds


class Teacher:
    """`kinds` says for each of the statistics [crops, n] what the crop is: human, tts or copy."""

    def __init__(
        self, statistics: Features, kinds: NDArray[np.str_], levels: NDArray[np.float32], seed: int
    ) -> None:
        self.levels = levels
        self.mean, self.deviation = statistics.mean(0), statistics.std(0) + 1e-6
        x = self.scaled(statistics)
        self.classifiers = []
        for spoof in ("tts", "copy"):
            known = (kinds == "human") | (kinds == spoof)
            self.classifiers.append(Classifier(x[known], kinds[known] == "human", seed))

    def scaled(self, x: Features) -> Features:
        return (x - self.mean) / self.deviation

    def __call__(self, audio: Audio) -> tuple[NDArray[np.float32], Features]:
        """[batch, samples] -> log odds of bona fide [batch], scaled statistics [batch, n]."""
        x = self.scaled(np.stack([features(one, self.levels) for one in audio]))
        odds = sum(classifier.log_odds(x) for classifier in self.classifiers) / TEMPERATURE
        return np.asarray(odds, np.float32), x.clip(-6, 6).astype(np.float32)
