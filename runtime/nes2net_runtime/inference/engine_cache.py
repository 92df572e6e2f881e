"""Engines that ONNX Runtime's providers build on this machine: where they are kept, how they are asked for.

    $XDG_CACHE_HOME or ~/.cache / nes2net-edge / engines / HASH / complete      what HASH stands for
                                                                / encoder/…     the providers' own files

HASH is of the stages' graphs, the versions, the card, its driver and the shapes; so another of them is
another folder, and an old one is never asked for what it can't do.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.engines import Limits
from nes2net_runtime.inference.user_cache import user_cache
from nes2net_runtime.manifest import Stage
from nes2net_runtime.segments import FRAME_HOP, MIN_SAMPLES

COMPLETE = "complete"
BATCH = 8  # windows at once, at most


def engines_folder() -> Path:
    """Where all engines are that were built on this machine, if any were."""
    return user_cache() / "engines"


def engine_folder(parts: Sequence[str]) -> Path:
    """Where engines are that depend on exactly these `parts`."""
    return engines_folder() / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def is_complete(folder: Path) -> bool:
    """Whether all of its engines were built."""
    return (folder / COMPLETE).is_file()


def begin(folder: Path) -> None:
    """Make the folder anew; raises ProviderError where it can't be written."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
    except OSError as error:
        raise ProviderError(
            f"{folder}: engines can't be kept there ({error.strerror}); set XDG_CACHE_HOME to a folder that "
            "can be written"
        ) from error


def complete(folder: Path, parts: Sequence[str]) -> None:
    """All engines are there: later runs take them."""
    (folder / COMPLETE).write_text("\n".join(parts) + "\n", encoding="utf-8")


def limits(window: int) -> Limits:
    """The shapes that engines are built for: up to a window, and so streams and short files, too."""
    return Limits((1, BATCH), (MIN_SAMPLES, window))


def tensorrt_options(stage: Stage, window: int, folder: Path) -> dict[str, str]:
    """Options of ONNX Runtime's TensorRT provider.

    No precision is asked for: only then is the network strongly typed, and every type what the graph says.
    """
    least, best, largest = _shapes(stage, window)
    return {
        "device_id": "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
        "trt_profile_min_shapes": least,
        "trt_profile_opt_shapes": best,
        "trt_profile_max_shapes": largest,
    }


def rtx_options(stage: Stage, window: int, folder: Path) -> dict[str, str]:
    """Options of the TensorRT-RTX provider; its networks are always strongly typed."""
    least, best, largest = _shapes(stage, window)
    return {
        "nv_runtime_cache_path": str(folder / "kernels"),
        "nv_profile_min_shapes": least,
        "nv_profile_opt_shapes": best,
        "nv_profile_max_shapes": largest,
    }


def _shapes(stage: Stage, window: int) -> tuple[str, str, str]:
    """Least, best and largest shape of a stage's input, as the providers read them: "frames:1x201x496"."""
    tensor = stage.inputs[0]
    texts = []
    for batch, samples in ((1, MIN_SAMPLES), (1, window), (BATCH, window)):
        if len(tensor.shape) == 2:
            shape = f"{batch}x{samples}"
        else:
            shape = f"{batch}x{(samples - MIN_SAMPLES) // FRAME_HOP + 1}x{tensor.shape[-1]}"
        texts.append(f"{tensor.name}:{shape}")
    least, best, largest = texts
    return least, best, largest
