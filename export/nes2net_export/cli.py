"""`nes2net-export`: a published checkpoint becomes a verified bundle, in the precision a device wants."""

import signal
import sys
import time
from collections.abc import Set as AbstractSet
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer
from rich.console import Console

from nes2net_export.output import engine_lines, facts, show_progress
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.bundle_writer import check_free, check_nothing_else
from nes2net_runtime.commands import installed_versions, one_line_errors, run_app
from nes2net_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from nes2net_export.derive import Form

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

PRECISION = "Precision (default: float32)"
ENGINES = "TensorRT engines (--to trt)"
GRAPHS = "Graphs made from a checkpoint"
UNTOLD = "What a checkpoint does not tell (default: what the family's authors use)"
DISTRIBUTIONS = ("nes2net-edge", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")
TENSORRTS = ("tensorrt", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")

# Options that mean something only beside others.
OF_PRECISION = frozenset({"calib", "audio", "split", "max_drift"})
PRECISIONS = frozenset({"fp16", "int8", "int4"})
OF_ENGINES = frozenset(
    {"engine", "min_seconds", "opt_seconds", "max_seconds", "compute_capability", "timing_cache"}
    | {"optimization_level", "workspace", "version_compatible", "hardware_compatible"}
)
OF_GRAPHS = frozenset({"single_graph", "opset", "max_parity"})
OF_UNTOLD = frozenset(
    {"attention_heads", "dilation", "activation", "normalize_waveform", "no_normalize_waveform"}
)
ENGINE_BATCH, TRITON_BATCH = 8, 32
PROVIDER_OF = {"trt": "tensorrt", "trt-rtx": "trt-rtx"}


def main() -> None:
    """Entry point of `nes2net-export`."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # clean up behind a stopped export
    run_app(app, "nes2net-export")


def print_version(wanted: bool) -> None:
    if wanted:
        versions = installed_versions(*DISTRIBUTIONS, *TENSORRTS)
        typer.echo(", ".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit


@app.command()
@one_line_errors
def export(
    context: typer.Context,
    to: Annotated[
        Literal["onnx", "trt", "triton"],
        typer.Option(
            help="onnx: a bundle. trt: a bundle with TensorRT engines. triton: a model repository for Triton "
            "Inference Server."
        ),
    ] = "onnx",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A .pth, .pt or .safetensors file as the authors publish it; hf:OWNER/REPO[/FILE] on the "
            "Hugging Face hub; or random weights for benchmarks: random:xlsr-300m, random:wavlm-large.",
            show_default="the demo detector",
        ),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="BUNDLE",
            help="A bundle instead of a checkpoint; needs no torch.",
            readable=False,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Folder to make.",
            show_default="NAME.nes2net, here; engines of --from BUNDLE go into it",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    fp16: Annotated[
        bool,
        typer.Option(
            "--fp16",
            help="float16, with float32 where float16 overflows or scores suffer. Half the size; faster on "
            "GPUs alone.",
            rich_help_panel=PRECISION,
        ),
    ] = False,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="INT8 where scores allow it: a third of the time on CPUs, a quarter of the size. Without "
            "--calib the feature encoder stays float32. Engines need it; what is left is float16 there.",
            rich_help_panel=PRECISION,
        ),
    ] = False,
    int4: Annotated[
        bool,
        typer.Option(
            "--int4",
            help="4-bit weights where scores allow it: the least memory. For CPUs.",
            rich_help_panel=PRECISION,
        ),
    ] = False,
    block_size: Annotated[
        Literal["16", "32", "64", "128", "256"],
        typer.Option(
            help="4-bit weights that share a scale: fewer are more exact, and larger.",
            rich_help_panel=PRECISION,
        ),
    ] = "32",
    calib: Annotated[
        Path | None,
        typer.Option(
            metavar="PROTOCOL",
            help="Labelled list, as nes2net-calib reads it: sets INT8's scales, and tells what the precision "
            "does to scores. Never your evaluation set.",
            show_default="signals made here",
            readable=False,
            rich_help_panel=PRECISION,
        ),
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(help="Folder with the list's audio.", rich_help_panel=PRECISION)
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Part of the list, where it has parts.", rich_help_panel=PRECISION)
    ] = None,
    max_drift: Annotated[
        float | None,
        typer.Option(
            min=1e-6,
            max=10.0,
            help="Largest mean difference of scores, in standard deviations of the float32 scores; past it "
            "nothing is written and the exit code is 4.",
            show_default="0.02 of fp16, 0.1 of int8, 0.3 of int4",
            rich_help_panel=PRECISION,
        ),
    ] = None,
    engine: Annotated[
        Literal["trt", "trt-rtx"] | None,
        typer.Option(
            help="trt: TensorRT 10 or 11, for the card that is here. trt-rtx: TensorRT-RTX, for RTX cards; "
            "builds without one too.",
            show_default="what is installed",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    min_seconds: Annotated[
        float,
        typer.Option(min=0.025, help="Shortest audio that the engines take.", rich_help_panel=ENGINES),
    ] = 0.025,
    opt_seconds: Annotated[
        float | None,
        typer.Option(
            min=0.025,
            help="The length that they are tuned for.",
            show_default="the official window",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    max_seconds: Annotated[
        float, typer.Option(min=0.025, help="Longest audio that they take.", rich_help_panel=ENGINES)
    ] = 10.0,
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most windows at once, of engines and in Triton.",
            show_default="8; in Triton 32",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    compute_capability: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X.Y",
            help="A card to build for, by its compute capability (8.9: RTX 40); may be repeated. For "
            "TensorRT-RTX alone.",
            show_default="all from 8.0 on",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    optimization_level: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=5,
            help="How long to look for faster kernels.",
            show_default="TensorRT's: 3",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    workspace: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most MiB of GPU memory for scratch.",
            show_default="the card's",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    timing_cache: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Kernel timings, read and written: a second build is faster. TensorRT alone.",
            rich_help_panel=ENGINES,
        ),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option(
            "--version-compatible",
            help="Engines that later TensorRTs of the same major version load; slower. TensorRT alone.",
            rich_help_panel=ENGINES,
        ),
    ] = False,
    hardware_compatible: Annotated[
        bool,
        typer.Option(
            "--hardware-compatible",
            help="Engines for all cards from Ampere on, Jetson left out; slower. TensorRT alone.",
            rich_help_panel=ENGINES,
        ),
    ] = False,
    single_graph: Annotated[
        bool,
        typer.Option(
            "--single-graph",
            help="One detector.onnx instead of encoder, context and backend.",
            rich_help_panel=GRAPHS,
        ),
    ] = False,
    opset: Annotated[
        int, typer.Option(min=18, max=23, help="ONNX operator set.", rich_help_panel=GRAPHS)
    ] = 20,
    max_parity: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest relative difference from torch; past it nothing is written and the exit code is 4.",
            rich_help_panel=GRAPHS,
        ),
    ] = 1e-3,
    attention_heads: Annotated[
        int | None,
        typer.Option(min=1, help="Attention heads of a wav2vec 2.0 front-end: 16.", rich_help_panel=UNTOLD),
    ] = None,
    dilation: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Dilation of the back-end's convolutions: 2 with XLS-R, 1 with WavLM.",
            rich_help_panel=UNTOLD,
        ),
    ] = None,
    activation: Annotated[
        Literal["relu", "selu"] | None,
        typer.Option(help="Activation of the back-end: relu.", rich_help_panel=UNTOLD),
    ] = None,
    normalize_waveform: Annotated[
        bool,
        typer.Option(
            "--normalize-waveform",
            help="Each window is brought to zero mean and unit variance: with CtrSVDD only.",
            rich_help_panel=UNTOLD,
        ),
    ] = False,
    no_normalize_waveform: Annotated[  # as one option the two names are cut off in the help
        bool,
        typer.Option("--no-normalize-waveform", help="It is not: with others.", rich_help_panel=UNTOLD),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the manifest as JSON on stdout.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print versions.")
    ] = False,
) -> None:
    """Turn a Nes2Net checkpoint into a bundle that nes2net-run scores audio with.

    Every stage is compared with torch at several lengths and batch sizes before anything is written; scores
    in another precision are compared with those in float32, and a TensorRT engine's precision is read back
    from the engine where there is a GPU.

    Exit codes: 0 done, 2 wrong usage, 3 the checkpoint, folder or TensorRT can't be used, 4 a comparison
    failed, 130 interrupted.
    """
    given = {name for name in context.params if _on_command_line(context, name)}
    form: Form | None = "fp16" if fp16 else "int4" if int4 else "int8" if int8 else None
    if form == "int8" and to == "trt":
        form = "int8-fp16"
    by_torch = source is None and (checkpoint is not None or (form is None and to == "onnx"))
    for alternatives in (
        PRECISIONS,
        {"checkpoint", "source"},
        {"normalize_waveform", "no_normalize_waveform"},
    ):
        if len(both := sorted(given & alternatives)) > 1:
            raise typer.BadParameter(f"{' and '.join(map(_option, both))} exclude each other")
    _only_with(given & OF_PRECISION, form is not None, "--fp16, --int8 or --int4")
    _only_with(given & {"block_size"}, int4, "--int4")
    _only_with(given & {"int4"}, to == "onnx", "ONNX Runtime on a CPU; engines take --fp16 or --int8")
    _only_with(
        given & {"source"},
        not by_torch and (form, to) != (None, "onnx"),
        "--fp16, --int8, --int4 or --to trt|triton",
    )
    _only_with(given & {"audio", "split"}, calib is not None, "--calib")
    _only_with(given & OF_ENGINES, to == "trt", "--to trt")
    _only_with(given & {"batch"}, to != "onnx", "--to trt or --to triton")
    _only_with(given & PRECISIONS, to != "triton", "bundles; --to triton serves one as it is, --from it")
    _only_with(given & {"as_json"}, to != "triton", "bundles, which have a manifest")
    _only_with(given & (OF_GRAPHS | OF_UNTOLD), by_torch, "checkpoints: name one with --checkpoint")
    if (checkpoint or "").startswith("random:") and given & OF_UNTOLD:
        raise typer.BadParameter(f"{checkpoint} has a fixed shape: leave out the options that describe one")

    try:
        from nes2net_export.engines.build import BuildOptions
        from nes2net_export.engines.compile import check_options
        from nes2net_export.engines.tensorrt import find_tensorrt
        from nes2net_export.engines.verify import check_runs
        from nes2net_export.make import (
            Compilation,
            Derivation,
            Parent,
            make_bundle,
            make_triton,
        )
        from nes2net_export.probe import signal_probe

        if by_torch:
            from nes2net_export.export import open_checkpoint
            from nes2net_export.state_dict import Untold
        if calib is not None:
            from nes2net_export.labelled import speech_probe
    except ModuleNotFoundError as error:
        raise CheckpointError(f"{error.name} is not installed: {_remedy(error.name or '')}") from error

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    with show_progress(console) as say:
        compilation = None
        if to == "trt":  # whether it can be done at all, before minutes of work
            options = BuildOptions(
                min_seconds=min_seconds,
                opt_seconds=opt_seconds,
                max_seconds=max_seconds,
                max_batch=batch or ENGINE_BATCH,
                compute_capabilities=tuple(compute_capability or ()),
                optimization_level=optimization_level,
                workspace=None if workspace is None else workspace << 20,
                timing_cache=timing_cache,
                version_compatible=version_compatible,
                hardware_compatible=hardware_compatible,
            )
            compilation = Compilation(find_tensorrt(engine), options)
            check_options(compilation.trt, options)
            check_runs(compilation.trt, options)
        if output is not None and to != "triton":
            check_free(output, force)
        if by_torch:
            normalize = normalize_waveform if normalize_waveform or no_normalize_waveform else None
            untold = Untold(attention_heads, dilation, activation, normalize)
            opened = open_checkpoint(checkpoint, untold, opset, single_graph, max_parity, say)
            parent: Parent = opened
            name, random = opened.name, opened.random
        else:
            parent = bundle = read_bundle(source or DEMO)
            name, random = bundle.manifest.name, bundle.manifest.source.random
        derivation = None
        if form is not None:
            if form == "int8-fp16" and calib is None and not random:
                raise typer.BadParameter(
                    "--int8 of engines needs --calib PROTOCOL: labelled speech that sets its scales"
                )
            probe = signal_probe if calib is None else partial(speech_probe, calib, audio, split)
            derivation = Derivation(form, probe, max_drift, int(block_size) if int4 else None)
            name = f"{name}-{form[:4]}"
        if to == "triton":
            target = output or Path(f"{name}-triton")
            lines = make_triton(parent, target, force, batch or TRITON_BATCH)
        else:
            target = output or Path(f"{name}.nes2net")
            if isinstance(parent, Bundle) and source and not (output or derivation):  # engines go into it
                check_nothing_else(parent)
                target, force = source, True
            manifest = make_bundle(parent, target, derivation, compilation, force, say)
    took = f"{time.perf_counter() - start:.1f} s"
    if to == "triton":
        console.print(f"{target}: {took}\n" + "\n".join(f"  {line}" for line in lines))
        console.print(f"serve it: tritonserver --model-repository={target}")
        return
    console.print(f"{target}: {', '.join([*facts(manifest), took])}")
    for line in engine_lines(manifest.engines):
        console.print(line)
    if isinstance(parent, Bundle) and parent.manifest.calibration and not manifest.calibration:
        console.print(
            "calibration not kept: --calib LIST shows whether it holds; nes2net-calib makes a new one"
        )
    if as_json:
        typer.echo(msgspec.json.encode(manifest).decode())
    else:
        provider = f" --provider {PROVIDER_OF[compilation.trt.kind]}" if compilation else ""
        console.print(f"score audio with it: nes2net-run --bundle {target}{provider} FILE")


def _on_command_line(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _option(name: str) -> str:
    return {"source": "--from", "as_json": "--json"}.get(name) or "--" + name.replace("_", "-")


def _only_with(names: AbstractSet[str], there: bool, what: str) -> None:
    if names and not there:
        raise typer.BadParameter(f"{', '.join(map(_option, sorted(names)))}: only with {what}")


def _remedy(missing: str) -> str:
    if missing.startswith(("sklearn", "scipy")):
        return "pip install 'nes2net-edge[calib]' reads labelled audio"
    return "pip install 'nes2net-edge[export,cpu]' makes bundles"
