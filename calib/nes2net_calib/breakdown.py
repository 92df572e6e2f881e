"""Which trials are judged together: those of each attack, and those of each condition."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Row:
    """One attack or condition; indices count in the lists that `breakdown` was given."""

    by: Literal["attack", "condition"]
    name: str
    bonafide: Indices
    spoof: Indices
    own_bonafide: bool  # of this condition alone; else all there are


def breakdown(
    is_bonafide: ArrayLike, attacks: Sequence[str | None], conditions: Sequence[str | None]
) -> list[Row]:
    """Spoofs of each attack, then of each condition, by name, and the bona fide trials to hold them against.

    The lists say for each trial what it is. An attack is held against all bona fide trials; a condition
    against its own, or against all where it has none. What has no name or no spoofs makes no row.
    """
    labels = np.asarray(is_bonafide, bool)
    bonafide, spoof = np.flatnonzero(labels), np.flatnonzero(~labels)
    own = _by_name(conditions, bonafide)
    by_attack, by_condition = _by_name(attacks, spoof), _by_name(conditions, spoof)
    return [
        *(Row("attack", name, bonafide, by_attack[name], False) for name in sorted(by_attack)),
        *(
            Row("condition", name, own.get(name, bonafide), by_condition[name], name in own)
            for name in sorted(by_condition)
        ),
    ]


def _by_name(names: Sequence[str | None], trials: Indices) -> dict[str, Indices]:
    found: dict[str, list[int]] = defaultdict(list)
    for trial in trials:
        if (name := names[trial]) is not None:
            found[name].append(trial)
    return {name: np.array(members) for name, members in found.items()}
