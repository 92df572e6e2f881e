"""Multiply-accumulates, parameters and memory traffic of a detector, and the papers' table.

    python benchmarks/macs.py
    python benchmarks/macs.py --bundle my.nes2net --layers
    python benchmarks/macs.py --checkpoint random:xlsr-300m -o macs.json

Two conventions, never mixed:
- products alone: convolutions and matrix products, attention's among them, counted in the ONNX graphs and
  once more in the torch modules. A difference is an error (exit code 4).
- the papers': what ptflops 0.7.5 prints for a back-end at (1024, 200). It counts some activation functions,
  some of them twice (nes2net_bench/paper.py of nes2net_bench.macs says which).

The last line of stdout is one JSON document.
"""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nes2net_bench.documents import document, publish
from nes2net_bench.extras import extras
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.detector import STREAM_HOP
from nes2net_runtime.segments import MIN_SAMPLES, round_hop

with extras("export,bench,cpu"):
    from nes2net_bench.macs.graphs import Product, StageMacs, bundle_macs, graph_macs
    from nes2net_bench.macs.modules import config_of
    from nes2net_bench.macs.paper import AASIST, BackendRow, saving
    from nes2net_bench.macs.results import OVERLAP, MacsReport, macs_report

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False)
OPSET = 20


@app.command()
@one_line_errors
def macs(
    bundle: Annotated[Path | None, typer.Option(help="Bundle.", show_default="the demo detector")] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A checkpoint instead, as nes2net-export takes it: a file, hf:OWNER/REPO[/FILE], "
            "random:xlsr-300m or random:wavlm-large.",
        ),
    ] = None,
    window_samples: Annotated[
        int | None,
        typer.Option(
            min=MIN_SAMPLES, help="Samples of a window, at 16 kHz.", show_default="the detector's own"
        ),
    ] = None,
    hop: Annotated[float, typer.Option(min=0.02, help="Seconds between a stream's windows.")] = STREAM_HOP,
    layers: Annotated[bool, typer.Option("--layers", help="A table of all layers, too.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the JSON document.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Count a detector's work; tables go to stderr, one JSON document to the last line of stdout.

    Exit codes: 0 done, 2 wrong usage, 3 the bundle or checkpoint can't be used, 4 graphs and modules differ.
    """
    if bundle is not None and checkpoint is not None:
        raise typer.BadParameter("--bundle and --checkpoint exclude each other")
    grid = round_hop(hop)
    if checkpoint is None:
        report = of_bundle(read_bundle(bundle or DEMO), window_samples, grid)
    else:
        report = of_checkpoint(checkpoint, window_samples, grid)
    show(report, layers)
    publish(document("macs", report), output)


def of_bundle(bundle: Bundle, samples: int | None, hop: int) -> MacsReport:
    """A bundle as it is; `samples` of a window, None: the detector's own; `hop` in samples."""
    manifest = bundle.manifest
    window = bundle_macs(bundle, samples or manifest.audio.window_samples)
    keeps = manifest.audio.frames_reusable and len(manifest.stages) > 1
    return macs_report(
        manifest.name,
        manifest.precision,
        config_of(manifest.model),
        window,
        hop / SAMPLE_RATE,
        bundle_macs(bundle, hop + OVERLAP) if keeps else None,
    )


def of_checkpoint(checkpoint: str, samples: int | None, hop: int) -> MacsReport:
    """A checkpoint, by the graphs that nes2net-export would make of it; nothing is written."""
    from nes2net_export.export import TRANSFORMS
    from nes2net_export.source import load_source
    from nes2net_export.state_dict import Untold
    from nes2net_export.trace import stage_specs, trace

    loaded = load_source(checkpoint, Untold())
    config = loaded.detector.config
    graphs = []
    for spec, module in stage_specs(loaded.detector, single_graph=False):
        with console.status(f"tracing {spec.name}"):
            graph = trace(spec, module, OPSET)
            for transform in TRANSFORMS:
                graph = transform(graph)
            graphs.append((spec.name, graph))

    def stages(length: int) -> list[StageMacs]:
        shape: tuple[int, ...] = (1, length)
        counted: list[StageMacs] = []
        for name, graph in graphs:
            counted.append(graph_macs(graph, name, shape))
            shape = counted[-1].output_shape
        return counted

    keeps = not config.normalize_waveform
    return macs_report(
        loaded.name,
        "fp32",
        config,
        stages(samples or config.window_samples),
        hop / SAMPLE_RATE,
        stages(hop + OVERLAP) if keeps else None,
    )


def show(report: MacsReport, layers: bool) -> None:
    """Tables for people."""
    giga = report.macs >= 1e10
    unit, size = ("G", 1e9) if giga else ("M", 1e6)

    def work(macs: float) -> str:
        return f"{macs / size:,.2f}"

    window = f"a window of {report.seconds:.2f} s"
    title = f"{report.detector} ({report.precision}): {unit}MACs of {window}, products alone"
    table = _table(title, "", "MACs", "share", "conv", "linear", "attention", "parameters")
    for stage in report.stages:
        kinds = (work(stage.by_kind.get(kind, 0)) for kind in ("convolution", "linear", "attention"))
        share = f"{100 * stage.macs / report.macs:.1f} %"
        table.add_row(stage.stage, work(stage.macs), share, *kinds, f"{stage.parameters:,}")
    for name, part in (("front-end", report.front_end), ("back-end", report.back_end)):
        share = f"{100 * part.share:.1f} %"
        table.add_row(name, work(part.macs), share, "", "", "", f"{part.parameters:,}", style="dim")
    table.add_row("sum", work(report.macs), "", "", "", "", f"{report.parameters:,}", style="bold")
    console.print(table)
    second = report.per_second
    kept = "" if second.stream_kept is None else f", {work(second.stream_kept)} with frames kept"
    console.print(
        f"a second of audio: {work(second.windows)} {unit}, windows one after the other; in a stream with a "
        f"window every {second.hop:g} s {work(second.stream)} {unit}{kept}"
    )
    console.print("torch's modules have the same products and parameters", style="dim")

    memory = _table(f"Memory of {window}, MB", "", "stored", "moved at least", "at most", "FLOP/byte")
    for stage in report.stages:
        stored, least, most = (f"{n / 1e6:,.1f}" for n in (stage.weight_bytes, *stage.traffic_bytes))
        low, high = stage.intensity
        memory.add_row(stage.stage, stored, least, most, f"{low:.0f} to {high:.0f}")
    console.print(memory)
    console.print("at least: weights, input, output; at most: each node reads and writes", style="dim")
    if layers:
        console.print(_layers(report))

    title = "Back-ends as the papers count them: (1024, 200), ptflops 0.7.5"
    paper = _table(title, "", "MACs", "", "saved", "parameters", "products")
    for row in report.table:
        paper.add_row(*_cells(row, "" if row is AASIST else f"{100 * saving(row):.1f} %"))
    paper.add_row(*_cells(replace(report.paper, name="this one"), ""), style="dim")
    console.print(paper)
    console.print("AASIST: the published number, not counted here; this one: at its own width", style="dim")


def _cells(row: BackendRow, saved: str) -> list[str]:
    products = "-" if row.products is None else f"{row.products:,}"
    return [row.name, f"{row.macs:,}", f"{row.macs / 1e6:.2f} M", saved, f"{row.parameters:,}", products]


def _layers(report: MacsReport) -> Table:
    """All products; those of repeated layers in one row."""
    table = _table("Products", "layer", "", "kind", "type", "MACs of each", "share")
    for stage in report.stages:
        table.add_row(stage.stage, style="bold")
        rows: dict[tuple[str, Product], list[str]] = defaultdict(list)
        for product in stage.layers:
            repeated = re.sub(r"\.\d+", ".*", product.layer)
            rows[repeated, replace(product, layer="")].append(product.layer)
        for (repeated, product), names in rows.items():
            times = "" if len(names) == 1 else f"{len(names)} x"
            name = names[0] if len(set(names)) == 1 else repeated
            share = f"{100 * len(names) * product.macs / report.macs:.2f} %"
            macs = f"{product.macs:,}"
            table.add_row(
                f"  {name.removeprefix('network.')}", times, product.kind, product.type, macs, share
            )
    return table


def _table(title: str, first: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column(first, overflow="fold")
    for column in columns:
        table.add_column(column, justify="left" if column in ("kind", "type") else "right")
    return table


if __name__ == "__main__":
    app()
