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
Buffer = bytes | mmap.mmap


def external_locations(path: Path) -> set[str]:
    """Paths, relative to the graph's folder, that its tensors name; BundleError where it is no ONNX file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as model:
            return set(_locations(model, 0, len(model), "model"))
    except (OSError, ValueError, LookupError, RecursionError) as error:
        raise BundleError(f"{path}: not an ONNX file ({error})") from error


def _locations(data: Buffer, start: int, end: int, message: str) -> Iterator[str]:
    if message == "entry":
        fields = {number: data[a:b] for number, a, b in _fields(data, start, end)}
        if fields.get(KEY) == b"location":
            yield fields[VALUE].decode()
        return
    for number, a, b in _fields(data, start, end):
        if inner := SCHEMA[message].get(number):
            yield from _locations(data, a, b, inner)


def _fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of each length-delimited field; the others are skipped."""
    while at < end:
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                _, at = _varint(data, at)
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                if at + length > end:
                    raise ValueError("cut short")
                yield tag >> 3, at, at + length
                at += length
            case 5:
                at += 4
            case wire:
                raise ValueError(f"wire type {wire}")


def _varint(data: Buffer, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without end")
