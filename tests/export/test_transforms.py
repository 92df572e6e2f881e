"""Graph transforms: ONNX model in, ONNX model out; numbers against NumPy."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from nes2net_export.transforms import float16, quantize_linear, rounding, taps
from nes2net_export.transforms.graph import element_types
from nes2net_runtime.bundle import DEMO

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16


def run(model: onnx.ModelProto, x: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {model.graph.input[0].name: x})


def perceptron(*weights: np.ndarray) -> onnx.ModelProto:
    """x -> MatMul -> Tanh -> MatMul -> Tanh … -> y, [batch, features]."""
    nodes, x = [], "x"
    for i, _ in enumerate(weights):
        nodes.append(helper.make_node("MatMul", [x, f"w{i}"], [f"a{i}"], name=f"product_{i}"))
        x = "y" if i == len(weights) - 1 else f"t{i}"
        nodes.append(helper.make_node("Tanh", [f"a{i}"], [x], name=f"tanh_{i}"))
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", FLOAT, ["batch", weights[0].shape[0]])],
        [helper.make_tensor_value_info("y", FLOAT, ["batch", weights[-1].shape[1]])],
        [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16).astype(np.float32)


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def types_of(model: onnx.ModelProto, operator: str) -> set[int]:
    """Types that nodes of an operator write."""
    types = element_types(model)
    return {types[node.output[0]] for node in model.graph.node if node.op_type == operator}


@pytest.fixture(scope="module", params=["encoder", "context", "backend"])
def stage(request) -> onnx.ModelProto:
    return onnx.load(DEMO / f"{request.param}.onnx")


def test_float16_says_of_every_node_what_it_computes_in(stage: onnx.ModelProto) -> None:
    islands = {"LayerNormalization", "Softmax"}
    model = float16.apply(stage, islands)
    onnx.checker.check_model(model, full_check=True)
    assert [v.type for v in model.graph.input] == [v.type for v in stage.graph.input]
    assert [v.type for v in model.graph.output] == [v.type for v in stage.graph.output]
    for operator in {node.op_type for node in stage.graph.node} - {"Cast", "Shape"}:
        written = types_of(model, operator) - {TensorProto.INT64}
        assert written <= ({FLOAT} if operator in islands else {FLOAT16}), operator
    weights = [t for t in model.graph.initializer if len(t.raw_data) > 1024]
    assert {t.data_type for t in weights if len(t.dims) > 1} == {FLOAT16}
    assert sum(len(t.raw_data) for t in weights) < 0.55 * sum(
        len(t.raw_data) for t in stage.graph.initializer
    )


def test_float16_rounds_as_a_gpu_does_and_a_cpu_does_not() -> None:
    """A product past 65504 is infinite in float16; ONNX Runtime keeps float32 there, which hides it."""
    model = perceptron(np.full((4, 4), 200), np.full((4, 1), 1e-6))
    del model.graph.node[1]  # no tanh between the products
    model.graph.node[1].input[0] = "a0"
    x = np.full((1, 4), 100, np.float32)
    converted = float16.apply(model)
    assert np.isfinite(run(converted, x)[0]).all()
    assert run(rounding.apply(converted), x)[0] == pytest.approx(1.0)  # tanh of infinity
    island = rounding.apply(float16.apply(model, {"product_0", "product_1"}))
    assert run(island, x)[0] == pytest.approx(np.tanh(4 * 4 * 200 * 100 * 1e-6), rel=1e-3)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0.01, 8))
@settings(deadline=None, max_examples=30)
def test_rounding_is_float16_with_exact_sums(layers: int, width: int, seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    weights = [scale * random.standard_normal((width, width)) / np.sqrt(width) for _ in range(layers)]
    x = random.standard_normal((3, width)).astype(np.float32)
    expected = half(x)
    for weight in weights:
        expected = half(np.tanh(half(expected @ half(weight.astype(np.float32)))))
    (actual,) = run(rounding.apply(float16.apply(perceptron(*weights))), x)
    # a sum in another order may fall on the other side of a rounding, and so one step of float16 away
    np.testing.assert_allclose(actual, expected, atol=4e-3)
    assert np.mean(actual == expected) > 0.8


def test_islands_read_weights_in_float32_and_leave_no_others() -> None:
    model = perceptron(random(8, 8), random(8, 8, seed=1))
    converted = float16.apply(model, {"product_1"})
    assert {t.data_type for t in converted.graph.initializer} == {FLOAT, FLOAT16}
    assert [t.data_type for t in converted.graph.initializer if t.name == "w1"] == [FLOAT]
    assert not [t for t in converted.graph.initializer if t.name == "w0"]
    everything = float16.apply(model, {"MatMul", "Tanh"})
    x = random(2, 8, seed=2)
    np.testing.assert_array_equal(run(everything, x)[0], run(model, x)[0])


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["k"], name="k", value_float=0.25),
        helper.make_node("Constant", [], ["k"], name="k", value_floats=[0.25, 4.0, -1.0]),
        helper.make_node("ConstantOfShape", ["shape"], ["k"], name="k"),
        helper.make_node("Range", ["from", "to", "step"], ["k"], name="k"),
    ],
    ids=["value_float", "value_floats", "zeros", "range"],
)
def test_what_has_no_form_for_float16_stays_float32(node: onnx.NodeProto) -> None:
    model = perceptron(random(4, 3))
    constants = {
        "shape": np.array([3]),
        **dict(zip(("from", "to", "step"), np.float32([0, 3, 1]), strict=True)),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    model.graph.node[1].input[0] = "sum"
    model.graph.node.insert(1, helper.make_node("Add", ["a0", "k"], ["sum"], name="sum"))
    model.graph.node.insert(1, node)
    x = random(2, 4, seed=1)
    converted = float16.apply(model)
    np.testing.assert_allclose(run(converted, x)[0], run(model, x)[0], atol=4e-3)
    assert types_of(converted, "Add") == {FLOAT16} and types_of(converted, node.op_type) == {FLOAT}


def test_graphs_within_graphs_are_refused() -> None:
    model = perceptron(random(2, 2))
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("If", ["x"], ["z"], name="branch", then_branch=inner))
    with pytest.raises(ValueError, match="branch"):
        float16.apply(model)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1), st.floats(0.05, 20))
@settings(deadline=None, max_examples=30)
def test_int8_is_what_its_scales_say(width: int, outputs: int, seed: int, largest: float) -> None:
    """Against NumPy: activations clipped and rounded on one scale, weights on one an output channel."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal((width, outputs)).astype(np.float32) * random.uniform(0.01, 10, outputs)
    x = random.standard_normal((3, width)).astype(np.float32)
    weight = weight.astype(np.float32)
    scale = quantize_linear.scales_of(largest)
    scales = quantize_linear.scales_of(np.abs(weight).max(axis=0))
    assert 127 * scale >= np.float32(largest) and (127 * scales >= np.abs(weight).max(axis=0)).all()
    assert np.float32(largest) / 127 == pytest.approx(scale, rel=1e-3)
    heard = scale * np.clip(np.rint(x / scale), -128, 127)
    expected = np.tanh(heard @ (scales * np.rint(weight / scales)))
    (actual,) = run(quantize_linear.apply(perceptron(weight), {"x": largest}), x)
    np.testing.assert_allclose(actual, expected, atol=2e-4)


@given(st.floats(0, 1e4))
def test_scales_are_numbers_of_float16_above_zero(largest: float) -> None:
    """A weight of next to nothing has a scale that float16 does not round to zero: engines refuse that."""
    scale = quantize_linear.scales_of(largest)
    assert scale > 0 and np.float16(scale) == scale and 127 * scale >= np.float32(largest)


def test_int8_of_named_nodes_alone_and_in_the_form_that_engines_take() -> None:
    model = perceptron(random(8, 8), random(8, 4, seed=1))
    quantised = quantize_linear.apply(model, {"x": 3.0, "t0": 1.0}, {"product_1"})
    assert [n.op_type for n in quantised.graph.node].count("DequantizeLinear") == 2
    assert {t.name for t in quantised.graph.initializer} >= {"w0"}
    assert "w1" not in {t.name for t in quantised.graph.initializer}
    zeros = [t for t in quantised.graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) < 2]
    assert zeros and not any(numpy_helper.to_array(t).any() for t in zeros)  # symmetric
    assert not any(t.data_type == TensorProto.INT32 for t in quantised.graph.initializer)  # biases: float32


def test_int8_then_float16_leaves_int8_products_and_float16_for_the_rest() -> None:
    context = onnx.load(DEMO / "context.onnx")
    names = {node.name for node in quantize_linear.quantisable(context)}
    largest = {node.input[0]: 4.0 for node in quantize_linear.quantisable(context)}
    model = float16.apply(quantize_linear.apply(context, largest), {"LayerNormalization"})
    onnx.checker.check_model(model, full_check=True)
    types = element_types(model)
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.name in names:
            assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
            assert types[node.output[0]] == FLOAT16


def test_int8_weights_are_matrices() -> None:
    """A vector has no axis of output channels, a stack of matrices another one."""
    for shape in ((8,), (2, 8, 4)):
        model = perceptron(random(8, 8))
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(random(*shape), "w0"))
        assert quantize_linear.quantisable(model) == []


def test_taps_show_what_is_inside() -> None:
    weights = random(6, 5), random(5, 4, seed=1)
    x = random(2, 6, seed=2)
    model = taps.apply(perceptron(*weights), ["a0", "x", "y", "a0"])
    assert [value.name for value in model.graph.output] == ["y", "a0"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["a0"], {"x": x})[0], x @ weights[0], rtol=1e-5)


def test_transforms_leave_their_argument_as_it_was(stage: onnx.ModelProto, tmp_path: Path) -> None:
    before = stage.SerializeToString(deterministic=True)
    rounding.apply(float16.apply(stage))
    quantisable = quantize_linear.quantisable(stage)
    quantize_linear.apply(stage, {node.input[0]: 1.0 for node in quantisable})
    taps.apply(stage, [])
    assert stage.SerializeToString(deterministic=True) == before
