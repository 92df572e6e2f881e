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
from nes2net_export.quantisers import Quantiser, for_cpus, for_engines
from nes2net_export.sensitivity import (
    HALF_AIM,
    SAME_AIM,
    Chosen,
    float16_islands,
    overflowing,
    quantised_nodes,
)
from nes2net_export.transforms import float16, rounding
from nes2net_runtime.bundle import MANIFEST, Bundle, sha256
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.errors import BundleError, ParityError
from nes2net_runtime.inference.providers import DISTRIBUTIONS as RUNTIMES
from nes2net_runtime.manifest import Manifest, Precision, StageName

Form = Literal["fp16", "int8", "int4", "int8-fp16"]  # the last for GPU engines: float16 for what is not INT8
PRECISIONS: dict[Form, Precision] = {"fp16": "fp16", "int8": "int8", "int4": "int4", "int8-fp16": "int8"}
DISTRIBUTIONS = ("nes2net-edge", "onnx", *RUNTIMES)
# The back-end is 0.1 % of the work, and statistics pooling subtracts nearly equal numbers: it stays as it is.
HEAVY: frozenset[StageName] = frozenset({"encoder", "context", "detector"})


def derive(
    parent: Bundle,
    folder: Path,
    title: str,
    form: Form,
    block: int | None,
    probe: Probe,
    max_drift: float | None,
    say: Say,
) -> Manifest:
    """Fill `folder` with the derived bundle, all but its manifest, which is returned without its files.

    `block`: weights that share a scale in INT4. `max_drift` bounds the mean drift of scores (None:
    drift.BOUNDS). Random weights mean nothing, so there everything is converted and the drift is only
    recorded. Raises BundleError for a parent that is not float32, ParityError where the drift is past its
    bound.
    """
    old = parent.manifest
    if old.precision != "fp32":
        raise BundleError(
            f"{parent.path}: is {old.precision}; other precisions are made from a float32 bundle"
        )
    parent.verify()
    precision = PRECISIONS[form]
    bound = None if old.source.random else max_drift or BOUNDS[precision]
    models = {stage.name: onnx.load(parent.path / stage.file) for stage in old.stages}
    heavy = HEAVY & models.keys()

    say("float32", 0.0)
    before = score_models(old, models, probe.compare, partial(say, "float32"))
    derived = {**models}
    precisions: dict[StageName, Precision] = dict.fromkeys(models, "fp32")
    kept: list[str] = []
    if form != "fp16":
        say("ranges of activations", None)
        quantiser = _quantiser(old, models, heavy, form, block, probe)
        chosen = _quantised(old, models, quantiser, probe, bound, say)
        if not any(quantiser.four_bit[n] & of if form == "int4" else of for n, of in chosen.items()):
            raise ParityError(
                f"no part of {parent.path} stands {precision.upper()}: scores would differ by more than the "
                f"bound ({bound}); no bundle was written"
            )
        for name, nodes in chosen.items():
            kept += [f"{name}/{node}" for node in quantiser.nodes[name] if node not in nodes]
            if nodes:
                derived[name] = quantiser.convert(name, nodes)
                precisions[name] = "int4" if nodes & quantiser.four_bit[name] else "int8"
    measured = {**derived}
    if form in ("fp16", "int8-fp16"):
        say("overflow of float16", None)
        islands = _islands(old, models, heavy, form, probe, bound, say)
        kept += [name for name in heavy - islands.keys() if precisions[name] == "fp32"]
        for name, operators in islands.items():
            kept += [f"{name}/{operator}" for operator in operators]
            derived[name] = float16.apply(derived[name], operators)
            measured[name] = rounding.apply(derived[name])
            if precisions[name] == "fp32":
                precisions[name] = "fp16"
    after = score_models(old, measured, probe.compare, partial(say, f"scores in {precision}"))

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
        stages=[replace(stage, precision=precisions[stage.name]) for stage in old.stages],
        drift=drift,
        engines=[],
        calibration=old.calibration if kept_calibration else None,
        streaming=old.streaming if kept_calibration else None,
        files=[],
    )
    _copy_documents(parent, folder, manifest)
    return manifest


def _quantiser(
    manifest: Manifest,
    models: Models,
    heavy: frozenset[StageName],
    form: Form,
    block: int | None,
    probe: Probe,
) -> Quantiser:
    if form == "int8-fp16":
        return for_engines(manifest, models, heavy, probe)
    speech = probe.bonafide is not None or manifest.source.random
    return for_cpus(manifest, models, heavy, probe, block, speech)


def _quantised(
    manifest: Manifest, models: Models, quantiser: Quantiser, probe: Probe, bound: float | None, say: Say
) -> Chosen:
    if bound is None:
        return {stage: {*nodes} for stage, nodes in quantiser.nodes.items()}
    return quantised_nodes(manifest, models, quantiser, probe, bound, say)


def _islands(
    manifest: Manifest,
    models: Models,
    heavy: frozenset[StageName],
    form: Form,
    probe: Probe,
    bound: float | None,
    say: Say,
) -> Chosen:
    """The stages that become float16, each with what stays float32 in it."""
    if bound is None:
        return overflowing(manifest, models, heavy, probe)
    if form == "int8-fp16":  # beside 8 bits, float16 changes little
        bound = min(bound, BOUNDS["fp16"])
    labelled = form == "fp16" and probe.bonafide is not None
    aim = bound * (SAME_AIM if labelled else HALF_AIM)
    return float16_islands(manifest, models, heavy, probe, bound, aim, say)


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
