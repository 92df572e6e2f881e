"""Torch-free runtime for Nes2Net speech deepfake detectors: `Detector(bundle).score_files([...])`."""

from nes2net_runtime.detector import Detector
from nes2net_runtime.errors import (
    AudioError,
    BundleError,
    CheckpointError,
    DeviceError,
    Nes2NetError,
    ParityError,
    ProtocolError,
    ProviderError,
)
from nes2net_runtime.results import FileResult, Score

__all__ = [
    "AudioError",
    "BundleError",
    "CheckpointError",
    "Detector",
    "DeviceError",
    "FileResult",
    "Nes2NetError",
    "ParityError",
    "ProtocolError",
    "ProviderError",
    "Score",
]
