"""The buffer between a sound device's thread and a reader that may be slow."""

import threading
import time
import tracemalloc

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_runtime.streaming.ring import Lost, Ring

# What one side or the other does next; sizes around the capacities below.
WRITES = st.tuples(st.just("write"), st.integers(0, 70))
LOSSES = st.tuples(st.just("lose"), st.integers(1, 100))
READS = st.tuples(st.just("read"), st.integers(1, 70))
ALL = 1 << 30  # more than there ever is


class Clock:
    """The true time line: each sample's value is its own position in it, lost samples count as well."""

    def __init__(self) -> None:
        self.offered = self.heard = 0  # positions: of the writer, of the reader
        self.read = self.lost = 0

    def samples(self, count: int) -> np.ndarray:
        """The next samples to write."""
        self.offered += count
        return np.arange(self.offered - count, self.offered, dtype=np.float32)

    def check(self, piece: np.ndarray | Lost) -> None:
        """A piece that was read begins where the one before ended, and nothing in it is changed."""
        if isinstance(piece, Lost):
            self.heard += piece.samples
            self.lost += piece.samples
        else:
            assert piece.tolist() == list(range(self.heard, self.heard + len(piece)))
            self.heard += len(piece)
            self.read += len(piece)


def drain(ring: Ring, clock: Clock) -> None:
    """Read all that is there."""
    while isinstance(piece := ring.read(ALL, 0), Lost) or len(piece):
        clock.check(piece)


@settings(deadline=None)  # a busy machine is no failure
@given(capacity=st.integers(1, 64), steps=st.lists(st.one_of(WRITES, LOSSES, READS), max_size=80))
def test_whatever_happens_the_reader_gets_the_true_time_line(
    capacity: int, steps: list[tuple[str, int]]
) -> None:
    """Samples in order, unchanged, none twice; gaps where they were, as long as they were."""
    ring, clock, told = Ring(capacity), Clock(), 0
    for step, count in steps:
        before = ring.waiting
        if step == "write":
            ring.write(clock.samples(count))
            assert ring.waiting in (before, before + count)
        elif step == "lose":
            clock.offered += count
            told += count
            ring.lose(Lost(count, "unplugged"))
            assert ring.waiting == before
        else:
            piece = ring.read(count, 0)
            clock.check(piece)
            assert isinstance(piece, Lost) or len(piece) <= count
        assert 0 <= ring.waiting <= capacity
        assert ring.unread() == clock.offered - clock.heard
    drain(ring, clock)
    assert clock.heard == clock.offered == clock.read + clock.lost
    assert clock.lost >= told


@settings(deadline=None)
@given(capacity=st.integers(4, 64), sizes=st.lists(st.integers(1, 64), min_size=1, max_size=60))
def test_after_an_overflow_nothing_is_taken_until_the_reader_has_emptied_it(
    capacity: int, sizes: list[int]
) -> None:
    """One gap, however many writes it swallows; then the ring is as good as new."""
    ring, clock = Ring(capacity), Clock()
    sizes = [min(size, capacity) for size in sizes]
    ring.write(clock.samples(capacity))
    for size in sizes:
        ring.write(clock.samples(size))
        assert ring.waiting == capacity
    clock.check(ring.read(ALL, 0))
    gap = ring.read(ALL, 0)
    assert isinstance(gap, Lost) and gap.samples == sum(sizes)
    assert gap.cause == "scoring is slower than the audio"
    clock.check(gap)
    ring.write(clock.samples(capacity))  # taken
    clock.check(ring.read(ALL, 0))
    assert clock.heard == clock.offered and clock.lost == sum(sizes)


def test_a_reader_that_is_half_way_through_does_not_open_the_ring() -> None:
    """What comes before a gap is taken first; while some of it waits, writes go on to be lost."""
    ring, clock = Ring(100), Clock()
    ring.write(clock.samples(40))
    clock.offered += 7
    ring.lose(Lost(7, "unplugged"))
    ring.write(clock.samples(60))
    ring.write(clock.samples(1))  # too much
    clock.check(ring.read(ALL, 0))
    clock.check(ring.read(ALL, 0))
    assert clock.heard == 47 and ring.waiting == 60
    ring.write(clock.samples(10))  # there would be room
    assert ring.waiting == 60
    drain(ring, clock)
    assert (clock.read, clock.lost) == (100, 18)
    ring.write(clock.samples(10))
    assert ring.waiting == 10


def test_gaps_that_meet_are_one_with_the_cause_of_the_first() -> None:
    ring = Ring(10)
    ring.lose(Lost(3, "unplugged"))
    ring.lose(Lost(4, "the sound system lost audio"))
    ring.write(np.zeros(11, np.float32))
    assert ring.read(ALL, 0) == Lost(18, "unplugged")
    assert len(ring.read(ALL, 0)) == 0


def test_what_was_read_stays_as_it_is() -> None:
    """A writer that goes on, or uses its own buffer again, changes nothing that was given out."""
    ring = Ring(100)
    block = np.ones(100, np.float32)
    ring.write(block)
    block[:] = 2
    taken = ring.read(100, 0)
    ring.write(block)
    assert (taken == 1).all()
    assert (ring.read(100, 0) == 2).all()


def test_a_reader_waits_for_as_much_as_it_asks_for() -> None:
    ring, clock = Ring(1_000), Clock()

    def write() -> None:
        for _ in range(10):
            time.sleep(0.005)
            ring.write(clock.samples(30))

    writer = threading.Thread(target=write)
    writer.start()
    piece = ring.read(200, 60)
    assert not isinstance(piece, Lost) and len(piece) == 200
    writer.join()
    clock.check(piece)
    drain(ring, clock)
    assert clock.read == 300


def test_a_reader_waits_no_longer_than_it_says_and_takes_what_is_there() -> None:
    ring = Ring(100)
    ring.write(np.ones(5, np.float32))
    start = time.monotonic()
    piece = ring.read(50, 0.1)
    assert time.monotonic() - start >= 0.1
    assert not isinstance(piece, Lost) and len(piece) == 5


def test_a_gap_wakes_the_reader() -> None:
    ring = Ring(100)
    writer = threading.Timer(0.05, ring.lose, [Lost(9, "unplugged")])
    writer.start()
    assert ring.read(50, 60) == Lost(9, "unplugged")
    writer.join()


def test_two_threads_that_know_nothing_of_each_other() -> None:
    """A writer that never waits, and a reader that is too slow at first."""
    ring, clock = Ring(500), Clock()
    ended = threading.Event()

    def write() -> None:
        for i in range(3_000):
            ring.write(clock.samples(i % 90))
            if i % 200 == 0:
                clock.offered += 50
                ring.lose(Lost(50, "unplugged"))
            if i % 10 == 0:
                time.sleep(0.0005)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(0.1)
    while not ended.is_set():
        clock.check(ring.read(100, 0.01))
    writer.join()
    drain(ring, clock)
    assert clock.heard == clock.offered == clock.read + clock.lost
    assert clock.read > 0 and clock.lost >= 15 * 50


def test_memory_is_that_of_the_capacity_whatever_the_reader_does() -> None:
    """Ten minutes at 16 kHz with a reader, and ten more without one."""
    block = np.ones(320, np.float32)
    ring = Ring(16_000)
    tracemalloc.start()
    for i in range(30_000):
        ring.write(block)
        if i % 10 == 0:
            ring.read(ALL, 0)
    ring.read(ALL, 0)
    peak = tracemalloc.get_traced_memory()[1]
    for _ in range(30_000):
        ring.write(block)
    kept, later = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 500_000 and later < 500_000  # the audio itself is 77 MB
    assert kept < 10_000  # beside the store, which was there before
    assert len(ring.read(ALL, 0)) == 16_000
    assert ring.read(ALL, 0) == Lost(30_000 * 320 - 16_000, "scoring is slower than the audio")
