"""Which nodes can be float16 or integers, and which have to stay float32: measured, on scores.

float16 is measured with a GPU's roundings (transforms/rounding.py), which a CPU would hide.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np

from nes2net_export.activations import inside
from nes2net_export.drift import BOUNDS, Models, mean_drift, score_models
from nes2net_export.output import Say
from nes2net_export.probe import Probe
from nes2net_export.quantisers import Quantiser
from nes2net_export.transforms import float16, rounding
from nes2net_export.transforms.graph import readers
from nes2net_runtime.manifest import Manifest, StageName

Chosen = dict[StageName, set[str]]  # operator types and names of nodes, by stage

OVERFLOW = 65504 / 4  # a quarter of float16's largest: other audio may get larger inside than this
HEARD = 8  # windows that overflow is looked for on
COMPARED = 40  # windows that choices are measured on
AIM = 0.75  # of the bound: other audio may drift more
HALF_AIM = 0.5  # the same of float16, whose islands cost little
SAME_AIM = 0.05  # of float16 on labelled speech: hardly a decision in thousands may change
LEAST_GAIN = 0.9  # a further island must bring the drift below this share of what it was


def float16_islands(
    manifest: Manifest,
    models: Models,
    half: frozenset[StageName],
    probe: Probe,
    bound: float,
    aim: float,
    say: Say,
) -> Chosen:
    """What stays float32 in each stage that becomes float16; `models` are all stages, in float32.

    Those are the stages of `half`, but for an encoder that has to stay float32 as a whole. First what
    overflows is kept. Then, while scores drift by more than HALF_AIM of `bound`, the operator type that helps
    most, in all stages; products with weights of one shape, in one stage, are types of their own. Where `aim`
    is not reached so, the encoder: what its features tell apart can be less than a rounding of the waveform;
    and then of the other stages what is still missing.
    """
    windows = probe.compare[:COMPARED]

    def drift_of(islands: Chosen, what: str) -> float:
        derived = {**models}
        for stage, kept in islands.items():
            derived[stage] = rounding.apply(float16.apply(models[stage], kept))
        advance = _part(say, f"float16: {what}")
        return mean_drift(before, score_models(manifest, derived, windows, advance))

    def searched(islands: Chosen, drift: float, aim: float) -> tuple[Chosen, float]:
        """More islands, until `aim` is reached or none helps; and the drift with them."""
        kinds = _kinds(models, frozenset(islands)) if drift > aim else {}
        while drift > aim and kinds:
            tried = {kind: _joined(islands, kinds[kind]) for kind in sorted(kinds)}
            drifts = {kind: drift_of(tried[kind], f"{kind} in float32") for kind in tried}
            best = min(drifts, key=lambda kind: drifts[kind])
            if not drifts[best] < LEAST_GAIN * drift:
                break
            islands, drift = tried[best], drifts[best]
            del kinds[best]
        return islands, drift

    before = score_models(manifest, models, windows, _part(say, "float32"))
    overflows = overflowing(manifest, models, half, probe)
    islands, drift = searched(overflows, drift_of(overflows, "all nodes"), HALF_AIM * bound)
    others: Chosen = {stage: nodes for stage, nodes in overflows.items() if stage != "encoder"}
    if drift > aim and "encoder" in half and others:
        without, less = searched(others, drift_of(others, "encoder in float32"), aim)
        if less < LEAST_GAIN * drift:
            return without
    return islands


def _joined(islands: Chosen, more: Chosen) -> Chosen:
    return {stage: nodes | more.get(stage, set()) for stage, nodes in islands.items()}


def _kinds(models: Models, stages: frozenset[StageName]) -> dict[str, Chosen]:
    """Nodes that compute, by what they have in common: operator, stage and shape of weights."""
    kinds: defaultdict[str, Chosen] = defaultdict(dict)
    for stage in stages:
        weights = {tensor.name: tuple(tensor.dims) for tensor in models[stage].graph.initializer}
        for node in models[stage].graph.node:
            if node.op_type in rounding.MOVES:
                continue
            shape = weights.get(node.input[1]) if node.op_type in ("Conv", "MatMul") else None
            if shape is None:
                kinds[node.op_type].setdefault(stage, set()).add(node.op_type)
            else:
                kinds[_in_words((stage, shape))].setdefault(stage, set()).add(node.name)
    return kinds


def overflowing(manifest: Manifest, models: Models, half: frozenset[StageName], probe: Probe) -> Chosen:
    """Nodes that make or read a tensor which gets near float16's largest value, of each stage in `half`."""
    found: Chosen = {stage: set() for stage in half}
    made = {
        stage.name: [n for node in models[stage.name].graph.node for n in node.output if n]
        for stage in manifest.stages
    }
    for stage, tensors in inside(manifest, models, made, probe.calibrate[:HEARD]):
        if stage in half:
            large = {name for name, values in tensors.items() if np.abs(values).max(initial=0) > OVERFLOW}
            reading = readers(models[stage].graph)
            makers = {n.name for n in models[stage].graph.node if large.intersection(n.output)}
            found[stage] |= makers | {node.name for name in large for node in reading[name]}
    return found


def quantised_nodes(
    manifest: Manifest, models: Models, quantiser: Quantiser, probe: Probe, bound: float, say: Say
) -> Chosen:
    """The nodes that can be quantised, by stage: all, where scores then drift by little.

    Else those with weights of one shape, in one stage, go together: each group is measured alone; then they
    join, the least harmful first, while the drift allows it. Groups of 8 bits come first, within INT8's own
    bound: a larger one is for 4-bit weights, which bring memory.
    """
    windows = probe.compare[:COMPARED]
    groups: defaultdict[tuple[StageName, tuple[int, ...]], set[str]] = defaultdict(set)
    for stage, nodes in quantiser.nodes.items():
        for name, shape in nodes.items():
            groups[stage, shape].add(name)

    def drift_of(chosen: Chosen, what: str) -> float:
        derived = {**models}
        for stage, names in chosen.items():
            if names:
                derived[stage] = quantiser.convert(stage, names)
        return mean_drift(before, score_models(manifest, derived, windows, _part(say, f"integers: {what}")))

    before = score_models(manifest, models, windows, _part(say, "float32"))
    eight = AIM * min(bound, BOUNDS["int8"])
    every: Chosen = {stage: {*nodes} for stage, nodes in quantiser.nodes.items()}
    if drift_of(every, "all products") <= eight:
        return every
    alone = {group: drift_of({group[0]: names}, _in_words(group)) for group, names in groups.items()}
    four_bit = {group for group, names in groups.items() if names <= quantiser.four_bit[group[0]]}
    chosen: Chosen = {stage: set() for stage in quantiser.nodes}
    for some, most in ((groups.keys() - four_bit, eight), (four_bit, AIM * bound)):
        for group in sorted(some, key=lambda group: alone[group]):
            more = {**chosen, group[0]: chosen[group[0]] | groups[group]}
            if alone[group] <= most and drift_of(more, f"with {_in_words(group)}") <= most:
                chosen = more
    return chosen


def _in_words(group: tuple[StageName, tuple[int, ...]]) -> str:
    return f"{group[0]} {' x '.join(map(str, group[1]))}"


def _part(say: Say, what: str) -> Callable[[float], None]:
    return lambda share: say(what, share)
