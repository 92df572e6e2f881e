"""`nes2net-run --info`: a bundle's manifest, whether its files are whole, what can run it here."""

from collections import defaultdict
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import msgspec

from nes2net_runtime.bundle import Bundle, sha256
from nes2net_runtime.decisions import CALIBRATE
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.engines import limits_of
from nes2net_runtime.inference.nvidia import Driver, find_driver
from nes2net_runtime.inference.openvino_runtime import import_openvino, openvino_version, processor
from nes2net_runtime.inference.providers import available_providers, import_onnxruntime, onnxruntime_owners
from nes2net_runtime.inference.receipt import Receipt
from nes2net_runtime.manifest import (
    Engine,
    Manifest,
    Streaming,
)
from nes2net_runtime.threads import usable_threads


def machine() -> dict[str, Any]:
    """Providers that are installed, devices that they see, and who installed ONNX Runtime."""
    runtime = import_onnxruntime()
    devices = [
        f"{d.ep_name} on {str(d.device.type).rsplit('.', 1)[-1].lower()} {d.device.vendor}".strip()
        for d in runtime.get_ep_devices()
    ]
    if find_spec("openvino"):
        try:
            openvino = import_openvino()
            devices.append(f"{openvino_version(openvino)} on {processor(openvino.Core())}")
        except ProviderError as error:
            devices.append(str(error))
    return {
        "onnxruntime": onnxruntime_owners(),
        "providers": available_providers(),
        "devices": devices,
        "nvidia": find_driver(),
        "threads": usable_threads(),
    }


def calibration_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What each segment rule's calibration does, and where it comes from."""
    if not manifest.calibration:
        return [("calibration", f"none; {CALIBRATE}")]
    rows = []
    for rule, c in manifest.calibration.items():
        p = c.provenance
        costs = c.costs and (
            f" (bona fide rejected {c.costs.bonafide_rejected:g}, spoof accepted {c.costs.spoof_accepted:g}, "
            f"{100 * c.costs.prior_spoof:g} % spoofs)"
        )
        speakers = f", {p.speakers} speakers" if p.speakers else ""
        split = f", split {p.split}" if p.split else ""
        unit = "windows" if rule == "windows" else "trials"
        rows += [
            (
                f"calibration {rule}",
                f"llr = {c.slope:.4g} x score {'-' if c.offset < 0 else '+'} {abs(c.offset):.4g}",
            ),
            ("  label", f"bonafide from llr {c.threshold:+.4g} on; chosen by {c.chosen_by}{costs or ''}"),
            ("  p_spoof", f"if {100 * c.prior_spoof:g} % of recordings are spoofs"),
            ("  holds for", f"audio of {c.min_seconds:.2f} s or more"),
            (
                "  fitted on",
                f"{p.protocol}{split}: {p.bonafide} bona fide, {p.spoof} spoof {unit}{speakers}; {p.created}",
            ),
            ("  protocol sha256", p.sha256),
            (
                "  there",
                f"EER {100 * p.eer:.2f} %, Cllr {p.cllr_before:.3f} before, {p.cllr_after:.3f} after",
            ),
        ]
    return rows


def streaming_rows(streaming: Streaming) -> list[tuple[str, str]]:
    """When streams raise alerts, and how that did on labelled audio."""
    rule, e = streaming.rule, streaming.evidence
    low, high = e.false_alarms_per_hour
    delay = "most unnoticed" if e.median_delay is None else f"median delay {e.median_delay:.1f} s"
    split = f", split {e.split}" if e.split else ""
    return [
        (
            "streams",
            f"alert where the llr, smoothed over {rule.smoothing:g} s, is below {rule.alert_llr:+.2f} for "
            f"{rule.patience:g} s, until it is above {rule.clear_llr:+.2f}",
        ),
        ("  windows", f"every {streaming.hop:g} s, of which {100 * streaming.min_speech:g} % must be speech"),
        (
            "  false alarms",
            f"{e.false_alarms} in {e.hours:.3g} h of bona fide speech, {e.protocol}{split}: {low:.2g} to "
            f"{high:.2g} an hour (95 %)",
        ),
        ("  detected", f"{e.detected} of {e.changes} changes from a human to a synthetic voice, {delay}"),
    ]


def engine_rows(engines: Sequence[Engine]) -> list[tuple[str, str]]:
    """What each engine runs on, and takes."""
    return [
        (
            f"engine {engine.stage}",
            f"{engine.file}: {engine.kind} {engine.version}, {engine.precision} ({engine.evidence}), compute "
            f"capability {', '.join(engine.compute_capabilities)}, {engine.platform}, {limits_of([engine])}",
        )
        for engine in engines
    ]


def nvidia_text(driver: Driver | None) -> str:
    """The driver and its cards, for people."""
    if driver is None:
        return "no driver"
    cards = (f"{card.name} (compute capability {card.compute_capability})" for card in driver.cards)
    return f"driver for CUDA {driver.cuda}; {', '.join(cards) or 'no card'}"


def damaged_files(bundle: Bundle) -> list[str]:
    """Paths of all files whose hash differs from the manifest's."""
    return [file.path for file in bundle.manifest.files if sha256(bundle.path / file.path) != file.sha256]


def write_info(bundle: Bundle, damaged: list[str], as_json: bool, out: TextIO) -> None:
    """Print everything: as one JSON document, or as lines for people."""
    here = machine()
    if as_json:
        document = {
            "path": str(bundle.path),
            "manifest": bundle.manifest,
            "damaged": damaged,
            "machine": here,
        }
        out.write(msgspec.json.encode(document).decode() + "\n")
        return
    m = bundle.manifest
    model = defaultdict(lambda: "?", m.model)
    size = sum(file.bytes for file in m.files)
    window = m.audio.window_samples / m.audio.sample_rate
    sums = f"{len(damaged)} damaged: {', '.join(damaged)}" if damaged else "all hashes match"
    rows = [
        ("bundle", f"{m.name} ({bundle.path})"),
        ("made", f"{m.created} by {', '.join(f'{k} {v}' for k, v in m.versions.items())}"),
        ("weights", f"{m.source.checkpoint}{' (random: for speed alone)' if m.source.random else ''}"),
        ("checkpoint sha256", m.source.sha256 or "-"),
        ("front-end", "{family}, {layers} layers of {width}, {aggregation}".format_map(model)),
        (
            "back-end",
            "{backend}, {outer_splits} x {inner_splits} splits, {pooling} pooling".format_map(model),
        ),
        (
            "window",
            f"{m.audio.window_samples} samples ({window:g} s), waveform normalised: {m.audio.normalize}",
        ),
        ("score", m.score.meaning),
        *calibration_rows(m),
        *(streaming_rows(m.streaming) if m.streaming else []),
        ("precision", m.precision),
        ("stages", ", ".join(f"{stage.name} ({stage.file})" for stage in m.stages)),
        *engine_rows(m.engines),
        ("parity with torch", f"{m.parity.worst:.1e} relative (bound {m.parity.bound:g})"),
        ("files", f"{len(m.files)}, {size / 1e6:.1f} MB, {sums}"),
        ("onnxruntime", ", ".join(here["onnxruntime"])),
        ("providers", ", ".join(here["providers"])),
        ("devices", ", ".join(here["devices"])),
        ("nvidia", nvidia_text(here["nvidia"])),
        ("threads", str(here["threads"])),
    ]
    for name, value in rows:
        out.write(f"{name:20}{value}\n")


def receipt_lines(receipt: Receipt) -> list[str]:
    """A receipt for people."""
    lines = [
        f"receipt: {Path(receipt.bundle).name} on {receipt.provider}, onnxruntime {receipt.onnxruntime}, "
        f"{receipt.threads} threads, loaded in {receipt.load_seconds:.2f} s"
    ]
    for s in receipt.stages:
        nodes = ", ".join(f"{count} nodes on {name}" for name, count in s.nodes.items())
        graph = ", CUDA graph" if s.cuda_graph else ""
        where = f"  {s.stage:8}  {s.precision}  {s.provider} ({s.device}) by {s.library}"
        lines.append(f"{where}: {nodes or 'nodes not told'}; io on {s.io}{graph}")
        if e := s.engine:
            evidence = f", precision {e.evidence}" if e.evidence else ""
            lines.append(f"            engine {e.file}: {e.kind} {e.version}{evidence}")
    tuned = [f"  tuned: {receipt.tuned}"] if receipt.tuned else []
    return [*lines, *tuned, *(f"  passed over: {reason}" for reason in receipt.passed_over)]
