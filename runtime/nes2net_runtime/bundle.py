"""Bundles: a folder with ONNX stages and a manifest that vouches for every file in it.

    NAME.nes2net/
        manifest.json    the Manifest below
        encoder.onnx     waveform [batch, samples] -> frames [batch, frames, channels]
        context.onnx     frames -> features [batch, frames, width]
        backend.onnx     features -> logits [batch, logits]
        (or detector.onnx, waveform -> logits; large weights as FILE.data beside each)
        MODEL_CARD.md, reports/…

Reading trusts nothing: paths must stay inside, links are refused, sizes and hashes must match before a file
is opened. Writing happens in a temporary sibling that is renamed when it is whole.
"""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import msgspec

from nes2net_runtime.errors import BundleError

SCHEMA = 1
MANIFEST = "manifest.json"
DEMO = Path(__file__).parent / "demo.nes2net"

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of the manifest: frozen, by keyword, nothing unknown."""


class Source(Record, frozen=True):
    """Where the weights come from."""

    checkpoint: str  # a file's name, or random:NAME
    sha256: str | None  # of that file
    random: bool  # random weights: for speed alone, never to be calibrated


class Audio(Record, frozen=True):
    """What the detector hears. Lengths in samples."""

    sample_rate: int
    normalize: Literal["none", "per-window"]  # per-window: zero mean, unit variance, by the runtime
    window_samples: int  # the official protocol's
    min_samples: int  # shorter input has no frame
    frame_hop: int
    frame_field: int
    frames_reusable: bool  # a frame does not depend on its window


class ScoreRule(Record, frozen=True):
    """What a score is."""

    bonafide_logit: int
    meaning: str


class File(Record, frozen=True):
    """One file of the bundle, by its path inside it."""

    path: str
    bytes: int
    sha256: str


class Tensor(Record, frozen=True):
    """A stage's input or output; dynamic dimensions have names."""

    name: str
    type: str
    shape: list[int | str]


class Stage(Record, frozen=True):
    """One ONNX graph."""

    name: Literal["encoder", "context", "backend", "detector"]
    file: str
    precision: Precision
    inputs: list[Tensor]
    outputs: list[Tensor]


class ParityCase(Record, frozen=True):
    """Error of the ONNX stages against torch on one input: max|a - b| / max(1, max|b|)."""

    batch: int
    samples: int
    frames: float | None
    features: float | None
    logits: float


class Parity(Record, frozen=True):
    """The check that this bundle passed when it was written."""

    bound: float
    worst: float
    cases: list[ParityCase]


class Manifest(Record, frozen=True):
    """`manifest.json`."""

    schema: int
    name: str
    created: str  # UTC, ISO 8601
    versions: dict[str, str]  # of the toolkit and what it was built with
    source: Source
    model: dict[str, Any]  # ModelConfig as plain data
    audio: Audio
    score: ScoreRule
    precision: Precision
    files: list[File]
    stages: list[Stage]
    parity: Parity

    def with_files(self, files: list[File]) -> "Manifest":
        """The same manifest with these files."""
        return msgspec.structs.replace(self, files=files)


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest was read and whose files' sizes were checked."""

    path: Path
    manifest: Manifest

    def stage_files(self) -> list[File]:
        """The files that a run opens: graphs and their weights."""
        opened = {name for stage in self.manifest.stages for name in (stage.file, stage.file + ".data")}
        return [file for file in self.manifest.files if file.path in opened]

    def verify(self, files: list[File]) -> None:
        """Check the SHA-256 of `files`; raises BundleError at the first that differs."""
        for file in files:
            if sha256(self.path / file.path) != file.sha256:
                raise BundleError(
                    f"{self.path / file.path}: damaged (its SHA-256 differs from the manifest's)"
                )


def read_bundle(path: Path) -> Bundle:
    """Read the manifest and check that every file is there, inside the folder, no link, of the right size.

    Raises BundleError. Hashes are left to `Bundle.verify`, for the files that the caller opens.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle (a folder with {MANIFEST}); nes2net-export makes one")
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: not a bundle: {MANIFEST} can't be read ({error.strerror})") from error
    try:
        schema = msgspec.json.decode(text, type=_Schema).schema
        if schema != SCHEMA:
            newer = "newer than this version knows; update nes2net-edge" if schema > SCHEMA else "unknown"
            raise BundleError(f"{path / MANIFEST}: schema {schema} is {newer}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BundleError(f"{path / MANIFEST}: damaged ({error})") from error

    listed = {file.path for file in manifest.files}
    for stage in manifest.stages:
        if stage.file not in listed:
            raise BundleError(
                f"{path}: stage {stage.name} names {stage.file!r}, which the manifest does not list"
            )
    for file in manifest.files:
        _check_file(path, file)
    if [stage.name for stage in manifest.stages] not in (["encoder", "context", "backend"], ["detector"]):
        raise BundleError(f"{path / MANIFEST}: stages must be encoder, context, backend or detector alone")
    return Bundle(path, manifest)


class _Schema(msgspec.Struct):
    schema: int


def _check_file(bundle: Path, file: File) -> None:
    relative = PurePosixPath(file.path)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or re.search(r"[\\:\x00]", file.path)
        or not relative.parts
    ):
        raise BundleError(f"{bundle}: the manifest names a path outside the bundle: {file.path!r}")
    full = bundle / relative
    for part in (full, *full.parents[: len(relative.parts) - 1]):
        if part.is_symlink():
            raise BundleError(f"{part}: a link; bundles hold plain files only")
    if not full.is_file():
        raise BundleError(f"{full}: missing")
    if (size := full.stat().st_size) != file.bytes:
        raise BundleError(f"{full}: damaged ({size} bytes, the manifest says {file.bytes})")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else _digest(file)
        )


def _digest(file: Any) -> str:
    digest = hashlib.sha256()  # Python 3.10 has no file_digest
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def list_files(folder: Path) -> list[File]:
    """Every file under `folder` but the manifest, with size and hash."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return [
        File(path=p.relative_to(folder).as_posix(), bytes=p.stat().st_size, sha256=sha256(p)) for p in paths
    ]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, replacing an old one in one step."""
    new = folder / f".{MANIFEST}.new"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    new.replace(folder / MANIFEST)


@contextmanager
def new_bundle(target: Path, force: bool = False) -> Iterator[Path]:
    """A temporary sibling of `target` to fill; renamed to `target` at the end, removed on any error.

    With `force` an existing bundle is moved aside, replaced and then deleted: a whole bundle is there at all
    times but between two renames. Anything else in the way, or no `force`, raises BundleError.
    """
    target = Path(os.path.abspath(target))
    if target.is_symlink() or (target.exists() and not (target / MANIFEST).is_file()):
        raise BundleError(f"{target}: exists and is not a bundle; choose another -o")
    if target.exists() and not force:
        raise BundleError(f"{target}: exists; --force replaces it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        for leftover in target.parent.glob(f".{target.name}.partial-*"):  # of an export that was killed
            if not _alive(int(leftover.name.rsplit("-", 1)[1])):
                shutil.rmtree(leftover)
        partial = target.parent / f".{target.name}.partial-{os.getpid()}"
        partial.mkdir()
    except OSError as error:
        raise BundleError(f"{target}: can't be written ({error.strerror})") from error
    try:
        yield partial
        old = target.parent / f".{target.name}.old-{os.getpid()}"
        if target.exists():
            target.rename(old)
        partial.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        hint = "; free some space or choose another -o" if error.errno == errno.ENOSPC else ""
        raise BundleError(f"{target}: not written: {error.strerror}{hint}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
