"""All benchmarks' documents on one page: plots and tables that need nothing else.

    python benchmarks/report.py --html page.html
    python benchmarks/report.py latency.json drift.json --html page.html --markdown report.md

Without a file: all that is committed in benchmarks/results. Where documents of latency and of drift have the
same bundles, accuracy is shown against latency, too. What a document lacks is left out, and said.
"""

from pathlib import Path
from typing import Annotated

import typer

from nes2net_bench.report.documents import load
from nes2net_bench.report.html import html
from nes2net_bench.report.markdown import markdown
from nes2net_bench.report.page import make_report
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.errors import BundleError

RESULTS = Path(__file__).parent / "results"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@one_line_errors
def report(
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE.json]...", help="Documents.", show_default="benchmarks/results/*.json"),
    ] = None,
    html_: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Page to write.")] = None,
    markdown_: Annotated[
        Path | None, typer.Option("--markdown", metavar="FILE", help="Markdown to write: the tables alone.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Show documents; with neither --html nor --markdown Markdown goes to stdout."""
    paths = files or sorted(RESULTS.glob("*.json"))
    if not paths:
        raise BundleError(
            f"{RESULTS}: no documents; name some, or measure: python benchmarks/latency.py -o …"
        )
    made = make_report([load(path) for path in paths])
    for path, write in ((html_, html), (markdown_, markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(write(made), encoding="utf-8")
            typer.echo(f"{path}: {path.stat().st_size / 1e3:,.0f} kB", err=True)
    if html_ is None and markdown_ is None:
        typer.echo(markdown(made), nl=False)


if __name__ == "__main__":
    app()
