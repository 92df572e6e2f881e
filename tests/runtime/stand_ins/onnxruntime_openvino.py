"""Stands in for the module `onnxruntime` where it has OpenVINO: by its plugin on Intel's machines, or inside.

Sessions compute on the CPU underneath.
"""

import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import onnxruntime as real

OPENVINO, CPU = "OpenVINOExecutionProvider", "CPUExecutionProvider"
PLUGIN = "onnxruntime_ep_openvino"


class Machine:
    """`devices`: those of the plugin, by OpenVINO's names. `inside`: onnxruntime-openvino is installed."""

    def __init__(self, devices: tuple[str, ...] = (), inside: bool = False) -> None:
        self.inside, self.registered = inside, False
        self.devices = [
            SimpleNamespace(ep_name=OPENVINO, ep_metadata={"ov_device": name}, device=_hardware(name))
            for name in devices
        ]
        self.taken: list[tuple[str, dict[str, Any]]] = []  # device and its settings, of each session

    def module(self) -> ModuleType:
        """The module `onnxruntime`."""
        module = ModuleType("onnxruntime")
        module.__version__ = "1.32.0"
        module.SessionOptions = SessionOptions
        module.InferenceSession = self._session
        # What a plugin brings is in this list, too, once it is registered: seen with 1.32 and an Intel Xeon.
        module.get_available_providers = lambda: [CPU, *[OPENVINO] * (self.inside or self.registered)]
        module.get_ep_devices = lambda: self.devices if self.registered else []
        module.register_execution_provider_library = self._register
        return module

    def plugin(self) -> ModuleType:
        """The module of the plugin."""
        module = ModuleType(PLUGIN)
        module.__spec__ = ModuleSpec(PLUGIN, None)
        module.get_ep_name = lambda: OPENVINO
        module.get_library_path = lambda: "/nowhere/libonnxruntime_providers_openvino_plugin.so"
        return module

    def _register(self, name: str, path: str) -> None:
        assert (name, self.registered) == (OPENVINO, False)
        self.registered = True

    def _session(self, path: Path, options: "SessionOptions", providers: list[Any]) -> Any:
        session = real.InferenceSession(path, options, providers=[CPU])
        if providers == [CPU]:
            return session
        if providers:
            ((name, given),) = providers
            assert self.inside and name == OPENVINO
            device = "CPU"
        else:
            ((device, given),) = options.devices
        assert given.keys() == {"load_config"}
        self.taken.append((device, json.loads(given["load_config"])[device]))
        return Session(session, device)


class SessionOptions(real.SessionOptions):
    """Remembers devices of the plugin."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[tuple[str, dict[str, str]]] = []

    def add_provider_for_devices(self, devices: list[Any], options: dict[str, str]) -> None:
        self.devices += [(device.ep_metadata["ov_device"], options) for device in devices]


class Session:
    """A session on OpenVINO."""

    def __init__(self, session: Any, device: str) -> None:
        self._session, self._device = session, device

    def run(self, names: None, inputs: dict[str, Any]) -> list[Any]:
        return self._session.run(names, inputs)

    def get_providers(self) -> list[str]:
        return [OPENVINO, CPU]

    def get_input_epdevices(self) -> list[Any]:
        return [SimpleNamespace(device=_hardware(self._device))]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [SimpleNamespace(ep_name=OPENVINO, get_nodes=lambda: [None] * 9)]


def _hardware(name: str) -> Any:
    return SimpleNamespace(type=f"OrtHardwareDeviceType.{name}", vendor="GenuineIntel")
