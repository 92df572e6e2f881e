"""Make the README's tables anew from the committed results: `make benchmark-tables`.

    python benchmarks/tables.py
    python benchmarks/tables.py --check

Tables stand between <!-- table NAME from benchmarks/results/FILE.json --> and <!-- end -->.
"""

from pathlib import Path
from typing import Annotated

import typer

from nes2net_bench.report.tables import absent, rewrite
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.errors import BundleError, ParityError

ROOT = Path(__file__).parents[1]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@one_line_errors
def tables(
    file: Annotated[
        Path, typer.Argument(metavar="[FILE.md]", help="File with tables.", show_default="README.md")
    ] = ROOT / "README.md",
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit code 4 where tables are out of date.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Rewrite a Markdown file's tables; paths in it are relative to its folder."""
    text = file.read_text(encoding="utf-8")
    root = file.resolve().parent
    try:
        made = rewrite(text, root)
    except BundleError as error:
        raise BundleError(f"{file}: {error}") from error
    for missing in absent(text, root):
        typer.echo(f"{missing}: not there yet; its tables are empty", err=True)
    if check and made != text:
        raise ParityError(f"{file}: tables are not those of the results; run make benchmark-tables")
    if not check and made != text:
        file.write_text(made, encoding="utf-8")
        typer.echo(f"{file}: tables made anew", err=True)


if __name__ == "__main__":
    app()
