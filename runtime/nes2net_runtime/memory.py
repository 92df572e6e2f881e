"""Memory of a process that runs for days: as small then as after minutes."""

import ctypes
import gc

M_MMAP_THRESHOLD = -3  # malloc.h
BUFFER = 1 << 16  # bytes


def steady_memory() -> None:
    """Have buffers of 64 KiB and more mapped one by one, and given back when they are freed (glibc alone).

    By itself glibc learns from each buffer that is freed to keep the next ones in its heap, where those of a
    stream, of many sizes and lives, leave holes: 3 % more memory after three hours.
    """
    try:
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, BUFFER)
    except (OSError, AttributeError, TypeError):  # another C library
        return


def tidy_memory() -> None:
    """Empty Python's lists of spare tuples, up to 2,000 of a length: what C code makes fills them for hours.

    A full collection does that; it takes some milliseconds.
    """
    gc.collect()
