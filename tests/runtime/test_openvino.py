"""`--provider openvino`: the CPU's scores by whichever OpenVINO is there, bounded memory, clear refusals."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from stand_ins.onnxruntime_openvino import PLUGIN, Machine
from stand_ins.openvino import OpenVINO

import nes2net_runtime
from nes2net_runtime import Detector, ProviderError
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest

SAME = 1e-4  # as streams are held to
ONE_STEP = 5e-2  # of INT8 and INT4: sums in another order may fall on the other side of a rounding
WINDOW = 64_600

real_openvino = pytest.mark.skipif(
    find_spec("openvino") is None, reason="openvino is not installed: pip install openvino"
)


@pytest.fixture(scope="module")
def cpu() -> Detector:
    return Detector(provider="cpu", threads=1)


@pytest.fixture(scope="module")
def openvino() -> Detector:
    return Detector(provider="openvino", threads=1)


@real_openvino
@pytest.mark.parametrize("segment", ["windows", "first", "full"])
def test_the_scores_of_the_cpu(cpu: Detector, openvino: Detector, clip: np.ndarray, segment) -> None:
    """float32 is float32, also where the processor has bfloat16."""
    expected = [score.score for score in cpu.score(clip, segment=segment)]
    found = [score.score for score in openvino.score(clip, segment=segment)]
    np.testing.assert_allclose(found, expected, atol=SAME)


@real_openvino
@settings(deadline=None, max_examples=20)
@given(samples=st.integers(400, 70_000), batch=st.integers(1, 3), level=st.floats(1e-4, 1))
def test_any_shape(cpu: Detector, openvino: Detector, samples: int, batch: int, level: float) -> None:
    noise = level * np.random.default_rng(samples).standard_normal((batch, samples))
    waveforms = noise.astype(np.float32)[:, ::-1]  # not contiguous
    np.testing.assert_allclose(openvino.stages.run(waveforms), cpu.stages.run(waveforms), atol=SAME)


@real_openvino
@pytest.mark.parametrize("hop", [0.5, 3.3])
def test_streams_keep_their_frames(cpu: Detector, openvino: Detector, clip: np.ndarray, hop: float) -> None:
    """Two streams at once."""
    streams = [openvino.stream(hop=hop), openvino.stream(hop=hop, first_after=1.0)]
    scores: list[list[float]] = [[], []]
    for at in range(0, len(clip), 7919):
        for stream, found in zip(streams, scores, strict=True):
            found += [s.score for s in stream.feed(clip[at : at + 7919]) if not s.early]
    expected = [s.score for s in cpu.score(clip, hop=hop)]
    for stream, found in zip(streams, scores, strict=True):
        found += [s.score for s in stream.close()]
        np.testing.assert_allclose(found, expected, atol=SAME)


@real_openvino
def test_threads_may_share_a_detector(cpu: Detector, openvino: Detector, clip: np.ndarray) -> None:
    waveforms = [clip[None, 100 * i : 100 * i + 20_000 + 5000 * (i % 3)] for i in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(openvino.stages.run, waveforms))
    np.testing.assert_allclose(found, [cpu.stages.run(waveform) for waveform in waveforms], atol=SAME)


@real_openvino
def test_the_receipt_names_openvino_and_its_processor(openvino: Detector) -> None:
    assert openvino.stages.provider == "openvino"
    for stage in openvino.receipt.stages:
        assert stage.library.startswith("openvino 20") and " " not in stage.library[len("openvino ") :]
        assert stage.device.startswith("cpu ") and stage.nodes["openvino"] > 50


@real_openvino
def test_nobody_is_told(tmp_path: Path) -> None:
    """Importing OpenVINO sends an event, and leaves an id in the home folder."""
    code = (
        "import sys; from nes2net_runtime import Detector; Detector(provider='openvino'); "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # there it is quiet
    environment |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(nes2net_runtime.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
    assert list(tmp_path.iterdir()) == []


@real_openvino
@pytest.mark.slow
def test_memory_does_not_grow_with_lengths(openvino: Detector) -> None:
    """By default OpenVINO keeps kernels for each: 4 MB."""
    noise = 0.05 * np.random.default_rng(0).standard_normal((1, 2 * WINDOW)).astype(np.float32)

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    for samples in range(WINDOW, WINDOW + 60 * 640, 640):
        openvino.stages.run(noise[:, :samples])
    before = resident()
    for samples in range(2 * WINDOW - 60 * 640, 2 * WINDOW, 640):
        openvino.stages.run(noise[:, :samples])
    assert resident() - before < 100


class Frames(CalibrationDataReader):
    """The context network's input, for its scales."""

    def __init__(self, frames: np.ndarray) -> None:
        self._left = [{"frames": frames}]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self._left.pop() if self._left else None


def dynamic(context: Path, target: Path, frames: np.ndarray) -> None:
    """DynamicQuantizeLinear and MatMulInteger."""
    quantize_dynamic(context, target, weight_type=QuantType.QInt8)


def static(context: Path, target: Path, frames: np.ndarray) -> None:
    """Q/DQ pairs, symmetric, as engines take them."""
    options = {"ActivationSymmetric": True, "QuantizeBias": False}
    types = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8}
    quantize_static(
        context, target, Frames(frames), op_types_to_quantize=["MatMul"], extra_options=options, **types
    )


def blocks(context: Path, target: Path, frames: np.ndarray) -> None:
    """MatMulNBits, 4 bits."""
    quantizer = MatMulNBitsQuantizer(onnx.load(context), block_size=32, is_symmetric=True, accuracy_level=4)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target))


@pytest.fixture
def with_context(tmp_path: Path) -> Callable[[Callable[[Path, Path, np.ndarray], None], np.ndarray], Path]:
    """(how to make it, frames) -> the demo bundle with another context network."""

    def make(convert: Callable[[Path, Path, np.ndarray], None], frames: np.ndarray) -> Path:
        bundle = Path(shutil.copytree(DEMO, tmp_path / "other.nes2net"))
        convert(DEMO / "context.onnx", bundle / "context.onnx", frames)
        write_manifest(bundle, read_bundle(DEMO).manifest.with_files(list_files(bundle)))
        return bundle

    return make


@real_openvino
@pytest.mark.parametrize("convert", [dynamic, static, blocks])
def test_quantised_graphs(with_context, cpu: Detector, clip: np.ndarray, convert) -> None:
    bundle = with_context(convert, cpu.stages.encode(clip[:WINDOW]))
    expected = [s.score for s in Detector(bundle, "cpu", threads=1).score(clip)]
    found = [s.score for s in Detector(bundle, "openvino", threads=1).score(clip)]
    np.testing.assert_allclose(found, expected, atol=ONE_STEP)


def unknown(context: Path, target: Path, frames: np.ndarray) -> None:
    """An operator that nobody has."""
    model = onnx.load(context)
    last = model.graph.node[-1]
    model.graph.node.append(helper.make_node("Frob", ["unfrobbed"], [last.output[0]], domain="com.example"))
    last.output[0] = "unfrobbed"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, target)


@real_openvino
def test_a_graph_that_it_can_not_read(with_context, run, good: Path, clip: np.ndarray) -> None:
    bundle = with_context(unknown, clip)
    done = run(good, "--bundle", bundle, "--provider=openvino")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr == (
        "error: provider openvino can't load context.onnx (No conversion rule found for operations: "
        "com.example.Frob); ask for --provider cpu\n"
    )


@real_openvino
def test_info_shows_it(run) -> None:
    done = run("--info")
    lines = {line[:20].strip(): line[20:] for line in done.stdout.splitlines()}
    assert "openvino" in lines["providers"].split(", ")
    assert ", openvino 20" in lines["devices"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Machine]:
    """(devices of the plugin, inside, own) -> a machine with such OpenVINO, until the test ends."""

    def make(devices: tuple[str, ...] | None = None, inside: bool = False, own: bool = False) -> Machine:
        machine = Machine(devices or (), inside)
        monkeypatch.setitem(sys.modules, "onnxruntime", machine.module())
        monkeypatch.setitem(sys.modules, PLUGIN, machine.plugin() if devices is not None else None)
        module: ModuleType | None = OpenVINO(fast=False, error=0).module() if own else None
        monkeypatch.setitem(sys.modules, "openvino", module)
        return machine

    return make


@pytest.fixture
def expected(cpu: Detector, clip: np.ndarray) -> Iterator[np.ndarray]:
    yield cpu.stages.run(clip[None, :WINDOW])


@pytest.mark.parametrize(
    "installed", [{"devices": ("GPU", "CPU")}, {"devices": ("CPU",), "own": True}, {"inside": True}]
)
def test_through_onnxruntime(machine, clip: np.ndarray, expected: np.ndarray, installed) -> None:
    """Its plugin, or its own provider: on the processor, in float32, with these threads."""
    there = machine(**installed)
    detector = Detector(provider="openvino", threads=3)
    np.testing.assert_allclose(detector.stages.run(clip[None, :WINDOW]), expected, atol=SAME)
    assert [device for device, _ in there.taken] == ["CPU"] * 3
    for _, given_settings in there.taken:
        assert given_settings["INFERENCE_PRECISION_HINT"] == "f32"
        assert given_settings["INFERENCE_NUM_THREADS"] == "3"
    for stage in detector.receipt.stages:
        assert (stage.provider, stage.device) == ("openvino", "cpu GenuineIntel")
        assert stage.library.startswith("onnxruntime 1.32.0")


def test_a_plugin_without_devices_leaves_it_to_openvino_itself(machine, clip, expected) -> None:
    """Twice in a process: the plugin is registered once."""
    machine(devices=(), own=True)
    for _ in range(2):
        detector = Detector(provider="openvino", threads=1)
        np.testing.assert_allclose(detector.stages.run(clip[None, :WINDOW]), expected, atol=SAME)
        assert detector.receipt.stages[0].library == "openvino 2026.4.1"


@pytest.mark.parametrize(
    ("devices", "said"),
    [
        ((), "provider openvino: its plugin offers no processor here (it is for Intel's alone): "),
        (("NPU",), "provider openvino: its plugin offers no processor here (it is for Intel's alone): "),
        (None, "provider openvino is not here (import of openvino halted; None in sys.modules): "),
    ],
)
def test_without_openvino(machine, devices, said: str) -> None:
    machine(devices=devices)
    for _ in range(2):
        with pytest.raises(ProviderError) as caught:
            Detector(provider="openvino", threads=1)
        assert str(caught.value) == f"{said}pip install openvino"
