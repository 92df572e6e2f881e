"""A bundle's stages, loaded: scores of waveforms, and of the encoder's frames; the receipt."""

import time
from collections.abc import Sequence
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from nes2net_runtime.audio import Samples, normalize
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.loaded import Loaded
from nes2net_runtime.inference.opening import open_auto, open_stages
from nes2net_runtime.inference.pipeline import Frames
from nes2net_runtime.inference.providers import Provider, import_onnxruntime
from nes2net_runtime.inference.receipt import Receipt
from nes2net_runtime.threads import usable_threads


class Stages:
    """The loaded stages; scoring is thread-safe."""

    def __init__(
        self,
        bundle: Bundle,
        provider: Provider = "auto",
        threads: int | None = None,
        rebuild: bool = False,
    ) -> None:
        """Verify the hashes of the stages' files and open them; `rebuild`: build engines here, and keep them.

        Raises BundleError, and ProviderError for a provider that is not there, that ONNX Runtime replaced, or
        that has no engine which fits.
        """
        start = time.perf_counter()
        self.threads = threads or usable_threads()
        self.bundle = bundle
        self._asked = provider
        self._loaded = open_stages(bundle, provider, self.threads, rebuild)
        self._spare: Loaded | None = None  # of `auto`, for shapes that the engines do not take
        self._lock = Lock()
        self.load_seconds = time.perf_counter() - start

    @property
    def _by_window(self) -> bool:
        """Whether a graph may find a scale for all windows of a batch; engines have fixed ones."""
        return self._loaded.limits is None and self.bundle.manifest.precision in ("int8", "int4")

    @property
    def provider(self) -> str:
        """What runs the stages: cpu, cuda, …"""
        return self._loaded.provider

    @property
    def passed_over(self) -> Sequence[str]:
        """Engines and providers that `auto` did not take, and why."""
        return self._loaded.passed_over

    @property
    def largest_batch(self) -> int | None:
        """Windows that engines take at once; None: any number."""
        return None if self._loaded.limits is None else self._loaded.limits.batch[1]

    @property
    def frames_reusable(self) -> bool:
        """Whether `encode`, `join` and `score_frames` may share frames among windows."""
        return len(self.bundle.manifest.stages) > 1 and self.bundle.manifest.audio.frames_reusable

    def takes(self, samples: int, batch: int = 1) -> bool:
        """Whether the stages take such waveforms: engines have limits."""
        return self._loaded.limits is None or self._loaded.limits.take(batch, samples)

    def score(self, waveforms: Samples) -> NDArray[np.float32]:
        """[batch, samples] -> bona fide logits [batch]; normalised first where the bundle says so."""
        if self.bundle.manifest.audio.normalize == "per-window":
            waveforms = normalize(waveforms)
        return self.run(waveforms)[:, self.bundle.manifest.score.bonafide_logit]

    def encode(self, waveform: Samples) -> Frames:
        """[samples] -> the encoder's frames, where the stages run; frame i sees 400 samples from 320 i on."""
        return self._loaded.pipeline.frames(waveform[None])

    def join(self, kept: Frames, new: Frames) -> Frames:
        """Frames of a later window: `kept` without as many at its beginning as `new` adds at its end."""
        return self._loaded.pipeline.join(kept, new)

    def score_frames(self, frames: Frames) -> float:
        """The bona fide logit of a window, from its frames."""
        logits = self._loaded.pipeline.logits_of(frames)
        return float(logits[0, self.bundle.manifest.score.bonafide_logit])

    def run(self, waveforms: Samples) -> NDArray[np.float32]:
        """Run all stages, [batch, samples] -> logits [batch, logits].

        Raises ProviderError for a shape that engines do not take; under `auto` the ONNX graphs do it.
        """
        batch, samples = waveforms.shape
        if batch > 1 and self._by_window:
            return np.concatenate([self.run(waveforms[i : i + 1]) for i in range(batch)])
        if self.takes(samples, batch):
            return self._loaded.pipeline.logits(waveforms)
        if self._asked != "auto":
            raise ProviderError(
                f"provider {self.provider}: the engines take {self._loaded.limits}, not {batch} of "
                f"{samples:,}; ask for another --segment, --window-samples or --batch-size, or for "
                "--provider cuda, or build engines for more: nes2net-export --from BUNDLE --to trt"
            )
        with self._lock:
            if self._spare is None:
                self._spare = open_auto(self.bundle, self.threads, engines=False)
        return self._spare.pipeline.logits(waveforms)

    def receipt(self) -> Receipt:
        """What runs each stage."""
        loaded, runtime = self._loaded, str(import_onnxruntime().__version__)
        passed = [*loaded.passed_over]
        if self._spare is not None:
            passed.append(f"{loaded.provider} for shapes that engines do not take: {self._spare.provider}")
        return Receipt(
            bundle=self.bundle.manifest.name,
            provider=self.provider,
            stages=loaded.stages,
            threads=self.threads,
            load_seconds=round(self.load_seconds, 3),
            onnxruntime=runtime,
            passed_over=passed,
            tuned=loaded.tuned,
        )
