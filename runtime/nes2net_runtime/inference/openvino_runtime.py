"""The ONNX graphs by OpenVINO itself: it takes any maker's processor, ONNX Runtime's plugin Intel's alone."""

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.loaded import Loaded
from nes2net_runtime.inference.ort_sessions import openvino_settings
from nes2net_runtime.inference.pipeline import Array, OnHost
from nes2net_runtime.inference.receipt import StageReceipt

DEVICE = "CPU"


def import_openvino() -> Any:
    """The module `openvino`, silenced; raises ProviderError where it is not there."""
    # Each import is told to its makers, by Google Analytics, with an id that is kept in ~/intel. A package
    # of its own does that, in whose place an empty module is as good as none.
    sys.modules.setdefault("openvino_telemetry", ModuleType("openvino_telemetry"))
    try:
        return import_module("openvino")
    except ImportError as error:
        raise ProviderError(f"provider openvino is not here ({error}): pip install openvino") from error


def openvino_version(openvino: Any) -> str:
    """ "openvino 2026.4.1"."""
    return f"openvino {openvino.__version__.split('-')[0]}"


def processor(core: Any) -> str:
    """The processor, as OpenVINO names it: "cpu AMD EPYC"."""
    return f"cpu {core.get_property(DEVICE, 'FULL_DEVICE_NAME')}"


class Session:
    """A stage that OpenVINO compiled; it runs as ONNX Runtime's sessions do, and so `OnHost` takes it."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()
        self._lock = Lock()  # a request is one thread's at a time; a second one would wait for the processor

    def run(self, outputs: None, inputs: Mapping[str, Array]) -> list[Array]:
        (tensor,) = inputs.values()
        with self._lock:
            self._request.infer([np.ascontiguousarray(tensor)], share_inputs=True)
            return [np.array(self._request.get_output_tensor(0).data)]  # the next run writes over it


def open_openvino(bundle: Bundle, threads: int) -> Loaded:
    """Verify the stages' files and compile them for the processor.

    Raises BundleError, and ProviderError where OpenVINO is not there or can't take a graph.
    """
    openvino = import_openvino()
    core, stages = openvino.Core(), bundle.manifest.stages
    if DEVICE not in core.available_devices:
        raise ProviderError("provider openvino: it finds no processor here; ask for --provider cpu")
    sessions, receipts = [], []
    for stage in stages:
        bundle.verify_stage(stage)
        compiled = _compile(core, bundle.path / stage.file, openvino_settings(stage.precision, threads))
        sessions.append(Session(compiled))
        receipts.append(
            StageReceipt(
                stage=stage.name,
                precision=stage.precision,
                provider="openvino",
                library=openvino_version(openvino),
                device=processor(core),
                nodes={"openvino": len(compiled.get_runtime_model().get_ops())},
                io="cpu",
                cuda_graph=False,
                engine=None,
            )
        )
    return Loaded("openvino", OnHost(sessions, bundle.manifest), receipts)


def _compile(core: Any, graph: Path, settings: Mapping[str, str]) -> Any:
    try:
        return core.compile_model(core.read_model(str(graph)), DEVICE, settings)
    except RuntimeError as error:
        raise ProviderError(
            f"provider openvino can't load {graph.name} ({_cause(error)}); ask for --provider cpu"
        ) from error


def _cause(error: RuntimeError) -> str:
    """What is wrong, from OpenVINO's many lines, which begin with places in its source."""
    return str(error).strip().splitlines()[-1].strip("- ")
