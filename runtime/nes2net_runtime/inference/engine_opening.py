"""Engines: the bundle's, those in the user's cache, and their building there by ONNX Runtime's providers."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference import engine_cache
from nes2net_runtime.inference.engines import (
    check_engine,
    limits_of,
    misfit,
    rebuild_remedy,
    runs_with,
    stage_hashes,
)
from nes2net_runtime.inference.loaded import Loaded, on_device, stage_receipts
from nes2net_runtime.inference.native_tensorrt import OnTensorRT, import_tensorrt
from nes2net_runtime.inference.nvidia import Driver
from nes2net_runtime.inference.ort_sessions import open_session
from nes2net_runtime.inference.providers import linked_tensorrt, plugin_tensorrt
from nes2net_runtime.inference.receipt import EngineReceipt, StageReceipt
from nes2net_runtime.manifest import Engine, Stage

KINDS: dict[str, Literal["trt", "trt-rtx"]] = {"tensorrt": "trt", "trt-rtx": "trt-rtx"}
CUDA_GRAPH = {"tensorrt": "trt_cuda_graph_enable", "trt-rtx": "enable_cuda_graph"}


def has_engines(bundle: Bundle, provider: str) -> bool:
    """Whether the bundle has engines for the provider, which may not fit."""
    return any(engine.kind == KINDS[provider] for engine in bundle.manifest.engines)


def built_here(runtime: ModuleType, bundle: Bundle, provider: str, driver: Driver) -> Path | None:
    """Where engines are that --rebuild built here for these graphs; None: it did not."""
    if not engine_cache.engines_folder().is_dir():
        return None
    parts = _parts(runtime, bundle, provider, driver)
    folder = engine_cache.engine_folder(parts) if parts else None
    return folder if folder and engine_cache.is_complete(folder) else None


def open_engines(runtime: ModuleType, bundle: Bundle, provider: str, threads: int, driver: Driver) -> Loaded:
    """Engines of the bundle, else those in the user's cache.

    Raises ProviderError where none fits, with the reason, and BundleError for a damaged one.
    """
    kind = KINDS[provider]
    try:
        engines = [_fitting(bundle, stage, kind, driver) for stage in bundle.manifest.stages]
        native = _tensorrt_for(runtime, provider, engines)
    except ProviderError as error:
        if folder := built_here(runtime, bundle, provider, driver):
            return _open_cached(runtime, bundle, provider, threads, folder)
        raise ProviderError(f"provider {provider}: {error}") from error
    for engine in engines:
        check_engine(bundle, engine)
    if native is not None:
        return _open_native(native, bundle, provider, engines, driver)
    return _open_wrapped(runtime, bundle, provider, threads, engines)


def _open_wrapped(
    runtime: ModuleType, bundle: Bundle, provider: str, threads: int, engines: Sequence[Engine]
) -> Loaded:
    """The engines through ONNX Runtime, by their wrappers; with CUDA graphs where there is one shape."""
    stages, limits = bundle.manifest.stages, limits_of(engines)
    options = {CUDA_GRAPH[provider]: "1"} if limits.fixed else {}
    sessions = []
    for engine in engines:
        wrapper = bundle.path / engine.wrapper
        config = {"ep.context_file_path": str(wrapper)}  # the engine is looked for beside it
        sessions.append(open_session(runtime, wrapper, provider, threads, options, config))
    receipts = [_receipt(engine) for engine in engines]
    return Loaded(
        provider,
        on_device(runtime, sessions, stages, provider, threads, limits.fixed),
        stage_receipts(stages, sessions, "cuda", limits.fixed, receipts),
        limits,
    )


def _open_native(
    tensorrt: ModuleType, bundle: Bundle, provider: str, engines: Sequence[Engine], driver: Driver
) -> Loaded:
    """The engines by TensorRT itself."""
    paths = [bundle.path / engine.file for engine in engines]
    names = [(stage.inputs[0].name, stage.outputs[0].name) for stage in bundle.manifest.stages]
    own_code = any(engine.version_compatible for engine in engines)
    receipts = [
        StageReceipt(
            stage=engine.stage,
            precision=engine.precision,
            provider=provider,
            library=f"{tensorrt.__name__} {tensorrt.__version__}",
            device=f"gpu {driver.cards[0].name}",
            nodes={provider: 1},
            io="cuda",
            cuda_graph=False,
            engine=_receipt(engine),
        )
        for engine in engines
    ]
    try:
        pipeline = OnTensorRT(tensorrt, paths, names, own_code)
    except ProviderError as error:
        raise ProviderError(f"provider {provider}: {error}") from error
    return Loaded(provider, pipeline, receipts, limits_of(engines))


def _receipt(engine: Engine) -> EngineReceipt:
    return EngineReceipt(engine.file, engine.kind, engine.version, engine.evidence)


def _fitting(bundle: Bundle, stage: Stage, kind: str, driver: Driver) -> Engine:
    """An engine of the stage that fits the machine; raises ProviderError with the first one's misfit."""
    engines = [engine for engine in bundle.manifest.engines if engine.stage == stage.name]
    graph, window = stage_hashes(bundle, stage), bundle.manifest.audio.window_samples
    misfits = []
    for engine in (engine for engine in engines if engine.kind == kind):
        wrong = misfit(engine, graph, window, driver)
        if wrong is None:
            return engine
        misfits.append(wrong)
    raise ProviderError(
        misfits[0] if misfits else f"{bundle.path} has no engine of {stage.name}; {rebuild_remedy(kind)}"
    )


def _tensorrt_for(runtime: ModuleType, provider: str, engines: Sequence[Engine]) -> ModuleType | None:
    """What runs the engines: ONNX Runtime's TensorRT (None), else TensorRT itself.

    Raises ProviderError where no TensorRT that is installed loads them.
    """
    found = []
    try:
        version = linked_tensorrt(runtime) if provider == "tensorrt" else plugin_tensorrt()
    except ProviderError:
        found.append("ONNX Runtime finds none")
    else:
        if version is not None:
            if all(runs_with(engine, version, native=False) for engine in engines):
                return None
            found.append(f"ONNX Runtime's is {version}")
    native = import_tensorrt(KINDS[provider])
    if native is not None:
        if all(runs_with(engine, native.__version__, native=True) for engine in engines):
            return native
        found.append(f"{native.__name__} is {native.__version__}")
    built = engines[0]
    raise ProviderError(
        f"{built.file} needs TensorRT {built.version}, which is not here ({'; '.join(found) or 'none is'}): "
        f"install that version, or {rebuild_remedy(built.kind)}"
    )


def _parts(runtime: ModuleType, bundle: Bundle, provider: str, driver: Driver) -> list[str] | None:
    """What engines that are built here depend on; None where nothing could build them."""
    try:
        version = linked_tensorrt(runtime) if provider == "tensorrt" else plugin_tensorrt()
    except ProviderError:
        return None
    card, stages = driver.cards[0], bundle.manifest.stages
    return [
        f"{provider} {version}, onnxruntime {runtime.__version__}",
        f"{card.name}, compute capability {card.compute_capability}, CUDA {driver.cuda}",
        str(engine_cache.limits(bundle.manifest.audio.window_samples)),
        *(f"{stage.name} {' '.join(stage_hashes(bundle, stage))}" for stage in stages),
    ]


def build_engines(runtime: ModuleType, bundle: Bundle, provider: str, threads: int, driver: Driver) -> Loaded:
    """Build engines from the ONNX graphs into the user's cache, in place of those that are there."""
    if provider == "tensorrt":
        linked_tensorrt(runtime)  # says what is missing
    parts = _parts(runtime, bundle, provider, driver) or []
    folder = engine_cache.engine_folder(parts)
    engine_cache.begin(folder)
    opened = _open_cached(runtime, bundle, provider, threads, folder)
    engine_cache.complete(folder, parts)
    return opened


def _open_cached(runtime: ModuleType, bundle: Bundle, provider: str, threads: int, folder: Path) -> Loaded:
    """The ONNX graphs, with engines that the provider finds in the folder or builds there."""
    stages, window = bundle.manifest.stages, bundle.manifest.audio.window_samples
    for stage in stages:
        bundle.verify_stage(stage)
    sessions = []
    for stage in stages:
        place = folder / stage.name
        place.mkdir(exist_ok=True)
        graph, config = bundle.path / stage.file, {}
        if provider == "tensorrt":
            options = engine_cache.tensorrt_options(stage, window, place)
        else:
            options = engine_cache.rtx_options(stage, window, place)
            wrapper = place / "engine.onnx"
            config = {"ep.context_file_path": str(wrapper)}
            if wrapper.exists():
                graph = wrapper
            else:
                config |= {"ep.context_enable": "1", "ep.context_embed_mode": "0"}
        sessions.append(open_session(runtime, graph, provider, threads, options, config))
    version = linked_tensorrt(runtime) if provider == "tensorrt" else plugin_tensorrt() or "?"
    engines = [EngineReceipt(str(folder / stage.name), KINDS[provider], version, None) for stage in stages]
    pipeline = on_device(runtime, sessions, stages, provider, threads)
    receipts = stage_receipts(stages, sessions, "cuda", False, engines)
    return Loaded(provider, pipeline, receipts, engine_cache.limits(window))
