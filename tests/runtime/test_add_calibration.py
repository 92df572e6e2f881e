"""A calibration and its documents join a bundle that stays whole at every moment."""

import pickle
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from msgspec.structs import replace

from nes2net_runtime import BundleError
from nes2net_runtime.bundle import MANIFEST, Bundle, read_bundle
from nes2net_runtime.bundle_writer import add_calibration, write_manifest
from nes2net_runtime.info import damaged_files

OLD = {"reports/calibration.html": b"old", "reports/det.png": b"old picture", "MODEL_CARD.md": b"old card"}
NEW = {
    "reports/calibration.html": b"new report",
    "reports/more/roc.png": b"new",
    "MODEL_CARD.md": b"new card",
}


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def whole(path: Path) -> Bundle:
    """The bundle, read as a run reads it, with all its hashes checked."""
    bundle = read_bundle(path)
    bundle.verify()
    assert damaged_files(bundle) == []
    return bundle


def listed(bundle: Bundle, documents: Mapping[str, bytes]) -> bool:
    names = {file.path for file in bundle.manifest.files}
    return all(name in names and (bundle.path / name).read_bytes() == documents[name] for name in documents)


def test_calibrations_and_documents_are_added(uncalibrated: Path, calibration) -> None:
    before = content(uncalibrated)
    entries = {"first": calibration(offset=1.0), "windows": calibration(offset=2.0)}
    returned = add_calibration(uncalibrated, entries, OLD)
    bundle = whole(uncalibrated)
    assert returned == bundle
    assert bundle.manifest.calibration == entries
    assert listed(bundle, OLD)
    after = content(uncalibrated)
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {*OLD, MANIFEST}  # nothing is left over, nothing else was touched
    assert {file.path for file in bundle.manifest.files} == after.keys() - {MANIFEST}


def test_a_second_calibration_replaces_those_of_its_rules(uncalibrated: Path, calibration) -> None:
    old, new = calibration(offset=1.0), calibration(offset=2.0)
    add_calibration(uncalibrated, {"first": old, "full": old}, OLD)
    add_calibration(uncalibrated, {"full": new, "windows": new}, NEW)
    bundle = whole(uncalibrated)
    assert bundle.manifest.calibration == {"first": old, "full": new, "windows": new}
    assert listed(bundle, {**OLD, **NEW})


def killed_at(step: int, bundle: Path, file: Path) -> int:
    """Exit code of a process that adds what `file` says, killed before its `step`-th change of a file."""
    code = f"""
import os, pickle, signal, sys
from pathlib import Path
from nes2net_runtime.bundle_writer import add_calibration

entries, documents = pickle.loads(Path({str(file)!r}).read_bytes())
left = {step}

def count(event, arguments):
    global left
    changes = event in ("os.rename", "os.remove", "os.mkdir") or (
        event == "open" and {bundle.name!r} in str(arguments[0]) and arguments[2] & os.O_WRONLY
    )
    left -= changes
    if changes and left == 0:
        os.kill(os.getpid(), signal.SIGKILL)

sys.dont_write_bytecode = True
sys.addaudithook(count)
add_calibration(Path({str(bundle)!r}), entries, documents)
"""
    return subprocess.run([sys.executable, "-c", code], cwd=bundle.parent).returncode


def test_a_bundle_is_whole_wherever_the_process_is_killed(
    uncalibrated: Path, calibration, tmp_path: Path
) -> None:
    old, new = {"first": calibration(offset=1.0)}, {"first": calibration(offset=2.0)}
    add_calibration(uncalibrated, old, OLD)
    (tmp_path / "new").write_bytes(pickle.dumps((new, NEW)))
    seen = []
    for step in range(1, 50):
        copy = Path(shutil.copytree(uncalibrated, tmp_path / f"copy{step}"))
        code = killed_at(step, copy, tmp_path / "new")
        bundle = whole(copy)
        is_new = bundle.manifest.calibration == new
        assert is_new or bundle.manifest.calibration == old
        assert listed(bundle, {"reports/det.png": OLD["reports/det.png"], **(NEW if is_new else {})})
        seen.append(is_new)
        if code == 0:
            break
        assert code == -9
        add_calibration(copy, new, NEW)  # and what was left does not stand in the way
        assert listed(whole(copy), NEW)
        assert [name for name in content(copy) if ".new" in name] == []
    assert code == 0 and is_new
    assert len(seen) > 10 and seen == sorted(seen)  # old until the one step that makes it new


def test_a_full_disk_changes_nothing(uncalibrated: Path, calibration, tmp_path: Path) -> None:
    add_calibration(uncalibrated, {"first": calibration()}, OLD)
    before = content(uncalibrated)
    entries = {"first": calibration(offset=9.0)}
    (tmp_path / "new").write_bytes(pickle.dumps((entries, {**NEW, "reports/z.png": bytes(200_000)})))
    code = f"""
import pickle, resource
from pathlib import Path
from nes2net_runtime.bundle_writer import add_calibration

resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
add_calibration(Path({str(uncalibrated)!r}), *pickle.loads(Path({str(tmp_path / "new")!r}).read_bytes()))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip().endswith("; -o writes a copy elsewhere")
    assert "can't be written (File too large)" in done.stderr
    assert content(uncalibrated) == before


def test_a_bundle_that_cannot_be_written(uncalibrated: Path, calibration) -> None:
    (uncalibrated / "reports").write_bytes(b"a file where a folder must be")
    before = content(uncalibrated)
    with pytest.raises(BundleError, match=r"bundle\.nes2net: can't be written \(.*\); -o writes a"):
        add_calibration(uncalibrated, {"first": calibration()}, NEW)
    assert content(uncalibrated) == before


def test_documents_stay_inside(uncalibrated: Path, calibration, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (uncalibrated / "reports").symlink_to(tmp_path / "elsewhere")
    before = content(uncalibrated)
    for name, reason in (("reports/a.html", "a link"), ("../a.html", "outside the bundle")):
        with pytest.raises(BundleError, match=reason):
            add_calibration(uncalibrated, {"first": calibration()}, {"new.html": b"", name: b""})
    assert content(uncalibrated) == before
    assert list((tmp_path / "elsewhere").iterdir()) == [] and not (tmp_path / "a.html").exists()


def test_a_calibration_that_would_not_be_read_back_is_not_written(uncalibrated: Path, calibration) -> None:
    before = content(uncalibrated)
    for wrong in ({"slope": float("nan")}, {"slope": -1.0}, {"prior_spoof": 1.0}):
        with pytest.raises(BundleError, match=r"manifest\.json: not written: .*calibration"):
            add_calibration(uncalibrated, {"first": replace(calibration(), **wrong)}, NEW)
    assert content(uncalibrated) == before


def test_random_weights_are_not_calibrated(uncalibrated: Path, calibration) -> None:
    manifest = read_bundle(uncalibrated).manifest
    write_manifest(uncalibrated, replace(manifest, source=replace(manifest.source, random=True)))
    with pytest.raises(BundleError, match="random weights"):
        add_calibration(uncalibrated, {"first": calibration()}, {})
