"""Bundles: a folder with ONNX stages and a manifest that vouches for every file in it.

    NAME.nes2net/
        manifest.json    the Manifest below
        encoder.onnx     waveform [batch, samples] -> frames [batch, frames, channels]
        context.onnx     frames -> features [batch, frames, width]
        backend.onnx     features -> logits [batch, logits]
        (or detector.onnx, waveform -> logits; large weights as FILE.data beside each)
        MODEL_CARD.md, reports/…

Reading trusts nothing: paths must stay inside, links are refused, sizes and hashes must match before a file
is opened, and a graph may read weights from listed files only.
"""

import hashlib
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from nes2net_runtime.errors import BundleError
from nes2net_runtime.external_data import external_locations

SCHEMA = 1
MANIFEST = "manifest.json"
DEMO = Path(__file__).parent / "demo.nes2net"

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
# Calibrated one by one, since each hears other audio. `early`: the first seconds of a stream, repeated.
CalibrationRule = Literal["first", "full", "windows", "early"]
# The bounds keep an llr finite, whatever the score.
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=1)]
Prior = Annotated[float, Meta(gt=0, lt=1)]


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all parts of the manifest: frozen, by keyword, nothing unknown."""


class Source(Record, frozen=True):
    """Where the weights come from."""

    checkpoint: str  # a file's name, or random:NAME
    sha256: str | None  # of that file
    random: bool  # random weights: for speed alone, never to be calibrated


class Audio(Record, frozen=True):
    """What the detector hears. Lengths in samples."""

    sample_rate: Literal[16_000]
    normalize: Literal["none", "per-window"]  # per-window: zero mean, unit variance, by the runtime
    window_samples: Annotated[int, Meta(ge=400)]  # the official protocol's
    min_samples: Literal[400]  # shorter input has no frame
    frame_hop: Literal[320]
    frame_field: Literal[400]
    frames_reusable: bool  # a frame does not depend on its window


class ScoreRule(Record, frozen=True):
    """What a score is."""

    bonafide_logit: Annotated[int, Meta(ge=0)]
    meaning: str


class File(Record, frozen=True):
    """One file of the bundle, by its path inside it."""

    path: str
    bytes: int
    sha256: str


class Tensor(Record, frozen=True):
    """A stage's input or output; dynamic dimensions have names."""

    name: str
    type: str
    shape: list[int | str]


class Stage(Record, frozen=True):
    """One ONNX graph."""

    name: Literal["encoder", "context", "backend", "detector"]
    file: str
    precision: Precision
    inputs: Annotated[list[Tensor], Meta(min_length=1, max_length=1)]
    outputs: Annotated[list[Tensor], Meta(min_length=1, max_length=1)]


class ParityCase(Record, frozen=True):
    """Error of the ONNX stages against torch on one input: max|a - b| / max(1, max|b|)."""

    batch: int
    samples: int
    frames: float | None
    features: float | None
    logits: float


class Parity(Record, frozen=True):
    """The check that this bundle passed when it was written."""

    bound: float
    worst: float
    cases: list[ParityCase]


class Costs(Record, frozen=True):
    """What a threshold minimises: the cost of errors at this share of spoofs."""

    prior_spoof: Prior
    bonafide_rejected: Positive
    spoof_accepted: Positive


class Provenance(Record, frozen=True, kw_only=True):
    """The labelled audio that a calibration was fitted on, and how it did there."""

    protocol: str  # the list's name
    sha256: str  # of the list
    split: str | None = None  # of the list, where one was chosen
    bonafide: Count  # scores: one a trial; under the rule windows, one a window
    spoof: Count
    speakers: Count | None  # None: the list does not name them
    eer: Annotated[float, Meta(ge=0, le=1)]
    cllr_before: NotNegative  # bits: of the scores as they are
    cllr_after: NotNegative
    created: str  # UTC, ISO 8601


class Calibration(Record, frozen=True, kw_only=True):
    """From a score to a decision, for one segment rule: llr = slope * score + offset."""

    slope: Positive  # natural log, positive = bona fide
    offset: Number
    prior_spoof: Prior  # the share of spoofs that p_spoof assumes
    threshold: Number  # on the llr: bona fide from there on
    chosen_by: str  # how the threshold was: "EER", "spoof accepted <= 1 %"
    costs: Costs | None = None  # that chose it, where costs did
    min_seconds: NotNegative  # 99 % of the audio that it was fitted on is as long or longer
    provenance: Provenance


class AlertRule(Record, frozen=True, kw_only=True):
    """When a stream raises an alert (alerts.py draws it)."""

    smoothing: NotNegative  # seconds: time constant of the smoothed llr
    patience: NotNegative  # seconds that it must stay below alert_llr
    alert_llr: Number
    clear_llr: Number  # at least alert_llr: above it, an alert ends


class StreamingEvidence(Record, frozen=True, kw_only=True):
    """How a stream's decisions did on the labelled audio that they were chosen on."""

    protocol: str  # the list's name
    sha256: str  # of the list
    split: str | None = None
    hours: Positive  # of distinct bona fide speech
    false_alarms: Annotated[int, Meta(ge=0)]
    false_alarms_per_hour: tuple[NotNegative, NotNegative]  # exact 95 % Poisson interval of the rate
    changes: Count  # from bona fide to spoof
    detected: Annotated[int, Meta(ge=0)]  # of them, before the signal's end
    median_delay: NotNegative | None  # seconds from the first synthetic sample to the alert
    created: str  # UTC, ISO 8601


class Streaming(Record, frozen=True, kw_only=True):
    """Decision defaults of streams."""

    rule: AlertRule
    hop: Positive  # seconds between windows
    min_speech: Annotated[float, Meta(ge=0, le=1)]  # share of a window, else it is not scored
    evidence: StreamingEvidence


class Manifest(Record, frozen=True):
    """`manifest.json`."""

    schema: int
    name: str
    created: str  # UTC, ISO 8601
    versions: dict[str, str]  # of the toolkit and what it was built with
    source: Source
    model: dict[str, Any]  # ModelConfig as plain data
    audio: Audio
    score: ScoreRule
    precision: Precision
    files: list[File]
    stages: list[Stage]
    parity: Parity
    calibration: dict[CalibrationRule, Calibration] | None = None
    streaming: Streaming | None = None

    def with_files(self, files: list[File]) -> "Manifest":
        """The same manifest with these files."""
        return msgspec.structs.replace(self, files=files)


class Bundle(msgspec.Struct, frozen=True):
    """A bundle whose manifest was read and whose files' sizes were checked."""

    path: Path
    manifest: Manifest

    def verify(self) -> None:
        """Check everything that a run opens: the hashes of the graphs, and of the files their weights are in.

        Raises BundleError at the first file that differs, or that a graph names and the manifest does not.
        """
        listed = {file.path: file for file in self.manifest.files}
        for stage in self.manifest.stages:
            self.check_hash(listed[stage.file])
            for location in external_locations(self.path / stage.file):
                weights = (PurePosixPath(stage.file).parent / location).as_posix()
                if weights not in listed:
                    raise BundleError(
                        f"{self.path / stage.file}: takes weights from {location!r}, "
                        "which the manifest does not list"
                    )
                self.check_hash(listed[weights])

    def check_hash(self, file: File) -> None:
        """Raise BundleError unless the file has the SHA-256 that the manifest says."""
        if sha256(self.path / file.path) != file.sha256:
            raise BundleError(f"{self.path / file.path}: damaged (its SHA-256 differs from the manifest's)")


def read_bundle(path: Path) -> Bundle:
    """Read the manifest and check that every file is there, inside the folder, no link, of the right size.

    Raises BundleError. Hashes are left to `Bundle.verify`, for the files that the caller opens.
    """
    if not path.is_dir():
        raise BundleError(f"{path}: no such bundle (a folder with {MANIFEST}); nes2net-export makes one")
    if (path / MANIFEST).is_symlink():
        raise BundleError(f"{path / MANIFEST}: a link; bundles hold plain files only")
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleError(f"{path}: not a bundle: {MANIFEST} can't be read ({error.strerror})") from error
    try:
        schema = msgspec.json.decode(text, type=_Schema).schema
        if schema != SCHEMA:
            newer = "newer than this version knows; update nes2net-edge" if schema > SCHEMA else "unknown"
            raise BundleError(f"{path / MANIFEST}: schema {schema} is {newer}")
        manifest = msgspec.json.decode(text, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{path / MANIFEST}: damaged ({error})") from error
    _check_stages(path, manifest)
    for file in manifest.files:
        try:
            _check_file(path, file)
        except OSError as error:
            raise BundleError(f"{path}: {file.path!r} can't be read ({error.strerror})") from error
    return Bundle(path, manifest)


class _Schema(msgspec.Struct):
    schema: int


def _check_stages(path: Path, manifest: Manifest) -> None:
    stages = manifest.stages
    if [stage.name for stage in stages] not in (["encoder", "context", "backend"], ["detector"]):
        raise BundleError(f"{path / MANIFEST}: stages must be encoder, context, backend or detector alone")
    listed = {file.path for file in manifest.files}
    for stage in stages:
        if stage.file not in listed:
            raise BundleError(
                f"{path}: stage {stage.name} names {stage.file!r}, which the manifest does not list"
            )
    shape = stages[-1].outputs[0].shape
    if not shape or not isinstance(shape[-1], int) or manifest.score.bonafide_logit >= shape[-1]:
        raise BundleError(f"{path / MANIFEST}: the score is logit {manifest.score.bonafide_logit} of {shape}")


def check_place(bundle: Path, path: str) -> Path:
    """Where a file of the bundle is; raises BundleError for a place outside, or behind a link."""
    relative = PurePosixPath(path)
    if (
        relative.is_absolute()
        or ".." in relative.parts
        or re.search(r"[\\:\x00]", path)
        or not relative.parts
    ):
        raise BundleError(f"{bundle}: the manifest names a path outside the bundle: {path!r}")
    full = bundle / relative
    for part in (full, *full.parents[: len(relative.parts) - 1]):
        if part.is_symlink():
            raise BundleError(f"{part}: a link; bundles hold plain files only")
    return full


def _check_file(bundle: Path, file: File) -> None:
    full = check_place(bundle, file.path)
    if not full.is_file():
        raise BundleError(f"{full}: missing")
    if (size := full.stat().st_size) != file.bytes:
        raise BundleError(f"{full}: damaged ({size} bytes, the manifest says {file.bytes})")


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal; raises BundleError where it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(f"{path}: can't be read ({error.strerror})") from error
    return digest.hexdigest()
