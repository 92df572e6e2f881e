"""One segment rule: from labelled scores to its entry in the manifest, and what the report says of it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import numpy as np

from nes2net_calib.breakdown import Row, breakdown
from nes2net_calib.fit import Affine, fit_affine
from nes2net_calib.intervals import interval
from nes2net_calib.metrics import (
    Costs,
    Decisions,
    Scores,
    act_dcf,
    cllr,
    decisions,
    equal_error_rate,
    min_cllr,
    min_dcf,
)
from nes2net_calib.progress import Track, untracked
from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.scoring import LabelledScore
from nes2net_calib.thresholds import Choice, Target, threshold_of, why
from nes2net_runtime import manifest
from nes2net_runtime.errors import ProtocolError
from nes2net_runtime.manifest import (
    Calibration,
    CalibrationRule,
    Provenance,
)

MINIMUM = 50  # scores of each class
SPEAKERS = 5  # of bona fide trials
SHORTEST = 0.01  # share of the audio that may be shorter than what a calibration holds from

Interval = tuple[float, float]


class EvidenceError(ProtocolError):
    """Labelled audio that is too little for a calibration, or speaks against one."""


@dataclass(frozen=True)
class Group:
    """EER of one attack's or condition's spoofs against the bona fide trials they are held against."""

    by: str  # attack or condition
    name: str
    bonafide: int
    spoof: int
    eer: float
    eer_interval: Interval | None  # 95 %; None: all spoofs, or all bona fide trials, of one speaker


@dataclass(frozen=True)
class CalibratedRule:
    """A calibrated segment rule."""

    rule: CalibrationRule
    entry: Calibration  # as the manifest gets it
    bonafide: Scores  # as the detector gave them
    spoof: Scores
    eer_interval: Interval | None  # 95 %, over speakers
    least_cllr: float  # after the best increasing map, which no affine one can beat
    least_dcf: float  # with ASVspoof 5's costs, at the best threshold
    actual_dcf: float  # with the same, of the llrs at the costs' own threshold
    rates: Decisions  # at the threshold
    groups: tuple[Group, ...]

    @property
    def llr(self) -> Affine:
        """From scores to llrs."""
        return Affine(self.entry.slope, self.entry.offset)


def check_evidence(name: str, rule: CalibrationRule, trials: Sequence[Trial], choice: Choice) -> None:
    """Raise EvidenceError where these trials, one for each score, are too few to calibrate a rule."""
    unit = "windows" if rule == "windows" else "trials"
    bonafide = [trial for trial in trials if trial.bonafide]
    spoofs = len(trials) - len(bonafide)
    if min(len(bonafide), spoofs) < MINIMUM:
        raise EvidenceError(
            f"{name}: too small to calibrate {rule}: {len(bonafide)} bona fide and {spoofs} spoof {unit}; at "
            f"least {MINIMUM} of each are needed, since with fewer a single one moves an error rate by more "
            f"than {100 / MINIMUM:g} points"
        )
    speakers = {trial.speaker or trial.id for trial in bonafide}
    if len(speakers) < SPEAKERS:
        untold = " (a recording of nobody named counts as one)" * any(not trial.speaker for trial in bonafide)
        raise EvidenceError(
            f"{name}: too few speakers to calibrate {rule}: {len(speakers)} in the bona fide {unit}{untold}; "
            f"at least {SPEAKERS} are needed, since the scores of so few people say little about others'"
        )
    if isinstance(choice, Target):
        of, count = ("spoof", spoofs) if choice.error == "spoof accepted" else ("bona fide", len(bonafide))
        if count < choice.trials:
            raise EvidenceError(
                f"{name}: too small to show {choice} with {rule}: {count} {of} {unit}; {choice.trials} are "
                "needed, since without any error in n of them the rate may still be 3/n (95 % sure)"
            )


def calibrate_rule(
    rule: CalibrationRule,
    scored: Sequence[LabelledScore],
    protocol: Protocol,
    choice: Choice,
    prior: float,
    track: Track = untracked,
) -> CalibratedRule:
    """Fit the llr and choose the threshold; `prior` is the share of spoofs that p_spoof assumes.

    Raises EvidenceError where the scores are too few, or spoofs score no lower than bona fide trials.
    """
    trials = [one.trial for one in scored]
    check_evidence(protocol.name, rule, trials, choice)
    scores = np.array([one.score for one in scored])
    is_bonafide = np.array([trial.bonafide for trial in trials])
    bonafide, spoof = scores[is_bonafide], scores[~is_bonafide]
    eer = equal_error_rate(bonafide, spoof).rate
    fitted = fit_affine(bonafide, spoof)
    if fitted.slope <= 0:
        raise EvidenceError(
            f"{protocol.name}: spoofs score as high as bona fide trials or higher with {rule} (EER "
            f"{100 * eer:.1f} %): are the labels swapped, or is this detector not made for such audio?"
        )
    llrs = fitted.llr(bonafide), fitted.llr(spoof)
    threshold = threshold_of(choice, *llrs)
    speakers = {trial.speaker for trial in trials if trial.bonafide} - {None}
    entry = Calibration(
        slope=fitted.slope,
        offset=fitted.offset,
        prior_spoof=prior,
        threshold=threshold,
        chosen_by=why(choice),
        costs=manifest.Costs(**asdict(choice)) if isinstance(choice, Costs) else None,
        min_seconds=float(np.quantile([one.seconds for one in scored], SHORTEST, method="lower")),
        provenance=Provenance(
            protocol=protocol.name,
            sha256=protocol.sha256,
            split=protocol.split,
            bonafide=bonafide.size,
            spoof=spoof.size,
            speakers=len(speakers) or None,
            eer=eer,
            cllr_before=cllr(bonafide, spoof),
            cllr_after=cllr(*llrs),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        ),
    )
    rows = breakdown(is_bonafide, [trial.system for trial in trials], [trial.condition for trial in trials])
    advance = track(f"intervals of {rule}", 1 + len(rows))  # minutes, where many attacks have many trials
    whole = eer_interval(scores, trials, np.flatnonzero(is_bonafide), np.flatnonzero(~is_bonafide))
    advance(1)
    groups = []
    for row in rows:
        groups.append(_group(scores, trials, row))
        advance(1)
    return CalibratedRule(
        rule,
        entry,
        bonafide,
        spoof,
        whole,
        min_cllr(bonafide, spoof),
        min_dcf(bonafide, spoof).value,
        act_dcf(*llrs).value,
        decisions(*llrs, threshold),
        tuple(groups),
    )


def _group(scores: Scores, trials: Sequence[Trial], row: Row) -> Group:
    return Group(
        row.by,
        row.name,
        row.bonafide.size,
        row.spoof.size,
        equal_error_rate(scores[row.bonafide], scores[row.spoof]).rate,
        eer_interval(scores, trials, row.bonafide, row.spoof),
    )


def eer_interval(
    scores: Scores, trials: Sequence[Trial], bonafide: np.ndarray, spoof: np.ndarray
) -> Interval | None:
    """95 % interval of the EER over speakers, or over trials where they are not told; None: a single one."""
    humans, voices = ([trials[i].speaker or trials[i].id for i in chosen] for chosen in (bonafide, spoof))
    if min(len(set(humans)), len(set(voices))) < 2:
        return None
    return interval(scores[bonafide], scores[spoof], humans, voices, lambda *s: equal_error_rate(*s).rate)
