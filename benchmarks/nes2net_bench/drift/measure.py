"""How far candidates are from a reference on labelled audio: metrics, scores and decisions.

Everything is paired: the same trials, the same draws of speakers. Llrs are by each bundle's own calibration;
a bundle derived from the reference that has none is judged by the reference's, as users of both would.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr, spearmanr

from nes2net_bench.drift.intervals import Paired, Trials, paired
from nes2net_calib.breakdown import breakdown
from nes2net_calib.fit import Affine
from nes2net_calib.intervals import Statistic
from nes2net_calib.metrics import Scores, act_dcf, cllr, equal_error_rate, min_cllr, min_dcf
from nes2net_calib.protocols import Trial
from nes2net_runtime.bundle import MANIFEST, Bundle, sha256
from nes2net_runtime.manifest import Calibration
from nes2net_runtime.segments import SegmentRule


@dataclass(frozen=True)
class Flips:
    """Decisions that the candidate makes otherwise, each by its calibrated threshold."""

    share: float  # of all
    bonafide_lost: int  # bona fide, accepted before, rejected now
    bonafide_won: int
    spoof_lost: int  # spoof, rejected before, accepted now
    spoof_won: int


@dataclass(frozen=True)
class ScoreChange:
    """The candidate's scores beside the reference's, trial by trial."""

    mean_absolute: float  # of the difference
    mean_absolute_deviations: float  # the same, in standard deviations of the reference's scores
    largest: float
    pearson: float | None  # None: all scores of a detector are the same
    spearman: float | None
    flips: Flips | None  # None: not calibrated for this rule


@dataclass(frozen=True)
class Group:
    """EER of one attack's or condition's spoofs, against the bona fide trials they are held against."""

    by: str  # attack, or condition as the list names it
    name: str
    bonafide: int
    spoof: int
    eer: Paired


@dataclass(frozen=True)
class Comparison:
    """A candidate beside the reference, for one segment rule and one condition of the audio."""

    candidate: str
    rule: SegmentRule
    condition: str
    bonafide: int  # scores; under `windows` one a window
    spoof: int
    bonafide_speakers: int
    spoof_speakers: int  # the voices that spoofs have
    calibrated: bool  # else act_dcf and cllr are missing
    metrics: dict[str, Paired]  # eer, min_dcf, min_cllr, act_dcf, cllr
    scores: ScoreChange
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class System:
    """A bundle that took part."""

    name: str
    precision: str
    manifest_sha256: str
    bytes: int  # of all its files


def system_of(bundle: Bundle) -> System:
    """What a report says of a bundle."""
    manifest = bundle.manifest
    size = sum(file.bytes for file in manifest.files)
    return System(manifest.name, manifest.precision, sha256(bundle.path / MANIFEST), size)


def calibration_of(bundle: Bundle, reference: Bundle, rule: SegmentRule) -> Calibration | None:
    """A bundle's own calibration, or the reference's where it is the same detector."""
    own = (bundle.manifest.calibration or {}).get(rule)
    same = bundle.manifest.source == reference.manifest.source
    return own or ((reference.manifest.calibration or {}).get(rule) if same else None)


def compare(
    candidate: str,
    rule: SegmentRule,
    condition: str,
    trials: Sequence[Trial],
    scores: tuple[Scores, Scores],
    calibrations: tuple[Calibration | None, Calibration | None],
    resamples: int,
) -> Comparison:
    """Compare scores of the reference and of the candidate, one for each of `trials`.

    Raises ValueError where a class has none.
    """
    reference, other = scores
    bonafide = np.array([trial.bonafide for trial in trials])
    heard = Trials(bonafide, np.array([trial.speaker or trial.id for trial in trials]))
    eer = {"eer": (_eer, _eer)}
    statistics: dict[str, tuple[Statistic, Statistic]] = {
        **eer,
        "min_dcf": (_min_dcf, _min_dcf),
        "min_cllr": (min_cllr, min_cllr),
    }
    maps = [None if c is None else Affine(c.slope, c.offset) for c in calibrations]
    if maps[0] is not None and maps[1] is not None:
        for name, metric in (("act_dcf", _act_dcf), ("cllr", cllr)):
            statistics[name] = (_of_llrs(metric, maps[0]), _of_llrs(metric, maps[1]))
    rows = breakdown(bonafide, [trial.system for trial in trials], [trial.condition for trial in trials])
    groups = []
    for row in rows:
        chosen = np.concatenate([row.bonafide, row.spoof])
        found = paired(heard.of(chosen), reference[chosen], other[chosen], eer, resamples)["eer"]
        groups.append(Group(row.by, row.name, row.bonafide.size, row.spoof.size, found))
    return Comparison(
        candidate=candidate,
        rule=rule,
        condition=condition,
        bonafide=int(bonafide.sum()),
        spoof=int((~bonafide).sum()),
        bonafide_speakers=np.unique(heard.speakers[bonafide]).size,
        spoof_speakers=np.unique(heard.speakers[~bonafide]).size,
        calibrated="cllr" in statistics,
        metrics=paired(heard, reference, other, statistics, resamples),
        scores=score_change(bonafide, reference, other, calibrations),
        groups=tuple(groups),
    )


def score_change(
    bonafide: np.ndarray,
    reference: Scores,
    other: Scores,
    calibrations: tuple[Calibration | None, Calibration | None],
) -> ScoreChange:
    """Differences of scores, and decisions that are others; each detector decides by its own calibration."""
    difference, spread = np.abs(other - reference), reference.std()
    constant = spread == 0 or other.std() == 0
    before, after = calibrations
    flips = None
    if before is not None and after is not None:
        accepted, now = (
            calibration.slope * scores + calibration.offset >= calibration.threshold
            for scores, calibration in ((reference, before), (other, after))
        )
        flips = Flips(
            share=float((accepted != now).mean()),
            bonafide_lost=int((bonafide & accepted & ~now).sum()),
            bonafide_won=int((bonafide & ~accepted & now).sum()),
            spoof_lost=int((~bonafide & ~accepted & now).sum()),
            spoof_won=int((~bonafide & accepted & ~now).sum()),
        )
    return ScoreChange(
        mean_absolute=float(difference.mean()),
        mean_absolute_deviations=float(difference.mean() / spread) if spread else 0.0,
        largest=float(difference.max()),
        pearson=None if constant else float(pearsonr(reference, other).statistic),
        spearman=None if constant else float(spearmanr(reference, other).statistic),
        flips=flips,
    )


def _eer(bonafide: Scores, spoof: Scores) -> float:
    return equal_error_rate(bonafide, spoof).rate


def _min_dcf(bonafide: Scores, spoof: Scores) -> float:
    return min_dcf(bonafide, spoof).value


def _act_dcf(bonafide_llr: Scores, spoof_llr: Scores) -> float:
    return act_dcf(bonafide_llr, spoof_llr).value


def _of_llrs(metric: Statistic, to_llr: Affine) -> Statistic:
    return lambda bonafide, spoof: metric(to_llr.llr(bonafide), to_llr.llr(spoof))


METRICS: Mapping[str, str] = {
    "eer": "EER, %",
    "min_dcf": "minDCF",
    "act_dcf": "actDCF",
    "min_cllr": "least Cllr, bits",
    "cllr": "Cllr, bits",
}
