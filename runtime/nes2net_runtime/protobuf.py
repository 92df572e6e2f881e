"""Reading protobuf without its package: the fields of a message, and where each one's bytes are."""

import mmap
from collections.abc import Iterator

Buffer = bytes | mmap.mmap


def fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of each length-delimited field; the others are skipped.

    Raises ValueError or LookupError where the bytes are no message.
    """
    for number, wire, start, stop in _all_fields(data, at, end):
        if wire == 2:
            yield number, start, stop


def numbers(data: Buffer, at: int, end: int) -> dict[int, int]:
    """field number -> value of the message's integers; raises as `fields` does."""
    return {number: value for number, wire, value, _ in _all_fields(data, at, end) if wire == 0}


def _all_fields(data: Buffer, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, start or value, end) of each field of a length or an integer."""
    while at < end:
        tag, at = _varint(data, at)
        match tag & 7:
            case 0:
                value, at = _varint(data, at)
                yield tag >> 3, 0, value, at
            case 1:
                at += 8
            case 2:
                length, at = _varint(data, at)
                if at + length > end:
                    raise ValueError("cut short")
                yield tag >> 3, 2, at, at + length
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
