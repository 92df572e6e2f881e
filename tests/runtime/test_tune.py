"""`nes2net-run --tune`: what it measures, prints and keeps, and when `--provider auto` goes by it."""

import json
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from stand_ins.openvino import OpenVINO
from typer.testing import CliRunner, Result

from nes2net_runtime import Detector
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.cli import app
from nes2net_runtime.inference.tuning import RANK, ROUNDS
from nes2net_runtime.inference.tuning_cache import Candidate, Tuning, holds_for, make_folder, write_tuning


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/nes2net-edge/tuning"


@pytest.fixture
def openvino(monkeypatch: pytest.MonkeyPatch) -> Callable[..., OpenVINO]:
    """(fast, error of its logits) -> such an OpenVINO is installed, until the test ends."""

    def make(fast: bool = True, error: float = 0.0) -> OpenVINO:
        installed = OpenVINO(fast, error)
        monkeypatch.setitem(sys.modules, "openvino", installed.module())
        return installed

    return make


def command(*arguments: str | Path) -> Result:
    """`nes2net-run ARGUMENTS` in this process, where the stand-ins are."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def measured(fastest: str = "openvino", threads: int = 1) -> Tuning:
    """A measurement of the demo detector."""
    candidate = Candidate(
        provider=fastest, milliseconds=10, ratio=(0.8, 0.75, 0.85), difference=0, agrees=True
    )
    return Tuning(
        holds_for=holds_for(read_bundle(DEMO), threads),
        created="2026-11-26T12:00:00+00:00",
        reference="cpu",
        fastest=fastest,
        candidates=[candidate],
        absent=[],
    )


def keep(tuning: Tuning) -> Path:
    make_folder()
    return write_tuning(tuning)


def test_the_interval_is_of_95_percent_or_more() -> None:
    outside = 2 * sum(comb(ROUNDS, k) for k in range(RANK)) / 2**ROUNDS
    assert 0.95 <= 1 - outside < 0.97


def test_what_is_faster_is_taken_by_auto(openvino, cache: Path, good: Path) -> None:
    openvino(fast=True)
    done = command("--tune", "--threads=1", "--format=jsonl")
    assert (done.exit_code, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["reference"], found["fastest"]) == ("cpu", "openvino")
    by_name = {candidate["provider"]: candidate for candidate in found["candidates"]}
    assert by_name.keys() == {"cpu", "openvino"}
    assert by_name["cpu"]["ratio"] == [1, 1, 1] and by_name["cpu"]["milliseconds"] > 0
    low, high = by_name["openvino"]["ratio"][1:]
    assert low <= by_name["openvino"]["ratio"][0] <= high < 0.95
    assert len(list(cache.iterdir())) == 1

    done = command(good, "--threads=1", "--receipt")
    assert done.exit_code == 0
    assert "  tuned: openvino takes 0." in done.stderr and " of cpu's time (" in done.stderr
    assert "on openvino, 1 thread" in done.stderr


def test_a_table_for_people(openvino, cache: Path) -> None:
    openvino(fast=True)
    done = command("--tune", "--threads=1")
    lines = done.stdout.splitlines()
    assert " ".join(lines[0].split()) == "provider ms a window of cpu's time, 96 % scores differ by"
    assert [line.split()[0] for line in lines[1:3]] == ["cpu", "openvino"]
    assert lines[-1].startswith("--provider auto takes openvino for ") and str(cache) in lines[-1]


def test_what_is_faster_and_wrong_is_never_taken(openvino) -> None:
    openvino(fast=True, error=0.01)
    done = command("--tune", "--threads=1")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("openvino  ")]
    assert line.endswith("1.0e-02, which is too much")
    receipt = Detector(threads=1).receipt
    assert receipt.provider == "cpu"
    assert receipt.tuned.startswith("nothing is clearly faster than cpu, measured on 20")


def test_without_another_provider_it_says_what_could_be_had(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    done = command("--tune", "--threads=1")
    assert done.exit_code == 0
    assert "not measured: provider openvino is not here" in done.stdout
    assert "pip install openvino" in done.stdout
    assert "nothing is clearly faster than cpu" in done.stdout


def test_auto_takes_what_was_measured_here(openvino) -> None:
    openvino()
    assert Detector(threads=1).receipt.provider == "cpu"
    keep(measured())
    receipt = Detector(threads=1).receipt
    assert (receipt.provider, receipt.passed_over) == ("openvino", [])
    assert receipt.tuned == "openvino takes 0.80 of cpu's time (0.75 to 0.85), measured on 2026-11-26"
    assert Detector(provider="cpu", threads=1).receipt.provider == "cpu"


def other_threads(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.unlink()
    keep(measured(threads=2))


def other_version(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = path.parents[3] / "site/openvino-2099.1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: openvino\nVersion: 2099.1\n")
    monkeypatch.syspath_prepend(info.parent)


def other_processor(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nes2net_runtime.inference.tuning_cache.processor", lambda: "another")


def other_content(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of another measurement, under this one's name."""
    copy = keep(replace(tuning, holds_for=["2 threads of another"]))
    copy.replace(path)


def damaged(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def unknown(tuning: Tuning, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text(path.read_text().replace('"openvino"', '"abacus"'))


CHANGES = [other_threads, other_version, other_processor, other_content, damaged, unknown]


@pytest.mark.parametrize("change", CHANGES)
def test_auto_ignores_what_was_measured_elsewhere_or_else(openvino, monkeypatch, change) -> None:
    openvino()
    tuning = measured()
    path = keep(tuning)
    change(tuning, path, monkeypatch)
    receipt = Detector(threads=1).receipt
    assert (receipt.provider, receipt.passed_over) == ("cpu", [])
    assert receipt.tuned.startswith("openvino was not measured with this bundle")


def test_another_bundle_was_not_measured(openvino, uncalibrated: Path, loudness, tmp_path: Path) -> None:
    """What is measured are the graphs: a calibration does not matter."""
    openvino()
    keep(measured())
    assert Detector(uncalibrated, threads=1).receipt.provider == "openvino"
    assert Detector(loudness(tmp_path / "l.nes2net"), threads=1).receipt.provider == "cpu"


def test_auto_says_why_it_could_not_take_it(openvino, monkeypatch) -> None:
    installed = openvino()
    keep(measured())
    monkeypatch.setattr(installed, "available_devices", ())
    receipt = Detector(threads=1).receipt
    assert receipt.provider == "cpu"
    assert receipt.passed_over == ["provider openvino: it finds no processor here; ask for --provider cpu"]


@pytest.mark.parametrize(
    ("beside", "named"),
    [
        (["call.wav"], "files"),
        (["--mic"], "--mic"),
        (["--provider=cpu"], "--provider"),
        (["--segment=first"], "--segment"),
        (["--info"], "--info"),
        (["--rebuild"], "--rebuild"),
        (["--window-samples=8000"], "--window-samples"),
    ],
)
def test_what_does_not_go_with_tune(beside: list[str], named: str) -> None:
    done = command("--tune", *beside)
    assert done.exit_code == 2
    said = " ".join(done.stderr.replace("\u2502", " ").split())
    assert f"--tune takes --bundle, --threads and --format alone, not {named}" in said


def test_a_cache_that_can_not_be_written(monkeypatch, tmp_path: Path) -> None:
    """Said before anything is measured."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    done = command("--tune")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.count("\n") == 1
    assert "measurements can't be kept there" in done.stderr and "set XDG_CACHE_HOME" in done.stderr


@pytest.mark.slow
def test_real_providers(run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed here agrees with the CPU."""
    found = json.loads(run("--tune", "--format=jsonl").stdout)
    assert all(candidate["agrees"] for candidate in found["candidates"])
    assert np.isfinite([candidate["ratio"] for candidate in found["candidates"]]).all()
    assert Detector(threads=found_threads(found)).stages.provider == found["fastest"]


def found_threads(found: dict[str, list[str]]) -> int:
    return int(found["holds_for"][0].split()[0])


def test_auto_needs_no_home(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service's user may have none: then nothing was measured, and --tune says what it wants."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    assert command(examples / "human.flac").exit_code == 0
    result = command("--tune")
    assert result.exit_code == 3 and "set XDG_CACHE_HOME" in " ".join(result.stderr.split())


def test_auto_needs_no_folder_that_can_be_read(examples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_dir = Path.is_dir

    def locked(path: Path) -> bool:
        if path.name == "tuning":
            raise PermissionError(13, "Permission denied", str(path))
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", locked)
    assert command(examples / "human.flac").exit_code == 0
