"""Labelled speech to derive a bundle on: scales of quantisation, and what it does to decisions."""

from pathlib import Path

from nes2net_calib.protocols import read_protocol
from nes2net_calib.quantisation import calibration_windows
from nes2net_export.probe import Probe
from nes2net_runtime.errors import ProtocolError

CALIBRATED_ON = 64  # windows, at most: a quarter of those that the list gives
COMPARED_ON = 200  # at most, the other three quarters
LEAST = 20  # trials of each class


def speech_probe(protocol: Path, audio: Path | None, split: str | None, window: int) -> Probe:
    """Speech of a labelled list, both classes in turn, no trial twice.

    Raises ProtocolError where it has too few trials with speech.
    """
    trials = read_protocol(protocol, audio, split, False)
    bonafide = sum(trial.bonafide for trial in trials.trials)
    fewest = min(bonafide, len(trials.trials) - bonafide)
    if fewest < LEAST:
        raise ProtocolError(f"{trials.name}: {fewest} trials of a class; at least {LEAST} of each are needed")
    count = min(CALIBRATED_ON + COMPARED_ON, 2 * fewest)
    calibrated_on = min(CALIBRATED_ON, count // 8 * 2)  # both classes
    windows = calibration_windows(trials, count, window)
    compare = windows[calibrated_on:]
    return Probe(trials.name, windows[:calibrated_on], compare, [i % 2 == 0 for i in range(len(compare))])
