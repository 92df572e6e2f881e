"""The receipt: what a detector really runs on, as its sessions and engines say themselves."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EngineReceipt:
    """The engine that runs a stage."""

    file: str  # in the bundle, or the folder of the user's cache
    kind: str  # trt, trt-rtx
    version: str  # of TensorRT
    evidence: str | None  # of its precision; None: built here by ONNX Runtime's provider


@dataclass(frozen=True)
class StageReceipt:
    """What one stage really ran on."""

    stage: str
    precision: str
    provider: str
    library: str  # what runs it, with versions: onnxruntime, tensorrt, openvino
    device: str
    nodes: dict[str, int]  # execution provider -> nodes of the optimised graph
    io: str  # where its input and output are: cpu, cuda
    cuda_graph: bool  # shapes that come again are replayed as one
    engine: EngineReceipt | None


@dataclass(frozen=True)
class Receipt:
    """What a detector really runs on."""

    bundle: str
    provider: str  # as asked for or chosen
    stages: list[StageReceipt]
    threads: int
    load_seconds: float
    onnxruntime: str
    passed_over: list[str] = field(default_factory=list)  # by `auto`: engines and providers, and why
    tuned: str | None = None  # what `auto` knows of --tune's measurement
