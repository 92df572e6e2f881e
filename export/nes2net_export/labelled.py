"""Labelled speech to derive a bundle on: scales of quantisation, and what it does to decisions."""

from pathlib import Path

from nes2net_calib.protocols import read_protocol
from nes2net_calib.quantisation import calibration_windows
from nes2net_export.probe import Probe

CALIBRATED_ON = 64  # windows that set the scales of static quantisation
COMPARED_ON = 200  # others, that scores are compared on


def speech_probe(protocol: Path, audio: Path | None, split: str | None, window: int) -> Probe:
    """Speech of a labelled list, both classes in turn, no trial twice.

    Raises ProtocolError where it has too few trials with speech.
    """
    trials = read_protocol(protocol, audio, split, False)
    windows = calibration_windows(trials, CALIBRATED_ON + COMPARED_ON, window)
    calibrate, compare = windows[:CALIBRATED_ON], windows[CALIBRATED_ON:]
    return Probe(trials.name, calibrate, compare, [i % 2 == 0 for i in range(len(compare))])
