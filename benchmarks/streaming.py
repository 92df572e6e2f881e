"""Streams, measured: what a hop costs, whether pieces matter, how decisions do, and memory over hours.

    python benchmarks/streaming.py --protocol corpus.csv --split dev --hours 24 -o results/streaming.json

- hop: CPU milliseconds of the stream with encoder frames kept, and with windows computed whole; of the
  encoder alone, and of what comes after it. Arms take turns; medians and percentiles.
- jitter: the largest difference of a score between even and uneven pieces.
- decisions: the bundle's own rule on joined bona fide speech and on changes from human to synthetic.
- memory: resident bytes of `nes2net-run -` while it hears the list's audio, over and over.

The last line of stdout is one JSON document.
"""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from nes2net_bench.documents import document, publish
from nes2net_bench.streaming import (
    Decided,
    HopCost,
    Jitter,
    Memory,
    StreamingReport,
    decided,
    hop_cost,
    jitter,
    memory,
    read_speech,
)
from nes2net_calib.progress import scoring_progress
from nes2net_calib.protocols import read_protocol
from nes2net_runtime import Detector
from nes2net_runtime.bundle import DEMO
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.detector import STREAM_HOP
from nes2net_runtime.output import count

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False)


@app.command()
@one_line_errors
def streaming(
    protocol: Annotated[Path, typer.Option(help="List of labelled trials, as nes2net-calib reads it.")],
    audio: Annotated[Path | None, typer.Option(help="Folder with its audio.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of the list. Never eval.")] = None,
    bundle: Annotated[Path, typer.Option(help="Bundle.", show_default="the demo detector")] = DEMO,
    full_size: Annotated[
        Path | None,
        typer.Option(help="A second bundle, for the cost of a hop alone (random weights will do)."),
    ] = None,
    hops: Annotated[int, typer.Option(min=3, help="Hops that are timed.")] = 200,
    full_size_hops: Annotated[int, typer.Option(min=3, help="The same, of the second bundle.")] = 15,
    hours: Annotated[float, typer.Option(min=0.05, help="Simulated hours of the memory test.")] = 0.34,
    memory_hop: Annotated[float, typer.Option(min=0.02, help="Its seconds between windows.")] = STREAM_HOP,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the JSON document.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure streams; tables go to stderr, one JSON document to the last line of stdout."""
    trials = read_protocol(protocol, audio, split, False)
    detector, speech = Detector(bundle, threads=threads), read_speech(trials, 600)
    with scoring_progress() as (_, track):
        costs = {detector.bundle.manifest.name: hop_cost(detector, speech, hops)}
        if full_size:
            large = Detector(full_size, threads=threads)
            costs[large.bundle.manifest.source.checkpoint] = hop_cost(large, speech, full_size_hops)
            del large
        shaken = jitter(detector, speech[: 60 * 16_000])
        decisions = decided(detector, trials, track)
        advance = track("simulated minutes", round(60 * hours))
        remembered = memory(bundle, speech, hours, memory_hop, lambda seconds: advance(round(seconds / 60)))
    show(costs, shaken, decisions, remembered)
    name = detector.bundle.manifest.name
    publish(document("streaming", StreamingReport(name, costs, shaken, decisions, remembered)), output)


def show(costs: dict[str, HopCost], shaken: Jitter, decisions: Decided, remembered: Memory) -> None:
    """Tables for people."""
    table = Table(title="CPU milliseconds of a hop (medians)", title_justify="left")
    for column in (
        "bundle",
        "encoder, whole",
        "encoder, kept",
        "ratio",
        "rest",
        "hop, whole",
        "hop, kept",
        "p99",
    ):
        table.add_column(column, justify="left" if column == "bundle" else "right")
    for name, c in costs.items():
        ratio = f"{c.encoder_ratio:.1f}"
        cells = (
            c.encoder_whole,
            c.encoder_new,
            ratio,
            c.rest,
            c.hop_whole.p50,
            c.hop_kept.p50,
            c.hop_kept.p99,
        )
        table.add_row(name, *(cell if isinstance(cell, str) else f"{cell:.1f}" for cell in cells))
    console.print(table)
    console.print(
        f"jitter: {shaken.scores} scores differ by {shaken.largest_difference:.1e} at most; "
        f"{shaken.cpu_ratio:.2f} times the CPU time"
    )
    d = decisions
    low, high = d.interval
    console.print(
        f"decisions: {count(d.false_alarms, 'false alarm')} in {d.hours:.3f} h ({low:.2g} to {high:.2g} an "
        f"hour, 95 %); {d.detected} of {d.changes} changes detected"
    )
    if d.delay is not None:
        console.print(f"delay: {d.delay.p50:.1f} s (p95 {d.delay.p95:.1f}, p99 {d.delay.p99:.1f})")
    m = remembered
    console.print(
        f"memory: {m.settled / 2**20:.1f} MiB, after {m.hours:g} simulated hours {m.last / 2**20:.1f} MiB "
        f"({100 * m.growth:+.2f} %, {m.slope / 1024:+.1f} KiB an hour), in {m.wall_seconds:.0f} s"
    )


if __name__ == "__main__":
    app()
