"""`nes2net-run` with --mic, -, --stream or --realtime: one source, live, until it ends or is interrupted."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event as Flag

import typer

from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.commands import own_stderr
from nes2net_runtime.decisions import CALIBRATE
from nes2net_runtime.detector import MIN_SPEECH, STREAM_HOP, Detector
from nes2net_runtime.info import receipt_lines
from nes2net_runtime.live.loop import Sinks, Totals, listen
from nes2net_runtime.live.on_alert import OnAlert
from nes2net_runtime.live.output import (
    live_totals_line,
    make_event_writer,
    make_label_writer,
    meaning_of_alerts,
)
from nes2net_runtime.live.recorder import Recorder
from nes2net_runtime.live.report import Report
from nes2net_runtime.live.view import LiveView
from nes2net_runtime.manifest import (
    AlertRule,
    Manifest,
)
from nes2net_runtime.memory import steady_memory
from nes2net_runtime.output import OutputOptions, open_output, open_results, refuse_overwriting, write_record
from nes2net_runtime.records import ErrorRecord, ReceiptRecord, StreamSummary, SummaryRecord, printable
from nes2net_runtime.segments import FRAME_HOP
from nes2net_runtime.streaming.alerts import Alerts, usual_rule
from nes2net_runtime.streaming.microphone import Device, Microphone
from nes2net_runtime.streaming.sources import FileSource, LiveSource, PipeSource, RawFormat, Source


@dataclass(frozen=True)
class LiveOptions:
    """What the command's options say of a stream; None: the bundle's default."""

    hop: float | None  # seconds
    window_samples: int | None
    channel: int | None  # counted from 1; None: the mix
    first_after: float | None  # seconds; None: no early scores
    vad: bool
    min_speech: float | None  # share of a window
    smoothing: float | None  # seconds
    patience: float | None  # seconds
    alert_llr: float | None
    clear_llr: float | None
    on_alert: str | None
    labels: Path | None
    record: Path | None
    report: Path | None


def parse_device(text: str | None) -> Device:
    """A device's index, or a part of its name."""
    return int(text) if text is not None and text.isdecimal() else text


def choose_source(
    paths: Sequence[Path],
    mic: bool,
    device: Device,
    capture_rate: int | None,
    raw: str,
    realtime: bool,
    channel: int | None,
) -> Source:
    """The source that the options name; a usage error where they name none, or several."""
    if mic:
        if paths or realtime:
            raise typer.BadParameter("--mic takes no files, and is in real time as it is")
        return Microphone(device, capture_rate, channel or 1)
    if len(paths) != 1:
        raise typer.BadParameter(f"a stream is one file, or - for stdin; {len(paths)} are named")
    if paths[0] != Path("-"):
        if paths[0].is_dir():
            raise typer.BadParameter(f"{paths[0]}: a folder; a stream is one file")
        file = FileSource(paths[0], channel)
        return LiveSource(file) if realtime else file
    try:
        format = RawFormat.parse(raw)
    except ValueError as error:
        raise typer.BadParameter(f"--raw: {error}") from error
    pipe = PipeSource(format, channel)
    return LiveSource(pipe) if realtime else pipe


def run_live(
    source: Source, open_detector: Callable[[], Detector], options: LiveOptions, wanted: OutputOptions
) -> bool:
    """Score a source until it ends, or SIGINT or SIGTERM comes; returns whether it failed.

    Everything that the options ask for is written as it comes.
    """
    for path in (options.record, options.report, options.labels, wanted.path):
        refuse_overwriting(path, Path(source.name))
    steady_memory()
    detector = open_detector()
    for passed in detector.stages.passed_over:
        typer.echo(f"passed over: {passed}", err=True)
    manifest = detector.bundle.manifest
    rule = alert_rule(detector, options)
    hop = options.hop or (manifest.streaming.hop if manifest.streaming else STREAM_HOP)
    stream = detector.stream(
        options.window_samples,
        hop,
        options.first_after,
        _min_speech(options, manifest) if options.vad else None,
    )
    stop, start = Flag(), time.perf_counter()
    with ExitStack() as files:
        if isinstance(source, Microphone):
            files.enter_context(own_stderr())  # PortAudio writes there when a device goes
        out = open_results(wanted, files)
        sinks = _sinks(source.name, manifest, rule, options, wanted, files)
        if stream.hop != round(hop * SAMPLE_RATE):
            sinks.say(f"hop: {stream.hop / SAMPLE_RATE:g} s (a multiple of {FRAME_HOP} samples)")
        with _signals(stop):
            source.open()
            if not (sinks.status and out.isatty()):  # there, the view shows alerts as lines
                write = make_event_writer(wanted.format, out, source.name, options.channel, rule is not None)
                sinks.event.append(write)
            totals = listen(source, stream, Alerts(rule) if rule else None, sinks, stop)
        summary = _summary(totals, time.perf_counter() - start)
        if wanted.format == "jsonl":
            if totals.error is not None:
                error = printable(str(totals.error))
                write_record(
                    ErrorRecord(file=printable(source.name), channel=options.channel, error=error), out
                )
            if wanted.receipt:
                write_record(ReceiptRecord(receipt=detector.receipt), out)
            write_record(summary, out)
    if totals.error is not None:
        typer.echo(f"error: {totals.error}", err=True)
    if wanted.receipt and wanted.format != "jsonl":
        for line in receipt_lines(detector.receipt):
            typer.echo(line, err=True)
    typer.echo(live_totals_line(summary), err=True)
    for line in meaning_of_alerts(rule):
        typer.echo(line, err=True)
    return totals.error is not None


def alert_rule(detector: Detector, options: LiveOptions) -> AlertRule | None:
    """The bundle's decision defaults with what the options change; None where it is not calibrated.

    A usage error for options that ask for alerts there, or that contradict each other.
    """
    manifest = detector.bundle.manifest
    calibration = detector.calibrations("windows", options.window_samples).get("windows")
    asked = {
        "--on-alert": options.on_alert,
        "--labels": options.labels,
        "--smoothing": options.smoothing,
        "--patience": options.patience,
        "--alert-llr": options.alert_llr,
        "--clear-llr": options.clear_llr,
    }
    if calibration is None:
        for name, value in asked.items():
            if value is not None:
                raise typer.BadParameter(
                    f"{name}: no alerts come without a calibration for windows; {CALIBRATE}"
                )
        return None
    usual = manifest.streaming.rule if manifest.streaming else usual_rule(calibration)
    alert = usual.alert_llr if options.alert_llr is None else options.alert_llr
    clear = max(usual.clear_llr, alert) if options.clear_llr is None else options.clear_llr
    if clear < alert:
        raise typer.BadParameter(f"--clear-llr {clear:g} is below --alert-llr {alert:g}")
    return AlertRule(
        smoothing=usual.smoothing if options.smoothing is None else options.smoothing,
        patience=usual.patience if options.patience is None else options.patience,
        alert_llr=alert,
        clear_llr=clear,
    )


def _min_speech(options: LiveOptions, manifest: Manifest) -> float:
    if options.min_speech is not None:
        return options.min_speech
    return manifest.streaming.min_speech if manifest.streaming else MIN_SPEECH


def _sinks(
    name: str,
    manifest: Manifest,
    rule: AlertRule | None,
    options: LiveOptions,
    wanted: OutputOptions,
    files: ExitStack,
) -> Sinks:
    """Everything that the options ask for beside the results; closed with `files`, last opened first."""
    if wanted.format == "text" and sys.stderr.isatty():
        view = files.enter_context(LiveView(name, rule))
        sinks = Sinks(event=[view.event], status=[view.status], say=view.say)
    else:
        sinks = Sinks(say=lambda line: typer.echo(printable(line), err=True))
    if options.labels:
        sinks.event.append(make_label_writer(open_output(options.labels, files)))
    if options.on_alert is not None:
        try:
            command = OnAlert(options.on_alert, name, options.channel, sinks.say)
        except ValueError as error:
            raise typer.BadParameter(f"--on-alert: {error}") from error
        files.callback(command.close)
        sinks.event.append(command.event)
    if options.record:
        recorder = Recorder(options.record, sinks.say)
        files.callback(recorder.close)
        sinks.event.append(recorder.event)
        sinks.audio.append(recorder.audio)
    if options.report:
        report = Report(open_output(options.report, files), name, manifest, rule)
        files.callback(report.write)
        sinks.event.append(report.event)
        sinks.audio.append(report.audio)
    return sinks


@contextmanager
def _signals(stop: Flag) -> Iterator[None]:
    """SIGINT and SIGTERM end the stream in good order; a second one ends the process as usual."""

    def handle(number: int, frame: object) -> None:
        stop.set()
        restore()

    def restore() -> None:
        for which, handler in before.items():
            signal.signal(which, handler)

    before = {which: signal.signal(which, handle) for which in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        restore()


def _summary(totals: Totals, seconds: float) -> SummaryRecord:
    return SummaryRecord(
        files=1,
        failed=int(totals.error is not None),
        segments=totals.windows,
        audio_seconds=round(totals.audio, 3),
        wall_seconds=round(seconds, 3),
        stream=StreamSummary(
            without_speech=totals.without_speech,
            alerts=totals.alerts,
            gaps=totals.gaps,
            lost_seconds=round(totals.lost, 3),
            longest_wait=round(totals.longest_wait, 3),
            longest_hop=totals.longest_hop,
            work_seconds=round(totals.busy, 3),
        ),
    )
