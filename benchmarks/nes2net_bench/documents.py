"""What every benchmark prints and keeps: one JSON document, whose schema number says how to read it."""

import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import typer
from msgspec import Meta

from nes2net_bench.machine import machine
from nes2net_runtime.errors import BundleError

SCHEMA = 2
Kind = Literal["macs", "latency", "drift", "streaming"]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A benchmark's results, and what they were measured with."""

    schema: Annotated[int, Meta(ge=1)] = SCHEMA
    type: Kind
    created: str  # UTC, ISO 8601
    command: str  # that prints it again
    machine: dict[str, Any]
    results: dict[str, Any]  # of the benchmark's own dataclass


def document(kind: Kind, results: Any) -> Document:
    """A document of results (a dataclass or Struct), made now, by this command, on this machine."""
    return Document(
        type=kind,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        command=shlex.join(["python", *map(_without_folder, sys.argv)]),
        machine=machine(),
        results=msgspec.to_builtins(results),
    )


def _without_folder(argument: str) -> str:
    """An absolute path by its name alone: documents are published, and a disk's folders are private."""
    return Path(argument).name if Path(argument).is_absolute() else argument


def publish(made: Document, output: Path | None) -> None:
    """Print a document as the last line of stdout, and write it to a file where one is named."""
    line = msgspec.json.encode(made)
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_bytes(msgspec.json.format(line, indent=1) + b"\n")
    typer.echo(line.decode())


def read_document(path: Path) -> Document:
    """Read a document that `publish` wrote; raises BundleError for anything else."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Document)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{path}: not a benchmark's document ({error})") from error
