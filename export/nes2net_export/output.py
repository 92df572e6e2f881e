"""What `nes2net-export` says while it works and when it is done."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from nes2net_runtime.manifest import Engine, Manifest
from nes2net_runtime.output import count

Say = Callable[[str, float | None], None]  # what is done, and which share of it


def facts(manifest: Manifest) -> list[str]:
    """Size, and how far the bundle is from what it was made of."""
    told = [f"{sum(file.bytes for file in manifest.files) / 1e6:.1f} MB"]
    if (drift := manifest.drift) is None:
        return [*told, f"parity with torch {manifest.parity.worst:.1e} (bound {manifest.parity.bound:g})"]
    bound = "random weights: no bound" if drift.bound is None else f"bound {drift.bound:g}"
    told.append(
        f"{manifest.precision}: scores differ by {drift.mean:.2g} standard deviations on average ({bound}), "
        f"on {drift.windows} windows of {drift.audio}"
    )
    if drift.flips is not None:
        told.append(f"{100 * drift.flips:.1f} % of decisions changed")
    if drift.eer is not None:
        told.append(f"EER {100 * drift.eer[0]:.1f} -> {100 * drift.eer[1]:.1f} %")
    return told


def engine_lines(engines: Sequence[Engine]) -> list[str]:
    """One line for each kind of engine."""
    lines = []
    for kind in dict.fromkeys(engine.kind for engine in engines):
        ours = [engine for engine in engines if engine.kind == kind]
        first, precisions = ours[0], "/".join(engine.precision for engine in ours)
        lines.append(
            f"{count(len(ours), 'engine')} of {kind} {first.version} ({precisions}; {first.evidence}), for "
            f"compute capability {', '.join(first.compute_capabilities)}"
        )
    return lines


@contextmanager
def show_progress(console: Console) -> Iterator[Say]:
    """A line that says what is done, with a bar where a share of it is known; on a terminal alone."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("loading", total=None)

        def say(what: str, share: float | None) -> None:
            done = min(share or 0.0, 0.999)  # the clock of what is complete stands still
            shown.update(task, description=what, total=None if share is None else 1.0, completed=done)

        yield say
