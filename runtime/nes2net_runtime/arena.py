"""A model for the benchmark harness speech-spoof-bench (github.com/lab260ru/speech_spoof_bench):

    NES2NET_BUNDLE=big speech-spoof-bench run --model-module nes2net_runtime.arena:Nes2Net --datasets …

Its runner takes any class of this shape, so the harness is not needed here. Without NES2NET_BUNDLE the demo
detector is scored.
"""

import os
from collections.abc import Sequence

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.detector import Detector
from nes2net_runtime.errors import BundleError

BUNDLE = "NES2NET_BUNDLE"


class Nes2Net:
    """Scores by the papers' protocol: the bona fide logit of the first window, higher = more human."""

    name = "Nes2Net"  # with the bundle's name once it is loaded
    expected_sample_rate = SAMPLE_RATE  # other rates are resampled
    batch_size = 8

    def __init__(self) -> None:
        self._detector: Detector | None = None

    def load(self) -> None:
        """Open the bundle; raises BundleError and ProviderError."""
        bundle = os.environ.get(BUNDLE)
        try:
            self._detector = Detector(bundle or None)
        except BundleError as error:
            raise BundleError(f"{BUNDLE}={bundle}: {error}" if bundle else str(error)) from error
        self.name = f"Nes2Net ({self._detector.bundle.manifest.name})"

    def score_batch(self, audios: Sequence[Samples], srs: Sequence[int]) -> list[float]:
        """A score for each waveform (1-D floats), one by one: no score depends on its batch.

        Raises AudioError for a waveform that can't be scored; the harness then tries each alone.
        """
        if self._detector is None:
            raise RuntimeError("Nes2Net: load() comes before score_batch()")
        return [
            self._detector.score(audio, rate, "first")[0].score
            for audio, rate in zip(audios, srs, strict=True)
        ]

    def unload(self) -> None:
        """Close the bundle and free its memory."""
        self._detector = None
