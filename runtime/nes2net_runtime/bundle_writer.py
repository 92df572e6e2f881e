"""Writing bundles: in a temporary sibling that is renamed when it is whole; later additions, file by file."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import msgspec

from nes2net_runtime.bundle import (
    MANIFEST,
    Bundle,
    check_place,
    read_bundle,
    sha256,
)
from nes2net_runtime.errors import BundleError
from nes2net_runtime.manifest import (
    Calibration,
    CalibrationRule,
    File,
    Manifest,
    Streaming,
)


def list_files(folder: Path) -> list[File]:
    """Every file under `folder` but the manifest, with size and hash."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    return [
        File(path=p.relative_to(folder).as_posix(), bytes=p.stat().st_size, sha256=sha256(p)) for p in paths
    ]


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json`, replacing an old one in one step."""
    new = folder / f".{MANIFEST}.new"
    new.write_bytes(encode_manifest(folder, manifest))
    new.replace(folder / MANIFEST)


def encode_manifest(folder: Path, manifest: Manifest) -> bytes:
    """The text of `manifest.json`; raises BundleError for one that would not be read back."""
    text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
    try:
        msgspec.json.decode(text, type=Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{folder / MANIFEST}: not written: {error}") from error
    return text


def add_calibration(
    path: Path,
    calibration: Mapping[CalibrationRule, Calibration],
    documents: Mapping[str, bytes],
    streaming: Streaming | None = None,
) -> Bundle:
    """Add calibrations, and documents by their path in the bundle; what is there by that name is replaced.

    A new calibration of `windows` makes old decision defaults of streams void: `streaming` replaces them,
    also where it is None.

    Everything is first written beside its place. Then these move into place: a manifest without the documents
    that change, the documents, the manifest with them. So the bundle is whole at every moment; a process that
    is killed leaves it with the old calibration, and perhaps without an old report.

    Raises BundleError for random weights, and where the bundle can't be written.
    """
    old = read_bundle(path).manifest
    if old.source.random:
        raise BundleError(f"{path}: has random weights; only a trained detector can be calibrated")
    kept = [file for file in old.files if file.path not in documents]
    added = [
        File(path=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in documents.items()
    ]
    new = msgspec.structs.replace(
        old,
        calibration={**(old.calibration or {}), **calibration},
        streaming=streaming if "windows" in calibration else old.streaming,
        files=sorted([*kept, *added], key=lambda file: file.path),
    )
    steps = [
        (path / MANIFEST, encode_manifest(path, old.with_files(kept))),
        *((check_place(path, name), content) for name, content in documents.items()),
        (path / MANIFEST, encode_manifest(path, new)),
    ]
    written: list[Path] = []
    try:
        for i, (place, content) in enumerate(steps):
            place.parent.mkdir(parents=True, exist_ok=True)
            written.append(place.with_name(f".{place.name}.new-{i}"))
            written[-1].write_bytes(content)
        for beside, (place, _) in zip(written, steps, strict=True):
            beside.replace(place)
    except OSError as error:
        raise BundleError(
            f"{path}: can't be written ({error.strerror}); -o writes a copy elsewhere"
        ) from error
    finally:
        for beside in written:
            beside.unlink(missing_ok=True)
    return read_bundle(path)


@contextmanager
def new_bundle(
    target: Path, force: bool = False, marker: str = MANIFEST, kind: str = "bundle"
) -> Iterator[Path]:
    """A temporary sibling of `target` to fill; renamed to `target` at the end, removed on any error.

    With `force` an existing bundle is moved aside, replaced and then deleted: a whole bundle is there at all
    times but between two renames, and there the next call puts it back. Anything else in the way, or no
    `force`, raises BundleError.

    Folders of another `kind` are written the same way; `marker` is the file that such a folder is known by.
    """
    target = Path(os.path.abspath(target))
    partial, old = (target.parent / f".{target.name}.{end}-{os.getpid()}" for end in ("partial", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(target)
        check_free(target, force, marker, kind)
        partial.mkdir()
    except OSError as error:
        raise BundleError(f"{target}: can't be written ({error.strerror})") from error
    try:
        yield partial
        check_free(target, force, marker, kind)
        if target.exists():
            target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        hint = "; free some space or choose another -o" if error.errno == errno.ENOSPC else ""
        raise BundleError(f"{target}: not written: {error.strerror}{hint}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_free(target: Path, force: bool, marker: str = MANIFEST, kind: str = "bundle") -> None:
    """Raise BundleError where `target` can't be written, or only with `force`; `marker`: see `new_bundle`."""
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{str(target)!a}: not a name in UTF-8; choose another -o") from error
    if target.is_symlink() or (target.exists() and not (target / marker).is_file()):
        raise BundleError(f"{target}: exists and is not a {kind}; choose another -o")
    if target.exists() and not force:
        raise BundleError(f"{target}: exists; --force replaces it")


def check_nothing_else(bundle: Bundle) -> None:
    """Raise BundleError where the folder has files that the manifest does not list: they would be lost."""
    listed = {MANIFEST, *(file.path for file in bundle.manifest.files)}
    there = (p.relative_to(bundle.path).as_posix() for p in bundle.path.rglob("*") if not p.is_dir())
    if others := sorted(set(there) - listed):
        raise BundleError(
            f"{bundle.path}: also holds {others[0]!r}, which is no part of the bundle and would be lost; "
            "move it, or write a copy elsewhere with -o"
        )


def _clean_up(target: Path) -> None:
    """Remove what killed processes left, or put it back where it is the only copy."""
    leftover = re.compile(rf"\.{re.escape(target.name)}\.(partial|old)-(\d+)")
    for path in target.parent.iterdir():
        if not (match := leftover.fullmatch(path.name)) or _runs(int(match[2])):
            continue
        if match[1] == "old" and not target.exists():
            path.rename(target)
        else:
            shutil.rmtree(path)


def _runs(pid: int) -> bool:
    """Whether another process has this number; in containers, ours is often that of the one before."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
