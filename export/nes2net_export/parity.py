"""Does the exported bundle compute what torch computes? Several lengths and batch sizes, stage by stage."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from nes2net_export.models.detector import Detector
from nes2net_runtime.audio import normalize
from nes2net_runtime.errors import ParityError
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.manifest import (
    Parity,
    ParityCase,
    Stage,
)
from nes2net_runtime.threads import usable_threads

BOUND = 1e-3
Array = NDArray[np.float32]


def parity_signals(window: int) -> list[Array]:
    """Fixed noise [batch, samples]: the shortest, odd lengths, the window; levels up to 40 dB apart."""
    random = np.random.default_rng(0)
    signals = []
    for batch, samples in ((1, 400), (1, 16_000), (2, 8_043), (3, 24_321), (1, window)):
        levels = 10.0 ** -random.uniform(0.5, 2.5, (batch, 1))
        signals.append((random.uniform(-1, 1, (batch, samples)) * levels).astype(np.float32))
    return signals


def check_parity(detector: Detector, folder: Path, stages: list[Stage], bound: float = BOUND) -> Parity:
    """Run torch and the ONNX stages in `folder` on the same signals.

    Raises ParityError, with the figures, where an error is past `bound` or not a number.
    """
    sessions = {s.name: cpu_session(folder / s.file, usable_threads()) for s in stages}
    config = detector.config
    cases = []
    for waveform in parity_signals(config.window_samples):
        if config.normalize_waveform:
            waveform = normalize(waveform)
        expected = torch_stages(detector, waveform)
        actual: dict[str, Array] = {}
        tensor = waveform
        for stage in stages:
            (tensor,) = sessions[stage.name].run(None, {stage.inputs[0].name: tensor})
            actual[stage.outputs[0].name] = tensor
        errors = {name: relative_error(actual[name], expected[name]) for name in actual}
        cases.append(
            ParityCase(
                batch=waveform.shape[0],
                samples=waveform.shape[1],
                frames=errors.get("frames"),
                features=errors.get("features"),
                logits=errors["logits"],
            )
        )
    worst = max(e for c in cases for e in (c.frames, c.features, c.logits) if e is not None)
    if not worst <= bound:
        bad = next(c for c in cases if worst in (c.frames, c.features, c.logits))
        raise ParityError(
            f"the ONNX stages differ from torch by {worst:.2e} relative (bound {bound:g}) at "
            f"batch {bad.batch}, {bad.samples} samples (frames {bad.frames}, features {bad.features}, "
            f"logits {bad.logits}); no bundle was written"
        )
    return Parity(bound=bound, worst=worst, cases=cases)


def torch_stages(detector: Detector, waveform: Array) -> dict[str, Array]:
    """frames, features and logits of the torch modules."""
    with torch.no_grad():
        frames = detector.encoder(torch.from_numpy(waveform))
        features = detector.context(frames)
        logits = detector.backend(features)
    return {"frames": frames.numpy(), "features": features.numpy(), "logits": logits.numpy()}


def relative_error(actual: Array, expected: Array) -> float:
    """max|a - b| / max(1, max|b|); infinite where a value is not finite."""
    if actual.shape != expected.shape or not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(actual - expected).max() / max(1.0, float(np.abs(expected).max())))
