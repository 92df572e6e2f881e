"""Engines: run where they fit, with the CPU's scores; where they do not, one line says why and what to do."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper
from stand_ins.machine import H100, bundle_with_engines, write_wrapper
from stand_ins.nvidia_driver import Libcuda
from stand_ins.onnxruntime_gpu import CUDA, RTX, TENSORRT

from nes2net_runtime import BundleError, Detector, ProviderError
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.inference.engines import wrapped_engine

SAME = 1e-5
WINDOW = 64_600
PLUGIN = {"providers": (), "plugin": "1.7.1", "tensorrt": None}
KINDS = [
    ("tensorrt", "trt", "10.16.1.11", {}),
    ("trt-rtx", "trt-rtx", "1.7.1.116", PLUGIN),
]
BOTH = pytest.mark.parametrize(("provider", "kind", "version", "installed"), KINDS, ids=["trt", "rtx"])
ENGINE = "engines/encoder.trt.engine"
REMEDY = "ask for --rebuild, or build one here: nes2net-export --from BUNDLE --to trt --engine trt"


@pytest.fixture(scope="module")
def cpu() -> Detector:
    return Detector(provider="cpu", threads=1)


@pytest.fixture
def engines(tmp_path: Path) -> Callable[..., Path]:
    """(kind, version, changes) -> the demo bundle with engines."""
    return lambda *told, **changes: bundle_with_engines(tmp_path / "e.nes2net", *told, **changes)


def refused(bundle: Path, provider: str = "tensorrt") -> str:
    """The one-line error of a provider."""
    with pytest.raises(ProviderError) as caught:
        Detector(bundle, provider, threads=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@BOTH
def test_engines_give_the_scores_of_the_cpu(gpu, engines, cpu, clip, provider, kind, version, installed):
    """Whole windows, batches and a stream; audio goes up once, and the receipt says which engine ran."""
    machine = gpu(**installed)
    detector = Detector(engines(kind, version), provider, threads=1)
    expected = cpu.score(clip, hop=0.5)
    found = detector.score(clip, hop=0.5)
    stream = detector.stream(hop=0.5)
    machine.copies.clear()
    streamed = stream.feed(clip)
    assert machine.copies["up"] == machine.copies["down"] == len(streamed)
    streamed += stream.close()
    for scores in (found, streamed):
        np.testing.assert_allclose([s.score for s in scores], [s.score for s in expected], atol=SAME)
    assert all(session.name == {"trt": TENSORRT, "trt-rtx": RTX}[kind] for session in machine.sessions[:3])
    for stage in detector.receipt.stages:
        assert (stage.provider, stage.io, stage.nodes, stage.cuda_graph) == (
            provider,
            "cuda",
            {provider: 1},
            False,
        )
        assert stage.engine.file == f"engines/{stage.stage}.{kind}.engine"
        assert (stage.engine.kind, stage.engine.version) == (kind, version)
        assert (stage.engine.evidence, stage.library) == ("inspected", "onnxruntime 1.31.1")


@BOTH
def test_auto_takes_engines_that_fit(gpu, engines, clip, cpu, provider, kind, version, installed):
    gpu(**installed)
    detector = Detector(engines(kind, version), threads=1)
    assert (detector.stages.provider, detector.stages.passed_over) == (provider, [])
    # a shape that the engines do not take goes to the ONNX graphs, and the receipt says so
    longer = np.tile(clip, 2)[None, :90_000]
    np.testing.assert_allclose(detector.stages.run(longer), cpu.stages.run(longer), atol=SAME)
    spare = "cuda" if kind == "trt" else "cpu"
    assert detector.receipt.passed_over == [f"{provider} for shapes that engines do not take: {spare}"]


@BOTH
def test_engines_of_one_shape_are_replayed(gpu, engines, clip, cpu, provider, kind, version, installed):
    """Their provider captures one graph a session, whatever the run; streams compute windows whole then."""
    machine = gpu(**installed)
    shape = {"batch": (1, 1, 1), "samples": (WINDOW, WINDOW, WINDOW)}
    detector = Detector(engines(kind, version, **shape), provider, threads=1)
    assert all(stage.cuda_graph for stage in detector.receipt.stages)
    expected = cpu.score(clip, hop=0.5)
    stream = detector.stream(hop=0.5)
    for scores in (stream.feed(clip) + stream.close(), detector.score(clip, hop=0.5)):
        np.testing.assert_allclose([s.score for s in scores], [s.score for s in expected], atol=SAME)
    assert machine.copies["replays"] >= 3 * (2 * len(expected) - 2)


MISFITS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"cards": (H100,)},
        f"{ENGINE} is for cards of compute capability 8.9, and this one (NVIDIA H100) has 9.0; " + REMEDY,
    ),
    (
        {"compute_capabilities": ["9.0+", "8.6"]},
        {},
        f"{ENGINE} is for cards of compute capability 9.0+, 8.6, and this one (NVIDIA GeForce "
        "RTX 4090) has 8.9; " + REMEDY,
    ),
    (
        {"platform": "linux-aarch64"},
        {},
        f"{ENGINE} is for linux-aarch64, and this is linux-x86_64; {REMEDY}",
    ),
    (
        {},
        {"cuda": "12.6"},
        f"{ENGINE} was built where the driver supports CUDA 13.0, and this one supports 12.6; "
        f"update NVIDIA's driver, or {REMEDY}",
    ),
    (
        {"graph": ["ab" * 32]},
        {},
        f"{ENGINE} is stale: built from another encoder than the bundle has; {REMEDY}",
    ),
    (
        {"samples": (400, 16_000, 48_000)},
        {},
        f"{ENGINE} takes 1 to 4 windows of 400 to 48,000 samples, not one window of 64,600 samples; {REMEDY}",
    ),
    (
        {"batch": (8, 8, 8)},
        {},
        f"{ENGINE} takes 8 windows of 400 to 80,000 samples, not one window of 64,600 samples; " + REMEDY,
    ),
    (
        {"version": "10.14.1.48"},
        {},
        f"{ENGINE} needs TensorRT 10.14.1.48, which is not here (ONNX Runtime's is 10.16.1): "
        f"install that version, or {REMEDY}",
    ),
    (
        {"version": "11.4.0.106"},
        {"native": "11.3.0.99"},
        f"{ENGINE} needs TensorRT 11.4.0.106, which is not here (ONNX Runtime's is 10.16.1; "
        f"tensorrt is 11.3.0.99): install that version, or {REMEDY}",
    ),
    (
        {},
        {"tensorrt": None},
        f"{ENGINE} needs TensorRT 10.16.1.11, which is not here (ONNX Runtime finds none): install "
        f"that version, or {REMEDY}",
    ),
]


@pytest.mark.skipif("sys.platform != 'linux' or __import__('platform').machine() != 'x86_64'")
@pytest.mark.parametrize(("changes", "installed", "reason"), MISFITS)
def test_an_engine_that_does_not_fit(gpu, engines, changes, installed, reason) -> None:
    """An error that says why, and what to do; `auto` takes CUDA, and says why in its receipt."""
    gpu(**installed)
    bundle = engines(**changes)
    assert refused(bundle) == f"provider tensorrt: {reason}"
    detector = Detector(bundle, threads=1)
    assert detector.stages.provider == "cuda"
    assert detector.receipt.passed_over == [f"provider tensorrt: {reason}"]


def test_engines_for_newer_cards_and_of_a_compatible_version_fit(gpu, engines) -> None:
    gpu(cards=(H100,), cuda="13.2")
    bundle = engines(compute_capabilities=["8.0+"], version="10.16.1.9")
    assert Detector(bundle, "tensorrt", threads=1).stages.provider == "tensorrt"


def test_the_first_engine_that_fits_is_taken(gpu, engines) -> None:
    """A bundle may have engines for several cards."""
    gpu(cards=(H100,))
    folder = engines()
    manifest = read_bundle(folder).manifest
    here = [replace(engine, compute_capabilities=["9.0"]) for engine in manifest.engines]
    write_manifest(folder, replace(manifest, engines=[*manifest.engines, *here]))
    assert Detector(folder, "tensorrt", threads=1).stages.provider == "tensorrt"


def test_no_engine_at_all(gpu) -> None:
    gpu()
    assert refused(DEMO) == f"provider tensorrt: {DEMO} has no engine of encoder; {REMEDY}"
    assert Detector(threads=1).stages.passed_over == []  # auto: nothing was there to pass over


@pytest.mark.parametrize(
    ("cards", "found"),
    [(None, "its driver (libcuda.so.1) is not there"), ((), "the driver finds none")],
)
@pytest.mark.parametrize("provider", ["tensorrt", "cuda", "trt-rtx"])
def test_no_gpu(gpu, engines, cards, found, provider) -> None:
    gpu(cards=cards, plugin="1.7.1")
    bundle = engines()
    said = (
        f"needs an NVIDIA GPU, and {found}: install the driver, give a container its GPU (docker run --gpus "
        "all), or ask for --provider cpu"
    )
    assert refused(bundle, provider) == f"provider {provider} {said}"
    detector = Detector(bundle, threads=1)
    assert detector.stages.provider == "cpu"
    assert detector.receipt.passed_over == [f"provider tensorrt {said}"]


def test_a_shape_outside_the_profile(gpu, engines, clip) -> None:
    gpu()
    detector = Detector(engines(), "tensorrt", threads=1)
    assert detector._batch_size(None) == 4
    for batch, samples in ((1, 80_001), (5, WINDOW), (1, 399)):
        with pytest.raises(ProviderError) as caught:
            detector.stages.run(np.zeros((batch, samples), np.float32))
        assert str(caught.value) == (
            "provider tensorrt: the engines take 1 to 4 windows of 400 to 80,000 samples, not "
            f"{batch} of {samples:,}; ask for another --segment, --window-samples or --batch-size, or for "
            "--provider cuda, or build engines for more: nes2net-export --from BUNDLE --to trt"
        )


@pytest.mark.parametrize("least", [8080, 8081, 40_000, 64_401])
def test_streams_of_engines_that_take_no_short_pieces(gpu, engines, cpu, clip, least: int) -> None:
    """Windows whose new frames are of too short a piece are computed whole; the scores are the same."""
    gpu()
    detector = Detector(engines(samples=(least, WINDOW, 80_000)), "tensorrt", threads=1)
    stream = detector.stream(hop=0.5)
    scores = stream.feed(clip) + stream.close()
    expected = cpu.score(clip, hop=0.5)
    np.testing.assert_allclose([s.score for s in scores], [s.score for s in expected], atol=SAME)


def test_a_provider_that_onnxruntime_replaces(gpu, engines) -> None:
    machine = gpu()
    bundle = engines()
    machine.broken = {TENSORRT, CUDA}
    replaced = (
        "does not work here: ONNX Runtime replaced it by cpu (libcublas.so.13: cannot open shared object "
        "file); check its driver and libraries, or ask for --provider cpu"
    )
    for provider in ("tensorrt", "cuda"):
        assert refused(bundle, provider) == f"provider {provider} {replaced}"
    detector = Detector(bundle, threads=1)
    assert detector.stages.provider == "cpu"
    assert detector.receipt.passed_over == [
        f"provider tensorrt {replaced}",
        f"provider cuda {replaced}",
    ]
    machine.broken = {TENSORRT}
    assert Detector(bundle, threads=1).stages.provider == "cuda"


def test_a_provider_that_gets_no_node(gpu) -> None:
    gpu().idle = {CUDA}
    said = "provider cuda runs no node of encoder.onnx: ONNX Runtime gave them to cpu; ask for --provider cpu"
    assert refused(DEMO, "cuda") == said


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("libcudart.so.12", "pip install 'nes2net-edge[trt-rtx]'"),
        ("libcuda.so.1", "install NVIDIA's driver"),
    ],
)
def test_a_plugin_that_can_not_be_loaded(gpu, engines, missing, remedy) -> None:
    gpu(**PLUGIN, plugin_error=missing)
    bundle = engines("trt-rtx", "1.7.1.116")
    assert refused(bundle, "trt-rtx") == (
        f"provider trt-rtx: its plugin can't be loaded ({missing}: cannot open shared object file): {remedy}"
    )
    assert Detector(bundle, threads=1).stages.provider == "cpu"


def test_a_plugin_without_a_card_that_it_supports(gpu, engines) -> None:
    gpu(**PLUGIN).plugin_cards = 0
    assert refused(engines("trt-rtx", "1.7.1.116"), "trt-rtx") == (
        "provider trt-rtx: its plugin finds no card that it supports (GeForce RTX 30 and newer); ask for "
        "--provider cuda"
    )


@pytest.mark.parametrize("file", ["encoder.trt.engine", "encoder.trt.onnx"])
@pytest.mark.parametrize("provider", ["tensorrt", "auto"])
def test_a_damaged_engine_is_never_opened(gpu, engines, file: str, provider) -> None:
    machine = gpu()
    bundle = engines()
    path = bundle / "engines" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=f"{file}: damaged"):
        Detector(bundle, provider, threads=1)
    assert machine.sessions == []


def change_wrapper(bundle: Path, make: Callable[[onnx.ModelProto], None], **attributes: Any) -> None:
    """Write another wrapper for the encoder's engine, which the manifest vouches for."""
    path, manifest = bundle / "engines/encoder.trt.onnx", read_bundle(bundle).manifest
    write_wrapper(path, onnx.load(DEMO / "encoder.onnx"), "encoder.trt.engine", **attributes)
    model = onnx.load(path)
    make(model)
    onnx.save(model, path)
    write_manifest(bundle, manifest.with_files(list_files(bundle)))


def add_node(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Identity", ["frames"], ["more"]))


def add_weights(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3), "w"))


def add_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    model.functions.append(
        helper.make_function("mine", "F", ["x"], ["y"], [node], [helper.make_opsetid("", 20)])
    )


def other_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Other"


def subgraph(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("notes", helper.make_graph([], "g", [], [])))


def nothing(model: onnx.ModelProto) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "attributes", "reason"),
    [
        (add_node, {}, "not a wrapper of an engine (2 nodes)"),
        (add_weights, {}, "not a wrapper of an engine (has weights)"),
        (add_function, {}, "not a wrapper of an engine (has functions)"),
        (other_operator, {}, "not a wrapper of an engine (its node is no EPContext)"),
        (subgraph, {}, "not a wrapper of an engine (attribute 'notes')"),
        (
            nothing,
            {"onnx_model_filename": "x"},
            "not a wrapper of an engine (attribute 'onnx_model_filename')",
        ),
        (nothing, {"embed_mode": 1}, "not a wrapper of an engine (the engine is inside)"),
        (
            nothing,
            {"ep_cache_context": "../context.onnx"},
            "wraps '../context.onnx', the manifest says 'encoder.trt.engine'",
        ),
    ],
)
def test_a_wrapper_that_is_more_than_one(gpu, engines, make, attributes, reason) -> None:
    machine = gpu()
    bundle = engines()
    change_wrapper(bundle, make, **attributes)
    with pytest.raises(BundleError) as caught:
        Detector(bundle, "tensorrt", threads=1)
    assert str(caught.value) == f"{bundle / 'engines/encoder.trt.onnx'}: {reason}"
    assert machine.sessions == []


def test_a_wrapper_that_is_no_onnx_file_or_not_listed(gpu, engines) -> None:
    gpu()
    bundle = engines()
    manifest = read_bundle(bundle).manifest
    (bundle / "engines/encoder.trt.onnx").write_bytes(b"\xff" * 50)
    files = list_files(bundle)
    write_manifest(bundle, manifest.with_files(files))
    with pytest.raises(BundleError, match=r"encoder.trt.onnx: not a wrapper of an engine"):
        Detector(bundle, "tensorrt", threads=1)
    write_manifest(bundle, manifest.with_files([f for f in files if f.path != "engines/encoder.trt.engine"]))
    with pytest.raises(BundleError, match="which the manifest does not list"):
        Detector(bundle, "tensorrt", threads=1)


def test_a_wrapper_cut_short() -> None:
    """Whatever the bytes, a ValueError or LookupError, which is a BundleError to the caller."""
    graph = helper.make_graph([helper.make_node("EPContext", [], [], domain="com.microsoft")], "g", [], [])
    content = helper.make_model(graph).SerializeToString()
    for length in range(len(content)):
        with pytest.raises((ValueError, LookupError)):
            assert wrapped_engine(content[:length]) == "never"


@BOTH
def test_rebuild_builds_once_and_later_runs_find_it(
    gpu, clip, cpu, provider, kind, version, installed
) -> None:
    """In the user's cache; another card, or --rebuild again, is another building."""
    machine = gpu(**installed)
    expected = [s.score for s in cpu.score(clip, hop=0.5)]
    built = Detector(None, provider, 1, rebuild=True)
    assert machine.builds == 3
    later = Detector(None, provider, 1)
    auto = Detector(None, "auto", 1)
    assert machine.builds == 3
    for detector in (built, later, auto):
        np.testing.assert_allclose([s.score for s in detector.score(clip, hop=0.5)], expected, atol=SAME)
        stream = detector.stream(hop=0.5)
        streamed = stream.feed(clip) + stream.close()
        np.testing.assert_allclose([s.score for s in streamed], expected, atol=SAME)
        stages = detector.receipt.stages
        assert [stage.engine.evidence for stage in stages] == [None] * 3
        assert all("nes2net-edge/engines/" in stage.engine.file for stage in stages)
    Detector(None, provider, 1, rebuild=True)
    assert machine.builds == 6


def test_engines_are_built_for_these_shapes_and_in_the_graphs_precision(gpu) -> None:
    """No precision flag: with one, ONNX Runtime builds a network that is not strongly typed."""
    machine = gpu()
    Detector(None, "tensorrt", 1, rebuild=True)
    shapes = [
        [session.options[f"trt_profile_{which}_shapes"] for which in ("min", "opt", "max")]
        for session in machine.sessions
    ]
    assert shapes == [
        ["waveform:1x400", "waveform:1x64600", "waveform:8x64600"],
        ["frames:1x1x496", "frames:1x201x496", "frames:8x201x496"],
        ["features:1x1x192", "features:1x201x192", "features:8x201x192"],
    ]
    for session in machine.sessions:
        assert not any(flag in key for key in session.options for flag in ("fp16", "bf16", "int8"))


def test_a_building_that_failed_is_not_found_later(gpu, monkeypatch) -> None:
    machine = gpu()
    machine.broken = {TENSORRT}
    with pytest.raises(ProviderError, match="replaced it by cpu"):
        Detector(None, "tensorrt", 1, rebuild=True)
    machine.broken = set()
    assert refused(DEMO).endswith(REMEDY)


def test_engines_built_here_are_for_this_card_and_these_graphs(gpu, monkeypatch, uncalibrated) -> None:
    gpu()
    Detector(None, "tensorrt", 1, rebuild=True)
    assert Detector(uncalibrated, "tensorrt", 1).stages.provider == "tensorrt"  # the same graphs
    monkeypatch.setattr(Libcuda, "cuDriverGetVersion", lambda self, v: setattr(v._obj, "value", 13020) or 0)
    assert refused(DEMO).endswith(REMEDY)


def test_a_cache_that_can_not_be_written(gpu, monkeypatch, tmp_path: Path) -> None:
    gpu()
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(ProviderError, match=r"engines can't be kept there \(Not a directory\); set XDG"):
        Detector(None, "tensorrt", 1, rebuild=True)
