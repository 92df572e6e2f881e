"""The recent part of a signal that has no end, addressed by absolute positions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]


class Tape:
    """Rows [begin, end) of an endless float32 array: append at the end, forget at the beginning.

    Appending moves each row at most once more on average, so a row costs O(1); memory is that of the longest
    span kept, twice.
    """

    def __init__(self, row_shape: Sequence[int] = (), begin: int = 0) -> None:
        self._store: Rows = np.empty((1024, *row_shape), np.float32)
        self._first = 0  # where row `begin` is in the store
        self.begin = self.end = begin

    def append(self, rows: Rows) -> None:
        """Add rows at the end."""
        kept = self.end - self.begin
        if self._first + kept + len(rows) > len(self._store):
            live = self._store[self._first : self._first + kept]
            if 2 * (kept + len(rows)) > len(self._store):
                self._store = np.empty((2 * (kept + len(rows)), *live.shape[1:]), np.float32)
            self._store[:kept] = live.copy()
            self._first = 0
        at = self._first + kept
        self._store[at : at + len(rows)] = rows
        self.end += len(rows)

    def forget(self, position: int) -> None:
        """Drop what is before `position`; beyond the end, the tape goes on from there, empty."""
        if position >= self.end:
            self._first, self.begin, self.end = 0, position, position
        elif position > self.begin:
            self._first += position - self.begin
            self.begin = position

    def __getitem__(self, span: slice) -> Rows:
        """Rows [start, stop), a view that holds until the next append."""
        start = self._first + span.start - self.begin
        if span.start < self.begin or span.stop > self.end:
            raise IndexError(f"[{span.start}, {span.stop}) is not in [{self.begin}, {self.end})")
        return self._store[start : start + span.stop - span.start]
