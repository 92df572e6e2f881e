"""Triton model repositories: read with Triton's own schema, and run as their configs say.

No server runs here. `Repository` reads every config.pbtxt with the published model_config.proto and refuses
what Triton's core refuses of an ensemble; `infer` then runs the models by it, on the CPU.
"""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
from google.protobuf import text_format
from msgspec.structs import replace
from onnx import TensorProto, helper
from onnxruntime.quantization import quantize_dynamic

from nes2net_export.export import open_checkpoint
from nes2net_export.make import make_bundle
from nes2net_export.state_dict import Untold
from nes2net_export.triton import (
    MARKER,
    QUANTISE_ON_THE_FLY,
    model_name,
    normalize_graph,
    pbtxt,
    quantises_on_the_fly,
    write_triton,
)
from nes2net_runtime import Detector
from nes2net_runtime.audio import normalize
from nes2net_runtime.bundle import DEMO, MANIFEST, Bundle, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.errors import BundleError
from nes2net_runtime.manifest import Engine, Manifest
from nes2net_runtime.segments import repeat_to


def published_schema() -> ModuleType:
    """model_config.proto, compiled, from Triton's client; alone, since the package around it wants grpcio."""
    path = distribution("tritonclient").locate_file("tritonclient/grpc/model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", str(path))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCHEMA = published_schema()


class Repository:
    """A model repository as Triton reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.configs = {}
        for folder in filter(Path.is_dir, path.iterdir()):
            config = text_format.Parse((folder / "config.pbtxt").read_text(), SCHEMA.ModelConfig())
            assert config.name == folder.name
            assert (folder / "1").is_dir()
            self.configs[folder.name] = config
        (self.ensemble,) = (c for c in self.configs.values() if c.platform == "ensemble")
        self.sessions = {
            name: onnxruntime.InferenceSession(path / name / "1" / "model.onnx")
            for name, config in self.configs.items()
            if config.platform == "onnxruntime_onnx"
        }
        self.check_ensemble()

    @property
    def steps(self) -> list[Any]:
        return list(self.ensemble.ensemble_scheduling.step)

    def check_ensemble(self) -> None:
        """What ValidateEnsembleConfig of Triton's core checks: batches, mappings, types and dims."""
        config = self.ensemble
        tensors = {port.name: port for port in config.input}
        for step in self.steps:
            model = self.configs[step.model_name]
            assert model.max_batch_size >= config.max_batch_size >= 1
            assert set(step.input_map) == {port.name for port in model.input}
            assert set(step.output_map) <= {port.name for port in model.output}
            for port in model.input:
                given = tensors[step.input_map[port.name]]  # an earlier step's, or the ensemble's
                assert (given.data_type, *given.dims) == (port.data_type, *port.dims)
            for port in model.output:
                assert step.output_map[port.name] not in tensors
                tensors[step.output_map[port.name]] = port
        for port in config.output:
            assert (tensors[port.name].data_type, *tensors[port.name].dims) == (port.data_type, *port.dims)
        assert set(self.configs) == {config.name, *(step.model_name for step in self.steps)}

    def infer(self, waveforms: np.ndarray) -> np.ndarray:
        """[batch, samples] -> logits [batch, logits], from step to step as the ensemble says."""
        assert len(waveforms) <= self.ensemble.max_batch_size
        tensors = {self.ensemble.input[0].name: waveforms}
        for step in self.steps:
            feeds = {inner: tensors[outer] for inner, outer in step.input_map.items()}
            names = list(step.output_map)
            results = self.sessions[step.model_name].run(names, feeds)
            tensors.update(zip((step.output_map[name] for name in names), results, strict=True))
        return tensors[self.ensemble.output[0].name]

    def parameter(self, key: str) -> str:
        return self.ensemble.parameters[key].string_value


def written(bundle: Path | Bundle, target: Path, **options: Any) -> Repository:
    write_triton(bundle if isinstance(bundle, Bundle) else read_bundle(bundle), target, **options)
    return Repository(target)


def changed_copy(bundle: Path, target: Path, change: Callable[[Path, Manifest], Manifest]) -> Path:
    """A copy of the bundle whose files and manifest `change` has worked on."""
    shutil.copytree(bundle, target)
    manifest = change(target, read_bundle(bundle).manifest)
    write_manifest(target, manifest.with_files(list_files(target)))
    return target


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Repository:
    return written(DEMO, tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture(scope="session")
def normalising() -> Callable[[Path, Path], Path]:
    """(bundle, target) -> a copy whose windows are normalised."""

    def change(folder: Path, manifest: Manifest) -> Manifest:
        audio = replace(manifest.audio, normalize="per-window", frames_reusable=False)
        return replace(manifest, audio=audio)

    return lambda bundle, target: changed_copy(bundle, target, change)


@pytest.fixture(scope="module")
def ctrsvdd(committed_goldens, tmp_path_factory) -> Callable[[bool], Path]:
    """(single graph) -> the committed golden that normalises each window, as a bundle."""
    golden = next(g for g in committed_goldens.entries if g["family"] == "wavlm-ctrsvdd")
    folder = tmp_path_factory.mktemp("ctrsvdd")

    def export(single_graph: bool) -> Path:
        target = folder / f"golden-{single_graph}.nes2net"
        if not target.exists():
            untold = Untold(**committed_goldens.untold(golden))
            file = str(committed_goldens.checkpoint(golden))
            checkpoint = open_checkpoint(file, untold, 20, single_graph, 1e-3, lambda what, share: None)
            make_bundle(checkpoint, target, None, None, False, lambda what, share: None)
        return target

    return export


def clips(examples: Path, window: int) -> np.ndarray:
    """The first official window of each example, and louder with an offset: [4, window]."""
    windows = []
    for name in ("human.flac", "synthetic.flac"):
        signal, rate = soundfile.read(examples / name, dtype="float32")
        assert rate == 16_000
        windows += [
            repeat_to(signal[:window], window),
            2 * repeat_to(signal[:window], window) + np.float32(0.05),
        ]
    return np.stack(windows)


def official_scores(bundle: Path, windows: np.ndarray) -> list[float]:
    detector = Detector(bundle, provider="cpu")
    return [detector.score(window, segment="first")[0].score for window in windows]


def served_scores(repository: Repository, windows: np.ndarray) -> np.ndarray:
    return repository.infer(windows)[:, int(repository.parameter("bonafide_logit"))]


def test_demo_scores_as_the_detector_does(demo: Repository, examples: Path) -> None:
    windows = clips(examples, int(demo.parameter("window_samples")))
    served = served_scores(demo, windows)
    assert served == pytest.approx(official_scores(DEMO, windows), abs=1e-5)
    assert [step.model_name for step in demo.steps] == ["demo-encoder", "demo-context", "demo-backend"]
    alone = np.concatenate([served_scores(demo, window[None]) for window in windows])
    assert served == pytest.approx(alone, abs=1e-5)


def test_parameters_are_enough_for_decisions(demo: Repository, examples: Path) -> None:
    """What docs/serving.md does: llr, p_spoof and label from the config alone, as the runtime gives them."""
    window = clips(examples, 64_600)[:1]
    (score,) = served_scores(demo, window)
    (expected,) = Detector(provider="cpu").score(window[0], segment="first")
    slope, offset, threshold, prior = (
        float(demo.parameter(f"calibration.first.{number}"))
        for number in ("slope", "offset", "threshold", "prior_spoof")
    )
    llr = slope * score + offset
    assert llr == pytest.approx(expected.llr, abs=1e-4)
    assert 1 / (1 + np.exp(llr) * (1 - prior) / prior) == pytest.approx(expected.p_spoof, abs=1e-4)
    assert ("bonafide" if llr >= threshold else "spoof") == expected.label
    calibrated = read_bundle(DEMO).manifest.calibration
    assert calibrated is not None
    for rule, calibration in calibrated.items():
        for number in ("slope", "offset", "threshold", "prior_spoof", "min_seconds"):
            assert float(demo.parameter(f"calibration.{rule}.{number}")) == getattr(calibration, number)


@pytest.mark.parametrize("single_graph", [False, True])
def test_normalised_windows(
    normalising, loudness, examples: Path, tmp_path: Path, single_graph: bool
) -> None:
    """Detectors trained without normalisation serve as well: what matters is that both sides do the same."""
    source = loudness(tmp_path / "loudness.nes2net") if single_graph else DEMO
    bundle = normalising(source, tmp_path / "normalising.nes2net")
    repository = written(bundle, tmp_path / "repository")
    windows = clips(examples, 64_600)
    served = served_scores(repository, windows)
    assert served == pytest.approx(official_scores(bundle, windows), abs=1e-5)
    assert served[0] == pytest.approx(served[1], abs=0.02)  # twice as loud, with an offset; epsilon stays
    assert repository.steps[0].model_name.endswith("-normalize")


@pytest.mark.slow
@pytest.mark.parametrize("single_graph", [False, True])
def test_ctrsvdd_golden(ctrsvdd, examples: Path, tmp_path: Path, single_graph: bool) -> None:
    bundle = ctrsvdd(single_graph)
    repository = written(bundle, tmp_path / "repository")
    windows = clips(examples, 64_000)
    assert served_scores(repository, windows) == pytest.approx(official_scores(bundle, windows), abs=1e-5)
    graphs = ["detector"] if single_graph else ["encoder", "context", "backend"]
    name = model_name(read_bundle(bundle).manifest.name)
    assert [step.model_name for step in repository.steps] == [f"{name}-{s}" for s in ["normalize", *graphs]]


def test_single_graph_without_normalisation(loudness, tmp_path: Path) -> None:
    repository = written(loudness(tmp_path / "loudness.nes2net"), tmp_path / "repository")
    assert [step.model_name for step in repository.steps] == ["loudness-detector"]
    tone = np.full((1, 800), 0.5, np.float32)
    assert served_scores(repository, tone) == pytest.approx([0.0], abs=1e-5)
    assert not any(key.startswith("calibration") for key in repository.ensemble.parameters)


def test_normalize_graph_is_the_runtimes_function() -> None:
    random = np.random.default_rng(1)
    batch = random.standard_normal((6, 64_000)).astype(np.float32)
    batch[1] = 0  # silence
    batch[2] = 0.25  # a constant
    batch[3] = 1e-4 * batch[3] + 0.9  # quiet on a large offset
    batch[4] *= 3e4
    session = onnxruntime.InferenceSession(normalize_graph().SerializeToString())
    (normal,) = session.run(None, {"waveform": batch})
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal, normalize(batch), rtol=2e-7, atol=1e-9)
    (alone,) = session.run(None, {"waveform": batch[3:4]})
    np.testing.assert_array_equal(alone[0], normal[3])


def test_configs_agree_with_the_graphs(demo: Repository, normalising, tmp_path: Path) -> None:
    """Names, types and dims, as ONNX Runtime's own session reports them; the batch is Triton's."""
    bundle = normalising(DEMO, tmp_path / "normalising.nes2net")
    for repository in (demo, written(bundle, tmp_path / "repository")):
        for name, session in repository.sessions.items():
            config = repository.configs[name]
            for ports, graph in (
                (config.input, session.get_inputs()),
                (config.output, session.get_outputs()),
            ):
                assert [port.name for port in ports] == [tensor.name for tensor in graph]
                for port, tensor in zip(ports, graph, strict=True):
                    assert (tensor.type, port.data_type) == ("tensor(float)", SCHEMA.TYPE_FP32)
                    dynamic = [-1 if not isinstance(d, int) else d for d in tensor.shape]
                    assert dynamic[0] == -1 and dynamic[1:] == list(port.dims)


def test_batching_joins_equal_shapes_only(demo: Repository) -> None:
    for name in demo.sessions:
        config = demo.configs[name]
        assert config.max_batch_size == 32
        assert config.dynamic_batching.max_queue_delay_microseconds == 500
        assert not any(port.allow_ragged_batch for port in config.input)
        assert [group.kind for group in config.instance_group] == [SCHEMA.ModelInstanceGroup.KIND_AUTO]
    # Triton knows neither for an ensemble.
    assert not demo.ensemble.HasField("dynamic_batching") and not demo.ensemble.instance_group


def test_warm_up_is_the_official_window(demo: Repository) -> None:
    tensor = np.zeros((1, 64_600), np.float32)
    for step in demo.steps:
        (warmup,) = demo.configs[step.model_name].model_warmup
        (name,) = warmup.inputs
        value = warmup.inputs[name]
        assert (warmup.batch_size, value.data_type, value.zero_data) == (1, SCHEMA.TYPE_FP32, True)
        assert tuple(value.dims) == tensor.shape[1:]  # what this stage really gets of such a window
        (tensor,) = demo.sessions[step.model_name].run(None, {name: tensor})


def test_max_batch(tmp_path: Path) -> None:
    repository = written(DEMO, tmp_path / "repository", max_batch=1)
    assert all(config.max_batch_size == 1 for config in repository.configs.values())
    assert not any(config.HasField("dynamic_batching") for config in repository.configs.values())
    with pytest.raises(ValueError, match="max_batch"):
        write_triton(read_bundle(DEMO), tmp_path / "none", max_batch=0)


def test_stages_that_quantise_on_the_fly_run_window_by_window(examples: Path, tmp_path: Path) -> None:
    def quantise(folder: Path, manifest: Manifest) -> Manifest:
        graph = folder / "context.onnx"
        quantize_dynamic(graph, folder / "int8.onnx", op_types_to_quantize=["MatMul"])
        (folder / "int8.onnx").replace(graph)
        stages = [replace(s, precision="int8") if s.name == "context" else s for s in manifest.stages]
        return replace(manifest, stages=stages)

    bundle = changed_copy(DEMO, tmp_path / "int8.nes2net", quantise)
    lines = write_triton(read_bundle(bundle), tmp_path / "repository")
    repository = Repository(tmp_path / "repository")
    assert repository.ensemble.max_batch_size == 1  # or Triton would refuse to load it
    context = repository.configs["demo-context"]
    assert context.max_batch_size == 1 and not context.HasField("dynamic_batching")
    assert repository.configs["demo-encoder"].max_batch_size == 32  # windows of several requests
    assert "demo-context: ONNX, int8, window by window: it quantises on the fly" in lines
    windows = clips(examples, 64_600)
    alone = [served_scores(repository, window[None])[0] for window in windows]
    assert alone == pytest.approx(official_scores(bundle, windows), abs=1e-5)
    repository.ensemble.max_batch_size = 32
    together = served_scores(repository, windows)
    assert np.abs(together - alone).max() > 1e-3  # what this is for


@pytest.mark.parametrize("operator", sorted(QUANTISE_ON_THE_FLY))
@pytest.mark.parametrize("place", ["graph", "branch", "function"])
def test_such_operators_are_found_wherever_they_are(tmp_path: Path, operator: str, place: str) -> None:
    inner = helper.make_node(operator, ["x"], ["y"], domain="com.microsoft")
    functions = []
    if place == "branch":
        branch = helper.make_graph([inner], "branch", [], [])
        inner = helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch)
    elif place == "function":
        opsets = [helper.make_opsetid("", 20)]
        functions = [helper.make_function("ours", "F", ["x"], ["y"], [inner], opsets)]
        inner = helper.make_node("F", ["x"], ["y"], domain="ours")
    model = helper.make_model(helper.make_graph([inner], "g", [], []), functions=functions)
    onnx.save(model, tmp_path / "graph.onnx")
    assert quantises_on_the_fly(tmp_path / "graph.onnx")


def test_static_quantisation_is_joined(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]),
    ]
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [value], [])), tmp_path / "graph.onnx")
    assert not quantises_on_the_fly(tmp_path / "graph.onnx")


def test_weights_in_files_of_their_own(examples: Path, tmp_path: Path) -> None:
    def externalise(folder: Path, manifest: Manifest) -> Manifest:
        for stage in manifest.stages:
            model = onnx.load(folder / stage.file)
            (folder / stage.file).unlink()
            location = f"{stage.file}.data"
            onnx.save(
                model, folder / stage.file, save_as_external_data=True, location=location, size_threshold=64
            )
        return manifest

    bundle = changed_copy(DEMO, tmp_path / "large.nes2net", externalise)
    repository = written(bundle, tmp_path / "repository")
    assert (tmp_path / "repository/demo-encoder/1/encoder.onnx.data").is_file()
    shutil.rmtree(bundle)  # the repository lives alone
    windows = clips(examples, 64_600)[:1]
    moved = Repository(repository.path.rename(tmp_path / "moved"))
    assert served_scores(moved, windows) == pytest.approx(official_scores(DEMO, windows), abs=1e-5)


def test_weights_called_as_triton_calls_the_graph(tmp_path: Path) -> None:
    def externalise(folder: Path, manifest: Manifest) -> Manifest:
        model = onnx.load(folder / "backend.onnx")
        onnx.save(
            model,
            folder / "backend.onnx",
            save_as_external_data=True,
            location="model.onnx",
            size_threshold=64,
        )
        return manifest

    bundle = changed_copy(DEMO, tmp_path / "odd.nes2net", externalise)
    with pytest.raises(BundleError, match=r"weights in model\.onnx"):
        write_triton(read_bundle(bundle), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("xls-r_300m.v2", "xls-r_300m.v2"),
        ('sp oof/"Ü"\\\n\x01 ', "sp-oof"),
        ("детектор", "detector"),
        ("../../etc", "etc"),
        ("", "detector"),
        ("a" * 300, "a" * 100),
    ],
)
def test_names(tmp_path: Path, name: str, folder: str) -> None:
    bundle = changed_copy(DEMO, tmp_path / "b.nes2net", lambda _, manifest: replace(manifest, name=name))
    repository = written(bundle, tmp_path / "repository")
    assert repository.ensemble.name == folder
    assert repository.parameter("bundle") == name


def test_text_that_needs_escapes() -> None:
    for text in ("", "a 'b' \"c\"", "\\", "\r\n\t\0", "é 漢 😀", "\\001", "?"):
        config = text_format.Parse(pbtxt({"name": text}), SCHEMA.ModelConfig())
        assert config.name == text


def test_documents_go_with_the_weights(demo: Repository) -> None:
    for document in ("LICENSE", "MODEL_CARD.md"):
        assert (demo.path / "demo" / document).read_bytes() == (DEMO / document).read_bytes()
    assert (demo.path / "demo/bundle.json").read_bytes() == (DEMO / MANIFEST).read_bytes()
    assert any((demo.path / "demo/1").iterdir())  # object stores keep no empty folder
    assert not [path for path in demo.path.rglob("*") if path.is_symlink()]


def engine(stage: str, **changes: Any) -> Engine:
    fields: dict[str, Any] = {
        "stage": stage,
        "file": f"engines/{stage}.engine",
        "wrapper": f"engines/{stage}.onnx",
        "kind": "trt",
        "version": "10.14.1",
        "precision": "fp16",
        "compute_capabilities": ["9.0"],
        "gpu": "H100",
        "cuda": "13.0",
        "platform": "linux-x86_64",
        "version_compatible": False,
        "batch": (1, 4, 16),
        "samples": (16_000, 64_600, 160_000),
        "graph": ["ab" * 32],
        "evidence": "inspected",
    }
    return Engine(**fields | changes)


def with_engines(target: Path, *engines: Engine) -> Path:
    def add(folder: Path, manifest: Manifest) -> Manifest:
        (folder / "engines").mkdir()
        for one in engines:
            (folder / one.file).write_bytes(f"plan of {one.file}".encode())
            (folder / one.wrapper).write_bytes(b"wrapper")
        return replace(manifest, engines=list(engines))

    return changed_copy(DEMO, target, add)


def platforms(repository: Repository) -> dict[str, str]:
    return {step.model_name: repository.configs[step.model_name].platform for step in repository.steps}


def test_engines_are_served(tmp_path: Path) -> None:
    bundle = with_engines(tmp_path / "b.nes2net", engine("encoder"), engine("context"))
    lines = write_triton(read_bundle(bundle), tmp_path / "repository")
    repository = Repository(tmp_path / "repository")
    assert platforms(repository) == {
        "demo-encoder": "tensorrt_plan",
        "demo-context": "tensorrt_plan",
        "demo-backend": "onnxruntime_onnx",
    }
    plan = repository.path / "demo-context/1/model.plan"
    assert plan.read_bytes() == b"plan of engines/context.engine"
    assert [path.name for path in plan.parent.iterdir()] == ["model.plan"]
    assert repository.configs["demo-context"].max_batch_size == 16  # of its profile
    assert repository.ensemble.max_batch_size == 16
    (line,) = (line for line in lines if line.startswith("demo-context"))
    assert "TensorRT 10.14.1" in line and "9.0" in line and "16000 to 160000 samples" in line
    onnx_only = written(bundle, tmp_path / "onnx", engines=False)
    assert set(platforms(onnx_only).values()) == {"onnxruntime_onnx"}


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "trt-rtx"},
        {"batch": (4, 4, 16)},  # no single window
        {"samples": (80_000, 80_000, 160_000)},  # nor the official one
        {"samples": (400, 16_000, 32_000)},
    ],
    ids=["TensorRT-RTX", "large batches only", "long windows only", "short windows only"],
)
def test_engines_that_triton_could_not_serve(tmp_path: Path, changes: dict[str, Any]) -> None:
    bundle = with_engines(tmp_path / "b.nes2net", engine("encoder", **changes))
    assert set(platforms(written(bundle, tmp_path / "repository")).values()) == {"onnxruntime_onnx"}


def test_engines_of_one_build_at_a_time(tmp_path: Path) -> None:
    """A server has one TensorRT and one kind of card: the build with most stages is served."""
    others = (engine("encoder", version="11.0.0", file="engines/new.engine"),)
    bundle = with_engines(tmp_path / "b.nes2net", *others, engine("encoder"), engine("context"))
    repository = written(bundle, tmp_path / "repository")
    plan = repository.path / "demo-encoder/1/model.plan"
    assert plan.read_bytes() == b"plan of engines/encoder.engine"
    assert list(platforms(repository).values()).count("tensorrt_plan") == 2


def test_a_damaged_engine(tmp_path: Path) -> None:
    bundle = with_engines(tmp_path / "b.nes2net", engine("encoder"))
    (bundle / "engines/encoder.engine").write_bytes(b"plan of engines/encoder.engin?")
    with pytest.raises(BundleError, match=r"encoder\.engine: damaged"):
        write_triton(read_bundle(bundle), tmp_path / "repository")


def test_an_engine_that_is_not_listed(tmp_path: Path) -> None:
    bundle = with_engines(tmp_path / "b.nes2net", engine("encoder"))
    manifest = read_bundle(bundle).manifest
    files = [file for file in manifest.files if file.path != "engines/encoder.engine"]
    write_manifest(bundle, manifest.with_files(files))
    with pytest.raises(BundleError, match="does not list"):
        write_triton(read_bundle(bundle), tmp_path / "repository")


@pytest.mark.parametrize("file", ["context.onnx", "LICENSE"])
def test_a_damaged_bundle_writes_nothing(tmp_path: Path, file: str) -> None:
    bundle = changed_copy(DEMO, tmp_path / "b.nes2net", lambda _, manifest: manifest)
    content = bytearray((bundle / file).read_bytes())
    content[-1] ^= 1
    (bundle / file).write_bytes(content)
    with pytest.raises(BundleError, match="damaged"):
        write_triton(read_bundle(bundle), tmp_path / "repository")
    assert [path.name for path in tmp_path.iterdir()] == ["b.nes2net"]


def test_what_is_there_already(tmp_path: Path) -> None:
    demo, target = read_bundle(DEMO), tmp_path / "repository"
    write_triton(demo, target)
    before = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    with pytest.raises(BundleError, match="exists; --force replaces it"):
        write_triton(demo, target)
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == before
    write_triton(demo, target, force=True, max_batch=8)
    assert Repository(target).ensemble.max_batch_size == 8
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]  # nothing temporary is left


def test_force_deletes_nothing_that_is_not_ours(tmp_path: Path) -> None:
    demo, target = read_bundle(DEMO), tmp_path / "repository"
    write_triton(demo, target)
    (target / "their-model/1").mkdir(parents=True)
    with pytest.raises(BundleError, match="also holds their-model, not made here"):
        write_triton(demo, target, force=True)
    assert (target / "their-model/1").is_dir()


@pytest.mark.parametrize("kind", ["folder", "bundle", "file", "link", "unreadable marker"])
def test_a_target_that_is_no_repository_of_ours(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "there"
    match kind:
        case "folder":
            (target / "resnet").mkdir(parents=True)
        case "bundle":
            shutil.copytree(DEMO, target)
        case "file":
            target.write_text("text")
        case "link":
            (tmp_path / "elsewhere").mkdir()
            target.symlink_to(tmp_path / "elsewhere")
        case "unreadable marker":
            target.mkdir()
            (target / MARKER).mkdir()
    with pytest.raises(
        BundleError, match="exists and is not a Triton repository made here; choose another -o"
    ):
        write_triton(read_bundle(DEMO), target, force=True)


def test_marker_lists_the_models(demo: Repository) -> None:
    ours = msgspec.json.decode((demo.path / MARKER).read_bytes())
    assert sorted(ours["models"]) == sorted(demo.configs)


def test_imports_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from nes2net_export.triton import write_triton\n"
        "from nes2net_runtime.bundle import DEMO, read_bundle\n"
        "print('\\n'.join(write_triton(read_bundle(DEMO), Path('repository'))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "demo: the detector, waveform -> logits, up to 32 windows a request",
        "demo-encoder: ONNX, fp32, joins up to 32 windows",
        "demo-context: ONNX, fp32, joins up to 32 windows",
        "demo-backend: ONNX, fp32, joins up to 32 windows",
    ]
