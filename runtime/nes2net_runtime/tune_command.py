"""`nes2net-run --tune`: measure, keep what was found, show it."""

import sys
from pathlib import Path
from typing import TextIO

import msgspec
from rich.console import Console
from rich.progress import Progress

from nes2net_runtime.bundle import Bundle
from nes2net_runtime.inference.tuning import ROUNDS, tune
from nes2net_runtime.inference.tuning_cache import Tuning, make_folder, write_tuning


def run_tune(bundle: Bundle, threads: int | None, as_json: bool, out: TextIO) -> None:
    """Measure the providers, and write the result: into the cache, and as a table or one JSON document."""
    make_folder()  # before the minutes that measuring may take
    # disable: the bar is there only where stderr is a terminal, whatever FORCE_COLOR says
    bar = Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    with bar:
        task = bar.add_task("measuring", total=ROUNDS)
        tuning = tune(bundle, threads, lambda: bar.advance(task))
    path = write_tuning(tuning)
    if as_json:
        out.write(msgspec.json.encode(tuning).decode() + "\n")
    else:
        out.writelines(f"{line}\n" for line in tuning_lines(tuning, bundle.path, path))


def tuning_lines(tuning: Tuning, bundle: Path, kept: Path) -> list[str]:
    """A measurement for people."""
    title = f"of {tuning.reference}'s time, 96 %"
    lines = [f"{'provider':10}  {'ms a window':>11}  {title:26}  scores differ by"]
    for candidate in tuning.candidates:
        share, low, high = candidate.ratio
        ratio = "1" if candidate.provider == tuning.reference else f"{share:.3f} ({low:.3f} to {high:.3f})"
        wrong = "" if candidate.agrees else ", which is too much"
        lines.append(
            f"{candidate.provider:10}  {candidate.milliseconds:11.1f}  {ratio:26}  "
            f"{candidate.difference:.1e}{wrong}"
        )
    return [
        *lines,
        *(f"not measured: {reason}" for reason in tuning.absent),
        tuning.summary,
        f"--provider auto takes {tuning.fastest} for {bundle} on {tuning.holds_for[0]} ({kept})",
    ]
