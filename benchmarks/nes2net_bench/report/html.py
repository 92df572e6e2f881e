"""A report as one HTML page: no scripts, nothing to load, light and dark."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from nes2net_bench.report.content import Part, Picture, Section, Table
from nes2net_bench.report.page import Report
from nes2net_bench.report.plots import picture

PAGE = Path(__file__).parent / "page.html"
BESIDE = 66  # characters in a row of a table that has room beside its picture


def html(report: Report) -> str:
    """The page."""
    links = [f'<a href="#{part.anchor}">{escape(part.title)}</a>' for part in report.parts]
    if report.choices:
        links.insert(0, '<a href="#choices">What to choose</a>')
    chosen = "".join(map(_section, report.choices))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(report.title),
        lede=escape(report.lede),
        links="".join(links),
        choices=f'<section id="choices">{chosen}</section>' if chosen else "",
        parts="\n".join(map(_part, report.parts)),
    )


def _part(part: Part) -> str:
    facts = ""
    if part.command:
        facts += f"<pre><code>{escape(part.command)}</code></pre>"
    if part.machine is not None:
        facts += _table(part.machine)
    missing = ""
    if part.missing:
        lines = "".join(f"<li>{escape(line)}" for line in part.missing)
        missing = f"<h3>Not in this document</h3><ul class=missing>{lines}</ul>"
    return (
        f'<article id="{part.anchor}"><h2>{escape(part.title)}</h2><p class=lede>{escape(part.lede)}</p>'
        + "\n".join(map(_section, part.sections))
        + missing
        + f"<h3>Command and machine</h3><div class=card>{facts}</div></article>"
    )


def _section(section: Section) -> str:
    text = f"<p>{escape(section.text)}</p>" if section.text else ""
    facts = "".join(f"<p>{escape(fact)}</p>" for fact in section.facts)
    notes = "".join(f"<p class=note>{escape(note)}</p>" for note in section.notes)
    pictures = "".join(map(_picture, section.pictures))
    tables = f"<div class=tables>{''.join(map(_table, section.tables))}</div>" if section.tables else ""
    narrow = all(_characters(table) <= BESIDE for table in section.tables)
    if narrow and len(section.pictures) == 1 and tables:
        shown = f"<div class=beside>{pictures}{tables}</div>"
    else:
        shown = (f"<div class=pictures>{pictures}</div>" if pictures else "") + tables
    return f"<h3>{escape(section.title)}</h3>{text}{shown}{facts}{notes}"


def _characters(table: Table) -> int:
    """The width of its rows; heads may wrap."""
    return sum(3 + max(map(len, column)) for column in zip(*table.rows, strict=True)) if table.rows else 0


def _picture(shown: Picture) -> str:
    title = f"<figcaption>{escape(shown.title)}</figcaption>" if shown.title else ""
    width = 1.12 * shown.figure.get_figwidth()
    drawn = f'<div role=img aria-label="{escape(shown.text)}">{picture(shown.figure)}</div>'
    return f'<figure style="max-width:{width:.2f}in">{title}{drawn}</figure>'


def _table(table: Table) -> str:
    title = f"<caption>{escape(table.title)}</caption>" if table.title else ""
    head = "".join(f"<th scope=col>{escape(cell)}" for cell in table.head)
    body = f"<thead><tr>{head}</thead><tbody>{_rows(table.rows)}</tbody>"
    return f"<div class=wide><table>{title}{body}</table></div>"


def _rows(rows: Sequence[Sequence[str]]) -> str:
    return "".join(
        f"<tr><th scope=row>{escape(first)}" + "".join(f"<td>{escape(cell)}" for cell in rest)
        for first, *rest in rows
    )
