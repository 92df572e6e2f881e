"""From scores to decisions: log-likelihood ratio, probability of spoof, label.

The llr says how much likelier the audio is from a human than from a machine, whatever the share of spoofs. A
probability needs that share, the calibration's prior_spoof; Bayes' rule joins the two:

    llr     = slope * score + offset = ln p(audio | bona fide) / p(audio | spoof)
    p_spoof = 1 / (1 + exp(llr + ln((1 - prior_spoof) / prior_spoof)))
    label   = bonafide where llr >= threshold, else spoof
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, log1p
from typing import Literal, get_args

from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.manifest import (
    Calibration,
    Manifest,
)
from nes2net_runtime.segments import SegmentRule

CALIBRATE = "nes2net-calib BUNDLE --protocol FILE makes a calibration"
Label = Literal["bonafide", "spoof"]


@dataclass(frozen=True)
class Decision:
    """What a calibrated score says."""

    llr: float
    p_spoof: float  # 0 to 1
    label: Label


def decide(score: float, calibration: Calibration) -> Decision:
    """The decision on a score, or on the mean of several: the mean of their llrs is the llr of their mean."""
    return decide_llr(calibration.slope * score + calibration.offset, calibration)


def decide_llr(llr: float, calibration: Calibration) -> Decision:
    """The decision on an llr, with the calibration's prior and threshold."""
    log_odds = llr + log1p(-calibration.prior_spoof) - log(calibration.prior_spoof)  # of bona fide
    tail = exp(-abs(log_odds))  # the smaller of the two odds: never overflows
    p_spoof = (tail if log_odds > 0 else 1.0) / (1.0 + tail)
    return Decision(llr, p_spoof, "bonafide" if llr >= calibration.threshold else "spoof")


def usable_calibrations(
    manifest: Manifest, rule: SegmentRule, window_samples: int
) -> dict[SegmentRule, Calibration]:
    """The calibrations that audio cut by `rule` may have: the rule's own, and for `windows` also `first`'s.

    Audio shorter than a window is one repeated window, which is what `first` hears. Windows of another length
    than the bundle's have none.
    """
    if rule != "full" and window_samples != manifest.audio.window_samples:
        return {}
    rules = {rule, "first"} if rule == "windows" else {rule}
    entries = manifest.calibration or {}
    return {name: entries[name] for name in get_args(SegmentRule) if name in rules and name in entries}


def pick_calibration(
    usable: Mapping[SegmentRule, Calibration],
    rule: SegmentRule,
    window_samples: int,
    seconds: float,
    warnings: list[str],
) -> Calibration | None:
    """The one for audio of which `seconds` were heard; None, with a warning, where it is too short."""
    window = window_samples / SAMPLE_RATE
    hears: SegmentRule = "first" if rule == "windows" and seconds < window else rule
    calibration = usable.get(hears)
    if calibration is None:
        if usable and hears != rule:
            warnings.append("shorter than a window, and not calibrated for --segment first: no label")
        return None
    needed = min(calibration.min_seconds, window) if hears == "first" else calibration.min_seconds
    if seconds < needed:
        warnings.append(
            f"shorter than the {needed:.2f} s that the calibration holds from: a score, but no label"
        )
        return None
    return calibration
