"""Writing bundles: in a temporary sibling that is renamed when it is whole."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from nes2net_runtime.bundle import MANIFEST, File, Manifest, sha256
from nes2net_runtime.errors import BundleError


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
    times but between two renames, and there the next call puts it back. Anything else in the way, or no
    `force`, raises BundleError.
    """
    target = Path(os.path.abspath(target))
    partial, old = (target.parent / f".{target.name}.{kind}-{os.getpid()}" for kind in ("partial", "old"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _clean_up(target)
        check_free(target, force)
        partial.mkdir()
    except OSError as error:
        raise BundleError(f"{target}: can't be written ({error.strerror})") from error
    try:
        yield partial
        check_free(target, force)
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


def check_free(target: Path, force: bool) -> None:
    """Raise BundleError where a bundle can't be written to `target`, or only with `force`."""
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise BundleError(f"{str(target)!a}: not a name in UTF-8; choose another -o") from error
    if target.is_symlink() or (target.exists() and not (target / MANIFEST).is_file()):
        raise BundleError(f"{target}: exists and is not a bundle; choose another -o")
    if target.exists() and not force:
        raise BundleError(f"{target}: exists; --force replaces it")


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
