"""What a card's results must show: that the card did it, that it is right, and how fast it is.

    python -m nes2net_bench.latency.targets benchmarks/results/latency-h100-2026-11-26.json

Checks: each stage of a bundle ran on the provider that was asked for, and its logits are the reference's to
the precision's bound. Targets (H100, XLS-R 300M): at batch 1, CUDA float16 with graphs takes at most 0.35 of
PyTorch eager float16; at batch 32, the best bundle does at least 40 % of the measured float16 GEMM peak.
Exit code 4 where a check fails; a missed target is said, and is a result like any other.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from nes2net_bench.documents import read_document
from nes2net_bench.latency.results import ArmResult, LatencyResults
from nes2net_bench.latency.timing import ratio
from nes2net_runtime.commands import one_line_errors
from nes2net_runtime.errors import BundleError, ParityError

LATENCY, BATCH, SHARE = 0.35, 32, 0.40
BOUNDS = {"fp32": 1e-3, "fp16": 3e-2}  # of logits, relative; INT8 of random weights means nothing

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
@one_line_errors
def targets(
    file: Annotated[Path, typer.Argument(help="Document of latency.py --device cuda.")],
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Check a card's results, and say whether the targets hold."""
    try:
        results = msgspec.convert(read_document(file).results, LatencyResults)
    except msgspec.ValidationError as error:
        raise BundleError(f"{file}: not a document of latency.py ({error})") from error
    wrong = list(failed_checks(results))
    for line in wrong:
        typer.echo(f"FAILED  {line}")
    typer.echo(latency_target(results))
    typer.echo(throughput_target(results))
    if wrong:
        raise ParityError(f"{file}: {len(wrong)} checks failed")


def failed_checks(results: LatencyResults) -> Iterator[str]:
    """What is wrong, one line each: providers that were not those asked for, outputs that differ."""
    ours = [arm for arm in results.arms if arm.kind == "bundle"]
    if not ours:
        yield "no bundle was measured"
    for arm in ours:
        stages: list[Any] = list((arm.receipt or {}).get("stages", []))  # type: ignore[call-overload]
        ran = {stage["provider"] for stage in stages}
        if ran != {arm.provider}:
            yield f"{arm.name}: asked for {arm.provider}, ran on {', '.join(sorted(ran)) or 'nothing known'}"
        bound = BOUNDS.get(arm.precision)
        if bound is not None and arm.difference is not None and not arm.difference <= bound:
            yield f"{arm.name}: logits differ by {arm.difference:.1e} (bound {bound:g})"


def latency_target(results: LatencyResults) -> str:
    """The target of batch 1, in one line."""
    eager = _find(results, "eager", "fp16", None)
    ours = _find(results, "bundle", "fp16", "cuda")
    if eager is None or ours is None or results.plan.batches[0] != 1:
        return "UNKNOWN batch 1: needs PyTorch eager fp16 and a float16 bundle on cuda, at batch 1"
    found = ratio(ours.windows, eager.windows)
    stages: list[Any] = list((ours.receipt or {}).get("stages", []))  # type: ignore[call-overload]
    graphs = "with graphs" if stages and all(s["cuda_graph"] for s in stages) else "WITHOUT graphs"
    return (
        f"{'HOLDS ' if found.estimate <= LATENCY else 'MISSED'}  batch 1: CUDA fp16 {graphs} takes "
        f"{found.estimate:.3f} ({found.low:.3f}-{found.high:.3f}) of PyTorch eager fp16 (target {LATENCY:g})"
    )


def throughput_target(results: LatencyResults) -> str:
    """The target of batch 32, in one line."""
    points = [
        (point.roofline.operations / (point.wall.p50 / 1e3), arm, point)
        for arm in results.arms
        if arm.kind == "bundle" and arm.precision == "fp16"
        for point in arm.throughput
        if point.batch == BATCH and point.roofline is not None
    ]
    peaks = [peaks.gemm["fp16"].per_second for peaks in results.peaks if "fp16" in peaks.gemm]
    if not points or not peaks:
        return f"UNKNOWN batch {BATCH}: needs a float16 bundle at that batch, and the float16 GEMM peak"
    achieved, arm, point = max(points, key=lambda found: found[0])
    share = achieved / max(peaks)
    told = "HOLDS " if share >= SHARE else "MISSED"
    return (
        f"{told}  batch {BATCH}: {arm.name} does {share:.1%} of the fp16 GEMM peak of "
        f"{max(peaks) / 1e12:.0f} TFLOP/s (target {SHARE:.0%}), {point.windows_per_second:.0f} windows/s"
    )


def _find(results: LatencyResults, kind: str, precision: str, provider: str | None) -> ArmResult | None:
    return next(
        (a for a in results.arms if (a.kind, a.precision, a.provider) == (kind, precision, provider)), None
    )


if __name__ == "__main__":
    app()
