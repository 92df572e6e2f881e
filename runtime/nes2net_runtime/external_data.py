"""Which files an ONNX graph takes its weights from, without the onnx package.

ONNX Runtime opens whatever path a graph names, so the paths must be known before it does. The walk follows
the few fields of the protobuf schema (onnx.proto) that lead to a TensorProto:

    ModelProto.graph 7, .functions 25      GraphProto.node 1, .initializer 5, .sparse_initializer 15
    FunctionProto.node 7                   NodeProto.attribute 5
    AttributeProto.t 5, .g 6, .tensors 10, .graphs 11, .sparse_tensor 22, .sparse_tensors 23
    SparseTensorProto.values 1, .indices 2
    TensorProto.external_data 13 -> StringStringEntryProto.key 1, .value 2
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from nes2net_runtime.errors import BundleError
from nes2net_runtime.protobuf import Buffer, fields

SCHEMA: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
KEY, VALUE = 1, 2


def external_locations(path: Path) -> set[str]:
    """Paths, relative to the graph's folder, that its tensors name; BundleError where it is no ONNX file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
            return set(_locations(model, 0, len(model), "model"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise BundleError(f"{path}: not an ONNX file ({error})") from error


def _locations(data: Buffer, start: int, end: int, message: str) -> Iterator[str]:
    if message == "entry":
        entry = {number: data[a:b] for number, a, b in fields(data, start, end)}
        if entry.get(KEY) == b"location":
            yield entry[VALUE].decode()
        return
    for number, a, b in fields(data, start, end):
        if inner := SCHEMA[message].get(number):
            yield from _locations(data, a, b, inner)
