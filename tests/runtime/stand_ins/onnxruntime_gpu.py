"""Stands in for the module `onnxruntime` of onnxruntime-gpu, and for its plugin TensorRT-RTX.

Sessions on CUDA and TensorRT are sessions on the CPU underneath, with the rules of a card kept: values live
on "cuda" and are told apart from those of the host, each way between them is counted, a graph captured for
a `gpu_graph_id` is replayed at the addresses that it was captured at, whatever is bound then. An EPContext
graph is run by the file that it names: the "engine" is the ONNX graph itself.
"""

import types
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as real

CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"
RTX = "NvTensorRTRTXExecutionProvider"
GRAPH_OPTION = {CUDA: "enable_cuda_graph", TENSORRT: "trt_cuda_graph_enable", RTX: "enable_cuda_graph"}


class SessionOptions(real.SessionOptions):
    """Remembers devices of plugins and the session's entries."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[tuple[str, dict[str, str]]] = []
        self.entries: dict[str, str] = {}

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value
        if not key.startswith("ep."):
            super().add_session_config_entry(key, value)

    def add_provider_for_devices(self, devices: Sequence[Any], options: dict[str, str]) -> None:
        self.devices += [(device.ep_name, options) for device in devices]


class OrtValue:
    """A tensor on the card, or on the host."""

    def __init__(self, machine: "Machine", array: np.ndarray, device: str) -> None:
        self._machine, self.array, self.device = machine, array, device

    def shape(self) -> list[int]:
        return list(self.array.shape)

    def update_inplace(self, data: Any) -> None:
        if isinstance(data, OrtValue):
            assert (data.device, self.device) == ("cuda", "cuda")
            self._machine.copies["device to device"] += 1
            data = data.array
        else:
            self._machine.copies["up"] += 1
        assert self.array.shape == data.shape and data.dtype == np.float32
        self.array[...] = data

    def numpy(self) -> np.ndarray:
        if self.device == "cuda":
            self._machine.copies["down"] += 1
        return self.array.copy()


class RunOptions:
    def __init__(self) -> None:
        self.graph = 0

    def add_run_config_entry(self, key: str, value: str) -> None:
        assert key == "gpu_graph_id"
        self.graph = int(value)


class Binding:
    def __init__(self, session: "InferenceSession") -> None:
        self._session = session
        self.inputs: dict[str, OrtValue] = {}
        self.outputs: dict[str, OrtValue | None] = {}

    def bind_ortvalue_input(self, name: str, value: OrtValue) -> None:
        assert value.device == "cuda", "an input of a session on the card is not there"
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: OrtValue) -> None:
        assert value.device == "cuda"
        self.outputs[name] = value

    def bind_output(self, name: str, device: str, index: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.outputs[name] = None

    def get_outputs(self) -> list[Any]:
        return list(self.outputs.values())


class InferenceSession:
    """A session on the card; on the CPU, silently, where the machine's `broken` names the provider."""

    def __init__(self, machine: "Machine", path: Path, options: SessionOptions, providers: list[Any]) -> None:
        wanted = [p if isinstance(p, tuple) else (p, {}) for p in providers] or options.devices
        self.name, self.options = wanted[0]
        self._machine = machine
        for name, given in wanted:
            unknown = given.keys() - KNOWN_OPTIONS[name]
            assert not unknown, f"{name} has no option {unknown}"
        content = Path(path).read_bytes()
        model = onnx.load(path, load_external_data=False)
        self.nodes = {self.name: len(model.graph.node)}
        if model.graph.node[0].op_type == "EPContext":
            content = self._engine(model.graph.node[0], Path(path), options)
        elif self.name == TENSORRT:
            self._build(Path(path), content)
        elif options.entries.get("ep.context_enable") == "1":
            self._dump(model, content, Path(options.entries["ep.context_file_path"]))
        if self.name in machine.broken:
            self.name, self.nodes = CPU, {CPU: 1}
        if self.name in machine.idle:
            self.nodes = {CPU: len(model.graph.node)}
        graph = self.options.get(GRAPH_OPTION.get(self.name, ""), "0") == "1"
        if graph and machine.no_graphs:
            raise RuntimeError("not all nodes are on this provider, which CUDA graphs need")
        self._captured: dict[int, Binding] | None = {} if graph else None
        self._session = real.InferenceSession(content, providers=[CPU])
        machine.sessions.append(self)

    def get_providers(self) -> list[str]:
        return [self.name, CPU]

    def get_inputs(self) -> list[Any]:
        return self._session.get_inputs()

    def get_outputs(self) -> list[Any]:
        return self._session.get_outputs()

    def get_input_epdevices(self) -> list[Any]:
        hardware = types.SimpleNamespace(type="OrtHardwareDeviceType.GPU", vendor="NVIDIA")
        return [types.SimpleNamespace(device=hardware)]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [
            types.SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
            for name, count in self.nodes.items()
        ]

    def io_binding(self) -> Binding:
        return Binding(self)

    def run(self, names: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        assert self.name == CPU, "a session on the card, run through the host"
        return self._session.run(names, inputs)

    def run_with_iobinding(self, binding: Binding, options: RunOptions) -> None:
        if self._captured is not None and (options.graph != -1 or self.name != CUDA):
            number = options.graph if self.name == CUDA else 0  # TensorRT's providers have one graph alone
            if number in self._captured:
                binding = self._captured[number]
                self._machine.copies["replays"] += 1
            else:
                self._captured[number] = binding
        (name,) = binding.outputs
        inputs = {key: value.array for key, value in binding.inputs.items()}
        (output,) = self._session.run(None, inputs)
        value = binding.outputs[name]
        if value is None:
            binding.outputs[name] = OrtValue(self._machine, output, "cuda")
        else:
            assert value.array.shape == output.shape
            value.array[...] = output

    def _engine(self, node: onnx.NodeProto, path: Path, options: SessionOptions) -> bytes:
        attributes = {
            attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute
        }
        assert attributes["embed_mode"] == 0
        folder = Path(options.entries["ep.context_file_path"]).parent
        return (folder / attributes["ep_cache_context"].decode()).read_bytes()

    def _build(self, path: Path, content: bytes) -> None:
        folder = Path(self.options["trt_engine_cache_path"])
        engine = folder / f"TensorrtExecutionProvider_{path.stem}.engine"
        self._machine.builds += not engine.exists()
        engine.write_bytes(content)

    def _dump(self, model: onnx.ModelProto, content: bytes, path: Path) -> None:
        engine = path.with_suffix(".engine")
        engine.write_bytes(content)
        node = onnx.helper.make_node(
            "EPContext",
            [value.name for value in model.graph.input],
            [value.name for value in model.graph.output],
            domain="com.microsoft",
            embed_mode=0,
            ep_cache_context=engine.name,
        )
        graph = onnx.helper.make_graph([node], "engine", model.graph.input, model.graph.output)
        onnx.save(onnx.helper.make_model(graph, ir_version=9), path)
        self._machine.builds += 1


class Machine:
    """What is installed on it, and what it did."""

    def __init__(self, folder: Path, providers: Sequence[str], plugin_error: str | None = None) -> None:
        self.providers = [*providers, CPU]
        self.plugin_error = plugin_error
        self.plugin_cards = 1
        self.broken: set[str] = set()  # providers that ONNX Runtime replaces in silence
        self.idle: set[str] = set()  # providers that get no node
        self.no_graphs = False  # a node is on the CPU: no CUDA graph
        self.copies: Counter[str] = Counter()
        self.builds = 0
        self.sessions: list[InferenceSession] = []
        self._registered = False
        self._capi = folder / "onnxruntime" / "capi"
        self._capi.mkdir(parents=True)
        if CUDA in providers:
            (self._capi / "libonnxruntime_providers_cuda.so").touch()
        if TENSORRT in providers:
            (self._capi / "libonnxruntime_providers_tensorrt.so").write_bytes(b"\0libnvinfer.so.10\0")

    def module(self) -> types.ModuleType:
        """The module `onnxruntime`."""
        module = types.ModuleType("onnxruntime")
        module.__file__ = str(self._capi.parent / "__init__.py")
        module.__version__ = "1.31.1"
        module.SessionOptions = SessionOptions
        module.RunOptions = RunOptions
        module.OrtValue = types.SimpleNamespace(ortvalue_from_shape_and_type=self._value)
        module.InferenceSession = self._session
        module.set_default_logger_severity = lambda severity: None
        module.preload_dlls = lambda: print("Failed to load libcudnn.so.9")
        module.get_available_providers = lambda: [*self.providers, *[RTX] * self._registered]
        module.get_ep_devices = self._devices
        module.register_execution_provider_library = self._register
        return module

    def plugin(self) -> types.ModuleType:
        """The module of the plugin."""
        module = types.ModuleType("onnxruntime_ep_nv_tensorrt_rtx")
        module.get_ep_name = lambda: RTX
        module.get_library_path = lambda: str(self._capi / "libonnxruntime_providers_nv_tensorrt_rtx.so")
        return module

    def _value(self, shape: Sequence[int], kind: Any, device: str, index: int) -> OrtValue:
        assert (kind, device, index) == (np.float32, "cuda", 0)
        return OrtValue(self, np.full(shape, np.nan, np.float32), "cuda")

    def _session(self, path: Path, options: SessionOptions, providers: list[Any]) -> Any:
        if providers == [CPU]:
            return real.InferenceSession(path, options, providers=[CPU])
        return InferenceSession(self, path, options, providers)

    def _register(self, name: str, path: str) -> None:
        assert not self._registered, "a library is registered once"
        if self.plugin_error is not None:
            raise RuntimeError(
                f"[ONNXRuntimeError] : 1 : FAIL : Failed to load library {path} with error: "
                f"{self.plugin_error}: cannot open shared object file"
            )
        self._registered = True

    def _devices(self) -> list[Any]:
        cards = self.plugin_cards if self._registered else 0
        hardware = types.SimpleNamespace(type="OrtHardwareDeviceType.GPU", vendor="NVIDIA")
        return [types.SimpleNamespace(ep_name=RTX, device=hardware)] * cards


KNOWN_OPTIONS = {
    CPU: set(),
    CUDA: {
        "device_id",
        "use_tf32",
        "cudnn_conv_algo_search",
        "cudnn_conv1d_pad_to_nc1d",
        "arena_extend_strategy",
        "enable_cuda_graph",
    },
    TENSORRT: {
        "device_id",
        "trt_engine_cache_enable",
        "trt_engine_cache_path",
        "trt_timing_cache_enable",
        "trt_timing_cache_path",
        "trt_profile_min_shapes",
        "trt_profile_opt_shapes",
        "trt_profile_max_shapes",
        "trt_cuda_graph_enable",
    },
    RTX: {
        "nv_runtime_cache_path",
        "nv_profile_min_shapes",
        "nv_profile_opt_shapes",
        "nv_profile_max_shapes",
        "enable_cuda_graph",
    },
}
