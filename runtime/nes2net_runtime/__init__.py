"""Torch-free runtime for Nes2Net speech deepfake detectors: `Detector(bundle).score_files([...])`."""

from nes2net_runtime.detector import Detector, FileResult, Score
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
