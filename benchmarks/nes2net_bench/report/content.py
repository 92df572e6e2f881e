"""What a report says, before it is HTML or Markdown: sections of tables and pictures, in plain text."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import floor, log10

from matplotlib.figure import Figure

from nes2net_bench.latency.timing import Ratio

NONE = "\u2013"


@dataclass(frozen=True)
class Table:
    """The first cell of a row is its name."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure, and what it shows in words for those who don't see it."""

    figure: Figure
    text: str
    title: str = ""


@dataclass(frozen=True)
class Section:
    """One subject."""

    title: str
    text: str = ""  # how to read it
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()  # what must not be overlooked
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """One document."""

    title: str
    anchor: str  # unlike any other part's
    lede: str
    sections: tuple[Section, ...]
    missing: tuple[str, ...] = ()  # what the document lacks, and why
    command: str = ""
    machine: Table | None = None


def table(head: Sequence[str], rows: Iterable[Sequence[str]], title: str = "") -> Table:
    """A table of any sequences."""
    return Table(tuple(head), tuple(tuple(row) for row in rows), title)


def number(value: float | None, digits: int = 3) -> str:
    """Three digits that count, never 1e+03."""
    if value is None:
        return NONE
    if value == 0:
        return "0"
    return f"{value:,.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def ratio(found: Ratio | None) -> str:
    """A ratio with its interval."""
    if found is None:
        return NONE
    if found.low == found.high == 1:
        return "1"
    return f"{found.estimate:.3f} ({found.low:.3f} to {found.high:.3f})"


def mega(value: float | None) -> str:
    """Bytes in megabytes."""
    return NONE if value is None else f"{value / 1e6:,.0f}" if value >= 1e7 else f"{value / 1e6:,.1f}"


def percent(value: float | None, digits: int = 0) -> str:
    """A share."""
    return NONE if value is None else f"{100 * value:.{digits}f} %"
