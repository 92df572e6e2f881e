"""What all commands share: exit codes, one-line errors, versions."""

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from importlib.metadata import PackageNotFoundError, version
from os.path import samestat
from typing import ParamSpec

import typer

from nes2net_runtime.errors import Nes2NetError, ParityError, ProtocolError

P = ParamSpec("P")


class Exit(IntEnum):
    """Exit codes; Ctrl-C gives 130."""

    DONE = 0
    INPUT_FAILED = 1  # the others were scored
    USAGE = 2  # wrong usage, or no audio found
    NO_START = 3  # bundle, checkpoint, provider, device or protocol
    VERIFICATION_FAILED = 4


def one_line_errors(command: Callable[P, None]) -> Callable[P, None]:
    """Turn expected errors into one line on stderr and an exit code; `--debug` lets them through.

    A ProtocolError keeps its lines, one for each problem of the list.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:  # the reader of stdout has gone (| head): it has what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (Nes2NetError, OSError) as error:
            if kwargs.get("debug"):
                raise
            typer.echo(f"error: {_message(error)}", err=True)
            if isinstance(error, OSError) and not isinstance(error, Nes2NetError):
                raise typer.Exit(Exit.INPUT_FAILED) from error
            code = Exit.VERIFICATION_FAILED if isinstance(error, ParityError) else Exit.NO_START
            raise typer.Exit(code) from error

    return wrapped


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command; help or version cut short by a closed stdout (--help | head -1) exits with 0, not 1.

    click and rich meet a closed stdout with exit 1, after they put a wrapper or /dev/null in its place.
    """
    before = os.fstat(1)
    try:
        app(prog_name=name)
    except SystemExit as exit:
        replaced = type(sys.stdout).__name__ == "PacifyFlushWrapper" or not samestat(before, os.fstat(1))
        if exit.code == 1 and replaced:
            sys.exit(Exit.DONE)
        raise


@contextmanager
def own_stderr() -> Iterator[None]:
    """stderr for this program's own words: what C libraries write there is dropped."""
    sys.stderr.flush()
    before, kept = sys.stderr, os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    with os.fdopen(kept, "w", buffering=1, encoding=before.encoding, errors=before.errors) as sys.stderr:
        os.dup2(null, 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(null)
            sys.stderr = before


@contextmanager
def no_stdout() -> Iterator[None]:
    """Nothing on stdout, which is for results: what C libraries write there is dropped."""
    sys.stdout.flush()
    kept, null = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # what C's buffer still holds
        os.dup2(kept, 1)
        os.close(kept)
        os.close(null)


def installed_versions(*distributions: str) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    versions = {}
    for name in distributions:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) if isinstance(error, ProtocolError) else " ".join(str(error).split())
