"""Do the engines score as the graphs do that they were built from? On the card that they are for."""

import numpy as np

from nes2net_export.drift import BOUNDS, mean_drift, score_windows
from nes2net_export.engines.build import BuildOptions
from nes2net_export.engines.compile import card_here
from nes2net_export.engines.tensorrt import TensorRT
from nes2net_export.output import Say
from nes2net_export.probe import signal_probe
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ParityError, ProviderError
from nes2net_runtime.inference.native_tensorrt import import_tensorrt
from nes2net_runtime.inference.nvidia import find_driver
from nes2net_runtime.inference.providers import Provider, import_onnxruntime, linked_tensorrt, plugin_tensorrt
from nes2net_runtime.inference.sessions import Stages

PROVIDERS: dict[str, Provider] = {"trt": "tensorrt", "trt-rtx": "trt-rtx"}
FLOAT32 = 0.02  # bound of the mean drift of float32 engines, which may compute in TF32


def check_runs(trt: TensorRT, options: BuildOptions) -> None:
    """Raise ProviderError where the card is here that engines are for, and nothing that could run them."""
    if card_here(trt, options, find_driver()) is None or import_tensorrt(trt.kind):
        return
    try:
        is_trt = trt.kind == "trt"
        version = linked_tensorrt(import_onnxruntime()) if is_trt else plugin_tensorrt()
    except ProviderError:
        version = None
    if options.version_compatible or version is None or version.split(".") != trt.version.split(".")[:3]:
        raise ProviderError(
            f"{trt.name}: nothing here runs its engines, which have to score as the graphs do: "
            "pip install cuda-bindings, of the driver's CUDA"
        )


def check_engines(bundle: Bundle, trt: TensorRT, say: Say) -> None:
    """Compare scores by the engines with scores by the graphs on the CPU.

    Raises ParityError where they differ by more than the precision may, ProviderError where they do not run.
    """
    manifest = bundle.manifest
    windows = signal_probe(manifest.audio.window_samples).compare
    graphs = [bundle.path / stage.file for stage in manifest.stages]
    before = score_windows(manifest, graphs, windows, lambda share: say("scores of the graphs", share))
    stages = Stages(bundle, PROVIDERS[trt.kind])
    after = np.empty(len(windows))
    for i, window in enumerate(windows):
        after[i] = stages.score(window[None])[0]
        say("scores of the engines", (i + 1) / len(windows))
    drift, bound = mean_drift(before, after), BOUNDS.get(manifest.precision, FLOAT32)
    if not drift <= bound:
        raise ParityError(
            f"{trt.name}: scores of the engines differ from the graphs' by {drift:.3g} standard deviations "
            f"on average (bound {bound}); nothing was written"
        )
