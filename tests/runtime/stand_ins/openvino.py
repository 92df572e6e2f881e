"""Stands in for the module `openvino`: graphs are run by ONNX Runtime, fast or with errors as asked."""

from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as real


class OpenVINO:
    """What is installed. `fast`: an input that comes again takes no time. `error` is added to logits."""

    def __init__(self, fast: bool, error: float) -> None:
        self.fast, self.error = fast, error
        self.settings: list[dict[str, str]] = []  # of each graph that was compiled

    def module(self) -> ModuleType:
        """The module `openvino`."""
        module = ModuleType("openvino")
        module.__spec__ = ModuleSpec("openvino", None)
        module.__version__ = "2026.4.1-22982-e213a147257-releases/2026/4"
        module.Core = lambda: self
        return module

    available_devices = ("CPU", "GPU")

    def get_property(self, device: str, name: str) -> str:
        assert (device, name) == ("CPU", "FULL_DEVICE_NAME")
        return "Stand-in"

    def read_model(self, path: str) -> Path:
        return Path(path)

    def compile_model(self, model: Path, device: str, settings: dict[str, str]) -> "Compiled":
        assert device == "CPU"
        self.settings.append(settings)
        return Compiled(self, model)


class Compiled:
    """A graph, and its one request."""

    def __init__(self, openvino: OpenVINO, model: Path) -> None:
        self._openvino = openvino
        self._session = real.InferenceSession(model, providers=["CPUExecutionProvider"])
        self._known: dict[bytes, np.ndarray] = {}
        self._output = np.empty(0, np.float32)

    def get_runtime_model(self) -> Any:
        return SimpleNamespace(get_ops=lambda: [None] * 7)

    def create_infer_request(self) -> "Compiled":
        return self

    def infer(self, inputs: list[np.ndarray], share_inputs: bool) -> None:
        assert share_inputs
        (tensor,) = inputs
        key = tensor.tobytes()
        if key not in self._known or not self._openvino.fast:
            name = self._session.get_inputs()[0].name
            (output,) = self._session.run(None, {name: tensor})
            self._known[key] = output + self._openvino.error * (output.ndim == 2)
        self._output = self._known[key]

    def get_output_tensor(self, index: int) -> Any:
        assert index == 0
        return SimpleNamespace(data=self._output)
