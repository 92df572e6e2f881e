"""Which provider runs the stages, and with what: engines that fit, ONNX graphs, or an error that says why.

auto       engines of the bundle that fit -> CUDA where it really works -> CPU
tensorrt   the bundle's engines -> those that --rebuild left in the user's cache -> error
trt-rtx    the same
others     ONNX graphs, or an error
"""

from collections.abc import Callable
from functools import partial
from types import ModuleType

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.engine_opening import KINDS, build_engines, has_engines, open_engines
from nes2net_runtime.engines import no_card
from nes2net_runtime.errors import BundleError, ProviderError
from nes2net_runtime.loaded import Loaded, on_device, stage_receipts
from nes2net_runtime.native_tensorrt import import_tensorrt
from nes2net_runtime.nvidia import find_driver
from nes2net_runtime.ort_sessions import CUDA_OPTIONS, first_line, open_session
from nes2net_runtime.pipeline import OnHost
from nes2net_runtime.providers import Provider, available_providers, import_onnxruntime


def open_stages(bundle: Bundle, provider: Provider, threads: int, rebuild: bool = False) -> Loaded:
    """Verify the hashes of what is opened, and open it.

    `rebuild`: let ONNX Runtime's provider build engines here, and keep them in the user's cache. Raises
    BundleError, and ProviderError for a provider that is not there, does not run, or has no engine that fits.
    """
    runtime = import_onnxruntime()
    if provider == "auto":
        return open_auto(bundle, threads)
    there = available_providers()
    if provider in KINDS and (provider in there or import_tensorrt(KINDS[provider])):
        driver = find_driver()
        if driver is None or not driver.cards:
            raise ProviderError(f"provider {provider} {no_card(driver)}")
        if rebuild:
            return build_engines(runtime, bundle, provider, threads, driver)
        return open_engines(runtime, bundle, provider, threads, driver)
    if provider not in there:
        raise ProviderError(f"provider {provider} is not in this ONNX Runtime; there is: {', '.join(there)}")
    if provider == "cuda" and ((driver := find_driver()) is None or not driver.cards):
        raise ProviderError(f"provider {provider} {no_card(driver)}")
    return _open_graphs(runtime, bundle, provider, threads)


def open_auto(bundle: Bundle, threads: int, engines: bool = True) -> Loaded:
    """What is fastest of what works, and why others were passed over."""
    runtime, driver = import_onnxruntime(), find_driver()
    kinds = [kind for kind in ("tensorrt", "trt-rtx") if engines and has_engines(bundle, KINDS[kind])]
    passed: list[str] = []
    if driver is None or not driver.cards:
        passed += [f"provider {kind} {no_card(driver)}" for kind in kinds]
    else:
        ways: list[tuple[str, Callable[[], Loaded]]] = [
            (kind, partial(open_engines, runtime, bundle, kind, threads, driver)) for kind in kinds
        ]
        if "cuda" in available_providers():
            ways.append(("cuda", partial(_open_graphs, runtime, bundle, "cuda", threads)))
        for name, way in ways:
            try:
                opened = way()
            except ProviderError as error:
                passed.append(str(error))
            else:
                return Loaded(name, opened.pipeline, opened.stages, opened.limits, passed)
    opened = _open_graphs(runtime, bundle, "cpu", threads)
    return Loaded("cpu", opened.pipeline, opened.stages, None, passed)


def _open_graphs(runtime: ModuleType, bundle: Bundle, provider: str, threads: int) -> Loaded:
    """The ONNX graphs; on CUDA with its graphs, where all of a stage can be replayed."""
    stages = bundle.manifest.stages
    for stage in stages:
        bundle.verify_stage(stage)
    paths = [bundle.path / stage.file for stage in stages]
    if provider == "cuda":
        try:
            options = {**CUDA_OPTIONS, "enable_cuda_graph": "1"}
            sessions = [open_session(runtime, path, provider, threads, options) for path in paths]
            graph = True
        except ProviderError:  # nodes that only the CPU has: then no graph can be captured
            sessions = [open_session(runtime, path, provider, threads, CUDA_OPTIONS) for path in paths]
            graph = False
        place = on_device(runtime, sessions, stages, provider, threads)
        return Loaded(provider, place, stage_receipts(stages, sessions, "cuda", graph))
    sessions = []
    for path in paths:
        try:
            sessions.append(open_session(runtime, path, provider, threads))
        except ProviderError as error:
            if provider == "cpu" and error.__cause__ is not None:
                cause = first_line(error.__cause__)
                raise BundleError(f"{path}: ONNX Runtime can't load this stage ({cause})") from error
            raise
    pipeline = OnHost(sessions, [stage.inputs[0].name for stage in stages])
    return Loaded(provider, pipeline, stage_receipts(stages, sessions, "cpu", False))
