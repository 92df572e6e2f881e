"""Which nodes can be float16 or INT8, and which have to stay float32: measured, on scores.

float16 is measured with a GPU's roundings (transforms/rounding.py), which a CPU would hide.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nes2net_export.drift import Models, mean_drift, score_models
from nes2net_export.onnx_files import save
from nes2net_export.output import Say
from nes2net_export.probe import Probe
from nes2net_export.transforms import float16, quantize_linear, rounding, taps
from nes2net_export.transforms.graph import element_types, readers
from nes2net_runtime.audio import normalize
from nes2net_runtime.manifest import Manifest, StageName
from nes2net_runtime.ort_sessions import cpu_session
from nes2net_runtime.threads import usable_threads

Chosen = dict[StageName, set[str]]  # operator types and names of nodes, by stage

OVERFLOW = 65504 / 4  # a quarter of float16's largest: other audio may get larger inside than this
HEARD = 8  # windows that overflow is looked for on
COMPARED = 40  # windows that choices are measured on
AIM = 0.75  # of the bound: other audio may drift more
LEAST_GAIN = 0.9  # a further island must bring the drift below this share of what it was
CLIP = 99.99  # percentile of |x| in a window that INT8 reaches up to; beyond, it clips


def float16_islands(
    manifest: Manifest, models: Models, half: frozenset[StageName], probe: Probe, bound: float, say: Say
) -> Chosen:
    """What stays float32 in the stages of `half`, which become float16; `models` are all stages, in float32.

    First what overflows. Then, while scores drift by more than AIM of `bound`, the operator type that helps
    most, in all stages.
    """
    windows = probe.compare[:COMPARED]

    def drift_of(islands: Chosen, what: str) -> float:
        derived = {**models}
        for stage in half:
            derived[stage] = rounding.apply(float16.apply(models[stage], islands[stage]))
        advance = _part(say, f"float16: {what}")
        return mean_drift(before, score_models(manifest, derived, windows, advance))

    def with_type(operator: str) -> Chosen:
        return {stage: {*nodes, operator} for stage, nodes in islands.items()}

    before = score_models(manifest, models, windows, _part(say, "float32"))
    islands = overflowing(manifest, models, half, probe)
    drift = drift_of(islands, "all nodes")
    operators = {node.op_type for stage in half for node in models[stage].graph.node} - rounding.MOVES
    while drift > AIM * bound and operators:
        drifts = {o: drift_of(with_type(o), f"{o} in float32") for o in sorted(operators)}
        best = min(drifts, key=lambda operator: drifts[operator])
        if not drifts[best] < LEAST_GAIN * drift:
            break
        islands, drift = with_type(best), drifts[best]
        operators.discard(best)
    return islands


def overflowing(manifest: Manifest, models: Models, half: frozenset[StageName], probe: Probe) -> Chosen:
    """Nodes that make or read a tensor which gets near float16's largest value, of each stage in `half`."""
    found: Chosen = {stage: set() for stage in half}
    made = {
        stage.name: [n for node in models[stage.name].graph.node for n in node.output if n]
        for stage in manifest.stages
    }
    for stage, tensors in _inside(manifest, models, made, probe, HEARD):
        if stage in half:
            large = {name for name, values in tensors.items() if np.abs(values).max(initial=0) > OVERFLOW}
            reading = readers(models[stage].graph)
            makers = {n.name for n in models[stage].graph.node if large.intersection(n.output)}
            found[stage] |= makers | {node.name for name in large for node in reading[name]}
    return found


def int8_nodes(
    manifest: Manifest,
    models: Models,
    largest: Mapping[StageName, Mapping[str, float]],
    probe: Probe,
    bound: float,
    say: Say,
) -> Chosen:
    """The nodes that can be INT8, by stage. Those with weights of one shape, in one stage, go together.

    Each group is measured alone; then they join, the least harmful first, while scores drift by no more than
    AIM of `bound`.
    """
    windows = probe.compare[:COMPARED]
    groups: defaultdict[tuple[StageName, str, tuple[int, ...]], list[str]] = defaultdict(list)
    for stage in largest:
        shapes = {tensor.name: tuple(tensor.dims) for tensor in models[stage].graph.initializer}
        for node in quantize_linear.quantisable(models[stage]):
            groups[stage, node.op_type, shapes[node.input[1]]].append(node.name)

    def drift_of(chosen: Chosen, what: str) -> float:
        derived = {**models}
        for stage, names in chosen.items():
            derived[stage] = quantize_linear.apply(models[stage], largest[stage], names)
        return mean_drift(before, score_models(manifest, derived, windows, _part(say, f"int8: {what}")))

    before = score_models(manifest, models, windows, _part(say, "float32"))
    alone = {g: drift_of({g[0]: set(names)}, " ".join(map(str, g))) for g, names in groups.items()}
    chosen: Chosen = {stage: set() for stage in largest}
    for group in sorted(alone, key=lambda group: alone[group]):
        if alone[group] > AIM * bound:
            break
        more = {**chosen, group[0]: chosen[group[0]] | set(groups[group])}
        if drift_of(more, f"with {' '.join(map(str, group))}") <= AIM * bound:
            chosen = more
    return chosen


def largest_inputs(
    manifest: Manifest, models: Models, stages: frozenset[StageName], probe: Probe
) -> dict[StageName, dict[str, float]]:
    """|value| that INT8 reaches up to, of each input of a quantisable node: CLIP's, the mean over windows."""
    read = {
        stage.name: [n.input[0] for n in quantize_linear.quantisable(models[stage.name])]
        if stage.name in stages
        else []
        for stage in manifest.stages
    }
    found: defaultdict[StageName, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for stage, tensors in _inside(manifest, models, read, probe, len(probe.calibrate)):
        for name, values in tensors.items():
            found[stage][name].append(float(np.percentile(np.abs(values), CLIP)))
    return {stage: {n: float(np.mean(v)) for n, v in found[stage].items()} for stage in stages}


def _inside(
    manifest: Manifest, models: Models, wanted: Mapping[StageName, list[str]], probe: Probe, count: int
) -> Iterator[tuple[StageName, dict[str, Any]]]:
    """Float tensors inside each stage, by name, for each of the first `count` windows to calibrate on."""
    windows = [window[None] for window in probe.calibrate[:count]]
    if manifest.audio.normalize == "per-window":
        windows = [normalize(window) for window in windows]
    with tempfile.TemporaryDirectory() as scratch:
        for stage in manifest.stages:
            types = element_types(models[stage.name])
            source, target = stage.inputs[0].name, stage.outputs[0].name
            names = [n for n in dict.fromkeys(wanted[stage.name]) if types.get(n) == onnx.TensorProto.FLOAT]
            inner = [name for name in names if name not in (source, target)]
            path = Path(scratch) / f"{stage.name}.onnx"
            save(taps.apply(models[stage.name], inner), path, check=False)  # taps have no shapes
            session = cpu_session(path, usable_threads())
            for i, window in enumerate(windows):
                output, *values = session.run([target, *inner], {source: window})
                tensors = {source: window, target: output, **dict(zip(inner, values, strict=True))}
                windows[i] = output
                yield stage.name, {name: tensors[name] for name in names}
            path.unlink()
            path.with_name(f"{path.name}.data").unlink(missing_ok=True)


def _part(say: Say, what: str) -> Callable[[float], None]:
    return lambda share: say(what, share)
