"""What a command needs and is not installed, said in one line."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from nes2net_runtime.commands import Exit


@contextmanager
def extras(names: str) -> Iterator[None]:
    """Around imports of what comes with these extras: what is missing ends the program, with the remedy."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        print(f"error: {missing} is not installed: pip install 'nes2net-edge[{names}]'", file=sys.stderr)
        sys.exit(Exit.NO_START)
