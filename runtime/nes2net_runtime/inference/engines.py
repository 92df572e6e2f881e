"""Engines of TensorRT in a bundle: which of them fit this machine, and that nothing else is opened with them.

An engine is code for one TensorRT, one kind of card, one range of shapes, made from one graph. TensorRT tells
of a misfit late and in its own words, or computes something else; so everything that the manifest knows is
compared before an engine is opened. Its wrapper, an ONNX graph of one EPContext node, is what ONNX Runtime
opens:

    ModelProto.graph 7, .functions 25      GraphProto.node 1, .initializer 5, .sparse_initializer 15
    NodeProto.op_type 4, .attribute 5, .domain 7
    AttributeProto.name 1, .i 3, .s 4, .t 5, .g 6
"""

import mmap
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from nes2net_runtime.bundle import Bundle, check_place
from nes2net_runtime.errors import BundleError
from nes2net_runtime.inference.nvidia import Card, Driver
from nes2net_runtime.manifest import Engine, Stage
from nes2net_runtime.protobuf import Buffer, fields, numbers

# What an EPContext node may say beside the engine's name. onnx_model_filename, a second file, is not here.
ATTRIBUTES = frozenset(
    {"embed_mode", "ep_cache_context", "ep_sdk_version", "hardware_architecture", "main_context", "max_size"}
    | {"notes", "partition_name", "source"}
)

_NO_CARD = "install the driver, give a container its GPU (docker run --gpus all), or ask for --provider cpu"


@dataclass(frozen=True)
class Limits:
    """The shapes that engines take: least and largest number of windows at once, and their samples."""

    batch: tuple[int, int]
    samples: tuple[int, int]

    def take(self, batch: int, samples: int) -> bool:
        """Whether a waveform [batch, samples], or its frames, is inside."""
        least, largest = self.batch
        shortest, longest = self.samples
        return least <= batch <= largest and shortest <= samples <= longest

    @property
    def fixed(self) -> bool:
        """One shape alone: then CUDA can replay an engine's work as a graph."""
        return self.batch[0] == self.batch[1] and self.samples[0] == self.samples[1]

    def __str__(self) -> str:
        windows, samples = (f"{a:,}" if a == b else f"{a:,} to {b:,}" for a, b in (self.batch, self.samples))
        return f"{windows} window{'s' * (self.batch[1] > 1)} of {samples} samples"


def limits_of(engines: Sequence[Engine]) -> Limits:
    """What all of the engines take."""
    return Limits(
        (max(engine.batch[0] for engine in engines), min(engine.batch[2] for engine in engines)),
        (max(engine.samples[0] for engine in engines), min(engine.samples[2] for engine in engines)),
    )


def this_platform() -> str:
    """Operating system and processor as engines have them: "linux-x86_64"."""
    return f"{platform.system()}-{platform.machine()}".lower()


def rebuild_remedy(kind: str) -> str:
    """How a user gets an engine that fits."""
    return f"ask for --rebuild, or build one here: nes2net-export --from BUNDLE --to trt --engine {kind}"


def stage_hashes(bundle: Bundle, stage: Stage) -> list[str]:
    """SHA-256 of the stage's graph, then of the files that its weights are in, by name.

    Raises BundleError where the graph takes weights from a file that the manifest does not list.
    """
    listed = {file.path: file for file in bundle.manifest.files}
    return [listed[path].sha256 for path in (stage.file, *bundle.weights(stage))]


def runs_with(engine: Engine, version: str, native: bool) -> bool:
    """Whether a TensorRT of this version loads the engine.

    A version-compatible engine carries code of its own, which ONNX Runtime does not let TensorRT run.
    """
    if engine.version_compatible:
        return native and version.split(".")[0] == engine.version.split(".")[0]
    return version.split(".")[:3] == engine.version.split(".")[:3]


def misfit(engine: Engine, graph: Sequence[str], window: int, driver: Driver) -> str | None:
    """Why the engine can't run on this machine, and what to do; None: it can, as far as the manifest tells.

    `graph`: the hashes of the stage as it is in the bundle. `window`: samples that one window must have. The
    version of TensorRT is compared elsewhere (`runs_with`), for there may be several.
    """
    card, limits = driver.cards[0], limits_of([engine])
    rebuild = rebuild_remedy(engine.kind)
    if engine.platform != (here := this_platform()):
        return f"{engine.file} is for {engine.platform}, and this is {here}; {rebuild}"
    if not any(covers(capability, card) for capability in engine.compute_capabilities):
        return (
            f"{engine.file} is for cards of compute capability {', '.join(engine.compute_capabilities)}, and "
            f"this one ({card.name}) has {card.compute_capability}; {rebuild}"
        )
    if engine.cuda is not None and _numbers(driver.cuda) < _numbers(engine.cuda):
        return (
            f"{engine.file} was built where the driver supports CUDA {engine.cuda}, and this one supports "
            f"{driver.cuda}; update NVIDIA's driver, or {rebuild}"
        )
    if sorted(engine.graph) != sorted(graph):
        return f"{engine.file} is stale: built from another {engine.stage} than the bundle has; {rebuild}"
    if not limits.take(1, window):
        return f"{engine.file} takes {limits}, not one window of {window:,} samples; {rebuild}"
    return None


def no_card(driver: Driver | None) -> str:
    """Of a machine without NVIDIA's driver, or without a card: what is wrong, and what to do."""
    found = "its driver (libcuda.so.1) is not there" if driver is None else "the driver finds none"
    return f"needs an NVIDIA GPU, and {found}: {_NO_CARD}"


def check_engine(bundle: Bundle, engine: Engine) -> None:
    """Check hashes of an engine and its wrapper, and that the wrapper opens that engine and nothing else.

    Raises BundleError.
    """
    listed = {file.path: file for file in bundle.manifest.files}
    for path in (engine.file, engine.wrapper):
        if path not in listed:
            raise BundleError(f"{bundle.path}: an engine names {path!r}, which the manifest does not list")
        check_place(bundle.path, path)
        bundle.check_hash(listed[path])
    names = PurePosixPath(engine.file), PurePosixPath(engine.wrapper)
    if names[0].parent != names[1].parent:
        raise BundleError(f"{bundle.path}: {engine.wrapper!r} is not in the folder of its engine")
    wrapper = bundle.path / engine.wrapper
    try:
        with wrapper.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
            named = wrapped_engine(model)
    except (OSError, ValueError, LookupError) as error:
        raise BundleError(f"{wrapper}: not a wrapper of an engine ({error})") from error
    if named != names[0].name:
        raise BundleError(f"{wrapper}: wraps {named!r}, the manifest says {names[0].name!r}")


def wrapped_engine(model: Buffer) -> str:
    """The engine that an ONNX file of one EPContext node names; ValueError for any other ONNX file."""
    nodes = []
    for number, start, end in fields(model, 0, len(model)):
        if number == 25:
            raise ValueError("has functions")
        if number == 7:
            parts = list(fields(model, start, end))
            if any(part in (5, 15) for part, _, _ in parts):
                raise ValueError("has weights")
            nodes += [(a, b) for part, a, b in parts if part == 1]
    if len(nodes) != 1:
        raise ValueError(f"{len(nodes)} nodes")
    node = list(fields(model, *nodes[0]))
    texts = {number: bytes(model[a:b]) for number, a, b in node}
    if (texts.get(7), texts.get(4)) != (b"com.microsoft", b"EPContext"):
        raise ValueError("its node is no EPContext")
    named, embedded = b"", 1
    for number, start, end in node:
        if number != 5:
            continue
        attribute = {part: bytes(model[a:b]) for part, a, b in fields(model, start, end)}
        name = attribute.get(1, b"").decode()
        if name not in ATTRIBUTES or attribute.keys() - {1, 4, 13}:  # 13: a documentation text
            raise ValueError(f"attribute {name!r}")
        if name == "ep_cache_context":
            named = attribute.get(4, b"")
        if name == "embed_mode":
            embedded = numbers(model, start, end).get(3, 0)
    if embedded != 0:
        raise ValueError("the engine is inside")
    return named.decode()


def covers(capability: str, card: Card) -> bool:
    """Whether an engine for this compute capability ("8.9", "8.0+") is for the card."""
    if capability.endswith("+"):
        return _numbers(card.compute_capability) >= _numbers(capability.rstrip("+"))
    return capability == card.compute_capability


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
