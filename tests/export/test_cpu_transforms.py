"""Graph transforms for CPUs: exact ones against the graph they replace, approximate ones against NumPy."""

import io
import platform
import shutil
import subprocess
import sys
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms import (
    block_weights,
    column_sums,
    fuse_qkv,
    integer_convolution,
    integer_products,
    unfold,
)
from nes2net_runtime.inference.openvino_runtime import import_openvino
from nes2net_runtime.inference.ort_sessions import openvino_settings

FLOAT = TensorProto.FLOAT
LARGEST_SUM = 32_767  # of two products, where AVX2 adds them in 16 bits


def graph_of(
    nodes: list[NodeProto], x: list[int | str], y: list[int | str], **constants: np.ndarray
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", FLOAT, x)],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"x": x})
    return y


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def draw(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def product(weight: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    return graph_of([node], ["rows", weight.shape[0]], ["rows", weight.shape[1]], w=weight)


def encoder(shapes: list[tuple[int, int, int, int]], bias: bool, turned: bool) -> onnx.ModelProto:
    """Convolutions (inputs, outputs, kernel, stride) over time; `turned`: with ReLUs, channels last."""
    nodes, constants, x = [], {}, "x"
    for i, (inputs, outputs, kernel, stride) in enumerate(shapes):
        constants[f"w{i}"] = draw(i, outputs, inputs, kernel)
        given = [x, f"w{i}"]
        if bias:
            constants[f"b{i}"] = draw(100 + i, outputs)
            given.append(f"b{i}")
        y = "y" if i == len(shapes) - 1 else f"r{i}"
        nodes.append(helper.make_node("Conv", given, [f"c{i}"], name=f"conv_{i}", strides=[stride]))
        if turned:
            nodes.append(helper.make_node("Transpose", [f"c{i}"], [f"t{i}"], perm=[0, 2, 1]))
            nodes.append(helper.make_node("Relu", [f"t{i}"], [f"l{i}"]))
            nodes.append(helper.make_node("Transpose", [f"l{i}"], [y], perm=[0, 2, 1]))
        else:
            nodes.append(helper.make_node("Relu", [f"c{i}"], [y]))
        x = y
    channels = [shapes[0][0], shapes[-1][1]]
    return graph_of(nodes, ["batch", channels[0], "time"], ["batch", channels[1], "frames"], **constants)


@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(2, 6), st.integers(1, 4)), min_size=1, max_size=3),
    *(st.booleans(), st.booleans(), st.integers(1, 3), st.integers(0, 40)),
)
@settings(deadline=None, max_examples=40)
def test_unfolded_convolutions_are_the_convolutions(
    sizes: list[tuple[int, int, int]], bias: bool, turned: bool, batch: int, extra: int
) -> None:
    """Any kernel, stride, number of layers and length that leaves a frame, odd ones among them."""
    inputs, shapes, needed = 2, [], 1
    for outputs, kernel, stride in sizes:
        shapes.append((inputs, outputs, kernel, stride))
        inputs = outputs
    for _, _, kernel, stride in reversed(shapes):
        needed = (needed - 1) * stride + kernel
    model = encoder(shapes, bias, turned)
    unfolded = unfold.apply(model)
    onnx.checker.check_model(unfolded, full_check=True)
    x = draw(7, batch, 2, needed + extra)
    np.testing.assert_allclose(run(unfolded, x), run(model, x), rtol=1e-4, atol=1e-4)
    assert operators(unfolded)["Conv"] == 0
    assert [node.name for node in unfold.products(unfolded)] == [f"conv_{i}" for i in range(len(shapes))]
    if turned:  # two at the ends, of the graph's own input and output
        assert operators(unfolded)["Transpose"] == 2


def test_what_unfolding_would_not_help_stays_a_convolution() -> None:
    for attributes, kernel in (
        ({"pads": [1, 1]}, 3),
        ({"dilations": [2]}, 3),
        ({"group": 2}, 3),
        ({"auto_pad": "SAME_UPPER"}, 3),
        ({}, 1),
    ):
        weight = draw(0, 4, 4 // attributes.get("group", 1), kernel)
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", **attributes)
        model = graph_of([node], ["batch", 4, "time"], ["batch", 4, "frames"], w=weight)
        assert unfold.unfoldable(model) == [] and operators(unfold.apply(model)) == {"Conv": 1}


def attention_inputs(scale: float | None, biases: int = 3) -> onnx.ModelProto:
    """Three products of x, the first perhaps scaled, side by side."""
    nodes = []
    for i in range(3):
        nodes.append(helper.make_node("MatMul", ["x", f"w{i}"], [f"p{i}"], name=f"product_{i}"))
        if i < biases:
            nodes.append(helper.make_node("Add", [f"p{i}", f"b{i}"], [f"s{i}"]))
    ends = [f"s{i}" if i < biases else f"p{i}" for i in range(3)]
    constants = {f"w{i}": draw(i, 6, 4) for i in range(3)} | {f"b{i}": draw(9 + i, 4) for i in range(biases)}
    if scale is not None:
        nodes.append(helper.make_node("Mul", ["s0", "scale"], ["q"]))
        constants["scale"] = np.float32(scale).reshape(())
        ends[0] = "q"
    nodes.append(helper.make_node("Concat", ends, ["y"], axis=-1))
    return graph_of(nodes, ["batch", "frames", 6], ["batch", "frames", 12], **constants)


@pytest.mark.parametrize("scale", [None, 0.125, 0.3])
def test_query_key_and_value_become_one_product(scale: float | None) -> None:
    model = attention_inputs(scale)
    fused = fuse_qkv.apply(model)
    onnx.checker.check_model(fused, full_check=True)
    assert operators(fused) == {"MatMul": 1, "Add": 1, "Split": 1, "Concat": 1}
    x = draw(5, 2, 7, 6)
    np.testing.assert_allclose(run(fused, x), run(model, x), rtol=1e-5, atol=1e-6)
    if scale == 0.125:  # a power of two changes no bit
        np.testing.assert_array_equal(run(fused, x), run(model, x))


def test_products_without_a_bias_stay_apart() -> None:
    model = attention_inputs(None, biases=2)
    assert operators(fuse_qkv.apply(model)) == operators(model)


def test_sums_by_a_vector_become_sums_by_a_column() -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="sum")
    model = graph_of([node], ["batch", 3, "frames", 5], ["batch", 3, "frames"], w=draw(0, 5))
    summed = column_sums.apply(model)
    onnx.checker.check_model(summed, full_check=True)
    x = draw(1, 2, 3, 11, 5)
    np.testing.assert_allclose(run(summed, x), run(model, x), rtol=1e-5, atol=1e-6)
    assert operators(summed) == {"MatMul": 1, "Squeeze": 1}


def rounded(x: np.ndarray, scale: np.float32, zero: int) -> np.ndarray:
    return (np.clip(np.rint(x / scale) + zero, 0, 255) - zero) * scale


@given(
    *(st.integers(16, 60), st.integers(1, 30), st.integers(0, 2**32 - 1)),
    *(st.floats(-5, 5), st.floats(0.01, 8), st.booleans()),
)
@settings(deadline=None, max_examples=40)
def test_integer_products_are_what_their_scales_say(
    inputs: int, outputs: int, seed: int, low: float, reach: float, static: bool
) -> None:
    """Activations in 256 steps from the least to the largest, weights in 7 bits with one scale a column."""
    weight = draw(seed, inputs, outputs) * np.random.default_rng(seed).uniform(0.01, 10, outputs)
    weight = weight.astype(np.float32)
    x = np.random.default_rng(seed).uniform(low, low + reach, (4, inputs)).astype(np.float32)
    ends = (low, low + reach) if static else (float(x.min()), float(x.max()))
    quantised = integer_products.apply(product(weight), ranges={"x": ends} if static else None)
    onnx.checker.check_model(quantised, full_check=True)
    scale, zero = integer_products.activation_scale(*ends)
    values, scales = integer_products.weight_bytes(weight)
    expected = rounded(x, scale, zero) @ (values * scales)
    # a value between two steps may fall to either side
    slack = scale * np.abs(values * scales).max() * 1.01 + 1e-5
    np.testing.assert_allclose(run(quantised, x), expected, atol=slack)


def test_sums_of_bytes_do_not_saturate_in_16_bits() -> None:
    """The worst that AVX2's kernels can meet: the largest activation times the largest weight, twice."""
    values, _ = integer_products.weight_bytes(draw(0, 64, 16))
    assert 2 * 255 * int(np.abs(values.astype(int)).max()) <= LARGEST_SUM
    weight = np.ones((64, 16), np.float32)
    x = np.full((2, 64), 3, np.float32)
    expected = np.full((2, 16), 192)
    for ranges in (None, {"x": (0.0, 3.0)}):
        np.testing.assert_allclose(run(integer_products.apply(product(weight), ranges=ranges), x), expected)


OLDER = """
import sys
import numpy as np, onnx, onnxruntime
model = onnx.load(sys.argv[1])
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
print(session.run(None, {"x": np.full((2, 64), 3, np.float32)})[0].max())
"""


@pytest.mark.skipif(
    shutil.which("qemu-x86_64") is None or platform.machine() != "x86_64",
    reason="no qemu-x86_64 to be an older processor: scripts/system-packages.sh",
)
@pytest.mark.parametrize("ranges", [None, {"x": (0.0, 3.0)}], ids=["dynamic", "static"])
@pytest.mark.parametrize(("largest", "right"), [(63, True), (127, False)])
def test_on_a_processor_with_avx2_alone(
    largest: int, right: bool, ranges: dict | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime's kernels on an emulated Haswell: exact with 7 bits a weight, half of it with 8."""
    monkeypatch.setattr(integer_products, "LARGEST", largest)
    model = integer_products.apply(product(np.ones((64, 16), np.float32)), ranges=ranges)
    onnx.save(model, tmp_path / "product.onnx")
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", OLDER, tmp_path / "product.onnx"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (float(done.stdout) == pytest.approx(192, rel=1e-5)) == right


def test_bytes_are_moved_in_place_of_floats() -> None:
    """Unfolded convolutions: the tensor is quantised once, and its slices are bytes."""
    model = unfold.apply(encoder([(16, 16, 3, 2), (16, 4, 2, 2)], True, True))
    sources = integer_products.sources(model)
    ranges = {sources[node.name]: (0.0, 20.0) for node in unfold.products(model)[1:]}
    quantised = integer_products.apply(model, ["conv_1"], ranges)
    onnx.checker.check_model(quantised, full_check=True)
    made = {name: node for node in quantised.graph.node for name in node.output}
    (back,) = [n for n in quantised.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in made]
    assert made[back.input[0]].op_type == "Concat"
    assert operators(quantised)["QuantizeLinear"] == 1
    x = draw(3, 1, 16, 41)
    expected = run(model, x)
    np.testing.assert_allclose(run(quantised, x), expected, atol=0.05 * np.abs(expected).max())


@given(
    *(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3, 16, 17, 40])),
    *(st.integers(0, 20), st.booleans(), st.integers(0, 2**32 - 1)),
)
@settings(deadline=None, max_examples=40)
def test_integer_convolutions_are_what_their_scales_say(
    inputs: int, outputs: int, batch: int, kernel: int, pad: int, bias: bool, seed: int
) -> None:
    """Two groups, any number of taps, padded as the convolution is."""
    weight = draw(seed, 2 * outputs, inputs, kernel)
    constants = {"w": weight} | ({"b": draw(seed + 1, 2 * outputs)} if bias else {})
    node = helper.make_node("Conv", ["x", *constants], ["y"], name="conv", group=2, pads=[pad, pad + 1])
    model = graph_of([node], ["batch", 2 * inputs, "time"], ["batch", 2 * outputs, "frames"], **constants)
    quantised = integer_convolution.apply(model)
    onnx.checker.check_model(quantised, full_check=True)
    x = draw(seed + 2, batch, 2 * inputs, kernel + 5)
    scale, zero = integer_products.activation_scale(float(x.min()), float(x.max()))
    values, scales = integer_products.weight_bytes(weight.reshape(len(weight), -1).T)
    held = graph_of(
        [node],
        ["batch", 2 * inputs, "time"],
        ["batch", 2 * outputs, "frames"],
        **{**constants, "w": (values * scales).T.reshape(weight.shape).astype(np.float32)},
    )
    expected = run(held, rounded(x, scale, zero).astype(np.float32))
    actual = run(quantised, x)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=scale * np.abs(weight).max() * 1.1 + 1e-4)


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_openvino_pads_integer_convolutions_as_onnxruntime_does() -> None:
    """Bytes that it pads itself are zero, which is far from the zero point of audio."""
    openvino = import_openvino()
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=2, pads=[20, 20])
    model = graph_of([node], ["batch", 8, "time"], ["batch", 8, "frames"], w=draw(0, 8, 4, 40))
    quantised = integer_convolution.apply(model)
    x = draw(1, 1, 8, 50)
    core = openvino.Core()
    graph = core.read_model(io.BytesIO(quantised.SerializeToString()))
    compiled = core.compile_model(graph, "CPU", openvino_settings("int8", threads=1))
    expected = run(quantised, x)
    np.testing.assert_allclose(compiled(x)[0], expected, atol=0.02 * np.abs(expected).max())


def test_products_of_few_inputs_stay_as_they_are() -> None:
    """The first convolution hears ten samples of the waveform; 8 bits would be noise."""
    assert integer_products.products(product(draw(0, 10, 512))) == []
    assert len(integer_products.products(product(draw(0, 16, 512)))) == 1


@given(st.integers(1, 70), st.integers(1, 20), st.sampled_from([16, 32, 64]), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_four_bits_a_weight(inputs: int, outputs: int, block: int, seed: int) -> None:
    """What is packed is what NumPy says; no worse than scales that reach the largest weight of each block."""
    weight = draw(seed, inputs, outputs)
    packed, scales = block_weights.pack(weight, block)
    levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(outputs, -1)[:, :inputs].astype(int) - 8
    held = (levels * np.repeat(scales, block, axis=1)[:, :inputs]).T
    assert levels.min() >= -8 and levels.max() <= 7
    padded = np.pad(weight, ((0, -inputs % block), (0, 0))).reshape(-1, block, outputs)
    plain = np.abs(padded).max(axis=1, keepdims=True) / 7
    naive = plain * np.clip(np.rint(padded / np.where(plain == 0, 1, plain)), -8, 7) - padded
    assert ((held - weight) ** 2).sum() <= (naive**2).sum() * 1.02 + 1e-9


def test_products_with_four_bit_weights_run() -> None:
    weight = draw(0, 200, 48)
    model = block_weights.apply(product(weight), 32)
    packed, scales = block_weights.pack(weight, 32)
    levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(48, -1)[:, :200].astype(int) - 8
    held = (levels * np.repeat(scales, 32, axis=1)[:, :200]).T
    x = draw(1, 5, 200)
    # activations are rounded to bytes, a scale for each block
    np.testing.assert_allclose(run(model, x), x @ held, atol=0.03 * np.abs(x @ held).max())
    assert operators(model) == {"MatMulNBits": 1}
    assert sum(len(t.raw_data) for t in model.graph.initializer) < weight.nbytes / 5.5


def test_transforms_leave_their_argument_as_it_was() -> None:
    for model in (encoder([(16, 16, 3, 2)], True, True), attention_inputs(0.125), product(draw(0, 32, 8))):
        before = model.SerializeToString(deterministic=True)
        for transform in (unfold, fuse_qkv, column_sums, integer_products, integer_convolution):
            transform.apply(model)
        block_weights.apply(model, 16)
        assert model.SerializeToString(deterministic=True) == before
