"""A bounded buffer between a thread that must never wait (a sound device's) and one that may be slow."""

from collections import deque
from dataclasses import dataclass
from threading import Condition

import numpy as np

from nes2net_runtime.audio import Samples

OVERFLOW = "scoring is slower than the audio"


@dataclass(frozen=True)
class Lost:
    """Samples that are missing."""

    samples: int
    cause: str


class Ring:
    """Samples wait here for their reader; its memory is allocated once.

    Where the reader is slower than the audio the ring fills up. Then nothing more is taken until the reader
    has emptied it: one long gap, and long stretches between gaps, instead of many short ones.
    """

    def __init__(self, capacity: int) -> None:
        self._store: Samples = np.zeros(capacity, np.float32)
        self._written = self._read = 0  # samples, ever
        self._full = False
        self._gaps: deque[tuple[int, Lost]] = deque()  # after so many samples written
        self._changed = Condition()

    @property
    def waiting(self) -> int:
        """Samples that were written and not read yet."""
        return self._written - self._read

    def write(self, samples: Samples) -> None:
        """Copy samples in, or count them as lost. Never waits for the reader."""
        with self._changed:
            capacity = len(self._store)
            self._full = self._full and self.waiting > 0
            if self._full or self.waiting + len(samples) > capacity:
                self._full = True
                self._lose(Lost(len(samples), OVERFLOW))
                return
            at = self._written % capacity
            head = samples[: capacity - at]
            self._store[at : at + len(head)] = head
            self._store[: len(samples) - len(head)] = samples[len(head) :]
            self._written += len(samples)
            self._changed.notify()

    def lose(self, lost: Lost) -> None:
        """Some samples never came."""
        with self._changed:
            self._lose(lost)

    def read(self, count: int, timeout: float) -> Samples | Lost:
        """Wait for `count` samples, `timeout` seconds at most, and take so many or what is there.

        Before a gap they may be fewer; after them comes the gap.
        """
        with self._changed:
            self._changed.wait_for(lambda: self.waiting >= count or self._gaps, timeout)
            if self._gaps and self._gaps[0][0] == self._read:
                return self._gaps.popleft()[1]
            until = min(self._gaps[0][0] if self._gaps else self._written, self._read + count)
            indices = np.arange(self._read, until) % len(self._store)
            self._read = until
            return self._store[indices]

    def unread(self) -> int:
        """Samples that wait or were lost, and that no read has given."""
        with self._changed:
            return self.waiting + sum(lost.samples for _, lost in self._gaps)

    def _lose(self, lost: Lost) -> None:
        if self._gaps and self._gaps[-1][0] == self._written:
            _, before = self._gaps.pop()
            lost = Lost(before.samples + lost.samples, before.cause)
        self._gaps.append((self._written, lost))
        self._changed.notify()
