"""The llr from which a trial is taken for bona fide: by equal error rates, by costs, or by a target."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from nes2net_calib.metrics import Costs, Scores, equal_error_rate


@dataclass(frozen=True)
class Target:
    """An error rate that is not to be passed, by the trials at hand."""

    error: Literal["spoof accepted", "bona fide rejected"]
    rate: float  # between 0 and 1

    def __str__(self) -> str:
        return f"{self.error} at most {100 * self.rate:g} %"

    @property
    def trials(self) -> int:
        """How many trials of its class show such a rate: without an error in n, it is under 3/n (95 %)."""
        return ceil(3 / self.rate - 1e-9)


Choice = Literal["eer"] | Costs | Target


def threshold_of(choice: Choice, bonafide_llr: Scores, spoof_llr: Scores) -> float:
    """The threshold on llrs that the choice makes on these."""
    if choice == "eer":
        return equal_error_rate(bonafide_llr, spoof_llr).threshold
    if isinstance(choice, Costs):
        return choice.threshold
    llrs = np.unique(np.concatenate([bonafide_llr, spoof_llr]))
    if choice.error == "spoof accepted":  # above the first spoof too many, counted from the top
        over = np.searchsorted(llrs, np.sort(spoof_llr)[-1 - _allowed(choice, spoof_llr)], "right")
    else:  # below the first bona fide trial too many, counted from the bottom
        over = np.searchsorted(llrs, np.sort(bonafide_llr)[_allowed(choice, bonafide_llr)])
    neighbours = np.concatenate([llrs[:1], llrs, llrs[-1:] + 1])[over : over + 2]
    return float(neighbours.mean())


def why(choice: Choice) -> str:
    """How the threshold was chosen, in words."""
    match choice:
        case "eer":
            return "equal error rates"
        case Costs():
            return "least expected cost"
        case Target():
            return str(choice)


def _allowed(target: Target, llrs: Scores) -> int:
    return min(int(target.rate * llrs.size + 1e-9), llrs.size - 1)
