"""What became better or worse between two documents of a benchmark, beyond noise.

    python benchmarks/compare.py benchmarks/results/latency-demo.json now.json

Noise is what each benchmark says of itself: intervals of ratios and of error rates, 5 % of memory; MACs have
none. What the two were not measured alike with (processor, versions, threads, graphs) is listed first.
Exit codes: 0 nothing is worse, 3 a document can't be used, 4 something is worse.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nes2net_bench.report.compare import Comparing, compare_documents, sorted_changes, summary
from nes2net_bench.report.documents import load
from nes2net_runtime.commands import Exit, one_line_errors

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
COLOURS = {"worse": "red", "better": "green", "same": "dim", "unknown": "yellow"}


@app.command()
@one_line_errors
def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD.json", help="Document to hold against.")],
    new: Annotated[Path, typer.Argument(metavar="NEW.json", help="Document of the same benchmark.")],
    all_: Annotated[bool, typer.Option("--all", help="Also what is the same.")] = False,
    json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout instead.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Say what became better or worse; exit code 4 where something became worse."""
    compared = compare_documents(load(old), load(new))
    if json:
        typer.echo(msgspec.json.encode(compared).decode())
    else:
        console = Console(highlight=False)
        show(console if console.is_terminal else Console(highlight=False, width=160), compared, all_)
    if compared.regressions:
        raise typer.Exit(Exit.VERIFICATION_FAILED)


def show(console: Console, compared: Comparing, all_: bool) -> None:
    """Tables for people."""
    if compared.differences:
        table = _table("Not measured alike", "", compared.old, compared.new)
        for difference in compared.differences:
            table.add_row(*map(escape, (difference.what, difference.old, difference.new)))
        console.print(table)
    shown = [c for c in sorted_changes(compared.changes) if all_ or c.verdict != "same"]
    if shown:
        table = _table(f"What changed: {compared.kind}", "", compared.old, compared.new, "")
        for change in shown:
            why = f" ({change.why})" if change.why else ""
            cells = (change.what, change.old, change.new, change.verdict + why)
            table.add_row(*map(escape, cells), style=COLOURS[change.verdict])
        console.print(table)
    for name, members in ((compared.old, compared.only_old), (compared.new, compared.only_new)):
        if members:
            console.print(f"only in {name}: {escape(', '.join(members))}")
    console.print(summary(compared))


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(escape(column), justify="left" if i in (0, 3) else "right", overflow="fold")
    return table


if __name__ == "__main__":
    app()
