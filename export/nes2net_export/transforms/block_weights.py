"""float32 products -> 4-bit weights by blocks (MatMulNBits of ONNX Runtime); approximate.

    x -> MatMul(w [K, N] f32) -> y          x -> MatMulNBits(4 bits a weight, a scale a block of K) -> y

Weights are symmetric: 16 levels around a zero at the ninth. Each block's scale is the one of some candidates
that leaves the least squared error, which clips an outlier where that serves the others.
"""

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from nes2net_export.transforms.graph import CONTRIB, free_names, rebuilt
from nes2net_export.transforms.integer_products import products

BITS = 4
ZERO = 8  # the level that is zero
# Candidates, as shares of the scale that puts the block's furthest weight on level 0; the first: on level 1.
SHARES = np.linspace(8 / 7, 0.7, 9)
INT8_SUMS = 4  # accuracy level: activations are bytes with a scale a block, as fast kernels want them


def apply(model: onnx.ModelProto, block: int, names: Collection[str] | None = None) -> onnx.ModelProto:
    """Return the graph with its `integer_products.products`, or those called `names`, with 4-bit weights.

    `block`: weights of a column that share a scale; a power of two from 16 on.
    """
    chosen = {n.output[0] for n in products(model) if names is None or n.name in names}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    fresh = free_names(model.graph, "int4")
    nodes: list[NodeProto] = []
    added: list[TensorProto] = []
    for old in model.graph.node:
        if old.output[0] not in chosen:
            nodes.append(old)
            continue
        weight = numpy_helper.to_array(weights[old.input[1]])
        packed, scales = pack(weight, block)
        w, s = next(fresh), next(fresh)
        added += [numpy_helper.from_array(packed, w), numpy_helper.from_array(scales, s)]
        shape = {"K": weight.shape[0], "N": weight.shape[1], "bits": BITS, "block_size": block}
        nodes.append(
            helper.make_node(
                *("MatMulNBits", [old.input[0], w, s], old.output),
                **{"name": old.name, "domain": CONTRIB, "accuracy_level": INT8_SUMS, **shape},
            )
        )
    return rebuilt(model, nodes, added, contrib=True)


def pack(weight: NDArray[np.float32], block: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """[K, N] -> two levels a byte [N, blocks, block / 2], the first in the low half; scales [N, blocks]."""
    inputs, outputs = weight.shape
    padded = np.pad(weight.T, ((0, 0), (0, -inputs % block))).reshape(outputs, -1, block)
    furthest = np.take_along_axis(padded, np.abs(padded).argmax(-1)[..., None], -1)
    reach = np.where(furthest == 0, 1.0, furthest / -ZERO).astype(
        np.float32
    )  # the furthest weight is level 0
    best, scales = np.full(reach.shape, np.inf, np.float32), reach
    for share in SHARES.astype(np.float32):
        error = ((_levels(padded, share * reach) * (share * reach) - padded) ** 2).sum(-1, keepdims=True)
        scales = np.where(error < best, share * reach, scales)
        best = np.minimum(best, error)
    levels = (_levels(padded, scales) + ZERO).astype(np.uint8)
    return (levels[..., ::2] | levels[..., 1::2] << BITS).astype(np.uint8), scales[..., 0]


def _levels(weights: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.clip(np.rint(weights / scales), -ZERO, ZERO - 1)
