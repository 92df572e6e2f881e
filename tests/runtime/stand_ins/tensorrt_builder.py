"""Stands in for what builds engines in the module `tensorrt` (10 or 11): builder, parser, inspector.

An "engine" is the ONNX file that was parsed, which the runtime's stand-in runs. Layers are those of the
graph, of the types that shape inference gives them, or of `computes`, as TensorRT may decide otherwise.
"""

import enum
import json
from types import ModuleType, SimpleNamespace
from typing import Any

import onnx

NAMES = {onnx.TensorProto.FLOAT: "Float", onnx.TensorProto.FLOAT16: "Half", onnx.TensorProto.INT8: "Int8"}


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class Recorder:
    """What a build was asked for."""

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.limits: dict[str, int] = {}
        self.levels: dict[str, Any] = {}
        self.profiles: list[tuple[str, Any, Any, Any]] = []
        self.caches: list[bytes] = []


def add_builder(module: ModuleType, computes: str | None = None, fails: str = "") -> Recorder:
    """Give the module a builder. `computes`: the type of all layers; `fails`: the log of a build."""
    asked = Recorder()
    module.ILogger = type("ILogger", (), {"__init__": lambda self: None, "Severity": Severity})
    module.IProgressMonitor = type("IProgressMonitor", (), {"__init__": lambda self: None})
    module.NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=1)
    module.ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    module.LayerInformationFormat = SimpleNamespace(JSON="json")
    module.MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    module.BuilderFlag = SimpleNamespace(VERSION_COMPATIBLE="version compatible", TF32="tf32")
    module.HardwareCompatibilityLevel = SimpleNamespace(AMPERE_PLUS="ampere plus")
    module.Builder = lambda log: Builder(log, asked, fails)
    module.OnnxParser = Parser
    runtime = module.Runtime
    module.Runtime = lambda log: Inspectable(runtime(log), computes)
    return asked


class Parser:
    def __init__(self, network: SimpleNamespace, log: Any) -> None:
        self.network = network
        self.num_errors = 0

    def parse_from_file(self, path: str) -> bool:
        self.network.model = onnx.load(path)
        bad = [node for node in self.network.model.graph.node if node.op_type == "DynamicQuantizeLinear"]
        self.num_errors = len(bad)
        self.bad = bad
        return not bad

    def get_error(self, index: int) -> Any:
        node = self.bad[index]
        told = {"node_name": node.name, "node_operator": node.op_type, "desc": "no importer\nfor it"}
        return SimpleNamespace(**{name: lambda value=value: value for name, value in told.items()})


class Builder:
    def __init__(self, log: Any, asked: Recorder, fails: str) -> None:
        self.log, self.asked, self.fails = log, asked, fails

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 2, "strongly typed"
        return SimpleNamespace()

    def create_builder_config(self) -> Any:
        return Config(self.asked)

    def create_optimization_profile(self) -> Any:
        return SimpleNamespace(set_shape=lambda *shape: self.asked.profiles.append(shape))

    def build_serialized_network(self, network: SimpleNamespace, config: Any) -> bytes | None:
        if self.fails:
            self.log.log(Severity.ERROR, self.fails)
            return None
        assert not config.set, "float32 would be rounded to 10 bits"
        monitor = config.progress_monitor
        monitor.phase_start("Building engine", None, 2)
        assert monitor.step_complete("Building engine", 0) and monitor.step_complete("Building engine", 1)
        monitor.phase_finish("Building engine")
        blob: bytes = network.model.SerializeToString()
        return blob


class Config:
    def __init__(self, asked: Recorder) -> None:
        self._asked = asked
        self.set = {"tf32"}  # as TensorRT has it

    def add_optimization_profile(self, profile: Any) -> None:
        assert self._asked.profiles

    def set_flag(self, flag: str) -> None:
        self._asked.flags.append(flag)

    def clear_flag(self, flag: str) -> None:
        self.set.remove(flag)

    def set_memory_pool_limit(self, pool: str, limit: int) -> None:
        self._asked.limits[pool] = limit

    def create_timing_cache(self, known: bytes) -> bytes:
        self._asked.caches.append(known)
        return known

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        return True

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: b"timings")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ("builder_optimization_level", "hardware_compatibility_level"):
            self._asked.levels[name] = value
        object.__setattr__(self, name, value)


class Inspectable:
    """The runtime's stand-in, with an inspector."""

    def __init__(self, runtime: Any, computes: str | None) -> None:
        self.runtime, self.computes = runtime, computes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.runtime, name)

    def deserialize_cuda_engine(self, blob: bytes) -> Any:
        engine = self.runtime.deserialize_cuda_engine(blob)
        if engine is not None:
            engine.create_engine_inspector = lambda: SimpleNamespace(
                get_engine_information=lambda format: self._layers(blob)
            )
        return engine

    def _layers(self, blob: bytes) -> str:
        graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(blob)).graph
        types = {v.name: NAMES.get(v.type.tensor_type.elem_type, "Int64") for v in graph.value_info}
        dequantised = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear"}  # fused
        layers = [
            {
                "Name": node.name,
                "LayerType": "CaskConvolution" if node.op_type == "Conv" else node.op_type,
                "Inputs": [
                    {"Name": name, "Format/Datatype": self.computes or "Int8"}
                    for name in node.input
                    if name in dequantised
                ],
                "Outputs": [
                    {
                        "Name": node.output[0],
                        "Format/Datatype": self.computes or types.get(node.output[0], "Float"),
                    }
                ],
            }
            for node in graph.node
        ]
        return json.dumps({"Layers": layers, "Bindings": ["waveform"]})
