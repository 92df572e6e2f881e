"""Bundles that were made to mislead, or written where something is in the way."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from nes2net_runtime import BundleError, Detector
from nes2net_runtime.bundle import MANIFEST, read_bundle
from nes2net_runtime.bundle_writer import list_files, new_bundle

DEAD = 2**22 + 1  # past the largest process id of Linux


def with_external_data(folder: Path, location: str) -> onnx.ModelProto:
    """A graph whose one large weight is at `location`; 4096 floats are put there."""
    where = folder / location
    where.parent.mkdir(parents=True, exist_ok=True)
    where.write_bytes(np.full(4_096, 7, np.float32).tobytes())
    weight = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1, 4_096])
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16384")):
        weight.external_data.add(key=key, value=value)
    nodes = [
        onnx.helper.make_node("Gather", ["w", "zero"], ["constant"], axis=1),
        onnx.helper.make_node("Gather", ["waveform", "zero"], ["first"], axis=1),
        onnx.helper.make_node("Mul", ["first", "constant"], ["product"]),
        onnx.helper.make_node("Concat", ["product"] * 4, ["logits"], axis=1),
    ]
    zero = onnx.numpy_helper.from_array(np.array([0], np.int64), "zero")
    tensor = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "external",
        [tensor("waveform", onnx.TensorProto.FLOAT, ["batch", "samples"])],
        [tensor("logits", onnx.TensorProto.FLOAT, ["batch", 4])],
        [weight, zero],
    )
    opset = [onnx.helper.make_opsetid("", 18)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


@pytest.fixture
def external(tmp_path: Path, bundle: Path, edit_manifest):
    """(location) -> a bundle whose graph reads its weights from there; hashes and sizes are right."""

    def make(location: str, listed: bool = True) -> Path:
        (bundle / "detector.onnx").write_bytes(with_external_data(bundle, location).SerializeToString())
        plain = [f for f in list_files(bundle) if listed or f.path == "detector.onnx"]
        files = [{"path": f.path, "bytes": f.bytes, "sha256": f.sha256} for f in plain]
        edit_manifest(bundle, lambda m: m.update(files=files))
        return bundle

    return make


def test_weights_beside_the_graph_are_read_and_verified(external, noise) -> None:
    folder = external("detector.onnx.data")
    (score,) = Detector(folder, threads=1).score(noise(1_000), segment="full")
    assert score.score == pytest.approx(7 * float(noise(1_000)[0]))
    content = bytearray((folder / "detector.onnx.data").read_bytes())
    content[5] ^= 1
    (folder / "detector.onnx.data").write_bytes(content)
    with pytest.raises(BundleError, match=r"detector\.onnx\.data: damaged"):
        Detector(folder, threads=1)


@pytest.mark.parametrize("location", ["../outside.data", "absolute"])
def test_weights_outside_the_folder_are_refused(external, tmp_path, location) -> None:
    with pytest.raises(BundleError):
        Detector(external(str(tmp_path / "o.data") if location == "absolute" else location), threads=1)


def test_weights_behind_an_unlisted_link_are_refused(external, tmp_path) -> None:
    folder = external("w.data", listed=False)
    (folder / "w.data").rename(tmp_path / "outside.data")
    (folder / "w.data").symlink_to(tmp_path / "outside.data")
    with pytest.raises(BundleError):
        Detector(folder, threads=1)


@pytest.mark.parametrize("listed", [True, False])
def test_no_weight_is_read_that_no_hash_vouches_for(external, listed) -> None:
    """Weights under a name of their own: listed, they are verified; unlisted, they are refused."""
    folder = external("w.bin", listed)
    if listed:
        content = bytearray((folder / "w.bin").read_bytes())
        content[2] ^= 1
        (folder / "w.bin").write_bytes(content)
    with pytest.raises(BundleError):
        Detector(folder, threads=1)


def test_a_manifest_that_is_a_link(bundle: Path, tmp_path: Path) -> None:
    (bundle / MANIFEST).rename(tmp_path / "elsewhere.json")
    (bundle / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="link"):
        read_bundle(bundle)


def test_a_manifest_nested_without_end(bundle: Path) -> None:
    (bundle / MANIFEST).write_text('{"x":' * 100_000)
    with pytest.raises(BundleError):
        read_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["score"].update(bonafide_logit=-1),
        lambda m: m["stages"][0].update(inputs=[]),
        lambda m: m["audio"].update(window_samples=0),
        lambda m: m["audio"].update(sample_rate=8_000),
        lambda m: m["files"].append({"path": "x" * 300, "bytes": 1, "sha256": "0" * 64}),
    ],
    ids=["negative logit", "no input", "no window", "another rate", "long name"],
)
def test_manifests_that_cannot_be_meant(bundle: Path, edit_manifest, change) -> None:
    edit_manifest(bundle, change)
    with pytest.raises(BundleError):
        read_bundle(bundle)


def test_a_logit_that_the_model_does_not_have(bundle: Path, edit_manifest, noise) -> None:
    edit_manifest(bundle, lambda m: m["score"].update(bonafide_logit=4))
    with pytest.raises(BundleError):
        Detector(bundle, threads=1).score(noise(1_000))


def test_info_on_a_model_that_it_does_not_know(run, bundle: Path, edit_manifest) -> None:
    edit_manifest(bundle, lambda m: m.update(model={"family": "later"}))
    done = run("--info", "--bundle", bundle)
    assert done.exit_code in (0, 3)
    assert done.exception is None or isinstance(done.exception, SystemExit)


def fill(folder: Path, text: str = "new") -> None:
    (folder / MANIFEST).write_text(text)


def leftover(path: Path) -> Path:
    path.mkdir()
    fill(path, "half")
    return path


@pytest.mark.parametrize("name", ["b", "b[1]", "b*"])
def test_leftovers_are_found_whatever_the_name(tmp_path: Path, name: str) -> None:
    old = leftover(tmp_path / f".{name}.partial-{DEAD}")
    with new_bundle(tmp_path / name) as folder:
        fill(folder)
    assert not old.exists() and (tmp_path / name / MANIFEST).read_text() == "new"


def test_a_leftover_of_a_process_with_this_ones_number_is_no_obstacle(tmp_path: Path) -> None:
    """In a container every run has the same process id."""
    leftover(tmp_path / f".b.partial-{os.getpid()}")
    with new_bundle(tmp_path / "b") as folder:
        assert list(folder.iterdir()) == []
        fill(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_folder_that_only_looks_like_a_leftover_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".b.partial-mine").mkdir()
    with new_bundle(tmp_path / "b") as folder:
        fill(folder)
    assert (tmp_path / "b" / MANIFEST).exists() and (tmp_path / ".b.partial-mine").exists()


def test_the_replaced_bundle_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    with new_bundle(tmp_path / "b") as folder:
        fill(folder)
    leftover(tmp_path / f".b.old-{DEAD}")
    with new_bundle(tmp_path / "b", force=True) as folder:
        fill(folder)
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_bundle_that_a_killed_process_moved_aside_is_put_back(tmp_path: Path) -> None:
    """Killed between the two renames: the old bundle is the only one there is."""
    leftover(tmp_path / f".b.old-{DEAD}")
    with pytest.raises(BundleError, match="--force replaces it"), new_bundle(tmp_path / "b"):
        pass
    assert (tmp_path / "b" / MANIFEST).read_text() == "half"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


@pytest.mark.parametrize("force", [False, True])
def test_what_appears_meanwhile_is_not_deleted(tmp_path: Path, force: bool) -> None:
    with pytest.raises(BundleError), new_bundle(tmp_path / "b", force=force) as folder:
        fill(folder)
        (tmp_path / "b").mkdir()
        (tmp_path / "b/letters.txt").write_text("dear")
    assert (tmp_path / "b/letters.txt").read_text() == "dear"
    assert [p.name for p in tmp_path.iterdir()] == ["b"]


def test_a_full_disk_leaves_the_old_bundle_alone(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if (
        sys.platform != "linux"
        or not shutil.which("mount")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("a small file system can't be mounted here")
    try:
        with new_bundle(disk / "b") as folder:
            fill(folder, "old")
        with (
            pytest.raises(BundleError, match="b: not written: No space left on device; free some space"),
            new_bundle(disk / "b", force=True) as folder,
        ):
            fill(folder)
            (folder / "weights").write_bytes(bytes(100_000))
        assert [p.name for p in disk.iterdir()] == ["b"]
        assert (disk / "b" / MANIFEST).read_text() == "old"
    finally:
        subprocess.run(["umount", str(disk)], check=True)
