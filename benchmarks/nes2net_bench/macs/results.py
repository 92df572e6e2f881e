"""A detector's work as a report: by stage and layer, for a window and for a second of audio."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from nes2net_bench.macs.graphs import Product, StageMacs
from nes2net_bench.macs.modules import ModuleMacs, modules_macs
from nes2net_bench.macs.paper import BackendRow, backend_row, paper_table
from nes2net_export.models.config import ModelConfig
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.errors import ParityError
from nes2net_runtime.segments import FRAME_HOP, MIN_SAMPLES

OVERLAP = MIN_SAMPLES - FRAME_HOP  # samples that a frame shares with the one before


@dataclass(frozen=True)
class Part:
    """Front-end or back-end."""

    macs: int
    parameters: int
    share: float  # of the detector's MACs


@dataclass(frozen=True)
class Stage:
    """One stage of a bundle, at one window."""

    stage: str
    macs: int  # products alone
    by_kind: dict[str, int]  # convolution, linear, attention
    by_type: dict[str, int]  # of the stored factor: FLOAT, FLOAT16, INT8
    parameters: int
    weight_bytes: int
    traffic_bytes: tuple[int, int]  # least and most, see StageMacs.traffic
    intensity: tuple[float, float]  # FLOP for each byte of most and of least traffic
    layers: tuple[Product, ...]


@dataclass(frozen=True)
class PerSecond:
    """MACs for each second of audio."""

    windows: float  # one window after the other
    stream: float  # a window every `hop` seconds, computed whole
    stream_kept: float | None  # the same, with encoder frames kept; None: this detector can't
    hop: float  # seconds


@dataclass(frozen=True)
class MacsReport:
    """What `benchmarks/macs.py` says of a detector."""

    detector: str
    precision: str
    window_samples: int
    seconds: float  # of that window
    macs: int
    parameters: int
    stages: tuple[Stage, ...]
    front_end: Part
    back_end: Part
    per_second: PerSecond
    agrees_with_torch: bool  # every product and the parameters; a difference is an error, not False
    paper: BackendRow  # this detector's back-end at the papers' input, by both conventions
    table: tuple[BackendRow, ...]  # the papers' own


def macs_report(
    name: str,
    precision: str,
    config: ModelConfig,
    window: Sequence[StageMacs],
    hop: float,
    new_frames: Sequence[StageMacs] | None,
) -> MacsReport:
    """Join what graphs and modules say; raises ParityError where they differ.

    `window`: the stages at one window. `new_frames`: at the samples of a hop and of its overlap, where
    encoder frames can be kept.
    """
    samples = window[0].input_shape[-1]
    modules = modules_macs(config, samples, single_graph=len(window) == 1)
    stages = [_named(graph, module) for graph, module in zip(window, modules, strict=True)]
    macs, seconds = sum(stage.macs for stage in stages), samples / SAMPLE_RATE
    kept = None
    if new_frames is not None:
        kept = (new_frames[0].macs + sum(stage.macs for stage in stages[1:])) / hop
    parameters = sum(module.parameters for module in modules)
    back_end = _back_end(stages, macs, config)
    return MacsReport(
        detector=name,
        precision=precision,
        window_samples=samples,
        seconds=seconds,
        macs=macs,
        parameters=parameters,
        stages=tuple(_stage(stage, module.parameters) for stage, module in zip(stages, modules, strict=True)),
        front_end=Part(macs - back_end.macs, parameters - back_end.parameters, 1 - back_end.share),
        back_end=back_end,
        per_second=PerSecond(macs / seconds, macs / hop, kept, hop),
        agrees_with_torch=True,
        paper=backend_row(f"{name}, back-end", config),
        table=tuple(paper_table()),
    )


def _named(graph: StageMacs, module: ModuleMacs) -> StageMacs:
    """The graph's products by torch's names; raises ParityError where they are not torch's products."""
    if graph.parameters != module.parameters + module.folded:
        raise ParityError(
            f"{graph.stage}: the graph has {graph.parameters:,} parameters, torch's modules "
            f"{module.parameters:,} ({module.folded:+,} that the exporter folds)"
        )
    groups = _side_by_side(graph.products, module.products)
    if groups is None:
        raise ParityError(
            f"{graph.stage}: the graph has {len(graph.products)} products with {graph.macs:,} MACs, torch's "
            f"modules {len(module.products)} with {sum(p.macs for p in module.products):,}"
        )
    return replace(graph, products=tuple(_joined(ours, theirs) for ours, theirs in groups))


def _side_by_side(
    ours: Sequence[Product], theirs: Sequence[Product]
) -> list[tuple[list[Product], list[Product]]] | None:
    """Products of a graph and of modules with the same MACs, in order; None: they are not the same work.

    A graph may do several modules at once (query, key and value), or one in parts (taps of a convolution).
    """
    groups: list[tuple[list[Product], list[Product]]] = []
    left, right = list(ours), list(theirs)
    while left and right:
        mine, other = [left.pop(0)], [right.pop(0)]
        while (done := sum(p.macs for p in mine)) != (wanted := sum(p.macs for p in other)):
            side, rest = (mine, left) if done < wanted else (other, right)
            if not rest:
                return None
            side.append(rest.pop(0))
        if min(len(mine), len(other)) > 1 or _of_activations(mine) != _of_activations(other):
            return None
        groups.append((mine, other))
    return None if left or right else groups


def _of_activations(products: Sequence[Product]) -> set[bool]:
    """Convolutions may be products of a matrix; those of two activations are nothing else."""
    return {product.kind == "attention" for product in products}


def _joined(ours: Sequence[Product], theirs: Sequence[Product]) -> Product:
    layer = theirs[0].layer
    if len(theirs) > 1:
        owner, _, first = layer.rpartition(".")
        layer = ".".join(
            filter(None, (owner, "+".join([first, *(t.layer.rpartition(".")[2] for t in theirs[1:])])))
        )
    return Product(layer, theirs[0].kind, sum(product.macs for product in ours), ours[0].type)


def _stage(stage: StageMacs, parameters: int) -> Stage:
    kinds: Counter[str] = Counter()
    types: Counter[str] = Counter()
    for product in stage.products:
        kinds[product.kind] += product.macs
        types[product.type] += product.macs
    return Stage(
        stage=stage.stage,
        macs=stage.macs,
        by_kind=dict(kinds),
        by_type=dict(types),
        parameters=parameters,
        weight_bytes=stage.weight_bytes,
        traffic_bytes=stage.traffic,
        intensity=stage.intensity,
        layers=stage.products,
    )


def _back_end(stages: Sequence[StageMacs], whole: int, config: ModelConfig) -> Part:
    last = stages[-1]
    own = [p for p in last.products if last.stage == "backend" or p.layer.startswith("backend")]
    macs = sum(product.macs for product in own)
    return Part(macs, backend_row("", config).parameters, macs / whole)
