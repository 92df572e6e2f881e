"""Engines, through the command: TensorRT-RTX builds real ones here; TensorRT and a card are stand-ins."""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper
from stand_ins.machine import RTX_4090, install
from stand_ins.onnxruntime_gpu import Machine
from stand_ins.tensorrt_builder import Recorder, add_builder
from typer.testing import CliRunner, Result

from nes2net_export.cli import app
from nes2net_export.engines.inspection import precision_share
from nes2net_export.transforms import quantize_linear
from nes2net_runtime import Detector
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.inference.engines import check_engine, stage_hashes, this_platform

TEN = "10.16.1.11"
CARDS = ["8.0", "8.6", "8.9", "12.0", "12.1"]


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["--to", "trt", *map(str, arguments)])


def error(result: Result, code: int) -> str:
    """The one line that a refused build says."""
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    return result.stderr


def derived(folder: Path, add: onnx.NodeProto | None = None, **changes: Any) -> Path:
    """The demo bundle, its back-end with one more node, and other things in its manifest."""
    shutil.copytree(DEMO, folder)
    if add is not None:
        model = onnx.load(folder / "backend.onnx")
        model.graph.node.append(add)
        onnx.save(model, folder / "backend.onnx")
    write_manifest(folder, replace(read_bundle(DEMO).manifest, files=list_files(folder), **changes))
    return folder


class Tensorrt:
    """A machine with a card and the TensorRT of a stand-in: what was asked of it."""

    def __init__(self, machine: Machine, module: ModuleType, asked: Recorder) -> None:
        self.machine, self.module, self.asked = machine, module, asked


def with_tensorrt(patch: pytest.MonkeyPatch, folder: Path, version: str = TEN, **build: Any) -> Tensorrt:
    machine = install(patch, folder, tensorrt=".".join(version.split(".")[:3]), native=version)
    module = sys.modules["tensorrt"]
    return Tensorrt(machine, module, add_builder(module, **build))


@pytest.fixture
def without_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)


# TensorRT-RTX, really


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_rtx_builds_every_stage_in_every_precision_without_a_gpu(precision: str, tmp_path: Path) -> None:
    source = replace(read_bundle(DEMO).manifest.source, random=True)  # INT8 needs no list then
    parent = derived(tmp_path / "parent.nes2net", source=source, calibration=None, streaming=None)
    target = tmp_path / "engines.nes2net"
    options = [] if precision == "fp32" else [f"--{precision}"]
    result = export("--engine", "trt-rtx", "--from", parent, *options, "-o", target)
    assert result.exit_code == 0, result.output
    bundle = read_bundle(target)
    bundle.verify()
    engines = bundle.manifest.engines
    assert [engine.stage for engine in engines] == ["encoder", "context", "backend"]
    assert [engine.precision for engine in engines] == [precision, precision, "fp32"]
    for engine, stage in zip(engines, bundle.manifest.stages, strict=True):
        check_engine(bundle, engine)  # its wrapper is one EPContext node that names it
        assert engine.graph == stage_hashes(bundle, stage)
        assert (engine.kind, engine.compute_capabilities, engine.gpu) == ("trt-rtx", CARDS, None)
        assert engine.evidence == "graph-typed, not inspected"
        assert engine.platform == this_platform()
        assert (engine.batch, engine.samples) == ((1, 1, 8), (400, 64_600, 160_000))
        assert (target / engine.file).stat().st_size > 0.8 * (target / stage.file).stat().st_size
    assert "graph-typed, not inspected" in result.stderr and "verified" not in result.stderr
    score = Detector(target, provider="cpu").score(np.zeros(64_600, np.float32) + 1e-3)
    assert len(score) == 1  # the graphs still run


@pytest.mark.slow
def test_rtx_engines_of_a_single_graph_for_one_card(tmp_path: Path) -> None:
    single = tmp_path / "single.nes2net"
    made = CliRunner().invoke(app, ["--single-graph", "-o", str(single)])
    assert made.exit_code == 0, made.output
    result = export(
        "--engine", "trt-rtx", "--from", single, "--compute-capability", "8.6", "--max-seconds", "5"
    )
    assert result.exit_code == 0, result.output
    (engine,) = read_bundle(single).manifest.engines
    assert (engine.stage, engine.compute_capabilities, engine.samples[2]) == ("detector", ["8.6"], 80_000)
    again = export("--engine", "trt-rtx", "--from", single, "--batch", "2")
    assert again.exit_code == 0, again.output
    (engine,) = read_bundle(single).manifest.engines  # replaced, in place
    assert (engine.compute_capabilities, engine.batch) == (CARDS, (1, 1, 2))
    read_bundle(single).verify()


def test_engines_do_not_replace_what_else_is_in_the_folder(tmp_path: Path) -> None:
    parent = derived(tmp_path / "parent.nes2net")
    (parent / "reports" / "mine.txt").write_text("notes")
    said = error(export("--engine", "trt-rtx", "--from", parent), 3)
    assert "also holds 'reports/mine.txt', which is no part of the bundle and would be lost" in said
    assert (parent / "reports" / "mine.txt").is_file() and not (parent / "engines").exists()


@pytest.mark.slow
def test_engines_for_other_cards_than_the_one_that_is_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Here they can't be loaded, so neither inspected nor compared; and its driver is not theirs."""
    install(monkeypatch, tmp_path, providers=(), plugin="1.7.1", tensorrt=None)  # 8.9
    target = tmp_path / "x.nes2net"
    twice = ("--compute-capability", "8.6") * 2
    result = export("--engine", "trt-rtx", *twice, "-o", target)
    assert result.exit_code == 0, result.output
    for engine in read_bundle(target).manifest.engines:
        assert (engine.compute_capabilities, engine.gpu, engine.cuda) == (["8.6"], None, None)
        assert engine.evidence == "graph-typed, not inspected"


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_build_that_is_stopped_leaves_everything_as_it_was(
    number: signal.Signals, code: int, tmp_path: Path
) -> None:
    parent = derived(tmp_path / "parent.nes2net")
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    command = [sys.executable, "-m", "nes2net_export", "--to", "trt", "--engine", "trt-rtx", "--from", parent]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not list(tmp_path.glob(".parent.nes2net.partial-*/engines")):
            time.sleep(0.005)
        time.sleep(0.1)  # TensorRT is at work
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
    assert process.returncode == code, said
    assert "Exception" not in said and "engines of" not in said
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_an_operator_that_rtx_does_not_take_is_named(tmp_path: Path) -> None:
    node = helper.make_node(
        "DynamicQuantizeLinear", ["features"], ["q", "scale", "zero"], name="quantise_on_the_fly"
    )
    parent = derived(tmp_path / "parent.nes2net", add=node)
    before = {p: p.stat().st_mtime_ns for p in parent.rglob("*")}
    said = error(export("--engine", "trt-rtx", "--from", parent), 3)
    assert "TensorRT-RTX 1." in said and "can't take backend.onnx: node quantise_on_the_fly" in said
    assert {p: p.stat().st_mtime_ns for p in parent.rglob("*")} == before


@pytest.mark.parametrize(
    "options, words",
    [
        (("--compute-capability", "9.0"), f"builds for 7.5, {', '.join(CARDS)}, not for 9.0"),
        (
            ("--max-seconds", "1"),
            "engines for 0.025 to 1 s can't be tuned for 4.0375 s: change --min-seconds",
        ),
        (("--timing-cache", "x.cache"), "has no timing cache, and engines for several cards"),
        (("--version-compatible",), "has no timing cache, and engines for several cards"),
        (("--hardware-compatible",), "has no timing cache, and engines for several cards"),
    ],
)
def test_what_rtx_can_not_do_is_said_before_anything_is_built(options, words: str, tmp_path: Path) -> None:
    assert words in error(export("--engine", "trt-rtx", *options, "-o", tmp_path / "x.nes2net"), 3)
    assert list(tmp_path.iterdir()) == []


# No TensorRT, the wrong one, no card


def test_with_nothing_installed_one_line_says_what_to_install_for_which_device(
    without_tensorrt, tmp_path: Path
) -> None:
    said = error(export("--fp16", "-o", tmp_path / "x.nes2net"), 3)
    assert said.startswith(
        "error: no TensorRT is installed: pip install 'nes2net-edge[trt-rtx]' for GeForce RTX"
    )
    assert "'nes2net-edge[trt]' for data-centre cards; JetPack brings TensorRT for Jetson" in said
    assert "TensorRT is not installed" in error(export("--engine", "trt", "-o", tmp_path / "x.nes2net"), 3)
    assert list(tmp_path.iterdir()) == []


def test_a_tensorrt_that_is_too_old(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tensorrt(monkeypatch, tmp_path, version="8.6.1")
    said = error(export("--engine", "trt", "-o", tmp_path / "x.nes2net"), 3)
    assert "TensorRT 8.6.1 is too old: TensorRT 10 or newer" in said


def test_tensorrt_without_a_card(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, cards=None, native=TEN)
    said = error(export("--engine", "trt", "-o", tmp_path / "x.nes2net"), 3)
    assert "no NVIDIA GPU works here" in said and "--engine trt-rtx" in said


def test_a_wheel_whose_libraries_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As the bindings of TensorRT from PyPI where its libraries could not be fetched."""
    (tmp_path / "tensorrt.py").write_text(
        "raise ImportError('libnvinfer.so.10: cannot open shared object file')"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    said = error(export("--engine", "trt", "-o", tmp_path / "x.nes2net"), 3)
    assert "TensorRT can't be loaded (libnvinfer.so.10: cannot open shared object file): pip install" in said


# TensorRT on a card: stand-ins


@pytest.mark.parametrize("version", [TEN, "11.4.0.106"])
def test_an_engine_goes_from_the_builder_to_scores(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """Built, inspected, compared with its graphs; then the runtime takes it, and scores alike."""
    tensorrt = with_tensorrt(monkeypatch, tmp_path, version)
    target = tmp_path / "engines.nes2net"
    result = export("--fp16", "-o", target)
    assert result.exit_code == 0, result.output
    engines = read_bundle(target).manifest.engines
    assert {(e.kind, e.version, e.gpu, e.evidence) for e in engines} == {
        ("trt", version, RTX_4090[0], "inspected")
    }
    assert [e.compute_capabilities for e in engines] == [["8.9"]] * 3
    assert tensorrt.asked.profiles[0] == ("waveform", (1, 400), (1, 64_600), (8, 160_000))
    assert tensorrt.asked.profiles[1][1][:2] == (1, 1)  # one frame of 400 samples
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_600).astype(np.float32)
    detector = Detector(target, provider="tensorrt")
    expected = Detector(target, provider="cpu").score(noise)[0].score
    assert detector.score(noise)[0].score == pytest.approx(expected, abs=1e-4)
    assert {stage.provider for stage in detector.receipt.stages} == {"tensorrt"}


def test_what_a_build_prints_is_not_on_stdout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """TensorRT's libraries write warnings there, past Python, and stdout is for --json."""
    tensorrt = with_tensorrt(monkeypatch, tmp_path)
    builder = tensorrt.module.Builder

    def chatty(log: Any) -> Any:
        ctypes.CDLL(None).printf(b"WARNING: precision-lose casting\n")
        return builder(log)

    tensorrt.module.Builder = chatty
    with capfd.disabled(), (tmp_path / "stdout").open("w+b") as file:  # a file: C keeps it in a buffer
        kept = os.dup(1)
        os.dup2(file.fileno(), 1)
        try:
            result = export("-o", tmp_path / "x.nes2net")
            ctypes.CDLL(None).fflush(None)
        finally:
            os.dup2(kept, 1)
            os.close(kept)
        assert result.exit_code == 0, result.output
        file.seek(0)
        assert file.read() == b""


def test_engines_that_nothing_here_could_run_are_not_built(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """They could not be compared with their graphs: said before the work, not after it."""
    install(monkeypatch, tmp_path, tensorrt="10.16.1", native="11.4.0.106")
    asked = add_builder(sys.modules["tensorrt"])
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    said = error(export("--fp16", "-o", tmp_path / "x.nes2net"), 3)
    assert "TensorRT 11.4.0.106: nothing here runs its engines" in said and "cuda-bindings" in said
    assert asked.profiles == []


def test_options_reach_the_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensorrt = with_tensorrt(monkeypatch, tmp_path)
    cache = tmp_path / "timing.cache"
    cache.write_bytes(b"known")
    options = (
        "--optimization-level",
        "5",
        "--workspace",
        "64",
        "--hardware-compatible",
        "--version-compatible",
    )
    result = export(*options, "--timing-cache", cache, "--batch", "3", "-o", tmp_path / "x.nes2net")
    assert result.exit_code == 0, result.output
    asked = tensorrt.asked
    assert asked.levels == {"builder_optimization_level": 5, "hardware_compatibility_level": "ampere plus"}
    assert (asked.flags, asked.limits) == (["version compatible"] * 3, {"workspace": 64 << 20})
    assert (asked.caches, cache.read_bytes()) == ([b"known", b"timings", b"timings"], b"timings")
    engine = read_bundle(tmp_path / "x.nes2net").manifest.engines[0]
    assert (engine.compute_capabilities, engine.version_compatible, engine.batch) == (
        ["8.0+"],
        True,
        (1, 1, 3),
    )


def test_a_timing_cache_that_can_not_be_kept_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with_tensorrt(monkeypatch, tmp_path)
    cache = tmp_path / "nowhere" / "timing.cache"
    said = error(export("--timing-cache", cache, "-o", tmp_path / "x.nes2net"), 3)
    assert f"{cache}: can't be written (No such file or directory)" in said
    assert not (tmp_path / "x.nes2net").exists()


def test_float16_asked_and_float32_built_is_exit_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tensorrt(monkeypatch, tmp_path, computes="Float")
    said = error(export("--fp16", "-o", tmp_path / "x.nes2net"), 4)
    assert "fp16 was asked for, and only 0% of the working layers of encoder are" in said
    assert not (tmp_path / "x.nes2net").exists()


def test_as_much_int8_as_the_graph_has_is_asked_of_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Where scores stand INT8 in one product alone, an engine with one is right, and one with none wrong."""
    all_of = quantize_linear.quantisable

    def last_of_the_context_network(model: onnx.ModelProto) -> list[onnx.NodeProto]:
        return all_of(model)[-1:] if any(n.op_type == "Softmax" for n in model.graph.node) else []

    monkeypatch.setattr(quantize_linear, "quantisable", last_of_the_context_network)
    source = replace(read_bundle(DEMO).manifest.source, random=True)
    parent = derived(tmp_path / "parent.nes2net", source=source, calibration=None, streaming=None)
    with_tensorrt(monkeypatch, tmp_path)
    result = export("--int8", "--from", parent, "-o", tmp_path / "x.nes2net")
    assert result.exit_code == 0, result.output
    precisions = [stage.precision for stage in read_bundle(tmp_path / "x.nes2net").manifest.stages]
    assert precisions == ["fp16", "int8", "fp32"]


def test_a_build_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tensorrt(monkeypatch, tmp_path, fails="out of\nmemory")
    said = error(export("-o", tmp_path / "x.nes2net"), 3)
    assert f"TensorRT {TEN} can't build encoder.onnx: out of memory" in said
    assert not (tmp_path / "x.nes2net").exists()


def test_an_engine_that_scores_otherwise_is_exit_4(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tensorrt = with_tensorrt(monkeypatch, tmp_path)
    build = tensorrt.module.Builder

    def louder(log: Any) -> Any:
        """A builder that loses half of the last stage."""
        builder = build(log)
        real = builder.build_serialized_network

        def broken(network: Any, config: Any) -> bytes:
            if network.model.graph.name == "backend":
                output = network.model.graph.output[0].name
                last = next(n for n in network.model.graph.node if output in n.output)
                last.output[list(last.output).index(output)] = "whole"
                network.model.graph.node.append(helper.make_node("Tanh", ["whole"], [output], name="lost"))
            return real(network, config)

        builder.build_serialized_network = broken
        return builder

    tensorrt.module.Builder = louder
    said = error(export("-o", tmp_path / "x.nes2net"), 4)
    assert "scores of the engines differ from the graphs'" in said
    assert not (tmp_path / "x.nes2net").exists()


def test_targets_are_for_rtx_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with_tensorrt(monkeypatch, tmp_path)
    said = error(export("--compute-capability", "8.6", "-o", tmp_path / "x.nes2net"), 3)
    assert "builds for the card that is here" in said


def test_what_is_installed_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """TensorRT where a card is, else TensorRT-RTX."""
    with_tensorrt(monkeypatch, tmp_path)
    assert export("-o", tmp_path / "a.nes2net").exit_code == 0
    assert read_bundle(tmp_path / "a.nes2net").manifest.engines[0].kind == "trt"


# The inspector


def layers(*pairs: tuple[str, str]) -> str:
    return json.dumps(
        {
            "Layers": [
                {
                    "Name": f"{kind}_{i}",
                    "LayerType": kind,
                    "Inputs": [],
                    "Outputs": [{"Format/Datatype": held}],
                }
                for i, (kind, held) in enumerate(pairs)
            ]
        }
    )


@pytest.mark.parametrize(
    "information, precision, share",
    [
        (layers(("CaskConvolution", "Half"), ("gemm", "Float"), ("Reformat", "Float")), "fp16", 0.5),
        (layers(("gemm", "Channel major FP16 format"), ("MatrixMultiply", "Half")), "fp16", 1.0),
        (layers(("gemm", "Int8"), ("gemm", "Half"), ("kgen", "Int8"), ("gemm", "Int8")), "int8", 0.75),
        (layers(("gemm", "Float")), "fp32", 1.0),
    ],
)
def test_the_share_of_working_layers_in_a_precision(information: str, precision: str, share: float) -> None:
    assert precision_share(information, precision) == share


def test_an_inspector_that_names_no_work_is_no_evidence() -> None:
    with pytest.raises(ValueError, match="no convolution and no matrix product"):
        precision_share('{"Layers": ["only a name"]}', "fp16")
