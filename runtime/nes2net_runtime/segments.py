"""Which pieces of a signal are scored: the official first window, the whole, or windows on the frame grid.

A frame sees 400 samples and starts every 320. Window starts are multiples of 320, so that frame i is samples
[320 i, 320 i + 400) whichever window it is in:

    signal   |----------------------------------------------|
    windows  |==============|                                 start 0
                    |==============|                          start hop
                            |==============|                  start 2 hop
                                           |==============|   tail, end-aligned
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.errors import AudioError

SegmentRule = Literal["first", "full", "windows"]

FRAME_HOP = 320
MIN_SAMPLES = 400


@dataclass(frozen=True)
class Segment:
    """Samples to score, and where they are in the signal (before any repetition)."""

    start: int
    end: int
    samples: Samples
    tail: bool = False  # the end-aligned window, off the grid


@dataclass(frozen=True)
class Cut:
    """How to cut a signal; lengths in samples at 16 kHz."""

    rule: SegmentRule
    window: int
    hop: int
    max_full: int


def repeat_to(samples: Samples, length: int) -> Samples:
    """out[k] = x[k mod n]: how the official protocol lengthens short audio (`pad` in its data_utils.py)."""
    return np.resize(samples, length)


def round_hop(seconds: float) -> int:
    """A hop in samples: the nearest multiple of a frame's 320, at least one."""
    return max(1, round(seconds * SAMPLE_RATE / FRAME_HOP)) * FRAME_HOP


def cut(blocks: Iterable[Samples], how: Cut, name: str, warnings: list[str]) -> Iterator[Segment]:
    """Cut a signal that arrives in blocks; at most a window and a block are held (`full`: the signal).

    Raises AudioError where `full` meets more than `how.max_full` samples, or there is no sample.
    """
    match how.rule:
        case "first":
            yield _first(blocks, how.window, name, warnings)
        case "full":
            yield _full(blocks, how.max_full, name, warnings)
        case "windows":
            yield from _windows(blocks, how.window, how.hop, name, warnings)


def _first(blocks: Iterable[Samples], window: int, name: str, warnings: list[str]) -> Segment:
    signal = _gather(blocks, window)[:window]
    return _repeated(signal, window, name, warnings)


def _full(blocks: Iterable[Samples], limit: int, name: str, warnings: list[str]) -> Segment:
    signal = _gather(blocks, limit + 1)
    if len(signal) > limit:
        raise AudioError(
            f"{name}: longer than the {limit / SAMPLE_RATE:g} s that --segment full takes at once; "
            "use --segment windows, or raise --max-seconds"
        )
    return _repeated(signal, max(len(signal), MIN_SAMPLES), name, warnings)


def _windows(
    blocks: Iterable[Samples], window: int, hop: int, name: str, warnings: list[str]
) -> Iterator[Segment]:
    ring = np.zeros(0, np.float32)
    ring_start = start = end = 0  # positions in the signal: of the ring, of the next window, of what was read
    scored = 0  # where the last window ended
    for block in blocks:
        ring = np.concatenate([ring, block])
        end += len(block)
        while start + window <= end:
            yield Segment(
                start, start + window, ring[start - ring_start : start - ring_start + window].copy()
            )
            scored = start + window
            start += hop
        keep = min(start, end - window)  # the tail may need the last window's worth
        if keep > ring_start:
            ring, ring_start = ring[keep - ring_start :], keep
    if end < window:
        yield _repeated(ring, window, name, warnings)
    elif scored < end:
        tail = end - window
        yield Segment(tail, end, ring[tail - ring_start :], tail=True)


def _gather(blocks: Iterable[Samples], enough: int) -> Samples:
    gathered: list[Samples] = []
    have = 0
    for block in blocks:
        gathered.append(block)
        have += len(block)
        if have >= enough:
            break
    return np.concatenate(gathered) if gathered else np.zeros(0, np.float32)


def _repeated(signal: Samples, length: int, name: str, warnings: list[str]) -> Segment:
    if not len(signal):
        raise AudioError(f"{name}: holds no audio (0 samples at 16 kHz)")
    if len(signal) < MIN_SAMPLES:
        warnings.append(
            f"only {len(signal)} samples ({len(signal) / 16:.0f} ms), repeated: the score means little"
        )
    return Segment(0, len(signal), repeat_to(signal, length) if len(signal) < length else signal)
