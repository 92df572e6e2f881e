"""Which provider runs the stages, and with what: engines that fit, ONNX graphs, or an error that says why.

    tensorrt   the bundle's engines that fit -> those that --rebuild left in the user's cache -> error
    trt-rtx    the same
    openvino   ONNX Runtime's provider or plugin -> OpenVINO itself -> error
    auto       what --tune found to be faster here -> engines, as above -> CUDA where it really works -> CPU
    others     ONNX graphs, or an error

What `auto` passed over, and why, goes with what it took.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from types import ModuleType

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import BundleError, ProviderError
from nes2net_runtime.inference.engine_opening import (
    KINDS,
    build_engines,
    built_here,
    has_engines,
    open_engines,
)
from nes2net_runtime.inference.engines import no_card
from nes2net_runtime.inference.loaded import Loaded, on_device, stage_receipts
from nes2net_runtime.inference.native_tensorrt import import_tensorrt
from nes2net_runtime.inference.nvidia import find_driver
from nes2net_runtime.inference.openvino_runtime import open_openvino
from nes2net_runtime.inference.ort_sessions import CUDA_OPTIONS, first_line, open_session, openvino_options
from nes2net_runtime.inference.pipeline import OnHost
from nes2net_runtime.inference.plugins import PLUGINS, plugin_device
from nes2net_runtime.inference.providers import Provider, available_providers, import_onnxruntime, is_built_in
from nes2net_runtime.inference.tuning_cache import read_tuning

# What `auto` takes of what works, where --tune measured nothing faster.
ORDER: tuple[Provider, ...] = ("tensorrt", "trt-rtx", "cuda", "cpu")

NOT_TUNED = "openvino was not measured with this bundle, these threads and versions: nes2net-run --tune"


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
    if provider == "openvino":
        return _open_openvino(runtime, bundle, threads)
    if provider not in there:
        raise ProviderError(f"provider {provider} is not in this ONNX Runtime; there is: {', '.join(there)}")
    if provider == "cuda" and ((driver := find_driver()) is None or not driver.cards):
        raise ProviderError(f"provider {provider} {no_card(driver)}")
    return _open_graphs(runtime, bundle, provider, threads)


def open_auto(bundle: Bundle, threads: int, engines: bool = True) -> Loaded:
    """What is fastest of what works, and why others were passed over."""
    runtime, driver = import_onnxruntime(), find_driver()
    of_engines = KINDS if engines else ()
    passed: list[str] = []
    tuning = read_tuning(bundle, threads)
    tuned = tuning.summary if tuning else NOT_TUNED if "openvino" in available_providers() else None
    if tuning and tuning.fastest != tuning.reference and (engines or tuning.fastest not in KINDS):
        try:
            opened = open_stages(bundle, tuning.fastest, threads)
        except ProviderError as error:
            passed.append(str(error))
        else:
            return replace(opened, tuned=tuned)
    if driver is None or not driver.cards:
        passed += [f"provider {name} {no_card(driver)}" for name in of_engines if has_engines(bundle, name)]
    else:
        ways: list[Callable[[], Loaded]] = [
            partial(open_engines, runtime, bundle, name, threads, driver)
            for name in of_engines
            if has_engines(bundle, name) or built_here(runtime, bundle, name, driver)
        ]
        if "cuda" in available_providers():
            ways.append(partial(_open_graphs, runtime, bundle, "cuda", threads))
        for way in ways:
            try:
                opened = way()
            except ProviderError as error:
                passed.append(str(error))
            else:
                return replace(opened, passed_over=passed, tuned=tuned)
    return replace(_open_graphs(runtime, bundle, "cpu", threads), passed_over=passed, tuned=tuned)


def _open_openvino(runtime: ModuleType, bundle: Bundle, threads: int) -> Loaded:
    """By ONNX Runtime where its OpenVINO takes this processor, else by OpenVINO itself."""
    if is_built_in(runtime, "openvino"):
        return _open_graphs(runtime, bundle, "openvino", threads)
    if find_spec(PLUGINS["openvino"]):
        try:
            plugin_device(runtime, "openvino")
        except ProviderError:
            if not find_spec("openvino"):
                raise
        else:
            return _open_graphs(runtime, bundle, "openvino", threads)
    return open_openvino(bundle, threads)


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
    for path, stage in zip(paths, stages, strict=True):
        settings = openvino_options(stage.precision, threads) if provider == "openvino" else None
        try:
            sessions.append(open_session(runtime, path, provider, threads, settings))
        except ProviderError as error:
            if provider == "cpu" and error.__cause__ is not None:
                cause = first_line(error.__cause__)
                raise BundleError(f"{path}: ONNX Runtime can't load this stage ({cause})") from error
            raise
    pipeline = OnHost(sessions, bundle.manifest)
    return Loaded(provider, pipeline, stage_receipts(stages, sessions, "cpu", False))
