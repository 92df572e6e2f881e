"""`manifest.json` as data: what a bundle is, where it comes from, and what vouches for it."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

SCHEMA = 1

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
StageName = Literal["encoder", "context", "backend", "detector"]
# Calibrated one by one, since each hears other audio. `early`: the first seconds of a stream, repeated.
CalibrationRule = Literal["first", "full", "windows", "early"]
# The bounds keep an llr finite, whatever the score.
Number = Annotated[float, Meta(ge=-1e9, le=1e9)]
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=1)]
Prior = Annotated[float, Meta(gt=0, lt=1)]
Version = Annotated[str, Meta(pattern=r"^\d+(\.\w+)*$")]
Capability = Annotated[str, Meta(pattern=r"^\d+\.\d+\+?$")]  # of a card: "8.9"; "8.0+": from there on
Cuda = Annotated[str, Meta(pattern=r"^\d+\.\d+$")]  # "13.0"


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

    name: StageName
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


class Drift(Record, frozen=True, kw_only=True):
    """How far the scores of a derived bundle are from those of its float32 parent, on the same windows.

    Differences are in standard deviations of the parent's scores.
    """

    parent: str  # SHA-256 of the parent's manifest
    audio: str  # the protocol's name, or "built-in signals"
    windows: Count
    bound: Positive | None  # of `mean`; None: not enforced, the weights are random
    mean: NotNegative
    largest: NotNegative
    correlation: Annotated[float, Meta(ge=-1, le=1)]  # Spearman's, of ranks
    flips: Annotated[float, Meta(ge=0, le=1)] | None = (
        None  # share of decisions that changed; calibrated ones
    )
    eer: tuple[float, float] | None = None  # before and after, on labelled windows
    cllr: tuple[float, float] | None = None  # the same, in bits, with the parent's calibration
    float32_nodes: list[str] = []  # kept for accuracy: stage/operator type, stage/node, or a stage as a whole


class Engine(Record, frozen=True, kw_only=True):
    """A stage compiled by TensorRT, and everything that it depends on."""

    stage: StageName
    file: str  # the serialised engine
    wrapper: str  # an ONNX graph of one EPContext node that names it, for ONNX Runtime
    kind: Literal["trt", "trt-rtx"]
    version: Version  # of the TensorRT that built it
    precision: Precision
    compute_capabilities: list[Capability]  # of the cards that it runs on
    gpu: str | None  # the card it was built on; None: without one that it is for
    cuda: Cuda | None  # newest that the driver supported there; an older one may not load it
    platform: str  # "linux-x86_64"
    version_compatible: bool  # any TensorRT of the same major version loads it
    batch: tuple[Count, Count, Count]  # least, best, largest
    samples: tuple[Count, Count, Count]  # the same, of the waveform
    graph: list[str]  # SHA-256 of the graph and of its weights' files
    evidence: Literal["graph-typed, not inspected", "inspected"]  # of the precision; inspected: on the card


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
    parity: Parity  # of the float32 graphs, also in a bundle derived from them
    drift: Drift | None = None  # of a derived bundle
    engines: list[Engine] = []
    calibration: dict[CalibrationRule, Calibration] | None = None
    streaming: Streaming | None = None

    def with_files(self, files: list[File]) -> "Manifest":
        """The same manifest with these files."""
        return msgspec.structs.replace(self, files=files)
