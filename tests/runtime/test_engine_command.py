"""nes2net-run with engines: what it prints of them, on a machine of stand-ins."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonschema
import pytest
from stand_ins.machine import bundle_with_engines
from stand_ins.onnxruntime_gpu import Machine
from typer.testing import CliRunner, Result

from nes2net_runtime.cli import app
from nes2net_runtime.records import SCHEMA_FILE


@pytest.fixture
def command() -> Iterator[Callable[..., Result]]:
    """`nes2net-run ARGUMENTS` in this process, where the stand-ins are."""
    runner = CliRunner()
    yield lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return bundle_with_engines(tmp_path / "e.nes2net")


def test_a_receipt_for_people_names_engines(command, gpu: Callable[..., Machine], bundle: Path, good) -> None:
    gpu()
    done = command(good, "-b", bundle, "--receipt", "--provider=tensorrt", "--threads=1")
    assert done.exit_code == 0
    lines = done.stderr.splitlines()
    assert lines[0].startswith("receipt: demo on tensorrt, onnxruntime 1.31.1, 1 threads")
    assert lines[1:3] == [
        "  encoder   fp32  tensorrt (gpu NVIDIA) by onnxruntime 1.31.1: 1 nodes on tensorrt; io on cuda",
        "            engine engines/encoder.trt.engine: trt 10.16.1.11, precision inspected",
    ]


def test_auto_says_why_an_engine_was_passed_over(command, gpu, bundle: Path, good) -> None:
    """On stderr at once, and in the receipt."""
    gpu(cuda="12.4")
    done = command(good, "-b", bundle, "--format=jsonl", "--receipt", "--threads=1")
    assert done.exit_code == 0
    said = "provider tensorrt: engines/encoder.trt.engine was built where the driver supports CUDA 13.0, and"
    assert done.stderr.startswith(f"passed over: {said}")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        jsonschema.validate(record, json.loads(SCHEMA_FILE.read_text()))
    (receipt,) = (record["receipt"] for record in records if record["type"] == "receipt")
    assert receipt["passed_over"][0].startswith(said)
    assert [stage["cuda_graph"] for stage in receipt["stages"]] == [True] * 3


def test_an_engine_that_does_not_fit_is_exit_3_and_one_line(command, gpu, bundle: Path, good) -> None:
    gpu(cuda="12.4")
    done = command(good, "-b", bundle, "--provider=tensorrt")
    assert (done.exit_code, done.stdout) == (3, "")
    assert done.stderr.startswith("error: provider tensorrt: engines/encoder.trt.engine was built")
    assert done.stderr.count("\n") == 1


def test_rebuild(command, gpu, good) -> None:
    machine = gpu()
    for arguments in (["--rebuild"], []):
        done = command(good, "--provider=tensorrt", "--receipt", *arguments)
        assert done.exit_code == 0
        assert "engine " in done.stderr and "trt 10.16.1\n" in done.stderr
    assert machine.builds == 3


@pytest.mark.parametrize("provider", ["auto", "cpu", "cuda"])
def test_rebuild_is_for_engines(command, good, provider: str) -> None:
    done = command(good, f"--provider={provider}", "--rebuild")
    assert done.exit_code == 2
    assert "--rebuild is for --provider tensorrt or trt-rtx" in " ".join(done.stderr.split())


def test_info_names_cards_and_engines(command, gpu, bundle: Path) -> None:
    gpu(plugin="1.7.1")
    done = command("--info", "-b", bundle)
    assert done.exit_code == 0
    lines = {line[:20].strip(): line[20:] for line in done.stdout.splitlines()}
    assert lines["nvidia"] == "driver for CUDA 13.0; NVIDIA GeForce RTX 4090 (compute capability 8.9)"
    assert lines["providers"].startswith("cpu, cuda, tensorrt, trt-rtx")
    assert lines["engine encoder"].startswith(
        "engines/encoder.trt.engine: trt 10.16.1.11, fp32 (inspected), compute capability 8.9, "
    )
    document = json.loads(command("--info", "-b", bundle, "--format=jsonl").stdout)
    assert document["machine"]["nvidia"]["cards"][0]["compute_capability"] == "8.9"


@pytest.mark.parametrize(("cards", "said"), [(None, "no driver"), ((), "driver for CUDA 13.0; no card")])
def test_info_without_a_card(command, gpu, cards, said: str) -> None:
    gpu(cards=cards)
    assert f"{'nvidia':20}{said}" in command("--info").stdout.splitlines()
