"""What `nes2net-run --tune` measured on this machine, kept for `--provider auto`.

    $XDG_CACHE_HOME or ~/.cache / nes2net-edge / tuning / HASH.json

HASH is of all that a measurement holds for: the bundle's graphs and engines, threads, processor, cards,
versions. So after a change of any of them there is none, and `auto` does as if there had never been one.
"""

import errno
import hashlib
import os
from pathlib import Path

import msgspec

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.engines import stage_hashes
from nes2net_runtime.inference.nvidia import find_driver
from nes2net_runtime.inference.plugins import PLUGINS
from nes2net_runtime.inference.processor import processor
from nes2net_runtime.inference.providers import DISTRIBUTIONS, Provider, installed
from nes2net_runtime.inference.user_cache import user_cache

LIBRARIES = ("openvino", "tensorrt", "tensorrt-rtx")
SUFFIXES = ("", "-cu12", "-cu13")  # of NVIDIA's distributions


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, as it was measured; `ratio` of its time to the reference's."""

    provider: Provider
    milliseconds: float  # of a window, median
    ratio: tuple[float, float, float]  # median of the rounds', and its interval
    difference: float  # of its logits from the CPU's, relative
    agrees: bool  # as far as the bundle's precision lets it


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """A measurement, and what it holds for."""

    holds_for: list[str]
    created: str  # UTC, ISO 8601
    reference: Provider  # what `auto` takes on its own
    fastest: Provider  # the reference, unless another one is clearly faster
    candidates: list[Candidate]
    absent: list[str]  # what could not be measured, and why

    @property
    def summary(self) -> str:
        """What `auto` does, and why."""
        day = f"measured on {self.created[:10]}"
        for candidate in self.candidates:
            if candidate.provider == self.fastest != self.reference:
                share, low, high = (f"{ratio:.2f}" for ratio in candidate.ratio)
                return f"{self.fastest} takes {share} of {self.reference}'s time ({low} to {high}), {day}"
        return f"nothing is clearly faster than {self.reference}, {day}"


def holds_for(bundle: Bundle, threads: int) -> list[str]:
    """What the speed of a bundle depends on."""
    driver, manifest = find_driver(), bundle.manifest
    libraries = (*DISTRIBUTIONS, *(module.replace("_", "-") for module in PLUGINS.values()), *LIBRARIES)
    hashes = {file.path: file.sha256 for file in manifest.files}
    return [
        f"{threads} threads of {processor()}",
        *([f"CUDA {driver.cuda}", *(card.name for card in driver.cards)] if driver else []),
        *installed(["nes2net-edge", *(name + suffix for name in libraries for suffix in SUFFIXES)]),
        f"windows of {manifest.audio.window_samples} samples",
        *(f"{stage.name} {' '.join(stage_hashes(bundle, stage))}" for stage in manifest.stages),
        *(f"{engine.file} {hashes[engine.file]}" for engine in manifest.engines if engine.file in hashes),
    ]


def read_tuning(bundle: Bundle, threads: int) -> Tuning | None:
    """The measurement that holds here; None: there is none."""
    try:
        if not _folder().is_dir():
            return None
        parts = holds_for(bundle, threads)
        tuning = msgspec.json.decode(_file(parts).read_bytes(), type=Tuning)
    except (OSError, ProviderError, msgspec.DecodeError):  # no home, or none of ours: nothing was measured
        return None
    return tuning if tuning.holds_for == parts else None


def make_folder() -> None:
    """Make the place of all measurements; raises ProviderError where it can't be written."""
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ProviderError(
            f"{folder}: measurements can't be kept there ({error.strerror}); set XDG_CACHE_HOME to a folder "
            "that can be written"
        ) from error


def write_tuning(tuning: Tuning) -> Path:
    """Keep a measurement, in place of an earlier one."""
    path = _file(tuning.holds_for)
    beside = path.with_suffix(f".{os.getpid()}")
    beside.write_bytes(msgspec.json.encode(tuning))
    beside.replace(path)
    return path


def _folder() -> Path:
    return user_cache() / "tuning"


def _file(parts: list[str]) -> Path:
    return _folder() / f"{hashlib.sha256(chr(10).join(parts).encode()).hexdigest()[:32]}.json"
