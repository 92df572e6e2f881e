"""Multiply-accumulates as sections of a report."""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from nes2net_bench.macs.graphs import Kind
from nes2net_bench.macs.paper import BackendRow, saving
from nes2net_bench.macs.results import MacsReport
from nes2net_bench.report import plots_work
from nes2net_bench.report.content import NONE, Picture, Section, Table, mega, percent, table

MOST = 14  # groups of layers in the plot: the rest are too small to see


def macs_lede(report: MacsReport) -> str:
    """What was counted, in one line."""
    return (
        f"{report.detector} ({report.precision}): {report.macs / 1e9:,.2f} GMACs for a window of "
        f"{report.seconds:.2f} s, {report.parameters / 1e6:,.2f} M parameters"
    )


def macs_sections(report: MacsReport) -> Iterator[Section]:
    """By stage, by layer, and the papers' table."""
    kinds = {stage.stage: stage.by_kind for stage in report.stages}
    second = report.per_second
    streams = f"{second.stream / 1e9:,.2f} GMACs in a stream with a window every {second.hop:g} s"
    if second.stream_kept is not None:
        streams += f", {second.stream_kept / 1e9:,.2f} with encoder frames kept"
    yield Section(
        "Work by stage",
        "Convolutions and matrix products alone, attention's among them, read off the ONNX graphs; "
        "torch's modules "
        "have the same. Traffic: bytes moved where caches hold all activations, and where they hold none.",
        (Picture(plots_work.stages(kinds), "Share of each stage; the table has the figures."),),
        (stage_table(report),),
        facts=(
            f"A second of audio: {second.windows / 1e9:,.2f} GMACs, windows one after the other; {streams}.",
            f"The back-end has {percent(report.back_end.share, 2)} of the MACs and "
            f"{report.back_end.parameters:,} of {report.parameters:,} parameters.",
        ),
    )
    groups = layer_groups(report)
    yield Section(
        "Work by layer",
        "Layers that repeat are one row, with how often. Ochre: convolutions; blue: linear layers; pink: "
        "attention.",
        (
            Picture(
                plots_work.layers(groups[:MOST], report.macs),
                " ".join(f"{name}: {percent(macs / report.macs, 2)}." for name, _, macs in groups[:MOST]),
            ),
        ),
        facts=(_rest(groups[MOST:], report.macs),) if len(groups) > MOST else (),
    )
    yield Section(
        "The papers' table",
        "Back-ends at (1024, 200), by the convention of ptflops 0.7.5, which counts some activation "
        "functions, some "
        "of them twice; beside it products alone.",
        tables=(paper_table_of(report),),
    )


def _rest(groups: Sequence[tuple[str, Kind, int]], whole: int) -> str:
    share = sum(macs for *_, macs in groups) / whole
    return f"{len(groups)} more have {percent(share, 2) if share >= 5e-5 else 'under 0.01 %'} together."


def stage_table(report: MacsReport) -> Table:
    """One row a stage."""
    rows = []
    for stage in report.stages:
        least, most = stage.traffic_bytes
        low, high = stage.intensity
        rows.append(
            (
                stage.stage,
                millions(stage.macs),
                percent(stage.macs / report.macs, 2 if stage.macs < 0.01 * report.macs else 1),
                f"{stage.parameters:,}",
                mega(stage.weight_bytes),
                f"{mega(least)} to {mega(most)}",
                f"{low:,.0f} to {high:,.0f}",
            )
        )
    rows.append(("sum", millions(report.macs), "", f"{report.parameters:,}", mega(_stored(report)), "", ""))
    return table(
        ("stage", "MACs, M", "share", "parameters", "stored, MB", "traffic, MB", "FLOP a byte"), rows
    )


def paper_table_of(report: MacsReport) -> Table:
    """The papers' back-ends by both conventions."""
    rows = [_backend(row) for row in report.table]
    if report.paper.macs not in {row.macs for row in report.table}:
        rows.append(_backend(report.paper))
    return table(("back-end", "MACs, M", "less than AASIST", "products alone, M", "parameters"), rows)


def layer_groups(report: MacsReport) -> list[tuple[str, Kind, int]]:
    """(name and how often, kind, MACs) of layers that are alike, the largest first."""
    macs: dict[tuple[str, str, Kind], int] = defaultdict(int)
    times: dict[tuple[str, str, Kind], int] = defaultdict(int)
    for stage in report.stages:
        for product in stage.layers:
            name = re.sub(r"\.\d+(?=\.|$)", ".*", product.layer.removeprefix("network."))
            macs[stage.stage, name, product.kind] += product.macs
            times[stage.stage, name, product.kind] += 1
    rows = []
    for (where, name, kind), total in macs.items():
        often = times[where, name, kind]
        rows.append((f"{where} {name}" + (f" ({often} \u00d7)" if often > 1 else ""), kind, total))
    return sorted(rows, key=lambda row: -row[2])


def millions(macs: int | None) -> str:
    """As the papers print them."""
    return NONE if macs is None else f"{macs / 1e6:,.2f}"


def _backend(row: BackendRow) -> tuple[str, ...]:
    less = percent(saving(row)) if row.name != "AASIST" else NONE
    return row.name, millions(row.macs), less, millions(row.products), f"{row.parameters:,}"


def _stored(report: MacsReport) -> int:
    return sum(stage.weight_bytes for stage in report.stages)
