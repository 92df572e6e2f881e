"""Bundles: what is refused before anything is opened, and writing them whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from nes2net_runtime import BundleError, Detector
from nes2net_runtime.bundle import (
    DEMO,
    MANIFEST,
    read_bundle,
    sha256,
)
from nes2net_runtime.bundle_writer import list_files, new_bundle


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEMO, tmp_path / "copy.nes2net"))


def edit(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    change(manifest)
    (bundle / MANIFEST).write_text(json.dumps(manifest))


def test_the_demo_bundle_is_whole() -> None:
    bundle = read_bundle(DEMO)
    bundle.verify()
    assert {file.path for file in bundle.manifest.files} == {
        p.relative_to(DEMO).as_posix() for p in DEMO.rglob("*") if p.is_file() and p.name != MANIFEST
    }


@pytest.mark.parametrize("stage", ["encoder.onnx", "context.onnx", "backend.onnx"])
def test_one_flipped_byte(bundle: Path, stage: str) -> None:
    content = bytearray((bundle / stage).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / stage).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{stage}: damaged \(its SHA-256 differs"):
        Detector(bundle)


def test_a_file_cut_short(bundle: Path) -> None:
    os.truncate(bundle / "context.onnx", 1000)
    with pytest.raises(BundleError, match=r"context\.onnx: damaged \(1000 bytes"):
        read_bundle(bundle)


def test_a_missing_file(bundle: Path) -> None:
    (bundle / "MODEL_CARD.md").unlink()
    with pytest.raises(BundleError, match=r"MODEL_CARD\.md: missing"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/hostname", "reports/../../secret", "..\\secret", "C:/secret", ""]
)
def test_a_path_that_climbs_out(bundle: Path, path: str) -> None:
    (bundle.parent / "secret").write_text("secret")
    edit(bundle, lambda m: m["files"].append({"path": path, "bytes": 6, "sha256": "0" * 64}))
    with pytest.raises(BundleError, match="outside the bundle"):
        read_bundle(bundle)


@pytest.mark.parametrize("relative", ["context.onnx", "pages/parity.md"])
def test_a_link(bundle: Path, relative: str) -> None:
    outside = bundle.parent / "outside"
    if relative == "context.onnx":
        (bundle / relative).rename(outside)
        (bundle / relative).symlink_to(outside)
    else:
        outside.mkdir()
        (outside / "parity.md").write_text("x")
        (bundle / "pages").symlink_to(outside)
        edit(bundle, lambda m: m["files"].append({"path": relative, "bytes": 1, "sha256": "0" * 64}))
    with pytest.raises(BundleError, match="a link"):
        read_bundle(bundle)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda m: m.update(schema=2, anything="else"), "schema 2 is newer than this version knows"),
        (lambda m: m.update(schema=0), "schema 0 is unknown"),
        (lambda m: m.update(extra=1), "damaged .*extra"),
        (lambda m: m.pop("score"), "damaged .*score"),
        (lambda m: m["audio"].update(window_samples="long"), "damaged .*window_samples"),
        (lambda m: m["stages"][0].update(file="other.onnx"), "does not list"),
        (lambda m: m["stages"].pop(), "stages must be"),
    ],
)
def test_manifests_that_are_refused(bundle: Path, change, reason: str) -> None:
    edit(bundle, change)
    with pytest.raises(BundleError, match=reason) as caught:
        read_bundle(bundle)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff"])
def test_broken_json(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text)
    with pytest.raises(BundleError, match="damaged"):
        read_bundle(bundle)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such bundle"):
        read_bundle(tmp_path / "none")
    with pytest.raises(BundleError, match=r"manifest\.json can't be read"):
        read_bundle(tmp_path)


def test_a_graph_whose_weights_are_outside(bundle: Path) -> None:
    """A manifest may vouch for a graph that asks for a file elsewhere; that file must not be read."""
    (bundle.parent / "secret.data").write_bytes(bytes(4 * 16))
    model = onnx.load(bundle / "backend.onnx")
    weight = next(t for t in model.graph.initializer if len(t.raw_data) >= 64)
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": "../secret.data", "offset": "0", "length": "64"}.items():
        weight.external_data.add(key=key, value=value)
    (bundle / "backend.onnx").write_bytes(model.SerializeToString())

    def vouch(manifest: dict[str, Any]) -> None:
        (entry,) = (f for f in manifest["files"] if f["path"] == "backend.onnx")
        path = bundle / "backend.onnx"
        entry.update(bytes=path.stat().st_size, sha256=sha256(path))

    edit(bundle, vouch)
    with pytest.raises(
        BundleError, match=r"takes weights from '\.\./secret\.data', which the manifest does not list"
    ):
        Detector(bundle)


def fill(folder: Path, text: str = "new") -> None:
    (folder / MANIFEST).write_text(text)
    (folder / "sub").mkdir()
    (folder / "sub/file").write_text(text)


def test_a_bundle_is_there_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "deep/er/b.nes2net"
    with new_bundle(target) as folder:
        fill(folder)
        assert not target.exists()
    assert [p.name for p in target.parent.iterdir()] == ["b.nes2net"]
    assert [file.path for file in list_files(target)] == ["sub/file"]


def test_an_error_leaves_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "b"
    with pytest.raises(KeyboardInterrupt), new_bundle(target) as folder:
        fill(folder)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []

    with new_bundle(target) as folder:
        fill(folder, "old")
    with pytest.raises(RuntimeError), new_bundle(target, force=True) as folder:
        fill(folder)
        raise RuntimeError
    assert (target / MANIFEST).read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_force_replaces_a_bundle_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "b"
    for text in ("old", "new"):
        with new_bundle(target, force=True) as folder:
            fill(folder, text)
    assert (target / MANIFEST).read_text() == "new"
    with pytest.raises(BundleError, match="--force replaces it"), new_bundle(target):
        pass
    (tmp_path / "photos").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(target)
    for name in ("photos", "file", "link"):
        with pytest.raises(BundleError, match="not a bundle"), new_bundle(tmp_path / name, force=True):
            pass


def test_leftovers_of_a_killed_export_are_removed(tmp_path: Path) -> None:
    dead = tmp_path / ".b.partial-999999999"
    running = tmp_path / f".b.partial-{os.getppid()}"
    for folder in (dead, running):
        folder.mkdir()
    with new_bundle(tmp_path / "b") as folder:
        fill(folder)
    assert not dead.exists()
    assert running.exists()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="can't be written"), new_bundle(tmp_path / "file/b"):
        pass
