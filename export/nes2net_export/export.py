"""The whole way: a detector in torch -> verified ONNX stages -> a bundle."""

import shutil
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from pathlib import Path

import onnx

from nes2net_export.card import model_card
from nes2net_export.models.config import FRAME_FIELD, FRAME_HOP
from nes2net_export.parity import BOUND, check_parity
from nes2net_export.source import Loaded
from nes2net_export.trace import StageSpec, stage_specs, trace
from nes2net_export.transforms import simplify
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.bundle_writer import list_files, new_bundle, write_manifest
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.manifest import (
    SCHEMA,
    Audio,
    Manifest,
    ScoreRule,
    Stage,
    Tensor,
)
from nes2net_runtime.sessions import DISTRIBUTIONS as RUNTIMES

EXTERNAL_BYTES = 1 << 24  # larger weights go to FILE.data, where they can be mapped into memory
DISTRIBUTIONS = ("nes2net-edge", "torch", "onnx", "onnxscript", "onnxsim", *RUNTIMES)


def export_onnx(
    loaded: Loaded,
    target: Path,
    opset: int,
    single_graph: bool = False,
    force: bool = False,
    bound: float = BOUND,
    progress: Callable[[str], None] = lambda step: None,
) -> Manifest:
    """Write the bundle `target`, whole or not at all.

    Raises BundleError where it can't be written, ParityError where the stages do not compute what torch does.
    """
    detector, config = loaded.detector, loaded.detector.config
    with new_bundle(target, force) as folder:
        stages = []
        for spec, module in stage_specs(detector, single_graph):
            progress(f"tracing {spec.name}")
            model = trace(spec, module, opset)
            nodes = len(model.graph.node)
            progress(f"simplifying {spec.name} ({nodes} nodes)")
            model = simplify.apply(model)
            save(model, folder / f"{spec.name}.onnx")
            stages.append(_stage(spec))
            del model
        progress("comparing with torch")
        parity = check_parity(detector, folder, stages, bound)
        progress("hashing")
        manifest = Manifest(
            schema=SCHEMA,
            name=target.name.removesuffix(".nes2net"),
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
            parity=parity,
        )
        (folder / "MODEL_CARD.md").write_text(model_card(manifest), encoding="utf-8")
        for document in loaded.documents:  # a card written by hand replaces the one above
            shutil.copyfile(document, folder / document.name)
        manifest = manifest.with_files(list_files(folder))
        write_manifest(folder, manifest)
    return manifest


def save(model: onnx.ModelProto, path: Path) -> None:
    """Write a checked model; large weights beside it as FILE.data."""
    weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if weights > EXTERNAL_BYTES:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data")
        (path.parent / f"{path.name}.data").chmod(path.stat().st_mode)  # onnx makes it private
    else:
        onnx.save(model, path)
    onnx.checker.check_model(path, full_check=True)


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
