"""A bundle in another precision from a float32 one: transforms, and how far scores drift. Needs no torch."""

import shutil
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Literal

import onnx
from msgspec.structs import replace

from nes2net_export.card import derived_card
from nes2net_export.drift import BOUNDS, Models, compare, keeps_calibration, score_models
from nes2net_export.onnx_files import save
from nes2net_export.output import Say
from nes2net_export.probe import Probe
from nes2net_export.sensitivity import Chosen, float16_islands, int8_nodes, largest_inputs, overflowing
from nes2net_export.transforms import float16, quantize_linear, rounding
from nes2net_runtime.bundle import MANIFEST, Bundle, sha256
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.errors import BundleError, ParityError
from nes2net_runtime.manifest import Manifest, Precision, StageName
from nes2net_runtime.providers import DISTRIBUTIONS as RUNTIMES

Form = Literal["fp16", "int8", "int8-fp16"]  # the last: INT8, and float16 for what is left, as GPUs want it
DISTRIBUTIONS = ("nes2net-edge", "onnx", *RUNTIMES)
# The back-end is 0.1 % of the work, and statistics pooling subtracts nearly equal numbers: it stays as it is.
HEAVY: frozenset[StageName] = frozenset({"encoder", "context", "detector"})


def derive(
    parent: Bundle, folder: Path, title: str, form: Form, probe: Probe, max_drift: float | None, say: Say
) -> Manifest:
    """Fill `folder` with the derived bundle, all but its manifest, which is returned without its files.

    `max_drift` bounds the mean drift of scores (None: drift.BOUNDS). Random weights mean nothing, so there
    everything is converted and the drift is only recorded. Raises BundleError for a parent that is not
    float32, ParityError where the drift is past its bound.
    """
    old = parent.manifest
    if old.precision != "fp32":
        raise BundleError(
            f"{parent.path}: is {old.precision}; other precisions are made from a float32 bundle"
        )
    parent.verify()
    precision: Literal["fp16", "int8"] = "fp16" if form == "fp16" else "int8"
    bound = None if old.source.random else max_drift or BOUNDS[precision]
    models = {stage.name: onnx.load(parent.path / stage.file) for stage in old.stages}
    heavy = HEAVY & models.keys()

    say("float32", 0.0)
    before = score_models(old, models, probe.compare, partial(say, "float32"))
    int8, islands = _choose(old, models, heavy, form, probe, bound, say)
    derived, measured = {**models}, {**models}
    precisions: dict[StageName, Precision] = dict.fromkeys(islands, "fp16")
    precisions |= {name: "int8" for name, (_, nodes) in int8.items() if nodes}
    if precision not in precisions.values():
        raise ParityError(
            f"no part of {parent.path} stands INT8: scores would differ by more than the bound ({bound}); "
            "no bundle was written"
        )
    for name, (largest, nodes) in int8.items():
        derived[name] = measured[name] = quantize_linear.apply(models[name], largest, nodes)
    for name, operators in islands.items():
        derived[name] = float16.apply(derived[name], operators)
        measured[name] = rounding.apply(derived[name])
    after = score_models(old, measured, probe.compare, partial(say, f"scores in {precision}"))

    kept = [f"{name}/{operator}" for name, operators in islands.items() for operator in operators]
    for name, (_, nodes) in int8.items():
        kept += [f"{name}/{n.name}" for n in quantize_linear.quantisable(models[name]) if n.name not in nodes]
    drift = compare(old, sha256(parent.path / MANIFEST), probe, before, after, bound, kept)
    kept_calibration = keeps_calibration(drift)
    say("writing", None)
    for stage in old.stages:
        save(derived[stage.name], folder / stage.file)
    manifest = replace(
        old,
        name=title,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=installed_versions(*DISTRIBUTIONS),
        precision=precision,
        stages=[replace(s, precision=precisions.get(s.name, "fp32")) for s in old.stages],
        drift=drift,
        engines=[],
        calibration=old.calibration if kept_calibration else None,
        streaming=old.streaming if kept_calibration else None,
        files=[],
    )
    _copy_documents(parent, folder, manifest)
    return manifest


def _choose(
    manifest: Manifest,
    models: Models,
    heavy: frozenset[StageName],
    form: Form,
    probe: Probe,
    bound: float | None,
    say: Say,
) -> tuple[dict[StageName, tuple[dict[str, float], set[str]]], Chosen]:
    """The INT8 nodes of each stage, with their inputs' ranges, and the float32 islands of float16 stages."""
    int8: dict[StageName, tuple[dict[str, float], set[str]]] = {}
    if form != "fp16":
        say("ranges of activations", None)
        largest = largest_inputs(manifest, models, heavy, probe)
        every = {s: {node.name for node in quantize_linear.quantisable(models[s])} for s in heavy}
        nodes = every if bound is None else int8_nodes(manifest, models, largest, probe, bound, say)
        int8 = {stage: (largest[stage], nodes[stage]) for stage in heavy}
    if form == "int8":
        return int8, {}
    say("overflow of float16", None)
    if bound is None:
        return int8, overflowing(manifest, models, heavy, probe)
    return int8, float16_islands(manifest, models, heavy, probe, min(bound, BOUNDS["fp16"]), say)


def _copy_documents(parent: Bundle, folder: Path, manifest: Manifest) -> None:
    """Licence, card and, where the calibration is kept, its reports; no graphs, no engines."""
    graphs = {stage.file for stage in parent.manifest.stages}
    for file in parent.manifest.files:
        top = Path(file.path).parts[0]
        if top in graphs | {f"{graph}.data" for graph in graphs} | {"engines"}:
            continue
        if top == "reports" and manifest.calibration is None:
            continue
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(parent.path / file.path, folder / file.path)
    card = folder / "MODEL_CARD.md"
    text = card.read_text(encoding="utf-8") if card.is_file() else ""
    card.write_text(derived_card(text, manifest), encoding="utf-8")
