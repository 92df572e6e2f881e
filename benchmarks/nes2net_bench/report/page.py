"""All documents as one report: parts, and what joins several of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from nes2net_bench.report.choice import choices
from nes2net_bench.report.content import Part, Section
from nes2net_bench.report.documents import Loaded
from nes2net_bench.report.machine import machine_card, short

ORDER = ("latency", "drift", "macs", "streaming")
TITLES = {"latency": "Latency", "drift": "Drift", "macs": "Work", "streaming": "Streams"}


@dataclass(frozen=True)
class Report:
    """What a page shows, whatever it is written in."""

    title: str
    lede: str
    choices: tuple[Section, ...]  # of several documents
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class _Presenter:
    lede: Callable[[Any], str]
    sections: Callable[[Any], Iterator[Section]]
    missing: Callable[[Any], Sequence[str]]


def make_report(loaded: Sequence[Loaded]) -> Report:
    """A report of documents; those of one kind in the order they were given."""
    parts = tuple(
        _part(one, f"part-{i}") for i, one in enumerate(sorted(loaded, key=lambda one: ORDER.index(one.kind)))
    )
    kinds = [kind for kind in ORDER if any(one.kind == kind for one in loaded)]
    what = ", ".join({"macs": "MACs", "streaming": "streams"}.get(kind, kind) for kind in kinds)
    absent = [kind for kind in ORDER if kind not in kinds]
    lede = f"Measured {what}."
    if absent:
        commands = {"latency": "latency.py", "drift": "eer_drift.py", "macs": "macs.py"}
        lede += (
            " Not here: " + ", ".join(f"{commands.get(k, 'streaming.py')}'s" for k in absent) + " figures."
        )
    return Report("Benchmarks of Nes2Net detectors", lede, tuple(choices(loaded)), parts)


def _part(one: Loaded, anchor: str) -> Part:
    present = _presenter(one)
    return Part(
        title=f"{TITLES[one.kind]}: {one.name}",
        anchor=anchor,
        lede=f"{present.lede(one.results)} · {short(one.document)}",
        sections=tuple(present.sections(one.results)),
        missing=tuple(present.missing(one.results)),
        command=one.document.command,
        machine=machine_card(one.document),
    )


def _presenter(one: Loaded) -> _Presenter:
    """Imported when it is needed: what shows MACs needs torch."""
    if one.kind == "latency":
        from nes2net_bench.report import latency as of

        return _Presenter(of.latency_lede, of.latency_sections, of.latency_missing)
    if one.kind == "drift":
        from nes2net_bench.report import drift as report_drift

        return _Presenter(report_drift.drift_lede, report_drift.drift_sections, report_drift.drift_missing)
    if one.kind == "macs":
        from nes2net_bench.report import macs as report_macs

        return _Presenter(report_macs.macs_lede, report_macs.macs_sections, lambda _: ())
    from nes2net_bench.report import streaming as report_streaming

    return _Presenter(report_streaming.streaming_lede, report_streaming.streaming_sections, lambda _: ())
