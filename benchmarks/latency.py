"""Latency, throughput and memory of detectors, beside the peers that are installed, on this machine.

    python benchmarks/latency.py                                     the demo detector, under two minutes
    python benchmarks/latency.py --bundle A.nes2net --bundle B.nes2net -o results/latency.json
    python benchmarks/latency.py --checkpoint random:xlsr-300m       exported first, float32
    python benchmarks/latency.py --bundle A.nes2net --device cuda --batch 1 --batch 32

Regimes: load, first run, and steady state apart; larger batches; fewer threads; one stream as fast as it
goes and in real time; as many streams as keep up. Arms (bundles, PyTorch eager and compiled, OpenVINO, ONNX
Runtime with the exporter's plain graph) have a process each and take turns, so that a noisy machine is noisy
for all: ratios to the first arm, PyTorch eager float32 where torch is installed, hold where milliseconds do
not. Percentiles that so few runs can't tell are left out; what could not be measured has its reason.

Tables go to stderr, one JSON document to the last line of stdout.
"""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console

from nes2net_bench.documents import document, publish
from nes2net_bench.latency.arms import (
    DEFAULT_PEERS,
    PEERS,
    PROVIDERS,
    Device,
    Peer,
    bundle_arms,
    find_weights,
    peer_arms,
)
from nes2net_bench.latency.measure import measure_latency
from nes2net_bench.latency.results import SCENARIOS, Plan, Scenario
from nes2net_bench.latency.table import show
from nes2net_bench.latency.watch import Watch
from nes2net_calib.progress import scoring_progress
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.errors import CheckpointError
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.threads import usable_threads

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)


def _of(choices: Sequence[str]) -> dict[str, Any]:
    """Arguments of an option whose values, of which there may be many, are these."""

    def check(values: list[str] | None) -> list[str] | None:
        for value in values or ():
            if value not in choices:
                raise typer.BadParameter(f"{value!r} is not one of {', '.join(choices)}")
        return values

    return {"metavar": "|".join(choices), "callback": check}


@app.command()
@one_line_errors
def latency(
    bundle: Annotated[
        list[Path] | None,
        typer.Option(help="Bundle; may be repeated.", show_default="the demo detector", metavar="DIR"),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Checkpoint, as nes2net-export takes it: PyTorch runs it, and without --bundle it is "
            "exported first.",
            show_default="the bundle's own, where it is known",
        ),
    ] = None,
    device: Annotated[Device, typer.Option(help="What computes.")] = "cpu",
    provider: Annotated[
        list[str] | None,
        typer.Option(
            **_of(get_args(Provider)),
            help="Provider of bundles; may be repeated.",
            show_default="cpu; cuda, tensorrt, trt-rtx",
        ),
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option(**_of(PEERS), help="Peer; may be repeated.", show_default="all but compile-bf16"),
    ] = None,
    scenario: Annotated[
        list[str] | None,
        typer.Option(
            **_of(SCENARIOS),
            help="Beside the steady state; may be repeated.",
            show_default="all",
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            min=1,
            help="Windows at once; may be repeated. The first is the steady state's.",
            show_default="1, 4",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads.", show_default="all usable")] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of each arm, at least.")] = Plan.runs,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="Timed seconds of each arm, at least.")
    ] = Plan.seconds,
    windows: Annotated[
        int,
        typer.Option(
            min=1,
            help="Windows of rounds at most, each in fresh processes; six are enough where all are stable.",
        ),
    ] = Plan.most_windows,
    hop: Annotated[float, typer.Option(min=0.02, help="Seconds between a stream's windows.")] = Plan.hop,
    stream_seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds of each test of streams.")
    ] = Plan.stream_seconds,
    trials: Annotated[int, typer.Option(min=1, help="Numbers of streams that are tried.")] = Plan.trials,
    seed: Annotated[int, typer.Option(help="Of the order of arms.")] = 0,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="PyTorch eager and OpenVINO alone as peers, few runs: a look, no result."
        ),
    ] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="File for the JSON document.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Measure; tables go to stderr, one JSON document to the last line of stdout."""
    plan = Plan(
        device=device,
        threads=threads or usable_threads(),
        batches=tuple(dict.fromkeys(batch or Plan.batches)),
        runs=runs,
        seconds=seconds,
        least_windows=min(windows, Plan.least_windows),
        most_windows=windows,
        scenarios=cast(tuple[Scenario, ...], tuple(scenario or SCENARIOS)),
        hop=hop,
        stream_seconds=stream_seconds,
        trials=trials,
        seed=seed,
    )
    peers = cast(tuple[Peer, ...], tuple(peer or DEFAULT_PEERS))
    providers = cast(tuple[Provider, ...], tuple(provider or PROVIDERS[device]))
    if quick:
        peers = tuple(p for p in peers if p in ("eager", "openvino"))
        plan = _quick(plan)
    with tempfile.TemporaryDirectory(prefix="nes2net-latency-") as folder, scoring_progress() as (say, track):
        scratch = Path(folder)
        paths = bundle or [DEMO if checkpoint is None else _export(checkpoint, scratch)]
        bundles = [read_bundle(path) for path in paths]
        weights = find_weights(bundles[0], checkpoint)
        arms, absent = peer_arms(bundles, weights, peers, device, plan.threads, scratch)
        arms += bundle_arms(bundles, providers, device, plan.threads)
        results = measure_latency(plan, bundles, arms, Watch(say, track, absent), scratch)
    show(console, results)
    publish(document("latency", results), output)


def _quick(plan: Plan) -> Plan:
    return replace(
        plan,
        batches=plan.batches[:2],
        runs=min(plan.runs, 6),
        seconds=min(plan.seconds, 0.3),
        rounds=2,
        least_windows=3,
        most_windows=3,
        fresh=False,
        stream_seconds=min(plan.stream_seconds, 1.0),
        trials=1,
        peak_seconds=0.1,
    )


def _export(checkpoint: str, scratch: Path) -> Path:
    """A float32 bundle of a checkpoint; raises CheckpointError with the exporter's own line."""
    target = scratch / "exported.nes2net"
    command = [sys.executable, "-m", "nes2net_export", "--checkpoint", checkpoint, "-o", str(target)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"nes2net-export ended with {done.returncode}"]
        raise CheckpointError(lines[-1].removeprefix("error: "))
    return target


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends the other processes
    app()
