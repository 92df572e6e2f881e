"""A whole machine of stand-ins: a driver, onnxruntime-gpu, the plugin, TensorRT; and bundles with engines."""

import ctypes
import shutil
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from msgspec.structs import replace

from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.inference.engines import stage_hashes, this_platform
from nes2net_runtime.manifest import Engine
from stand_ins import nvidia_driver, onnxruntime_gpu
from stand_ins import tensorrt as native_tensorrt

RTX_4090 = ("NVIDIA GeForce RTX 4090", "8.9")
H100 = ("NVIDIA H100", "9.0")


def install(
    patch: pytest.MonkeyPatch,
    folder: Path,
    providers: tuple[str, ...] = (onnxruntime_gpu.TENSORRT, onnxruntime_gpu.CUDA),
    cards: tuple[tuple[str, str], ...] | None = (RTX_4090,),
    cuda: str = "13.0",
    tensorrt: str | None = "10.16.1",
    plugin: str | None = None,
    plugin_error: str | None = None,
    native: str | None = None,
) -> onnxruntime_gpu.Machine:
    """Make imports and loaded libraries those of a machine, until the test ends.

    `cards`: None is no driver. `tensorrt`: version of libnvinfer.so.10; None is none. `plugin`: version of
    the TensorRT-RTX in the plugin, `native`: of the module tensorrt; None: not installed.
    """
    machine = onnxruntime_gpu.Machine(folder, providers, plugin_error)
    libraries: dict[str, Any] = {}
    if cards is not None:
        libraries[nvidia_driver.LIBRARY] = nvidia_driver.Libcuda(cards, cuda)
    if tensorrt is not None:
        libraries["libnvinfer.so.10"] = nvidia_driver.Libnvinfer(tensorrt)
    patch.setattr(ctypes, "CDLL", nvidia_driver.loader(libraries))
    patch.setitem(sys.modules, "onnxruntime", machine.module())
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    if plugin is not None:
        place = folder / "plugin"
        place.mkdir()
        (place / f"libtensorrt_rtx.so.{plugin}").touch()
        _import(patch, "onnxruntime_ep_nv_tensorrt_rtx", machine.plugin(), place)
    machine.card = native_tensorrt.Card()
    if native is not None:
        _import(patch, "tensorrt", machine.card.tensorrt(native), folder)
        bindings = ModuleType("cuda.bindings")
        bindings.runtime = machine.card.cuda()
        for module in (ModuleType("cuda"), bindings, bindings.runtime):
            _import(patch, module.__name__, module, folder)
    return machine


def _import(patch: pytest.MonkeyPatch, name: str, module: ModuleType, folder: Path) -> None:
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = [str(folder)]
    module.__spec__ = spec
    patch.setitem(sys.modules, name, module)


def bundle_with_engines(folder: Path, kind: str = "trt", version: str = "10.16.1.11", **changes: Any) -> Path:
    """The demo bundle with engines, as nes2net-export makes them; `changes` are to their records."""
    shutil.copytree(DEMO, folder)
    bundle = read_bundle(folder)
    (folder / "engines").mkdir()
    engines = []
    for stage in bundle.manifest.stages:
        name = f"engines/{stage.name}.{kind}"
        shutil.copy(folder / stage.file, folder / f"{name}.engine")
        write_wrapper(folder / f"{name}.onnx", onnx.load(folder / stage.file), f"{stage.name}.{kind}.engine")
        engine = Engine(
            stage=stage.name,
            file=f"{name}.engine",
            wrapper=f"{name}.onnx",
            kind=kind,
            version=version,
            precision=stage.precision,
            compute_capabilities=["8.9"],
            gpu=RTX_4090[0],
            cuda="13.0",
            platform=this_platform(),
            version_compatible=False,
            batch=(1, 1, 4),
            samples=(400, 64_600, 80_000),
            graph=stage_hashes(bundle, stage),
            evidence="inspected",
        )
        engines.append(replace(engine, **changes))
    write_manifest(folder, replace(bundle.manifest, engines=engines, files=list_files(folder)))
    return folder


def write_wrapper(path: Path, model: onnx.ModelProto, engine: str, **attributes: Any) -> None:
    """A graph of one EPContext node for an engine, with the inputs and outputs of `model`."""
    node = onnx.helper.make_node(
        "EPContext",
        [value.name for value in model.graph.input],
        [value.name for value in model.graph.output],
        domain="com.microsoft",
        **{"embed_mode": 0, "main_context": 1, "ep_cache_context": engine, **attributes},
    )
    graph = onnx.helper.make_graph([node], "engine", model.graph.input, model.graph.output)
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
