"""Stages that are ready to run: where they run, what they take, and what they say of themselves."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from nes2net_runtime.inference.device_binding import OnDevice
from nes2net_runtime.inference.engines import Limits
from nes2net_runtime.inference.ort_sessions import device_of, library_of, nodes_by_provider, open_session
from nes2net_runtime.inference.pipeline import Pipeline
from nes2net_runtime.inference.providers import EXECUTION_PROVIDERS, our_name
from nes2net_runtime.inference.receipt import EngineReceipt, StageReceipt
from nes2net_runtime.manifest import Stage

JOIN = Path(__file__).parent / "join.onnx"  # tests/runtime/test_device_binding.py draws it


@dataclass(frozen=True)
class Loaded:
    """Stages that are ready to run."""

    provider: str
    pipeline: Pipeline
    stages: list[StageReceipt]
    limits: Limits | None = None  # of engines; None: any shape
    passed_over: list[str] = field(default_factory=list)  # by `auto`, and why
    tuned: str | None = None  # what `auto` knows of --tune's measurement


def on_device(
    runtime: ModuleType,
    sessions: Sequence[Any],
    stages: Sequence[Stage],
    provider: str,
    threads: int,
    fixed: bool = False,
) -> OnDevice:
    """The sessions on the card, with the graph that joins a stream's frames there."""
    joins = "cuda" if EXECUTION_PROVIDERS["cuda"] in runtime.get_available_providers() else provider
    open_join = partial(open_session, runtime, JOIN, joins, threads)
    return OnDevice(runtime, sessions, [stage.inputs[0].name for stage in stages], "cuda", open_join, fixed)


def stage_receipts(
    stages: Sequence[Stage],
    sessions: Sequence[Any],
    io: str,
    cuda_graph: bool,
    engines: Sequence[EngineReceipt] = (),
) -> list[StageReceipt]:
    """What each session says of itself."""
    return [
        StageReceipt(
            stage=stage.name,
            precision=stage.precision,
            provider=our_name(session.get_providers()[0]),
            library=library_of(session),
            device=device_of(session),
            nodes=nodes_by_provider(session),
            io=io,
            cuda_graph=cuda_graph,
            engine=engines[index] if engines else None,
        )
        for index, (stage, session) in enumerate(zip(stages, sessions, strict=True))
    ]
