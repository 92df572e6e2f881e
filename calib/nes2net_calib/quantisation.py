"""Windows of speech to quantise a detector with: as many of each class, spread over systems and speakers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import cycle, islice, zip_longest
from operator import attrgetter

import numpy as np

from nes2net_calib.protocols import Protocol, Trial
from nes2net_runtime.audio import Samples, read_blocks
from nes2net_runtime.errors import ProtocolError
from nes2net_runtime.segments import FRAME_HOP, repeat_to

SPREAD = ("system", "condition", "speaker")  # of a trial: what windows are spread over, one within another
ACTIVE_RANGE = 25.0  # dB below a file's loud frame
LOUD = 10  # the loud frame: so many, 200 ms in all, are as loud
SILENCE = -65.0  # dB of full scale: what is never louder holds no speech
ACTIVE_SHARE = 0.5  # of a window's frames


def calibration_windows(protocol: Protocol, count: int, window_samples: int, seed: int = 0) -> list[Samples]:
    """`count` windows of `window_samples` float32 samples at 16 kHz, bona fide and spoof in turn.

    One window a trial, at a random place where at least half of the frames (20 ms) are active: less than 25
    dB below the file's tenth loudest. Each system in turn gives a trial, in it each condition, then each
    speaker. Shorter audio is repeated, as the official protocol does. The same seed gives the same windows.
    Raises ProtocolError where too few trials hold speech, and AudioError for audio that can't be read.
    """
    rng = np.random.default_rng(seed)
    classes = {
        name: _windows([trial for trial in protocol.trials if trial.bonafide is label], window_samples, rng)
        for name, label in (("bona fide", True), ("spoof", False))
    }
    windows: list[Samples] = []
    for name in islice(cycle(classes), count):
        window = next(classes[name], None)
        if window is None:
            raise ProtocolError(
                f"{protocol.name}: only {len(windows) // 2} {name} trials with speech: too few for {count} "
                "windows, half of each class"
            )
        windows.append(window)
    return windows


def _windows(trials: Sequence[Trial], length: int, rng: np.random.Generator) -> Iterator[Samples]:
    for trial in _spread(trials, SPREAD, rng):
        samples = np.concatenate(list(read_blocks(trial.path, None, [])))
        starts = _active_starts(samples, length)
        if starts.size:
            start = int(rng.choice(starts))
            yield repeat_to(samples[start : start + length], length)


def _spread(trials: Sequence[Trial], keys: Sequence[str], rng: np.random.Generator) -> list[Trial]:
    """All trials, in an order that takes one of each group in turn, and so within each group."""
    if not keys:
        return [trials[i] for i in rng.permutation(len(trials))]
    groups: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        groups[attrgetter(keys[0])(trial) or ""].append(trial)
    members = list(groups.values())
    ordered = [_spread(members[i], keys[1:], rng) for i in rng.permutation(len(members))]
    return [trial for turn in zip_longest(*ordered) for trial in turn if trial is not None]


def _active_starts(samples: Samples, length: int) -> np.ndarray:
    """Starts, in samples, of the windows that hold speech; of audio no longer than a window, 0 or none."""
    frames = samples[: len(samples) // FRAME_HOP * FRAME_HOP].reshape(-1, FRAME_HOP)
    if not len(frames):
        return np.zeros(0, int)
    level = 10 * np.log10(np.square(frames - samples.mean(), dtype=np.float64).mean(axis=1) + 1e-12)
    loud = np.sort(level)[-min(LOUD, level.size)]
    active = (level > loud - ACTIVE_RANGE) & (loud > SILENCE)
    size = min(length // FRAME_HOP, len(frames))
    counts = np.convolve(active, np.ones(size, int), "valid")
    starts = FRAME_HOP * np.flatnonzero(counts >= ACTIVE_SHARE * size)
    return starts[starts <= max(0, len(samples) - length)]
