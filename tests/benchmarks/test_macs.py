"""MACs: the papers' table to every digit, and graphs that say what the torch modules say."""

import json
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nes2net_bench.documents import read_document
from nes2net_bench.macs.graphs import bundle_macs, graph_macs
from nes2net_bench.macs.modules import config_of, modules_macs
from nes2net_bench.macs.paper import AASIST, COUNTED_TWICE, backend_row, paper_macs, paper_table, saving
from nes2net_bench.macs.results import macs_report
from nes2net_export.models.config import ModelConfig
from nes2net_export.models.nes2net import Nes2Net
from nes2net_export.probe import signal_probe
from nes2net_export.quantisers import for_cpus
from nes2net_export.random_models import WAVLM_LARGE, XLSR_300M
from nes2net_export.source import load_source
from nes2net_export.state_dict import Untold
from nes2net_export.trace import stage_specs, trace
from nes2net_export.transforms import float16, quantize_linear, simplify
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.errors import BundleError, ParityError

ROOT = Path(__file__).parents[2]
OFFICIAL = json.loads((ROOT / "tests/data/backend_macs.json").read_text())
BACKENDS = [name for name in OFFICIAL["models"] if not name.startswith("AASIST")]

# One golden of each front-end, aggregation and back-end: more of a kind are counted alike.
EACH_FAMILY = (
    *("w2v_x_oddsplit_dp", "a5_x_astp_seclamp", "wavlm_ws_nes2net_st"),  # committed
    *("wavlm_sea_selu", "wavlm_attm_selu_seclamp"),
)


def config_like(name: str) -> ModelConfig:
    """The back-end that a row of the golden file is of."""
    variant, pooling = name.split(" / ")
    return replace(
        XLSR_300M if "ITW" in variant else WAVLM_LARGE,
        backend="nes2net" if variant == "Nes2Net" else "nes2net-x",
        activation="selu" if "SeLU" in variant else "relu",
        pooling="astp" if pooling == "ASTP" else "mean",
        pooling_bottleneck=128 if pooling == "ASTP" else 0,
        logits=2 if "2 logits" in variant else 1,
    )


@pytest.mark.parametrize("name", BACKENDS)
def test_official_numbers_to_every_digit(name: str) -> None:
    official, config = OFFICIAL["models"][name], config_like(name)
    row = backend_row(name, config)
    assert (row.macs, row.parameters) == (official["macs"], official["params"])
    with torch.device("meta"):
        counted = paper_macs(Nes2Net(config).eval(), torch.empty(1, 200, 1024))
    once = {kind: macs // (2 if kind in COUNTED_TWICE else 1) for kind, macs in counted.items()}
    assert once == official["by_layer_type"]
    twice = sum(macs // 2 for kind, macs in counted.items() if kind in COUNTED_TWICE)
    assert twice == official["counted_outside_layers"]


def test_the_papers_table() -> None:
    table = {row.name: row for row in paper_table()}
    printed = {name: f"{row.macs / 1e6:.2f} M" for name, row in table.items()}
    assert printed["Nes2Net"] == OFFICIAL["published"]["Nes2Net"]["macs"] == "58.11 M"
    assert printed["Nes2Net-X"] == OFFICIAL["published"]["Nes2Net-X"]["macs"] == "91.35 M"
    assert printed["AASIST"] == OFFICIAL["published"]["AASIST"]["macs"] == "707.65 M"
    assert table["Nes2Net"].parameters == 510_769 and table["Nes2Net-X"].parameters == 511_014
    assert table["Nes2Net-X SELU"].macs == 88_294_785
    assert f"{100 * saving(table['Nes2Net-X']):.0f} %" == "87 %"
    (official,) = (row for name, row in OFFICIAL["models"].items() if name.startswith("AASIST"))
    assert (AASIST.macs, AASIST.parameters) == (official["macs"], official["params"])


def test_products_alone_leave_the_biases_out() -> None:
    """Seven blocks: 1x1 convolutions in and out, seven small ones between, two of the gates; one logit."""
    biased = 7 * (2 * 128 * 200 + 7 * 16 * 200 + 128 + 128) + 1
    counted = OFFICIAL["models"]["Nes2Net / mean"]["conv_and_linear_only"]
    assert backend_row("", config_like("Nes2Net / mean")).products == counted - biased
    sums = 7 * sum(16 * 200 * (i + 2) for i in range(7))  # Nes2Net-X: elementwise in the official code
    counted = OFFICIAL["models"]["Nes2Net-X / mean"]["conv_and_linear_only"]
    biased += 7 * sum(16 * 200 * (i + 1) for i in range(7))  # its results have a growing last axis
    assert backend_row("", config_like("Nes2Net-X / mean")).products == counted - biased + sums


def test_full_size_by_hand() -> None:
    """XLS-R 300M at 201 frames, term by term."""
    encoder, context, _ = modules_macs(XLSR_300M, 64_600)
    lengths, length = [], 64_600
    for kernel, stride in zip(XLSR_300M.conv_kernels, XLSR_300M.conv_strides, strict=True):
        lengths.append(length := (length - kernel) // stride + 1)
    assert lengths[-1] == 201
    inputs = (1, *[512] * 6)
    work = [n * 512 * i * k for n, i, k in zip(lengths, inputs, XLSR_300M.conv_kernels, strict=True)]
    assert [product.macs for product in encoder.products] == work
    linear = 201 * (512 * 1024 + 24 * (4 * 1024**2 + 2 * 1024 * 4096))
    attention = 24 * 2 * 201 * 201 * 1024
    position = 202 * 1024 * 64 * 128  # one frame more than is kept
    assert sum(product.macs for product in context.products) == linear + attention + position
    assert sum(p.macs for p in context.products if p.kind == "attention") == attention


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH_FAMILY)
def test_graphs_have_the_products_of_the_modules(goldens, name: str) -> None:
    """Each product in its place, in float32, float16 and INT8; and the same parameters."""
    golden = next((entry for entry in goldens.entries if entry["name"] == name), None)
    if golden is None:
        pytest.skip("its checkpoint is beside the project only")
    untold = goldens.untold(golden)
    loaded = load_source(
        str(goldens.checkpoint(golden)),
        Untold(untold["attention_heads"], untold["dilation"], untold["activation"]),
    )
    shape: tuple[int, ...] = (1, 16_000)
    modules = modules_macs(loaded.detector.config, shape[-1])
    for (spec, module), counted in zip(stage_specs(loaded.detector, False), modules, strict=True):
        graph = simplify.apply(trace(spec, module, 20))
        largest = {node.input[0]: 1.0 for node in quantize_linear.quantisable(graph)}
        int8 = quantize_linear.apply(graph, largest)
        forms = {"FLOAT": graph, "FLOAT16": float16.apply(graph, {"Softmax"}), "INT8": int8}
        stored = {}
        for kind, model in forms.items():
            found = graph_macs(model, spec.name, shape)
            assert [(p.kind, p.macs) for p in found.products] == [
                (p.kind, p.macs) for p in counted.products
            ], kind
            assert found.parameters == counted.parameters + counted.folded, kind
            weighted = [p for p in found.products if p.kind != "attention"]
            assert {p.type for p in weighted} <= {kind, "FLOAT"}
            assert any(p.type == kind for p in weighted)
            stored[kind] = found.weight_bytes
        assert graph_macs(graph, spec.name, shape).products == counted.products  # names, too
        assert 0.45 < stored["FLOAT16"] / stored["FLOAT"] < 0.6
        if spec.name == "encoder":
            assert stored["INT8"] / stored["FLOAT"] < 0.4  # norms and biases stay
        shape = found.output_shape


@pytest.mark.slow
def test_one_graph_has_the_sum_of_the_stages(committed_goldens) -> None:
    golden = committed_goldens.entries[0]
    untold = committed_goldens.untold(golden)
    detector = load_source(
        str(committed_goldens.checkpoint(golden)),
        Untold(untold["attention_heads"], untold["dilation"], untold["activation"]),
    ).detector
    ((spec, module),) = stage_specs(detector, single_graph=True)
    whole = graph_macs(simplify.apply(trace(spec, module, 20)), spec.name, (1, 16_000))
    parts = modules_macs(detector.config, 16_000)
    assert whole.macs == sum(product.macs for part in parts for product in part.products)
    assert whole.parameters == sum(part.parameters + part.folded for part in parts)
    report = macs_report("one", "fp32", detector.config, [whole], 0.5, None)
    assert report.back_end.macs == sum(product.macs for product in parts[-1].products)


def test_integer_operators_are_products(tmp_path: Path) -> None:
    """Dynamic INT8 of ONNX Runtime: MatMulInteger and ConvInteger."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    bundle = read_bundle(DEMO)
    before = bundle_macs(bundle, 16_000)
    for stage, plain in zip(bundle.manifest.stages, before, strict=True):
        out = tmp_path / stage.file
        quantization.quantize_dynamic(bundle.path / stage.file, out)
        model = onnx.load(out)
        assert {node.op_type for node in model.graph.node} & {"MatMulInteger", "ConvInteger"}
        after = graph_macs(model, stage.name, plain.input_shape)
        assert [p.macs for p in after.products] == [p.macs for p in plain.products]
        assert any(p.type in ("INT8", "UINT8") for p in after.products)


@pytest.mark.parametrize("block", [None, 32])
def test_graphs_for_cpus_do_the_same_work(block: int | None) -> None:
    """Unfolded, fused, in integers, with 4-bit weights: the MACs and parameters of the float32 graphs."""
    bundle = read_bundle(DEMO)
    models = {s.name: onnx.load(bundle.path / s.file) for s in bundle.manifest.stages}
    heavy = frozenset(models) - {"backend"}
    quantiser = for_cpus(bundle.manifest, models, heavy, signal_probe(8_000), block, True)
    plain = [graph_macs(models[s.stage], s.stage, s.input_shape) for s in bundle_macs(bundle, 64_600)]
    counted = []
    for before in plain:
        if before.stage == "backend":
            counted.append(before)
            continue
        model = quantiser.convert(before.stage, quantiser.nodes[before.stage])
        after = graph_macs(model, before.stage, before.input_shape)
        assert (after.macs, after.parameters) == (before.macs, before.parameters)
        assert {p.type for p in after.products} >= {"INT4" if block and before.stage == "context" else "INT8"}
        assert after.weight_bytes < before.weight_bytes / 2
        counted.append(after)
    report = macs_report("demo", "int8", config_of(bundle.manifest.model), counted, 0.5, None)
    layers = {product.layer: product for product in report.stages[1].layers}
    assert layers["network.positional.conv"].kind == "convolution"
    assert {p.kind for p in report.stages[0].layers} == {"convolution"}
    assert "network.layers.0.attention.query+key+value" in layers


def small_graph(operator: str = "Relu") -> onnx.ModelProto:
    """x [1, 4] -> MatMul -> an operator -> y [1, 3]."""
    weight = numpy_helper.from_array(torch.ones(4, 3).numpy(), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["xw"], "m"), helper.make_node(operator, ["xw"], ["y"])]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", k]) for n, k in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_traffic_and_intensity_by_hand() -> None:
    counted = graph_macs(small_graph(), "small", (2, 4))
    assert counted.macs == 2 * 4 * 3 and counted.output_shape == (2, 3)
    assert counted.weight_bytes == 4 * 12
    assert counted.border_bytes == 4 * (2 * 4 + 2 * 3)
    assert counted.activation_bytes == 4 * (8 + 6 + 6 + 6)  # read, written, read, written
    assert counted.traffic == (48 + 56, 48 + 104)
    assert counted.intensity == pytest.approx((48 / 152, 48 / 104))


def test_what_is_not_known_is_an_error() -> None:
    with pytest.raises(BundleError, match="HardSwish"):
        graph_macs(small_graph("HardSwish"), "small", (1, 4))
    contributed = small_graph()
    contributed.graph.node[1].domain = "com.microsoft"
    with pytest.raises(BundleError, match=r"com\.microsoft\.Relu"):
        graph_macs(contributed, "small", (1, 4))


@pytest.mark.parametrize("change", [{"layers": 4}, {"feed_forward": 400}, {"conv_bias": False}])
def test_a_graph_that_is_not_the_modules_is_an_error(change: dict[str, int]) -> None:
    bundle = read_bundle(DEMO)
    config = config_of(bundle.manifest.model)
    counted = bundle_macs(bundle, 16_000)
    assert macs_report("demo", "fp32", config, counted, 0.5, None).macs == sum(s.macs for s in counted)
    with pytest.raises(ParityError, match="torch's modules"):
        macs_report("demo", "fp32", replace(config, **change), counted, 0.5, None)


def run(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/macs.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_the_command(tmp_path: Path) -> None:
    done = run("-o", tmp_path / "macs.json", "--layers")
    assert done.returncode == 0, done.stderr
    results = read_document(tmp_path / "macs.json").results
    assert json.loads(done.stdout.splitlines()[-1])["results"] == results
    assert results["macs"] == sum(stage["macs"] for stage in results["stages"])
    assert results["macs"] == sum(layer["macs"] for stage in results["stages"] for layer in stage["layers"])
    assert results["front_end"]["macs"] + results["back_end"]["macs"] == results["macs"]
    assert results["window_samples"] == 64_600
    second = results["per_second"]
    assert second["windows"] == pytest.approx(results["macs"] * 16_000 / 64_600)
    assert second["stream"] == 2 * results["macs"]
    encoder, *rest = results["stages"]
    kept = second["stream_kept"] / 2 - sum(stage["macs"] for stage in rest)
    assert kept == pytest.approx(encoder["macs"] * 25 / 201, rel=0.02)  # half a second has 25 frames
    for shown in ("58,105,985", "91,347,585", "88,294,785", "707,652,570", "87.1 %"):
        assert shown in done.stderr
    assert "layers.6.conv" in done.stderr


def test_wrong_usage(tmp_path: Path) -> None:
    done = run("--bundle", tmp_path / "none")
    assert done.returncode == 3 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert run("--bundle", DEMO, "--checkpoint", "random:xlsr-300m").returncode == 2
    assert run("--checkpoint", "random:none").returncode == 3


def test_the_demo_in_its_stored_type() -> None:
    """What the manifest's hashes vouch for is what is counted: bytes of constants are nearly the files'."""
    bundle = read_bundle(DEMO)
    for stage, counted in zip(bundle.manifest.stages, bundle_macs(bundle, 16_000), strict=True):
        size = (bundle.path / stage.file).stat().st_size
        assert 0.8 < counted.weight_bytes / size < 1
        assert prod(counted.input_shape) > 0
