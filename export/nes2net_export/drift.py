"""How far a derived bundle's scores are from its float32 parent's: measured before it is written."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from nes2net_export.onnx_files import save
from nes2net_export.probe import Probe
from nes2net_runtime.audio import Samples, normalize
from nes2net_runtime.errors import ParityError
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.manifest import Calibration, Drift, Manifest, Precision, StageName
from nes2net_runtime.threads import usable_threads

Scores = NDArray[np.float64]
Models = Mapping[StageName, onnx.ModelProto]

# Of the mean |difference| in standard deviations of the parent's scores.
BOUNDS: dict[Precision, float] = {"fp16": 0.02, "bf16": 0.02, "int8": 0.1, "int4": 0.3}
MOST_FLIPS = 0.005  # of labelled decisions: beyond, the parent's calibration does not hold any more


def score_windows(
    manifest: Manifest,
    graphs: Sequence[Path],
    windows: Sequence[Samples],
    advance: Callable[[float], None] = lambda share: None,
) -> Scores:
    """Bona fide logits of windows [samples], by the graphs of a bundle's stages in order; one at a time."""
    sessions = [cpu_session(graph, usable_threads()) for graph in graphs]
    scores = np.empty(len(windows))
    for i, window in enumerate(windows):
        tensor = window[None]
        if manifest.audio.normalize == "per-window":
            tensor = normalize(tensor)
        for stage, session in zip(manifest.stages, sessions, strict=True):
            (tensor,) = session.run(None, {stage.inputs[0].name: tensor})
        scores[i] = tensor[0, manifest.score.bonafide_logit]
        advance((i + 1) / len(windows))
    return scores


def score_models(
    manifest: Manifest,
    models: Models,
    windows: Sequence[Samples],
    advance: Callable[[float], None] = lambda share: None,
) -> Scores:
    """The same by graphs that are not in files yet."""
    with tempfile.TemporaryDirectory() as scratch:
        graphs = [Path(scratch) / f"{stage.name}.onnx" for stage in manifest.stages]
        for stage, graph in zip(manifest.stages, graphs, strict=True):
            save(models[stage.name], graph)
        return score_windows(manifest, graphs, windows, advance)


def mean_drift(before: Scores, after: Scores) -> float:
    """Mean |difference| in standard deviations of `before`; infinite where a score is not finite."""
    if not np.isfinite(after).all():
        return float("inf")
    return float(np.abs(after - before).mean() / before.std())


def compare(
    manifest: Manifest,
    parent_sha256: str,
    probe: Probe,
    before: Scores,
    after: Scores,
    bound: float | None,
    float32_nodes: Sequence[str] = (),
) -> Drift:
    """Drift from scores of `probe.compare` by the parent and by the derived bundle.

    Raises ParityError, with the figures, where the mean is past `bound` or a score is not finite.
    """
    mean = mean_drift(before, after)
    if not mean <= (np.finfo(float).max if bound is None else bound):
        raise ParityError(
            f"scores differ from the float32 parent's by {mean:.3g} of their standard deviation on average "
            f"(bound {bound}) on {len(before)} windows of {probe.audio}; no bundle was written"
        )
    calibration = (manifest.calibration or {}).get("windows")
    flips = eer = cllr = None
    if calibration is not None:
        accepted_before, accepted_after = (
            _llrs(s, calibration) >= calibration.threshold for s in (before, after)
        )
        flips = float((accepted_before != accepted_after).mean())
    if probe.bonafide is not None:
        eer = _eer(before, probe.bonafide), _eer(after, probe.bonafide)
        if calibration is not None:
            cllr = _cllr(before, probe.bonafide, calibration), _cllr(after, probe.bonafide, calibration)
    return Drift(
        parent=parent_sha256,
        audio=probe.audio,
        windows=len(before),
        bound=bound,
        mean=mean,
        largest=float(np.abs(after - before).max() / before.std()),
        correlation=float(np.corrcoef(_ranks(before), _ranks(after))[0, 1]),
        flips=flips,
        eer=eer,
        cllr=cllr,
        float32_nodes=sorted(float32_nodes),
    )


def keeps_calibration(drift: Drift) -> bool:
    """Whether labelled audio showed that the parent's calibration holds."""
    labelled = drift.eer is not None and drift.windows >= 1 / MOST_FLIPS  # fewer can't show it
    return labelled and drift.flips is not None and drift.flips <= MOST_FLIPS


def _llrs(scores: Scores, calibration: Calibration) -> Scores:
    return calibration.slope * scores + calibration.offset


def _ranks(values: Scores) -> Scores:
    return np.argsort(np.argsort(values)).astype(float)


# Only labelled audio needs nes2net_calib's metrics, and scikit-learn.


def _eer(scores: Scores, bonafide: Sequence[bool]) -> float:
    from nes2net_calib.metrics import equal_error_rate

    human = np.array(bonafide)
    return equal_error_rate(scores[human], scores[~human]).rate


def _cllr(scores: Scores, bonafide: Sequence[bool], calibration: Calibration) -> float:
    from nes2net_calib.metrics import cllr

    human, llrs = np.array(bonafide), _llrs(scores, calibration)
    return cllr(llrs[human], llrs[~human])
