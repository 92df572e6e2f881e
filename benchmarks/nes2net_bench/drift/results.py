"""A drift report: every candidate, segment rule and condition, scored and compared."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nes2net_bench.drift.curves import Curve, curve
from nes2net_bench.drift.measure import Comparison, System, calibration_of, compare, system_of
from nes2net_bench.drift.scores import Scoring, check_problems, score_list
from nes2net_calib.metrics import Scores
from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.score_cache import Heard
from nes2net_calib.scoring import Signal, seconds, signals
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import BundleError, ProtocolError
from nes2net_runtime.segments import SegmentRule


@dataclass(frozen=True)
class Listed:
    """The list that was scored."""

    name: str
    sha256: str
    split: str | None
    trials: int


@dataclass(frozen=True)
class DriftReport:
    """What `benchmarks/eer_drift.py` says."""

    protocol: Listed
    note: str | None  # why its figures prove little
    reference: System
    candidates: tuple[System, ...]
    provider: str  # that all ran on
    resamples: int  # draws of speakers behind each interval
    comparisons: tuple[Comparison, ...]
    det: tuple[Curve, ...]  # of the reference and of all candidates; curves.det_figure draws them


def drift_report(
    reference: Bundle,
    candidates: Sequence[Bundle],
    protocol: Protocol,
    rules: Sequence[SegmentRule],
    conditions: Sequence[str],
    how: Scoring,
    resamples: int,
    partial: bool,
    note: str | None = None,
) -> DriftReport:
    """Score the list by all bundles and compare. Raises ProtocolError, BundleError and ProviderError."""
    bundles = [reference, *candidates]
    check_names(bundles)
    length = functools.cache(seconds)
    comparisons: list[Comparison] = []
    curves: list[Curve] = []
    for rule in rules:
        window = reference.manifest.audio.window_samples
        wanted = signals(protocol.trials, rule, window, length)
        if not wanted:
            raise ProtocolError(
                f"{protocol.name}: no recording fills a window under {rule}, not even joined with others; "
                "leave that rule out"
            )
        for condition in conditions:
            heard: list[list[Heard | None]] = []
            problems: list[str] = []
            for bundle in bundles:
                own, wrong = score_list(bundle, wanted, rule, condition, how)
                heard.append(own)
                problems += wrong
            check_problems(f"{protocol.title}, {rule}", problems, partial, how.say)
            trials, scores = aligned(wanted, heard)
            found = _compared(bundles, rule, condition, protocol, trials, scores, how, resamples)
            comparisons += found
            bonafide = np.array([trial.bonafide for trial in trials])
            curves += [
                curve(bundle.manifest.name, rule, condition, own[bonafide], own[~bonafide])
                for bundle, own in zip(bundles, scores, strict=True)
            ]
    return DriftReport(
        protocol=Listed(protocol.name, protocol.sha256, protocol.split, len(protocol.trials)),
        note=note,
        reference=system_of(reference),
        candidates=tuple(map(system_of, candidates)),
        provider=how.provider,
        resamples=resamples,
        comparisons=tuple(comparisons),
        det=tuple(curves),
    )


def check_names(bundles: Sequence[Bundle]) -> None:
    """Raise BundleError where two bundles could be mixed up, or do not hear the same windows."""
    names = [bundle.manifest.name for bundle in bundles]
    for bundle, name in zip(bundles, names, strict=True):
        if names.count(name) > 1:
            raise BundleError(
                f"{bundle.path}: another bundle is called {name!r}, too; export it under its own"
            )
    lengths = {bundle.manifest.audio.window_samples for bundle in bundles}
    if len(lengths) > 1:
        raise BundleError(f"the bundles' windows have {sorted(lengths)} samples: their scores are no pairs")


def aligned(
    wanted: Sequence[Signal], heard: Sequence[Sequence[Heard | None]]
) -> tuple[list[Trial], list[Scores]]:
    """The trial of each score, and each bundle's scores; what one of them has no scores of is left out."""
    trials: list[Trial] = []
    scores: list[list[float]] = [[] for _ in heard]
    for signal, *each in zip(wanted, *heard, strict=True):
        found = [one for one in each if one is not None]
        if len(found) < len(each) or len({len(one.scores) for one in found}) > 1:
            continue
        trials += [signal[0]] * len(found[0].scores)
        for own, one in zip(scores, found, strict=True):
            own += one.scores
    return trials, [np.array(own) for own in scores]


def _compared(
    bundles: Sequence[Bundle],
    rule: SegmentRule,
    condition: str,
    protocol: Protocol,
    trials: Sequence[Trial],
    scores: Sequence[Scores],
    how: Scoring,
    resamples: int,
) -> list[Comparison]:
    labels = {trial.bonafide for trial in trials}
    if len(labels) < 2:
        raise ProtocolError(f"{protocol.title}: {rule} has scores of one class alone; both are compared")
    reference, *candidates = bundles
    advance = how.track(f"intervals: {rule}, {condition}", len(candidates))
    found = []
    for bundle, own in zip(candidates, scores[1:], strict=True):
        calibrations = calibration_of(reference, reference, rule), calibration_of(bundle, reference, rule)
        name = bundle.manifest.name
        found.append(compare(name, rule, condition, trials, (scores[0], own), calibrations, resamples))
        advance(1)
    return found
