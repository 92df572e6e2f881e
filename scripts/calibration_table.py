"""Print the README's table of a bundle's calibration, as Markdown.

python scripts/calibration_table.py runtime/nes2net_runtime/demo.nes2net
"""

from pathlib import Path
from typing import Annotated

import typer

from nes2net_runtime.bundle import read_bundle


def table(bundle: Annotated[Path, typer.Argument(help="A calibrated bundle.")]) -> None:
    """A row for each segment rule."""
    print("| `--segment` | human, spoof | EER | Cllr before, after (bits) | llr | bonafide from llr |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rule, c in (read_bundle(bundle).manifest.calibration or {}).items():
        p = c.provenance
        print(
            f"| `{rule}` | {p.bonafide} / {p.spoof} | {100 * p.eer:.1f} % "
            f"| {p.cllr_before:.3f}, {p.cllr_after:.3f} "
            f"| {c.slope:.2f} x score {c.offset:+.2f} | {c.threshold:+.2f} |"
        )


if __name__ == "__main__":
    typer.run(table)
