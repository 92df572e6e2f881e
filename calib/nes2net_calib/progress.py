"""What a person sees on stderr while a list is scored: a bar on a terminal, and lines above it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nes2net_runtime.records import printable

Say = Callable[[str], None]
Track = Callable[[str, int], Callable[[int], None]]  # (what, how many) -> a function that says how many more


def untracked(what: str, total: int) -> Callable[[int], None]:
    """A Track that shows nothing."""
    return lambda count: None


@contextmanager
def scoring_progress() -> Iterator[tuple[Say, Track]]:
    """Functions that print a line, and that begin the bar anew."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),  # whatever FORCE_COLOR says
    )

    def say(line: str) -> None:
        console.print(printable(line), markup=False, emoji=False)

    def track(what: str, total: int) -> Callable[[int], None]:
        for task in bar.task_ids:
            bar.remove_task(task)
        task = bar.add_task(what, total=total)
        return lambda count: bar.advance(task, count)

    with bar:
        yield say, track
