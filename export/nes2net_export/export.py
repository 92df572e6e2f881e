"""A detector in torch -> verified ONNX stages: a float32 bundle."""

import shutil
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path

from nes2net_export.card import model_card
from nes2net_export.make import Checkpoint
from nes2net_export.models.config import FRAME_FIELD, FRAME_HOP
from nes2net_export.onnx_files import save
from nes2net_export.output import Say
from nes2net_export.parity import check_parity
from nes2net_export.source import Loaded, load_source
from nes2net_export.state_dict import Untold
from nes2net_export.trace import StageSpec, stage_specs, trace
from nes2net_export.transforms import column_sums, fuse_qkv, simplify, unfold
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.inference.providers import DISTRIBUTIONS as RUNTIMES
from nes2net_runtime.manifest import (
    SCHEMA,
    Audio,
    Manifest,
    ScoreRule,
    Stage,
    Tensor,
)

# Exact ones, each for what it finds of its kind in a stage.
TRANSFORMS = (simplify.apply, unfold.apply, fuse_qkv.apply, column_sums.apply)
DISTRIBUTIONS = ("nes2net-edge", "torch", "onnx", "onnxscript", "onnxsim", *RUNTIMES)


def export_onnx(
    loaded: Loaded, folder: Path, opset: int, single_graph: bool, bound: float, say: Say
) -> Manifest:
    """Fill `folder` with a float32 bundle, all but its manifest, which is returned without its files.

    Raises ParityError where the stages do not compute what torch does.
    """
    detector, config = loaded.detector, loaded.detector.config
    stages = []
    for spec, module in stage_specs(detector, single_graph):
        say(f"tracing {spec.name}", None)
        model = trace(spec, module, opset)
        say(f"simplifying {spec.name} ({len(model.graph.node)} nodes)", None)
        for transform in TRANSFORMS:
            model = transform(model)
        save(model, folder / f"{spec.name}.onnx")
        stages.append(_stage(spec))
        del model
    say("comparing with torch", None)
    manifest = Manifest(
        schema=SCHEMA,
        name=loaded.name,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=installed_versions(*DISTRIBUTIONS),
        source=loaded.source,
        model=config.as_dict(),
        audio=Audio(
            sample_rate=SAMPLE_RATE,
            normalize="per-window" if config.normalize_waveform else "none",
            window_samples=config.window_samples,
            min_samples=FRAME_FIELD,
            frame_hop=FRAME_HOP,
            frame_field=FRAME_FIELD,
            frames_reusable=not config.normalize_waveform,
        ),
        score=ScoreRule(
            bonafide_logit=config.bonafide_logit,
            meaning=f"logits[:, {config.bonafide_logit}], the bona fide logit: higher is more human",
        ),
        precision="fp32",
        files=[],
        stages=stages,
        parity=check_parity(detector, folder, stages, bound),
    )
    (folder / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
    for document in loaded.documents:  # a card written by hand replaces the one above
        shutil.copyfile(document, folder / document.name)
    return manifest


def _stage(spec: StageSpec) -> Stage:
    def tensor(name: str, shape: Iterable[int | str]) -> Tensor:
        return Tensor(name=name, type="float32", shape=list(shape))

    return Stage(
        name=spec.name,
        file=f"{spec.name}.onnx",
        precision="fp32",
        inputs=[tensor(spec.input, spec.input_shape)],
        outputs=[tensor(spec.output, spec.output_shape)],
    )


def open_checkpoint(
    checkpoint: str | None,
    untold: Untold,
    opset: int,
    single_graph: bool,
    bound: float,
    say: Say,
) -> Checkpoint:
    """What `--checkpoint` names, loaded, and ready to be written; raises CheckpointError."""
    loaded = load_source(checkpoint, untold)

    def write(folder: Path) -> Manifest:
        return export_onnx(loaded, folder, opset, single_graph, bound, say)

    return Checkpoint(loaded.name, loaded.source.random, write)
