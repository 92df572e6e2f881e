"""Engines run by TensorRT itself: the CPU's scores, memory that is freed, nothing made where no driver is."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from stand_ins.machine import bundle_with_engines
from stand_ins.onnxruntime_gpu import CUDA, Machine

from nes2net_runtime import Detector, ProviderError
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest

SAME = 1e-5
WINDOW = 64_600
ELEVEN = "11.4.0.106"


@pytest.fixture(scope="module")
def cpu() -> Detector:
    return Detector(provider="cpu", threads=1)


@pytest.fixture
def eleven(gpu: Callable[..., Machine], tmp_path: Path) -> tuple[Machine, Path]:
    """A machine with TensorRT 11 beside an ONNX Runtime that links 10, and a bundle built by 11."""
    return gpu(native=ELEVEN), bundle_with_engines(tmp_path / "e.nes2net", version=ELEVEN)


def test_engines_of_tensorrt_11_give_the_scores_of_the_cpu(eleven, cpu: Detector, clip: np.ndarray) -> None:
    machine, bundle = eleven
    detector = Detector(bundle, threads=1)  # auto
    assert (detector.stages.provider, detector.stages.passed_over) == ("tensorrt", [])
    expected = [s.score for s in cpu.score(clip, hop=0.5)]
    np.testing.assert_allclose([s.score for s in detector.score(clip, hop=0.5)], expected, atol=SAME)
    stages = detector.receipt.stages
    assert [s.library for s in stages] == [f"tensorrt {ELEVEN}"] * 3
    assert [(s.provider, s.device, s.io, s.nodes) for s in stages] == [
        ("tensorrt", "gpu NVIDIA GeForce RTX 4090", "cuda", {"tensorrt": 1})
    ] * 3
    assert machine.sessions == []  # nothing through ONNX Runtime


@pytest.mark.parametrize("hop", [0.5, 3.3, 6.0])
def test_a_streams_frames_stay_on_the_card(eleven, cpu: Detector, clip: np.ndarray, hop: float) -> None:
    """Two streams at once; each window sends up only what is new, and logits come down."""
    machine, bundle = eleven
    detector = Detector(bundle, "tensorrt", threads=1)
    stream, other = detector.stream(hop=hop), detector.stream(hop=hop)
    scores = []
    for at in range(0, len(clip), 8000):
        scores += stream.feed(clip[at : at + 8000])
        other.feed(clip[at : at + 8000] * 0.5)
    copies, windows = machine.card.copies, stream.scored + other.scored
    assert copies["cudaMemcpyHostToDevice"] == copies["cudaMemcpyDeviceToHost"] == windows
    scores += stream.close()
    expected = cpu.score(clip, hop=hop)
    np.testing.assert_allclose([s.score for s in scores], [s.score for s in expected], atol=SAME)


def test_memory_of_the_card_is_freed(eleven, clip: np.ndarray) -> None:
    """After a run nothing is left; a stream keeps one window's frames."""
    machine, bundle = eleven
    detector = Detector(bundle, "tensorrt", threads=1)
    detector.stages.run(np.stack([clip[:WINDOW]] * 2))
    assert machine.card.blocks == {}
    stream = detector.stream(hop=0.5)
    for at in range(0, len(clip), 8000):
        stream.feed(clip[at : at + 8000])
        assert len(machine.card.blocks) <= 1
    del stream
    gc.collect()
    assert machine.card.blocks == {}


def test_a_full_card_is_one_line(eleven, clip: np.ndarray) -> None:
    machine, bundle = eleven
    detector = Detector(bundle, "tensorrt", threads=1)
    machine.card.full = True
    with pytest.raises(ProviderError) as caught:
        detector.stages.run(clip[None, :WINDOW])
    assert str(caught.value) == (
        "CUDA failed (cudaErrorMemoryAllocation); smaller --batch-size and --window-samples need less memory"
    )


def test_an_engine_that_tensorrt_refuses(eleven) -> None:
    _, bundle = eleven
    manifest = read_bundle(bundle).manifest
    (bundle / "engines/context.trt.engine").write_bytes(b"not an engine")
    write_manifest(bundle, manifest.with_files(list_files(bundle)))
    with pytest.raises(ProviderError) as caught:
        Detector(bundle, "tensorrt", threads=1)
    assert str(caught.value) == (
        f"provider tensorrt: context.trt.engine: TensorRT {ELEVEN} can't load this engine; build one here: "
        "nes2net-export --from BUNDLE --to trt"
    )
    detector = Detector(bundle, threads=1)
    assert detector.stages.provider == "cuda"
    assert detector.stages.passed_over == [str(caught.value)]


@pytest.mark.parametrize("cards", [None, ()])
def test_without_a_card_no_runtime_is_made(gpu, tmp_path: Path, monkeypatch, cards) -> None:
    """TensorRT's Runtime without a driver makes the process end with a segmentation fault."""
    gpu(native=ELEVEN, cards=cards)
    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", lambda logger: pytest.fail("made"))
    bundle = bundle_with_engines(tmp_path / "e.nes2net", version=ELEVEN)
    for provider in ("tensorrt", "auto"):
        try:
            assert Detector(bundle, provider, threads=1).stages.provider == "cpu"
        except ProviderError as error:
            assert str(error).startswith("provider tensorrt needs an NVIDIA GPU")


def test_tensorrt_needs_no_onnxruntime_gpu(gpu, tmp_path: Path, cpu: Detector, clip: np.ndarray) -> None:
    """As on a Jetson: TensorRT 10 of the system, CUDA's bindings, and ONNX Runtime for the CPU."""
    machine = gpu(providers=(), native="10.3.0", tensorrt=None, cuda="12.6")
    bundle = bundle_with_engines(tmp_path / "e.nes2net", version="10.3.0", cuda="12.6")
    detector = Detector(bundle, "tensorrt", threads=1)
    found = detector.stages.run(clip[None, :WINDOW])
    np.testing.assert_allclose(found, cpu.stages.run(clip[None, :WINDOW]), atol=SAME)
    assert CUDA not in machine.providers


def test_version_compatible_engines_run_code_of_their_own(gpu, tmp_path: Path, monkeypatch) -> None:
    """Any TensorRT of the same major version; through TensorRT, which ONNX Runtime does not let run it."""
    gpu(native="11.4.0.106")
    module, made = sys.modules["tensorrt"], []
    real = module.Runtime
    monkeypatch.setattr(module, "Runtime", lambda logger: made.append(real(logger)) or made[-1])
    bundle = bundle_with_engines(tmp_path / "e.nes2net", version="11.0.0.114", version_compatible=True)
    detector = Detector(bundle, "tensorrt", threads=1)
    assert detector.stages.provider == "tensorrt"
    assert made[0].engine_host_code_allowed
    ten = bundle_with_engines(tmp_path / "t.nes2net", version="10.16.1.11", version_compatible=True)
    with pytest.raises(ProviderError, match=r"needs TensorRT 10.16.1.11, which is not here \(ONNX Runtime's"):
        Detector(ten, "tensorrt", threads=1)


def test_bindings_that_are_not_there(gpu, tmp_path: Path, monkeypatch) -> None:
    """TensorRT alone is not enough to run an engine."""
    gpu(native=ELEVEN)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    bundle = bundle_with_engines(tmp_path / "e.nes2net", version=ELEVEN)
    with pytest.raises(ProviderError, match=r"needs TensorRT 11\.4\.0\.106, which is not here"):
        Detector(bundle, "tensorrt", threads=1)
