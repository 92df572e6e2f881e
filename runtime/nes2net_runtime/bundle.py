"""Bundles: a folder with ONNX stages and a manifest that vouches for every file in it.

    NAME.nes2net/
        manifest.json    the Manifest below
        encoder.onnx     waveform [batch, samples] -> frames [batch, frames, channels]
        context.onnx     frames -> features [batch, frames, width]
        backend.onnx     features -> logits [batch, logits]
        (or detector.onnx, waveform -> logits; large weights as FILE.data beside each)
        MODEL_CARD.md, reports/…, engines/…

Reading trusts nothing: paths must stay inside, links are refused, sizes and hashes must match before a file
is opened, and a graph may read weights from listed files only.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath

import msgspec

from nes2net_runtime.errors import BundleError
from nes2net_runtime.external_data import external_locations
from nes2net_runtime.manifest import SCHEMA, File, Manifest, Stage

MANIFEST = "manifest.json"
DEMO = Path(__file__).parent / "demo.nes2net"


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest was read and whose files' sizes were checked."""

    path: Path
    manifest: Manifest

    def verify(self) -> None:
        """Check the hashes of all stages: `verify_stage` for each."""
        for stage in self.manifest.stages:
            self.verify_stage(stage)

    def verify_stage(self, stage: Stage) -> None:
        """Check the hashes of what a run of this stage opens: its graph, and the files of its weights.

        Raises BundleError at the first file that differs, or that the graph names and the manifest does not.
        """
        listed = {file.path: file for file in self.manifest.files}
        self.check_hash(listed[stage.file])
        for weights in self.weights(stage):
            self.check_hash(listed[weights])

    def weights(self, stage: Stage) -> list[str]:
        """Paths in the bundle of the files that the stage's graph takes its weights from.

        Raises BundleError for one that the manifest does not list.
        """
        listed = {file.path for file in self.manifest.files}
        paths = []
        for location in sorted(external_locations(self.path / stage.file)):
            path = (PurePosixPath(stage.file).parent / location).as_posix()
            if path not in listed:
                raise BundleError(
                    f"{self.path / stage.file}: takes weights from {location!r}, "
                    "which the manifest does not list"
                )
            paths.append(path)
        return paths

    def check_hash(self, file: File) -> None:
        """Raise BundleError unless the file has the SHA-256 that the manifest says."""
        if sha256(self.path / file.path) != file.sha256:
            raise BundleError(f"{self.path / file.path}: damaged (its SHA-256 differs from the manifest's)")


def read_bundle(path: Path) -> Bundle:
    """Read the manifest and check that every file is there, inside the folder, no link, of the right size.

    Raises BundleError. Hashes are left to `Bundle.verify`, for the files that the caller opens.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle (a folder with {MANIFEST}); nes2net-export makes one")
    if (path / MANIFEST).is_symlink():
        raise BundleError(f"{path / MANIFEST}: a link; bundles hold plain files only")
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
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST}: damaged ({error})") from error
    _check_stages(path, manifest)
    for file in manifest.files:
        try:
            _check_file(path, file)
        except OSError as error:
            raise BundleError(f"{path}: {file.path!r} can't be read ({error.strerror})") from error
    return Bundle(path, manifest)


class _Schema(msgspec.Struct):
    schema: int


def _check_stages(path: Path, manifest: Manifest) -> None:
    stages = manifest.stages
    if [stage.name for stage in stages] not in (["encoder", "context", "backend"], ["detector"]):
        raise BundleError(f"{path / MANIFEST}: stages must be encoder, context, backend or detector alone")
    listed = {file.path for file in manifest.files}
    for stage in stages:
        if stage.file not in listed:
            raise BundleError(
                f"{path}: stage {stage.name} names {stage.file!r}, which the manifest does not list"
            )
    shape = stages[-1].outputs[0].shape
    if not shape or not isinstance(shape[-1], int) or manifest.score.bonafide_logit >= shape[-1]:
        raise BundleError(f"{path / MANIFEST}: the score is logit {manifest.score.bonafide_logit} of {shape}")


def check_place(bundle: Path, path: str) -> Path:
    """Where a file of the bundle is; raises BundleError for a place outside, or behind a link."""
    relative = PurePosixPath(path)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or re.search(r"[\\:\x00]", path)
        or not relative.parts
    ):
        raise BundleError(f"{bundle}: the manifest names a path outside the bundle: {path!r}")
    full = bundle / relative
    for part in (full, *full.parents[: len(relative.parts) - 1]):
        if part.is_symlink():
            raise BundleError(f"{part}: a link; bundles hold plain files only")
    return full


def _check_file(bundle: Path, file: File) -> None:
    full = check_place(bundle, file.path)
    if not full.is_file():
        raise BundleError(f"{full}: missing")
    if (size := full.stat().st_size) != file.bytes:
        raise BundleError(f"{full}: damaged ({size} bytes, the manifest says {file.bytes})")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises BundleError where it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"{path}: can't be read ({error.strerror})") from error
    return digest.hexdigest()
