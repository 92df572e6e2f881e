"""A report as Markdown: the tables, and what the plots show in words."""

import re
from collections.abc import Iterator, Sequence

from nes2net_bench.report.content import Part, Section, Table
from nes2net_bench.report.page import Report

_SPECIAL = re.compile(r"([\\|<>*_`\[\]])")


def markdown(report: Report) -> str:
    """The report; plots are left to the page."""
    return "\n".join(_lines(report)).rstrip() + "\n"


def markdown_table(table: Table) -> str:
    """One table, without its title."""
    right = [":--" if i == 0 else "--:" for i, _ in enumerate(table.head)]
    lines = [_row(table.head), _row(right, plain=True), *map(_row, table.rows)]
    return "\n".join(lines)


def _lines(report: Report) -> Iterator[str]:
    yield from (f"# {_text(report.title)}", "", _text(report.lede), "")
    for section in report.choices:
        yield from _section(section, "##")
    for part in report.parts:
        yield from _part(part)


def _part(part: Part) -> Iterator[str]:
    yield from (f"## {_text(part.title)}", "", _text(part.lede), "")
    for section in part.sections:
        yield from _section(section, "###")
    if part.missing:
        yield from ("### Not in this document", "")
        yield from (f"- {_text(line)}" for line in part.missing)
        yield ""
    yield from ("### Command and machine", "", "```", part.command, "```", "")
    if part.machine is not None:
        yield from (markdown_table(part.machine), "")


def _section(section: Section, level: str) -> Iterator[str]:
    yield from (f"{level} {_text(section.title)}", "")
    if section.text:
        yield from (_text(section.text), "")
    if not section.tables:  # else the tables say it
        for picture in section.pictures:
            yield from (_text(picture.text), "")
    for table in section.tables:
        if table.title:
            yield from (f"**{_text(table.title)}**", "")
        yield from (markdown_table(table), "")
    for fact in section.facts:
        yield from (_text(fact), "")
    for note in section.notes:
        yield from (f"> {_text(note)}", "")


def _row(cells: Sequence[str], plain: bool = False) -> str:
    return "| " + " | ".join(cell if plain else _text(cell) for cell in cells) + " |"


def _text(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))
