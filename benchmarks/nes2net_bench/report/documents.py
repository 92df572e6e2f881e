"""Documents that benchmarks wrote, read again as the dataclasses that they were made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from nes2net_bench.documents import SCHEMA, Document, Kind, read_document
from nes2net_runtime.errors import BundleError

T = TypeVar("T")


@dataclass(frozen=True)
class Loaded:
    """A document, and its results as the benchmark's own dataclass."""

    name: str  # of its file, without the ending
    document: Document
    results: Any

    @property
    def kind(self) -> Kind:
        """The benchmark."""
        return self.document.type


class _Head(msgspec.Struct):
    schema: int


def load(path: Path) -> Loaded:
    """Read a document; raises BundleError for what is none, newer or older, or damaged."""
    try:
        head = msgspec.json.decode(path.read_bytes(), type=_Head)
    except (OSError, msgspec.DecodeError) as error:
        raise BundleError(f"{path}: not a benchmark's document ({error})") from error
    if head.schema != SCHEMA:
        what = "a newer nes2net-edge wrote it" if head.schema > SCHEMA else "measure again"
        raise BundleError(f"{path}: schema {head.schema}, this version reads {SCHEMA}: {what}")
    document = read_document(path)
    try:
        results: Any = msgspec.convert(document.results, _type_of(document.type), strict=True)
    except msgspec.ValidationError as error:
        raise BundleError(f"{path}: not a document of the {document.type} benchmark ({error})") from error
    return Loaded(path.stem, document, results)


def of_type(loaded: Sequence[Loaded], type_: type[T]) -> list[tuple[Loaded, T]]:
    """Those whose results are of this type."""
    return [(one, one.results) for one in loaded if isinstance(one.results, type_)]


@cache
def _type_of(kind: Kind) -> type:
    """Imported when a document asks for it: what counts MACs needs torch, a page of latencies does not."""
    if kind == "latency":
        from nes2net_bench.latency.results import LatencyResults

        return LatencyResults
    if kind == "drift":
        from nes2net_bench.drift.results import DriftReport

        return DriftReport
    if kind == "streaming":
        from nes2net_bench.streaming import StreamingReport

        return StreamingReport
    try:
        from nes2net_bench.macs.results import MacsReport
    except ModuleNotFoundError as error:
        raise BundleError(
            f"documents of macs.py need {error.name}: pip install 'nes2net-edge[export]'"
        ) from error
    return MacsReport
