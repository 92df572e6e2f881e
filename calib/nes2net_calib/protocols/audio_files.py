"""Where the audio of a list is. Folders are listed once: a list may name 600,000 files."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from nes2net_runtime.errors import ProtocolError


def finder(folders: Sequence[Path], suffixes: Sequence[str]) -> Callable[[str], Path | None]:
    """A function (name) -> the first file FOLDER/NAME+SUFFIX that is there, or None.

    It raises ProtocolError for a folder that can't be listed.
    """
    listed = cache(_files)
    places = [os.fspath(folder) for folder in folders]

    def find(name: str) -> Path | None:
        parent, stem = os.path.split(name) if "/" in name else ("", name)
        for place in places:
            folder, there = listed(os.path.join(place, parent) if parent else place)
            for suffix in suffixes:
                if stem + suffix in there:
                    return folder / (stem + suffix)
        return None

    return find


def _files(folder: str) -> tuple[Path, frozenset[str]]:
    """A folder and the names of its files, links that lead nowhere left out; none where it is not there."""
    try:
        with os.scandir(folder) as entries:
            return Path(folder), frozenset(entry.name for entry in entries if entry.is_file())
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
        return Path(folder), frozenset()
    except OSError as error:
        raise ProtocolError(f"{folder}: can't be read ({error.strerror})") from error
