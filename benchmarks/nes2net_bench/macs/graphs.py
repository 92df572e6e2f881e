"""Multiply-accumulates, parameters and memory traffic of ONNX graphs: read off the graph, nothing runs.

Products alone are counted: convolutions and matrix products, those of two activations (attention) among
them, in whatever type they are computed. Biases, norms, activation functions, softmax and pooling are left
out; `paper.py` has the convention that counts some of these.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from nes2net_export.transforms.graph import refuse_subgraphs
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import BundleError

Kind = Literal["convolution", "linear", "attention"]  # the last: of two activations
Shape = tuple[int, ...]
Tensors = Mapping[str, tuple[int, Shape]]  # element type (TensorProto.DataType) and shape

# Which inputs are multiplied.
PRODUCTS: Final = {
    "Conv": (0, 1),
    "ConvInteger": (0, 1),
    "Gemm": (0, 1),
    "MatMul": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearConv": (0, 3),
    "QLinearMatMul": (0, 3),
}
# The rest of what detectors are made of. Any other operator is an error: a count that leaves something out in
# silence would be wrong.
OTHERS: Final = frozenset(
    {"Abs", "Add", "BatchNormalization", "Cast", "Clip", "Concat", "Constant", "ConstantOfShape"}
    | {"DequantizeLinear", "Div", "DynamicQuantizeLinear", "Elu", "Equal", "Erf", "Exp", "Expand", "Flatten"}
    | {"Gather", "GatherND", "Gelu", "Identity", "LayerNormalization", "Log", "Max", "Min", "Mul", "Neg"}
    | {
        "Pad",
        "Pow",
        "QuantizeLinear",
        "Range",
        "ReduceMean",
        "ReduceSum",
        "Reciprocal",
        "Relu",
        "Reshape",
        "Selu",
    }
    | {"Shape", "Sigmoid", "Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose"}
    | {"Unsqueeze", "Where"}
)
SAME_VALUES: Final = frozenset({"Cast", "DequantizeLinear", "Identity", "Transpose", "Unsqueeze"})
VIEWS: Final = frozenset({"Flatten", "Identity", "Reshape", "Shape", "Squeeze", "Unsqueeze"})  # move nothing
BITS: Final[Mapping[int, int]] = {
    TensorProto.FLOAT: 32,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8,
    TensorProto.UINT8: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
}
SCALED_SUM: Final = frozenset(
    {"Cast", "Mul", "Add"}
)  # what follows a product: of integers, its scale; its bias
ATTENTION: Final = ".attention"  # what that module is called
NARROW: Final = {4: TensorProto.INT4, 8: TensorProto.INT8}  # bits of weights in blocks
INDICES: Final = frozenset({TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL})  # and shapes


@dataclass(frozen=True)
class Product:
    """One convolution or matrix product."""

    layer: str  # the module, as torch names it; where the graph has no name left, its node
    kind: Kind
    macs: int
    type: str  # of its constant factor as it is stored, FLOAT, FLOAT16 or INT8; else of its activations


@dataclass(frozen=True)
class StageMacs:
    """Work and memory of one stage at one shape of its input."""

    stage: str
    input_shape: Shape
    output_shape: Shape
    products: tuple[Product, ...]  # in the graph's order
    parameters: int  # elements of weights, biases, and norms' gains and offsets
    weight_bytes: int  # of all constants, as they are stored
    border_bytes: int  # of the stage's input and output
    activation_bytes: int  # that each node writes, and each that takes them reads, as if nothing were fused

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(product.macs for product in self.products)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes: where caches hold all activations, and where they hold none and nothing is fused."""
        return self.weight_bytes + self.border_bytes, self.weight_bytes + self.activation_bytes

    @property
    def intensity(self) -> tuple[float, float]:
        """Floating-point operations, two a MAC, for each byte of most and of least traffic."""
        least, most = self.traffic
        return 2 * self.macs / most, 2 * self.macs / least


def bundle_macs(bundle: Bundle, samples: int, batch: int = 1) -> list[StageMacs]:
    """The stages of a bundle, for windows of `samples`; raises BundleError for what can't be counted."""
    shape: Shape = (batch, samples)
    counted: list[StageMacs] = []
    for stage in bundle.manifest.stages:
        path = bundle.path / stage.file
        model = onnx.load(path, load_external_data=False)  # shapes tell everything
        counted.append(graph_macs(model, stage.name, shape, path))
        shape = counted[-1].output_shape
    return counted


def graph_macs(model: onnx.ModelProto, stage: str, shape: Shape, path: Path | None = None) -> StageMacs:
    """One graph, with an input of this shape; raises BundleError for what can't be counted."""
    where = path or stage
    try:
        refuse_subgraphs(model)
    except ValueError as error:
        raise BundleError(f"{where}: {error}") from error
    model = _without_blocks(model)
    graph = model.graph
    strange = {f"{n.domain}.{n.op_type}" for n in graph.node if n.domain not in ("", "ai.onnx")}
    strange |= {node.op_type for node in graph.node} - PRODUCTS.keys() - OTHERS
    if strange:
        raise BundleError(f"{where}: the MACs of {', '.join(sorted(strange))} are not known")
    tensors = _tensors(model, shape)
    unknown = next((o for node in graph.node for o in node.output if o and o not in tensors), None)
    if unknown is not None:
        raise BundleError(f"{where}: the shape of {unknown!r} can't be told where the input is {list(shape)}")
    constants = _Constants(graph)
    border = [graph.input[0].name, graph.output[0].name]
    activations = [
        name
        for node in graph.node
        if node.op_type not in VIEWS
        for name in (*node.input, *node.output)
        if name and name not in constants.source
    ]
    return StageMacs(
        stage=stage,
        input_shape=shape,
        output_shape=tensors[graph.output[0].name][1],
        products=_products(graph, tensors, constants),
        parameters=constants.parameters(),
        weight_bytes=sum(_bytes(tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer),
        border_bytes=sum(_bytes(*tensors[name]) for name in border),
        activation_bytes=sum(_bytes(*tensors[name]) for name in activations),
    )


def _without_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with MatMulNBits, which shape inference does not know, as the products that they are."""
    if not any(node.op_type == "MatMulNBits" for node in model.graph.node):
        return model
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    packed = {tensor.name: tensor for tensor in plain.graph.initializer}
    for node in plain.graph.node:
        if node.op_type == "MatMulNBits":
            given = {a.name: a.i for a in node.attribute}
            weight = packed[node.input[1]]
            weight.CopyFrom(TensorProto(name=weight.name, data_type=NARROW[given["bits"]]))
            weight.dims.extend([given["K"], given["N"]])
            node.op_type, node.domain = "MatMul", ""
            del node.input[2:], node.attribute[:]
    return plain


class _Constants:
    """What a graph stores."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.source = {name: name for name in self.stored}  # constant tensor -> the stored one it is made of
        for node in graph.node:
            if node.op_type in SAME_VALUES and node.input[0] in self.source:
                self.source[node.output[0]] = self.source[node.input[0]]
        self.read = {name: node for node in graph.node for name in node.input if node.op_type in SCALED_SUM}

    def factor(self, node: NodeProto) -> TensorProto | None:
        """The stored factor of a product; None where both are activations."""
        names = (self.source.get(node.input[i]) for i in PRODUCTS[node.op_type])
        return next((self.stored[name] for name in names if name is not None), None)

    def module(self, node: NodeProto) -> str | None:
        """The module of a product, by the name of its bias or its weight; None where neither has one."""
        inputs = [*node.input[2:], *node.input[:2]]
        if "MatMul" in node.op_type:
            after = self.read.get(node.output[0])
            while after is not None and after.op_type != "Add":
                after = self.read.get(after.output[0])
            inputs = [*(after.input if after is not None else ()), *inputs]
        names = (self.source.get(name, "") for name in inputs)
        return next((_module_of(name) for name in names if "." in name), None)

    def parameters(self) -> int:
        """Elements of what torch calls parameters: no running statistics, scales, zero points, numbers."""
        elements = 0
        found = {n.output[1] for n in self.graph.node if n.op_type == "DynamicQuantizeLinear"}  # scales
        for node in self.graph.node:  # by use: the exporter stores equal tensors once
            if node.op_type in SAME_VALUES or node.op_type == "QuantizeLinear" or found & {*node.input}:
                continue
            own = 3 if node.op_type == "BatchNormalization" else None
            read = (self.stored[self.source[name]] for name in node.input[:own] if name in self.source)
            elements += sum(prod(w.dims) for w in read if w.dims and w.data_type not in INDICES)
        return elements


def _products(graph: onnx.GraphProto, tensors: Tensors, constants: _Constants) -> tuple[Product, ...]:
    found, before = [], ""  # the module of the product before
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        factor, module = constants.factor(node), constants.module(node)
        kind: Kind = "convolution" if "Conv" in node.op_type else "attention" if factor is None else "linear"
        if kind == "attention":  # of the module whose projections come before it
            owner, name, _ = before.partition(ATTENTION)
            module = owner + name if name else None
        before = module or before
        type_ = tensors[node.input[0]][0] if factor is None else factor.data_type
        stored = TensorProto.DataType.Name(type_)
        found.append(Product(module or node.name, kind, _macs(node, tensors), stored))
    return tuple(found)


def _macs(node: NodeProto, tensors: Tensors) -> int:
    """Elements of the result, times the products that each is a sum of."""
    results = prod(tensors[node.output[0]][1])
    left, right = (tensors[node.input[i]][1] for i in PRODUCTS[node.op_type])
    if "Conv" in node.op_type:  # weight [outputs, inputs / groups, kernel…]
        return results * prod(right[1:])
    transposed = any(a.name == "transA" and a.i for a in node.attribute)  # of Gemm
    return results * left[0 if transposed else -1]


def _module_of(parameter: str) -> str:
    """`a.b.weight` -> `a.b`; of a parameter in a list, `a.b.sums.3` -> `a.b`."""
    owner, _, name = parameter.rpartition(".")
    return owner.rpartition(".")[0] if name.isdecimal() else owner


def _tensors(model: onnx.ModelProto, shape: Shape) -> Tensors:
    """Every tensor whose shape is known where the graph's input has this one."""
    fixed = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = fixed.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    dims = graph.input[0].type.tensor_type.shape.dim
    del dims[:]
    dims.extend(onnx.TensorShapeProto.Dimension(dim_value=size) for size in shape)
    graph.output[0].type.tensor_type.ClearField("shape")
    for tensor in model.graph.initializer:  # of weights the shape alone, without gigabytes of copies
        light = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
        graph.initializer.append(tensor if tensor.data_type in INDICES else light)
    while True:
        tensors = _inferred(fixed)
        if not _compute_shapes(graph, tensors):
            return tensors


def _inferred(model: onnx.ModelProto) -> Tensors:
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(d.HasField("dim_value") for d in kind.shape.dim):
            found[value.name] = kind.elem_type, tuple(d.dim_value for d in kind.shape.dim)
    return found


def _compute_shapes(graph: onnx.GraphProto, tensors: Tensors) -> bool:
    """Put constants in the place of nodes that compute with shapes, which inference leaves to the run.

    WavLM's positions are a range as long as there are frames.
    """
    values = {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type in INDICES}
    rest = []
    for node in graph.node:
        inputs = {name: values[name] for name in node.input if name in values}
        if node.op_type == "Shape" and node.input[0] in tensors:  # whatever the values
            inputs = {node.input[0]: np.broadcast_to(np.float32(0), tensors[node.input[0]][1])}
        if not node.input or any(name and name not in inputs for name in node.input):
            rest.append(node)
            continue
        results: Any = ReferenceEvaluator(node).run(None, inputs)
        for name, result in zip(node.output, results, strict=True):
            values[name] = np.asarray(result)
            graph.initializer.append(numpy_helper.from_array(values[name], name))
    done = len(rest) < len(graph.node)
    del graph.node[:]
    graph.node.extend(rest)
    return done


def _bytes(kind: int, shape: Shape) -> int:
    return ceil(BITS[kind] * prod(shape) / 8)
