"""Stages on a device: the scores of the CPU, few copies, CUDA graphs where they may be, frames that stay."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from onnx import TensorProto, helper, numpy_helper
from stand_ins.onnxruntime_gpu import CUDA, Machine

from nes2net_runtime import Detector, ProviderError
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.inference.device_binding import LANES, SEEN, OnDevice
from nes2net_runtime.inference.loaded import JOIN
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.inference.providers import import_onnxruntime

SAME = 1e-5
WINDOW = 64_600


@pytest.fixture(scope="module")
def cpu() -> Detector:
    return Detector(provider="cpu", threads=1)


@pytest.fixture
def cuda(gpu: Callable[..., Machine]) -> tuple[Detector, Machine]:
    machine = gpu()
    return Detector(provider="cuda", threads=1), machine


def real_device() -> OnDevice:
    """The very code of a card, on ONNX Runtime's real device "cpu"."""
    stages = read_bundle(DEMO).manifest.stages
    sessions = [cpu_session(DEMO / stage.file, 1) for stage in stages]
    names = [stage.inputs[0].name for stage in stages]
    return OnDevice(import_onnxruntime(), sessions, names, "cpu", lambda: cpu_session(JOIN, 1))


def join_graph() -> onnx.ModelProto:
    """kept[:, count of new:] ++ new: no input is a number, so providers that compile graphs take it, too."""
    nodes = [
        helper.make_node("Shape", ["new"], ["count"], start=1, end=2),
        helper.make_node("Slice", ["kept", "count", "end", "axis"], ["rest"]),
        helper.make_node("Concat", ["rest", "new"], ["frames"], axis=1),
    ]
    kept, new, frames = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", count, "channels"])
        for name, count in (("kept", "frames"), ("new", "new_frames"), ("frames", "frames"))
    )
    constants = [
        numpy_helper.from_array(np.array([2**31 - 1]), "end"),
        numpy_helper.from_array(np.array([1]), "axis"),
    ]
    graph = helper.make_graph(nodes, "join", [kept, new], [frames], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_the_graph_that_joins_frames() -> None:
    assert onnx.load(JOIN) == join_graph()
    kept, new = np.arange(30.0, dtype=np.float32).reshape(1, 10, 3), -np.ones((1, 4, 3), np.float32)
    (joined,) = cpu_session(JOIN, 1).run(None, {"kept": kept, "new": new})
    np.testing.assert_array_equal(joined, np.concatenate([kept[:, 4:], new], axis=1))


@pytest.mark.parametrize("batch", [1, 3])
def test_real_values_of_onnxruntime_give_the_scores_of_the_cpu(cpu: Detector, clip, batch: int) -> None:
    """First without a lane, then in one, and again in it: what it computed before is not overwritten."""
    device = real_device()
    waveforms = [np.stack([clip[i + 999 * j :][:WINDOW] for j in range(batch)]) for i in range(4)]
    logits = [device.logits(batch) for batch in waveforms]
    for found, waveform in zip(logits, waveforms, strict=True):
        np.testing.assert_allclose(found, cpu.stages.run(waveform), atol=SAME)


def test_real_values_keep_a_streams_frames(cpu: Detector, clip: np.ndarray) -> None:
    """Two rings share the lanes of one device, and stay apart."""
    device, host = real_device(), cpu.stages
    starts = (0, 8000)
    piece = 8080
    rings = [device.frames(clip[None, at : at + WINDOW - 200]) for at in starts]
    for _ in range(5):
        starts = tuple(at + 8000 for at in starts)
        ends = [at + WINDOW - 200 for at in starts]
        news = [device.frames(clip[None, end - piece : end]) for end in ends]
        rings = [device.join(ring, new) for ring, new in zip(rings, news, strict=True)]
        for ring, at in zip(rings, starts, strict=True):
            expected = host.run(clip[None, at : at + WINDOW])
            np.testing.assert_allclose(device.logits_of(ring), expected, atol=SAME)


def test_memory_of_real_values_does_not_grow(clip: np.ndarray) -> None:
    psutil = pytest.importorskip("psutil")
    device = real_device()
    sizes = []
    for _ in range(4):
        for length in range(400, 20_400, 100):
            device.frames(clip[None, :length])
        sizes.append(psutil.Process().memory_info().rss)
    assert max(sizes[1:]) - sizes[1] < 4 << 20


def test_cuda_gives_the_scores_of_the_cpu(cuda, cpu: Detector, clip: np.ndarray) -> None:
    detector, machine = cuda
    for segment in ("first", "windows", "full"):
        found = detector.score(clip, segment=segment, hop=0.5)
        expected = cpu.score(clip, segment=segment, hop=0.5)
        np.testing.assert_allclose([s.score for s in found], [s.score for s in expected], atol=SAME)
    assert {session.name for session in machine.sessions} == {CUDA}


def test_a_waveform_goes_up_once_and_its_logits_come_down_once(cuda, clip: np.ndarray) -> None:
    detector, machine = cuda
    for _ in range(5):
        machine.copies.clear()
        detector.stages.run(clip[None, :WINDOW])
        assert (machine.copies["up"], machine.copies["down"], machine.copies["device to device"]) == (1, 1, 0)


def test_a_shape_that_comes_again_is_replayed(cuda, cpu: Detector, clip: np.ndarray) -> None:
    """Captured in its second run (which the lane's first one makes ready), replayed from the fourth on."""
    detector, machine = cuda
    replays = []
    for i in range(5):
        waveform = clip[None, i : i + WINDOW]
        found = detector.stages.run(waveform)
        np.testing.assert_allclose(found, cpu.stages.run(waveform), atol=SAME)
        replays.append(machine.copies["replays"])
    assert replays == [0, 0, 0, 3, 6]  # three stages each
    receipt = detector.receipt
    assert [(s.provider, s.io, s.cuda_graph, s.device) for s in receipt.stages] == [
        ("cuda", "cuda", True, "gpu NVIDIA")
    ] * 3


def test_a_shape_that_comes_once_has_no_graph(cuda, clip: np.ndarray) -> None:
    detector, machine = cuda
    for length in range(20_000, 20_000 + SEEN):
        detector.stages.run(clip[None, :length])
    assert machine.copies["replays"] == 0
    assert not detector.stages._loaded.pipeline._lanes


def test_lanes_are_few(cuda, cpu: Detector, clip: np.ndarray) -> None:
    """However many shapes come again; those without a lane have the same scores."""
    detector, _ = cuda
    for length in range(20_000, 20_000 + LANES + 3):
        for start in range(4):
            waveform = clip[None, 1000 * start :][:, :length]
            np.testing.assert_allclose(detector.stages.run(waveform), cpu.stages.run(waveform), atol=SAME)
    assert len(detector.stages._loaded.pipeline._lanes) == LANES


def test_without_cuda_graphs_scores_are_the_same(gpu, cpu: Detector, clip: np.ndarray) -> None:
    machine = gpu()
    machine.no_graphs = True
    detector = Detector(provider="cuda", threads=1)
    for _ in range(4):
        found = detector.stages.run(clip[None, :WINDOW])
    np.testing.assert_allclose(found, cpu.stages.run(clip[None, :WINDOW]), atol=SAME)
    assert machine.copies["replays"] == 0
    assert [stage.cuda_graph for stage in detector.receipt.stages] == [False] * 3


@pytest.mark.parametrize("hop", [0.5, 3.3, 6.0])
def test_a_streams_frames_stay_on_the_device(cuda, cpu: Detector, clip: np.ndarray, hop: float) -> None:
    """The scores of files on the CPU; each window sends up only what is new, and logits come down."""
    detector, machine = cuda
    machine.copies.clear()
    stream, other = detector.stream(hop=hop), detector.stream(hop=hop)
    scores = []
    for at in range(0, len(clip), 8000):
        scores += stream.feed(clip[at : at + 8000])
        other.feed(clip[at : at + 8000] * 0.5)
    windows = stream.scored + other.scored
    assert machine.copies["up"] == machine.copies["down"] == windows
    scores += stream.close()
    expected = cpu.score(clip, hop=hop)
    assert [(s.start, s.tail) for s in scores] == [(s.start, s.tail) for s in expected]
    np.testing.assert_allclose([s.score for s in scores], [s.score for s in expected], atol=SAME)


def test_a_failing_card_is_one_line(cuda, clip: np.ndarray, monkeypatch) -> None:
    detector, machine = cuda

    def fail(*arguments: object) -> None:
        raise RuntimeError(
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory\nat line 1"
        )

    for session in machine.sessions:
        monkeypatch.setattr(session, "run_with_iobinding", fail)
    with pytest.raises(ProviderError, match=r"the device failed \(.*allocate memory\); smaller --batch-size"):
        detector.stages.run(clip[None, :WINDOW])


def test_threads_share_the_device(cuda, cpu: Detector, clip: np.ndarray) -> None:
    detector, _ = cuda
    waveforms = [clip[None, i : i + WINDOW] for i in range(0, 8000, 1000)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector.stages.run, waveforms))
    for logits, waveform in zip(found, waveforms, strict=True):
        np.testing.assert_allclose(logits, cpu.stages.run(waveform), atol=SAME)


def test_files_are_scored_in_batches(cuda, tmp_path: Path, clip: np.ndarray) -> None:
    """8 windows at once, as on any accelerator; each batch goes up once."""
    detector, machine = cuda
    soundfile.write(tmp_path / "clip.flac", clip, 16_000)
    (result,) = detector.score_files([tmp_path / "clip.flac"], hop=0.4)
    assert len(result.scores) == 9 + result.scores[-1].tail
    assert machine.copies["up"] == 2
