"""`nes2net-export`: a published checkpoint becomes a verified bundle."""

import signal
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import typer
from rich.console import Console

from nes2net_runtime.bundle_writer import check_free
from nes2net_runtime.commands import installed_versions, one_line_errors, run_app
from nes2net_runtime.errors import CheckpointError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

UNTOLD = "What a checkpoint does not tell (default: what the family's authors use)"


def main() -> None:
    """Entry point of `nes2net-export`."""
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM)
    )  # clean up behind a stopped export
    run_app(app, "nes2net-export")


def print_version(wanted: bool) -> None:
    if wanted:
        versions = installed_versions("nes2net-edge", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")
        typer.echo(", ".join(f"{name} {number}" for name, number in versions.items()))
        raise typer.Exit


@app.command()
@one_line_errors
def export(
    to: Annotated[Literal["onnx"], typer.Option(help="What to make: a bundle of ONNX stages.")] = "onnx",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A .pth, .pt or .safetensors file as the authors publish it; hf:OWNER/REPO[/FILE] on the "
            "Hugging Face hub; or random weights for benchmarks: random:xlsr-300m, random:wavlm-large.",
            show_default="the demo detector",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder to make.", show_default="NAME.nes2net, here"),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the bundle that is there.")] = False,
    single_graph: Annotated[
        bool,
        typer.Option("--single-graph", help="One detector.onnx instead of encoder, context and backend."),
    ] = False,
    opset: Annotated[int, typer.Option(min=18, max=23, help="ONNX operator set.")] = 20,
    max_parity: Annotated[
        float,
        typer.Option(
            min=0.0,
            max=1.0,
            help="Largest relative difference from torch; past it nothing is written and the exit code is 4.",
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

    Every stage is compared with torch at several lengths and batch sizes before anything is written.

    Exit codes: 0 done, 2 wrong usage, 3 the checkpoint or folder can't be used, 4 the comparison failed,
    130 interrupted.
    """
    try:
        from nes2net_export.export import export_onnx
        from nes2net_export.source import load_source
        from nes2net_export.state_dict import Untold
    except ModuleNotFoundError as error:
        raise CheckpointError(
            f"{error.name} is not installed: pip install 'nes2net-edge[export,cpu]' makes bundles"
        ) from error

    if normalize_waveform and no_normalize_waveform:
        raise typer.BadParameter("--normalize-waveform and --no-normalize-waveform exclude each other")
    normalize = normalize_waveform if normalize_waveform or no_normalize_waveform else None
    untold = Untold(attention_heads, dilation, activation, normalize)
    if (checkpoint or "").startswith("random:") and untold != Untold():
        raise typer.BadParameter(f"{checkpoint} has a fixed shape: leave out the options that describe one")

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    start = time.perf_counter()
    with console.status("loading") as status:
        if output is not None:
            check_free(output, force)  # before minutes of work
        loaded = load_source(checkpoint, untold)
        target = output or Path(f"{loaded.name}.nes2net")
        manifest = export_onnx(loaded, target, opset, single_graph, force, max_parity, status.update)
    size = sum(file.bytes for file in manifest.files)
    console.print(
        f"{target}: {size / 1e6:.1f} MB, parity with torch {manifest.parity.worst:.1e} "
        f"(bound {manifest.parity.bound:g}), {time.perf_counter() - start:.1f} s"
    )
    if as_json:
        typer.echo(msgspec.json.encode(manifest).decode())
    else:
        console.print(f"score audio with it: nes2net-run --bundle {target} FILE")
