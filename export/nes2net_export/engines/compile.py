"""A bundle's stages -> engines in its folder, each with the record of everything that it depends on."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

import onnx

from nes2net_export.engines.build import (
    BuildOptions,
    Shapes,
    build_engine,
    inspect_engine,
    known_capabilities,
)
from nes2net_export.engines.inspection import LEAST, graph_share, precision_share
from nes2net_export.engines.tensorrt import TensorRT
from nes2net_export.engines.wrapper import wrap
from nes2net_export.output import Say
from nes2net_runtime.bundle import sha256
from nes2net_runtime.errors import ParityError, ProviderError
from nes2net_runtime.external_data import external_locations
from nes2net_runtime.inference.engines import covers, this_platform
from nes2net_runtime.inference.nvidia import Card, Driver, find_driver
from nes2net_runtime.manifest import Audio, Engine, Manifest, Stage

FOLDER = "engines"
ON_REQUEST = "7.5"  # Turing: TensorRT-RTX has no float32 matrix products for it


def compile_stages(
    trt: TensorRT, folder: Path, manifest: Manifest, options: BuildOptions, say: Say
) -> list[Engine]:
    """Build an engine of each stage of the bundle in `folder`, and write it there, to engines/.

    Where a GPU is there that they are for, the inspector must find the precision of the graph in each. Raises
    ProviderError where one can't be built, ParityError where it is of another precision.
    """
    driver, samples = find_driver(), sample_range(manifest.audio, options)
    targets = target_capabilities(trt, options, driver)
    card = card_here(trt, options, driver)
    targeted = replace(options, compute_capabilities=targets if trt.kind == "trt-rtx" else ())
    (folder / FOLDER).mkdir(exist_ok=True)
    engines = []
    for stage in manifest.stages:
        name = f"{stage.name}.{trt.kind}"
        blob = build_engine(
            trt,
            folder / stage.file,
            stage.inputs[0].name,
            input_shapes(stage, manifest.audio, samples, options.max_batch),
            targeted,
            lambda phase, share, stage=stage: say(f"{stage.name}: {phase}", share),  # type: ignore[misc]
        )
        (folder / FOLDER / f"{name}.engine").write_bytes(blob)
        wrapper = wrap(stage, f"{name}.engine", trt.kind, trt.version, targets[0].replace(".", ""))
        onnx.save(wrapper, folder / FOLDER / f"{name}.onnx")
        if card is not None:
            check_precision(trt, stage, folder / stage.file, inspect_engine(trt, blob))
        engines.append(
            Engine(
                stage=stage.name,
                file=f"{FOLDER}/{name}.engine",
                wrapper=f"{FOLDER}/{name}.onnx",
                kind=trt.kind,
                version=trt.version,
                precision=stage.precision,
                compute_capabilities=list(targets),
                gpu=card.name if card else None,
                cuda=driver.cuda if driver and card else None,
                platform=this_platform(),
                version_compatible=options.version_compatible,
                batch=(1, 1, options.max_batch),
                samples=samples,
                graph=graph_hashes(folder, stage),
                evidence="inspected" if card else "graph-typed, not inspected",
            )
        )
    return engines


def check_options(trt: TensorRT, options: BuildOptions) -> None:
    """Raise ProviderError for options that this TensorRT does not have."""
    if trt.kind == "trt":
        if options.compute_capabilities:
            raise ProviderError(
                f"{trt.name} builds for the card that is here; --compute-capability is for TensorRT-RTX "
                "(--engine trt-rtx)"
            )
        return
    if options.timing_cache or options.version_compatible or options.hardware_compatible:
        raise ProviderError(
            f"{trt.name} has no timing cache, and engines for several cards and one version: leave out "
            "--timing-cache, --version-compatible and --hardware-compatible"
        )
    known = known_capabilities(trt)
    if unknown := [c for c in options.compute_capabilities if c not in known]:
        raise ProviderError(f"{trt.name} builds for {', '.join(known)}, not for {', '.join(unknown)}")


def target_capabilities(trt: TensorRT, options: BuildOptions, driver: Driver | None) -> tuple[str, ...]:
    """Cards that the engines are for, "8.9": those asked for, or all that can be, or the one that is here.

    "8.0+": from there on.
    """
    if options.hardware_compatible:
        return ("8.0+",)
    if trt.kind == "trt":
        assert driver is not None and driver.cards, "find_tensorrt asks for a card"
        return (driver.cards[0].compute_capability,)
    return tuple(dict.fromkeys(options.compute_capabilities)) or tuple(
        c for c in known_capabilities(trt) if c != ON_REQUEST
    )


def card_here(trt: TensorRT, options: BuildOptions, driver: Driver | None) -> Card | None:
    """The card that is here; None: none is, or the engines are for others."""
    card = driver.cards[0] if driver and driver.cards else None
    targets = target_capabilities(trt, options, driver)
    return card if card and any(covers(target, card) for target in targets) else None


def sample_range(audio: Audio, options: BuildOptions) -> tuple[int, int, int]:
    """Least, best and largest length in samples. Raises ProviderError where they are in no such order."""
    least, most = (round(audio.sample_rate * s) for s in (options.min_seconds, options.max_seconds))
    best = (
        audio.window_samples
        if options.opt_seconds is None
        else round(audio.sample_rate * options.opt_seconds)
    )
    if not least <= best <= most:
        raise ProviderError(
            f"engines for {least / audio.sample_rate:g} to {most / audio.sample_rate:g} s can't be tuned for "
            f"{best / audio.sample_rate:g} s: change --min-seconds, --opt-seconds or --max-seconds"
        )
    return max(least, audio.min_samples), best, most


def input_shapes(stage: Stage, audio: Audio, samples: tuple[int, int, int], max_batch: int) -> Shapes:
    """Least, best and largest shape of the stage's input; later stages get frames instead of samples."""

    def shape(batch: int, length: int) -> tuple[int, ...]:
        frames = (length - audio.frame_field) // audio.frame_hop + 1
        sizes = {"batch": batch, "samples": length, "frames": frames}
        return tuple(sizes[d] if isinstance(d, str) else d for d in stage.inputs[0].shape)

    least, best, most = samples
    return shape(1, least), shape(1, best), shape(max_batch, most)


def check_precision(trt: TensorRT, stage: Stage, graph: Path, information: str) -> None:
    """Raise ParityError where the engine does not compute in the precision that its graph asks for."""
    try:
        share = precision_share(information, stage.precision)
    except ValueError as error:
        raise ParityError(
            f"{trt.name}: {stage.name} can't be inspected: {error}; nothing was written"
        ) from error
    if share < LEAST * graph_share(onnx.load(graph, load_external_data=False), stage.precision):
        raise ParityError(
            f"{trt.name}: {stage.precision} was asked for, and only {share:.0%} of the working layers of "
            f"{stage.name} are; nothing was written"
        )


def graph_hashes(folder: Path, stage: Stage) -> list[str]:
    """SHA-256 of the stage's graph and of the files that its weights are in."""
    place = PurePosixPath(stage.file).parent
    weights = sorted(external_locations(folder / stage.file))
    return [sha256(folder / path) for path in (stage.file, *(str(place / name) for name in weights))]
