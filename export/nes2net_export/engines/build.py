"""One ONNX graph -> one serialised engine: strongly typed, so that its precision is what the graph says."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nes2net_export.engines.tensorrt import TensorRT
from nes2net_runtime.commands import no_stdout
from nes2net_runtime.errors import ParityError, ProviderError

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]  # least, best, largest


@dataclass(frozen=True)
class BuildOptions:
    """How engines are built."""

    min_seconds: float = 0.025
    opt_seconds: float | None = None  # None: the official window
    max_seconds: float = 10.0
    max_batch: int = 8
    compute_capabilities: tuple[str, ...] = ()  # TensorRT-RTX alone: cards to build for; none: all it knows
    optimization_level: int | None = None  # 0 to 5; None: TensorRT's own
    workspace: int | None = None  # bytes
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False


def build_engine(
    trt: TensorRT,
    graph: Path,
    tensor: str,
    shapes: Shapes,
    options: BuildOptions,
    advance: Callable[[str, float], None],
) -> Any:
    """The serialised engine (a buffer) of an ONNX file, whose one input `tensor` has these shapes.

    `advance` hears what TensorRT does, and which share of it is done. Raises ProviderError where TensorRT
    does not take the graph, with the node, or can't build it.
    """
    module, log = trt.module, _log(trt.module)
    with no_stdout(), _stoppable() as stops:
        builder = module.Builder(log)
        network = builder.create_network(_strongly_typed(module))
        parser = module.OnnxParser(network, log)
        if not parser.parse_from_file(str(graph)):
            raise ProviderError(f"{trt.name} can't take {graph.name}: {_parser_error(parser)}")
        config = builder.create_builder_config()
        config.progress_monitor = _monitor(module, advance, stops)
        config.profiling_verbosity = module.ProfilingVerbosity.DETAILED  # for the inspector
        profile = builder.create_optimization_profile()
        profile.set_shape(tensor, *shapes)
        config.add_optimization_profile(profile)
        _configure(trt, config, options)
        engine = builder.build_serialized_network(network, config)
        if engine is None:
            raise ProviderError(f"{trt.name} can't build {graph.name}: {log.last or 'it does not say why'}")
    if options.timing_cache is not None:
        try:
            options.timing_cache.write_bytes(config.get_timing_cache().serialize())
        except OSError as error:
            raise ProviderError(f"{options.timing_cache}: can't be written ({error.strerror})") from error
    return engine


def inspect_engine(trt: TensorRT, engine: Any) -> str:
    """What the inspector says of an engine's layers, as JSON. Needs the card that the engine is for."""
    runtime = trt.module.Runtime(_log(trt.module))
    loaded = runtime.deserialize_cuda_engine(engine)
    if loaded is None:
        raise ParityError(f"{trt.name} does not load the engine that it built; no bundle was written")
    text: str = loaded.create_engine_inspector().get_engine_information(
        trt.module.LayerInformationFormat.JSON
    )
    return text


def _configure(trt: TensorRT, config: Any, options: BuildOptions) -> None:
    module = trt.module
    config.clear_flag(module.BuilderFlag.TF32)  # on by default; what a graph keeps in float32 is float32
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.workspace is not None:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, options.workspace)
    if options.version_compatible:
        config.set_flag(module.BuilderFlag.VERSION_COMPATIBLE)
    if options.hardware_compatible:
        config.hardware_compatibility_level = module.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.timing_cache is not None:
        known = options.timing_cache.read_bytes() if options.timing_cache.is_file() else b""
        config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False)
    if options.compute_capabilities:
        config.num_compute_capabilities = len(options.compute_capabilities)
        for i, capability in enumerate(options.compute_capabilities):
            config.set_compute_capability(getattr(module.ComputeCapability, sm(capability)), i)


def sm(capability: str) -> str:
    """TensorRT's name of a compute capability: "8.9" -> "SM89"."""
    return f"SM{capability.replace('.', '')}"


def known_capabilities(trt: TensorRT) -> list[str]:
    """Compute capabilities that this TensorRT-RTX builds for without a card, "8.9"."""
    names = trt.module.ComputeCapability.__members__
    return [f"{name[2:-1]}.{name[-1]}" for name in names if name.startswith("SM")]


def _strongly_typed(module: Any) -> int:
    """The flag of TensorRT 10; later all networks are strongly typed, and the flag may go."""
    flag = getattr(module.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parser_error(parser: Any) -> str:
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    if not errors:
        return "it does not say why"
    error = errors[-1]  # the node itself; those before it are its neighbours
    return (
        f"node {error.node_name() or '(no name)'} ({error.node_operator()}): {' '.join(error.desc().split())}"
    )


def _log(module: Any) -> Any:
    """A logger that keeps the last error for our own message."""

    class Log(module.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.last = ""

        def log(self, severity: Any, message: str) -> None:
            if severity <= module.ILogger.Severity.ERROR:
                self.last = " ".join(message.split())

    return Log()


@contextmanager
def _stoppable() -> Iterator[list[int]]:
    """Ctrl-C and SIGTERM, as they come, in a list; their handlers are called at the end.

    What a handler raises while TensorRT calls back (log, monitor) is lost there, and the build goes on.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    heeded = {number: handler for number, handler in handlers.items() if handler is not signal.SIG_IGN}
    stops: list[int] = []
    try:
        for number in heeded:
            signal.signal(number, lambda number, _: stops.append(number))
        yield stops
    finally:
        for number, handler in heeded.items():
            signal.signal(number, handler)
        if stops:
            signal.raise_signal(stops[0])


def _monitor(module: Any, advance: Callable[[str, float], None], stops: list[int]) -> Any:
    """Reports the innermost phase of a build and its share that is done; once `stops` holds one, it ends."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self.steps[phase] = steps
            advance(phase, 0.0)

        def step_complete(self, phase: str, step: int) -> bool:
            advance(phase, (step + 1) / max(1, self.steps.get(phase, 1)))
            return not stops

        def phase_finish(self, phase: str) -> None:
            self.steps.pop(phase, None)

    return Monitor()
