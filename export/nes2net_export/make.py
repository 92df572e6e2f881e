"""The whole way: a checkpoint or a bundle -> a bundle in the precision asked for, perhaps with engines."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
from msgspec.structs import replace

from nes2net_export.derive import Form, derive
from nes2net_export.engines.build import BuildOptions
from nes2net_export.engines.compile import compile_stages
from nes2net_export.engines.tensorrt import TensorRT
from nes2net_export.engines.verify import check_engines
from nes2net_export.output import Say
from nes2net_export.probe import Probe
from nes2net_export.triton import write_triton
from nes2net_runtime.bundle import Bundle, read_bundle
from nes2net_runtime.bundle_writer import list_files, new_bundle, write_manifest
from nes2net_runtime.errors import BundleError
from nes2net_runtime.manifest import Engine, Manifest


@dataclass(frozen=True)
class Checkpoint:
    """A detector that torch has loaded."""

    name: str  # for its bundle
    random: bool  # its weights
    write: Callable[[Path], Manifest]  # fill a folder with its float32 bundle, all but the manifest


Parent = Checkpoint | Bundle


@dataclass(frozen=True)
class Derivation:
    """Another precision, and what it is measured on."""

    form: Form
    probe: Callable[[int], Probe]  # of windows of so many samples
    max_drift: float | None
    block: int | None = None  # weights that share a scale, of INT4


@dataclass(frozen=True)
class Compilation:
    """Engines to build."""

    trt: TensorRT
    options: BuildOptions


def make_bundle(
    parent: Parent,
    target: Path,
    derivation: Derivation | None,
    compilation: Compilation | None,
    force: bool,
    say: Say,
) -> Manifest:
    """Write the bundle `target`, whole or not at all.

    `target` may be the parent itself, with `force`. Raises BundleError where it can't be written, ParityError
    where a check fails, ProviderError where no engine can be built.
    """
    title = target.name.removesuffix(".nes2net")
    if compilation is not None and isinstance(parent, Bundle):
        _refuse_integers(parent)
    with new_bundle(target, force) as folder:
        if derivation is None:
            manifest = _written(parent, folder)
            if isinstance(parent, Checkpoint):
                manifest = replace(manifest, name=title)
        else:
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{target.name}.parent-") as scratch:
                source = parent if isinstance(parent, Bundle) else _bundle(parent, Path(scratch))
                probe = derivation.probe(source.manifest.audio.window_samples)
                manifest = derive(
                    *(source, folder, title, derivation.form, derivation.block),
                    *(probe, derivation.max_drift, say),
                )
        if compilation is not None:
            engines = compile_stages(compilation.trt, folder, manifest, compilation.options, say)
            manifest = replace(manifest, engines=_with(manifest, engines))
        say("hashing", None)
        manifest = manifest.with_files(list_files(folder))
        write_manifest(folder, manifest)
        if compilation is not None and engines[0].evidence == "inspected":
            check_engines(read_bundle(folder), compilation.trt, say)
    return manifest


def _refuse_integers(bundle: Bundle) -> None:
    """Raise BundleError where graphs compute in the integers of CPUs, which engines do not take."""
    for stage in bundle.manifest.stages:
        graph = onnx.load(bundle.path / stage.file, load_external_data=False).graph
        if {node.op_type for node in graph.node} & {"MatMulInteger", "MatMulNBits"}:
            raise BundleError(
                f"{bundle.path}: its {stage.precision} is for CPUs; engines are made from a float32 bundle: "
                "nes2net-export --from FP32BUNDLE --int8 --to trt"
            )


def make_triton(parent: Parent, target: Path, force: bool, max_batch: int) -> list[str]:
    """Write a Triton model repository; returns a line for each of its models. Raises BundleError."""
    if isinstance(parent, Bundle):
        return write_triton(parent, target, force, max_batch)
    with tempfile.TemporaryDirectory(
        dir=target.absolute().parent, prefix=f".{target.name}.parent-"
    ) as scratch:
        return write_triton(_bundle(parent, Path(scratch)), target, force, max_batch)


def _written(parent: Parent, folder: Path) -> Manifest:
    """Fill a folder with the parent's files; its manifest is returned."""
    if isinstance(parent, Checkpoint):
        return parent.write(folder)
    parent.verify()
    for file in parent.manifest.files:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(parent.path / file.path, folder / file.path)
    return parent.manifest


def _bundle(checkpoint: Checkpoint, folder: Path) -> Bundle:
    manifest = checkpoint.write(folder)
    write_manifest(folder, manifest.with_files(list_files(folder)))
    return read_bundle(folder)


def _with(manifest: Manifest, engines: list[Engine]) -> list[Engine]:
    """The bundle's engines with these; those of their kind are replaced."""
    kinds = {engine.kind for engine in engines}
    return [*(engine for engine in manifest.engines if engine.kind not in kinds), *engines]
