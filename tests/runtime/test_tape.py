"""The recent part of an endless signal."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nes2net_runtime.streaming.tape import Tape


@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 4000)), max_size=30))
def test_what_is_kept_is_what_was_appended(steps: list[tuple[int, int]]) -> None:
    """(rows to append, rows to keep), in any order."""
    tape, everything = Tape((2,)), np.zeros((0, 2), np.float32)
    for count, keep in steps:
        rows = np.arange(2 * len(everything), 2 * (len(everything) + count), dtype=np.float32).reshape(-1, 2)
        everything = np.concatenate([everything, rows])
        tape.append(rows)
        tape.forget(tape.end - keep)
        assert (tape.begin, tape.end) == (max(tape.begin, len(everything) - keep), len(everything))
        np.testing.assert_array_equal(tape[tape.begin : tape.end], everything[tape.begin :])


def test_it_goes_on_from_a_place_that_it_has_not_heard() -> None:
    tape = Tape()
    tape.append(np.ones(10, np.float32))
    tape.forget(50)
    assert (tape.begin, tape.end) == (50, 50)
    tape.append(np.arange(3, dtype=np.float32))
    np.testing.assert_array_equal(tape[51:53], [1, 2])


@pytest.mark.parametrize("span", [slice(0, 5), slice(8, 21)])
def test_what_is_not_there_is_an_error(span: slice) -> None:
    tape = Tape()
    tape.append(np.zeros(20, np.float32))
    tape.forget(6)
    with pytest.raises(IndexError):
        tape[span]


def test_memory_does_not_grow() -> None:
    tape = Tape()
    for _ in range(5000):
        tape.append(np.zeros(777, np.float32))
        tape.forget(tape.end - 64_600)
    assert tape._store.nbytes < 4 * 4 * 64_600
