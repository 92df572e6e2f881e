"""`nes2net-run`: score audio files and folders, or a stream, with a bundle.

stdout carries results, stderr everything else.
"""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import msgspec
import typer

from nes2net_runtime import detector as defaults
from nes2net_runtime.audio import Channels
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.commands import Exit, installed_versions, one_line_errors, run_app
from nes2net_runtime.detector import Detector
from nes2net_runtime.files_command import FileOptions, run_files
from nes2net_runtime.inference.engine_opening import KINDS
from nes2net_runtime.inference.providers import DISTRIBUTIONS, Provider, available_providers
from nes2net_runtime.info import damaged_files, write_info
from nes2net_runtime.live_command import LiveOptions, choose_source, parse_device, run_live
from nes2net_runtime.output import Format, OutputOptions
from nes2net_runtime.segments import MIN_SAMPLES, SegmentRule
from nes2net_runtime.streaming.microphone import device_lines, input_devices
from nes2net_runtime.streaming.sources import FORMATS
from nes2net_runtime.tune_command import run_tune

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")

AUDIO = "Which audio is scored"
LIVE = "Streams: a microphone, a pipe, a file as it plays"
ALERTS = "When a stream raises an alert"
RUN = "How it runs"
FILES_ONLY = frozenset({"segment", "max_seconds", "batch_size", "scores"})
LIVE_ONLY = frozenset(
    {"device", "capture_rate", "raw", "vad", "min_speech", "first_after", "record", "report", "labels"}
    | {"on_alert", "smoothing", "patience", "alert_llr", "clear_llr"}
)
OUTPUT = "What is printed"
TUNE_TAKES = frozenset({"tune", "bundle", "threads", "format", "debug"})


def main() -> None:
    """Entry point of `nes2net-run`."""
    run_app(app, "nes2net-run")


def parse_channels(text: str) -> Channels:
    """`mix`, `each`, or a channel's number from 1."""
    if text == "mix":
        return "mix"
    if text == "each":
        return "each"
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise typer.BadParameter(f"{text!r} is not mix, each or a channel's number from 1")


def single_channel(text: str) -> int | None:
    """The channel of a stream, None for the mix."""
    channels = parse_channels(text)
    if channels == "each":
        raise typer.BadParameter("--channels each is for files; a stream is one channel, or the mix")
    return channels if isinstance(channels, int) else None


def print_version(wanted: bool) -> None:
    if wanted:
        versions = installed_versions("nes2net-edge", *DISTRIBUTIONS, "openvino")
        typer.echo(", ".join(f"{name} {number}" for name, number in versions.items()))
        typer.echo(f"providers: {', '.join(available_providers())}")
        raise typer.Exit


@app.command(no_args_is_help=True)
@one_line_errors
def run(
    context: typer.Context,
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[FILE|DIR|-]...",
            help="Audio files, or folders searched for audio. -: raw PCM on stdin.",
            readable=False,
        ),
    ] = None,
    bundle: Annotated[
        Path,
        typer.Option(
            "--bundle",
            "-b",
            help="Bundle that nes2net-export made.",
            show_default="the demo detector",
            readable=False,
        ),
    ] = DEMO,
    segment: Annotated[
        SegmentRule,
        typer.Option(
            help="windows: every window of the whole file. first: the papers' protocol, the first window "
            "alone. full: the file as it is, at once. Short audio is repeated.",
            rich_help_panel=AUDIO,
        ),
    ] = "windows",
    window_samples: Annotated[
        int | None,
        typer.Option(
            min=MIN_SAMPLES,
            help="Window in samples at 16 kHz.",
            show_default="the bundle's",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    hop: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=3600,
            help="Seconds between starts of windows, rounded to frames of 20 ms.",
            show_default=f"{defaults.WINDOWS_HOP:g}; of streams {defaults.STREAM_HOP:g}",
            rich_help_panel=AUDIO,
        ),
    ] = None,
    max_seconds: Annotated[
        float,
        typer.Option(min=0.025, help="Longest file that `full` takes, in seconds.", rich_help_panel=AUDIO),
    ] = defaults.MAX_FULL,
    channels: Annotated[
        str,
        typer.Option(
            metavar="mix|each|N",
            help="Average all channels, score each alone, or take channel N (from 1).",
            rich_help_panel=AUDIO,
        ),
    ] = "mix",
    mic: Annotated[bool, typer.Option("--mic", help="Listen to a microphone.", rich_help_panel=LIVE)] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|N",
            help="The microphone, by a part of its name or its index.",
            show_default="the system's",
            rich_help_panel=LIVE,
        ),
    ] = None,
    capture_rate: Annotated[
        int | None,
        typer.Option(
            min=8000,
            max=192000,
            help="Hz at which the microphone records; resampled to 16,000 here.",
            show_default="48000, else 44100, else 16000",
            rich_help_panel=LIVE,
        ),
    ] = None,
    raw: Annotated[
        str,
        typer.Option(
            metavar="ENCODING:RATE:CHANNELS",
            help=f"What stdin holds. Encodings: {', '.join(FORMATS)}.",
            rich_help_panel=LIVE,
        ),
    ] = "s16le:16000:1",
    stream: Annotated[
        bool,
        typer.Option(
            "--stream", help="Score one file as a stream, as fast as possible.", rich_help_panel=LIVE
        ),
    ] = False,
    realtime: Annotated[
        bool,
        typer.Option(
            "--realtime",
            help="Take one file as fast as it would play, or stdin as it comes: like a microphone.",
            rich_help_panel=LIVE,
        ),
    ] = False,
    vad: Annotated[
        bool | None,
        typer.Option(
            "--vad/--no-vad",
            help="Score only windows with speech in them.",
            show_default="on for the microphone",
            rich_help_panel=LIVE,
        ),
    ] = None,
    min_speech: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Share of a window that must be speech.",
            show_default="the bundle's, else 0.25",
            rich_help_panel=LIVE,
        ),
    ] = None,
    first_after: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="Seconds after which early scores come, of what there is, repeated to a window.",
            show_default="whole windows only",
            rich_help_panel=LIVE,
        ),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.flac",
            help="Keep the audio as the detector heard it. Off: recording people may need their consent.",
            rich_help_panel=LIVE,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a page with waveform and llrs over time.", rich_help_panel=LIVE
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.txt", help="Write alerts as a label track for Audacity.", rich_help_panel=LIVE
        ),
    ] = None,
    on_alert: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run a command at each alert, its JSON record on stdin; not through a shell.",
            rich_help_panel=ALERTS,
        ),
    ] = None,
    smoothing: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds over which llrs are smoothed (time constant): more is later and steadier.",
            show_default="the bundle's, else 2",
            rich_help_panel=ALERTS,
        ),
    ] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds that the smoothed llr must stay below --alert-llr.",
            show_default="the bundle's, else 1",
            rich_help_panel=ALERTS,
        ),
    ] = None,
    alert_llr: Annotated[
        float | None,
        typer.Option(
            help="Smoothed llr below which an alert is raised: less is stricter, with fewer false alarms.",
            show_default="the bundle's, else 2 below the label's threshold",
            rich_help_panel=ALERTS,
        ),
    ] = None,
    clear_llr: Annotated[
        float | None,
        typer.Option(
            help="Smoothed llr above which an alert is over.",
            show_default="the bundle's, else the label's threshold",
            rich_help_panel=ALERTS,
        ),
    ] = None,
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List microphones; no scoring.", rich_help_panel=LIVE)
    ] = False,
    provider: Annotated[
        Provider,
        typer.Option(
            help="Execution provider. One that does not really run is an error; auto takes what --tune found "
            "to be faster here, else the bundle's engines where they fit, CUDA where it works, the CPU.",
            rich_help_panel=RUN,
        ),
    ] = "auto",
    tune: Annotated[
        bool,
        typer.Option(
            "--tune",
            help="Measure which provider is fastest on this machine for this bundle and these --threads "
            "(seconds to minutes), and keep it in ~/.cache/nes2net-edge for --provider auto; no scoring.",
            rich_help_panel=RUN,
        ),
    ] = False,
    rebuild: Annotated[
        bool,
        typer.Option(
            "--rebuild",
            help="Build engines here, with --provider tensorrt or trt-rtx (minutes). They are kept in "
            "~/.cache/nes2net-edge; later runs need not ask again.",
            rich_help_panel=RUN,
        ),
    ] = False,
    threads: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Threads.",
            show_default="the physical cores this process may use",
            rich_help_panel=RUN,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Segments of equal length scored at once.",
            show_default=f"1 on a CPU, {defaults.ACCELERATOR_BATCH} elsewhere",
            rich_help_panel=RUN,
        ),
    ] = None,
    format: Annotated[
        Format,
        typer.Option(
            help="text: a line a file. jsonl: a record a window and a file. csv: a row a window.",
            rich_help_panel=OUTPUT,
        ),
    ] = "text",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="File for the results.", show_default="stdout", rich_help_panel=OUTPUT
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            help="Also write an official score file: a line `utt_id score` a file, the mean of its windows.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    receipt: Annotated[
        bool,
        typer.Option("--receipt", help="Say what each stage really ran on.", rich_help_panel=OUTPUT),
    ] = False,
    info: Annotated[
        bool,
        typer.Option(
            "--info", help="Print the bundle's manifest, check all its hashes, list providers; no scoring."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Print versions and providers."
        ),
    ] = False,
) -> None:
    """Score audio files or a stream: is this speech human or synthetic?

    A **score** is the detector's bona fide logit: higher is more human. It orders recordings, no more. Where
    nes2net-calib has calibrated the bundle on labelled audio, there also are:

    - **llr**, the log-likelihood ratio: how much likelier such audio is from a human than from a machine
      (natural log; 0: as likely from either). It does not depend on how common spoofs are.

    - **p_spoof**, the probability that this is a spoof, 0 to 1. It depends on how common spoofs are: the
      calibration assumes a share, and where spoofs are rarer, p_spoof is too high.

    - **label**, bonafide or spoof: on which side of the calibration's threshold the llr is.

    `--info` shows that share and the threshold. All of them hold for audio like that of the calibration.

    A **stream** (`--mic`, `-`, `--stream`, `--realtime`) gives a score each hop from its first whole window
    on, and alerts where the detector is calibrated. Ctrl-C and SIGTERM end it in good order.

    Exit codes: 0 all done (also a stream that was ended), 1 an input failed (the others were scored), 2 wrong
    usage or no audio found, 3 the bundle, provider or device can't be used, 130 interrupted.
    """
    if tune:
        refuse_beside_tune(context)
    loaded = read_bundle(bundle)
    if tune:
        run_tune(loaded, threads, format == "jsonl", sys.stdout)
        return
    if info:
        show_info(loaded, format)
    if list_devices:
        show_devices(format)
    live = mic or stream or realtime or Path("-") in (paths or [])
    refuse_options(context, FILES_ONLY if live else LIVE_ONLY, live)
    wanted = OutputOptions(format, output, receipt)
    if rebuild and provider not in KINDS:
        raise typer.BadParameter(f"--rebuild is for --provider {' or '.join(KINDS)}")
    open_detector = partial(Detector, loaded, provider, threads, rebuild)
    if live:
        channel = single_channel(channels)
        source = choose_source(paths or [], mic, parse_device(device), capture_rate, raw, realtime, channel)
        failed = run_live(
            source,
            open_detector,
            LiveOptions(
                hop=hop,
                window_samples=window_samples,
                channel=channel,
                first_after=first_after,
                vad=mic if vad is None else vad,
                min_speech=min_speech,
                smoothing=smoothing,
                patience=patience,
                alert_llr=alert_llr,
                clear_llr=clear_llr,
                on_alert=on_alert,
                labels=labels,
                record=record,
                report=report,
            ),
            wanted,
        )
    else:
        failed = run_files(
            paths or [],
            open_detector,
            FileOptions(
                segment=segment,
                hop=defaults.WINDOWS_HOP if hop is None else hop,
                window_samples=window_samples,
                max_seconds=max_seconds,
                channels=parse_channels(channels),
                batch_size=batch_size,
                scores=scores,
            ),
            wanted,
        )
    if failed:
        raise typer.Exit(Exit.INPUT_FAILED)


def refuse_options(context: typer.Context, names: frozenset[str], live: bool) -> None:
    """Raise a usage error for an option that was given and means nothing here."""
    for name in sorted(names):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = "--" + name.replace("_", "-")
            where = (
                "files, not for streams"
                if live
                else "streams: --mic, - (stdin), --stream FILE, --realtime FILE"
            )
            raise typer.BadParameter(f"{option} is for {where}")


def refuse_beside_tune(context: typer.Context) -> None:
    """Raise a usage error for anything given that --tune does not take."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if name not in TUNE_TAKES and source is not None and source.name == "COMMANDLINE":
            given = "files" if name == "paths" else "--" + name.replace("_", "-")
            raise typer.BadParameter(f"--tune takes --bundle, --threads and --format alone, not {given}")


def show_info(bundle: Bundle, format: Format) -> NoReturn:
    damaged = damaged_files(bundle)
    write_info(bundle, damaged, format == "jsonl", sys.stdout)
    raise typer.Exit(Exit.NO_START if damaged else Exit.DONE)


def show_devices(format: Format) -> NoReturn:
    devices = input_devices()
    if format == "jsonl":
        typer.echo(msgspec.json.encode(devices).decode())
    else:
        for line in device_lines(devices):
            typer.echo(line)
    raise typer.Exit(Exit.DONE)
