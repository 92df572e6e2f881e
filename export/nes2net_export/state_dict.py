"""From an official state dict to a detector and back: nothing is guessed, nothing dropped in silence."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from nes2net_export.keys import (
    AGGREGATION,
    AGGREGATIONS,
    BACK_END,
    FRONT_END,
    FRONT_END_S3PRL,
    POS_CONV_DIRECTION,
    POS_CONV_GAIN,
    UNUSED,
    front_end_prefix,
    key_table,
)
from nes2net_export.models.config import Activation, Aggregation, ModelConfig
from nes2net_export.models.detector import Detector
from nes2net_runtime.errors import CheckpointError

StateDict = Mapping[str, Tensor]
Recipe = Literal["itw", "asvspoof5", "ctrsvdd"]


@dataclass(frozen=True)
class Untold:
    """What no key and no shape tells. None: the family's official default."""

    attention_heads: int | None = None
    dilation: int | None = None
    activation: Activation | None = None
    normalize_waveform: bool | None = None


# Official defaults of the families: dilation, waveform normalisation, window, index of the bona fide logit.
DEFAULTS: dict[Recipe, tuple[int, bool, int, int]] = {
    "itw": (2, False, 64_600, 1),  # Nes2Net_ASVspoof_ITW, main: XLS-R
    "asvspoof5": (1, False, 64_600, 1),  # its branch asvspoof5: WavLM
    "ctrsvdd": (1, True, 64_000, 0),  # Nes2Net: WavLM through s3prl
}
XLSR_HEADS = 16  # of every XLS-R; WavLM's are read from `grep_a`


def recognise(state: StateDict) -> Recipe:
    """Tell the three official families apart by their keys."""
    if not any(key.startswith(BACK_END) for key in state):
        example = next(iter(state), "no key at all")
        raise CheckpointError(
            f"not a Nes2Net detector: no key starts with {BACK_END!r} (first key: {example})"
        )
    if f"{FRONT_END}encoder.layers.0.fc1.weight" in state:
        gated = f"{FRONT_END}encoder.layers.0.self_attn.grep_a" in state
        return "asvspoof5" if gated else "itw"
    if f"{FRONT_END_S3PRL}encoder.layers.0.fc1.weight" in state:
        return "ctrsvdd"
    raise CheckpointError(f"not a Nes2Net detector: no front-end under {FRONT_END!r} or {FRONT_END_S3PRL!r}")


def infer_config(state: StateDict, untold: Untold = Untold()) -> ModelConfig:
    """Read a detector's configuration from an official state dict.

    Raises CheckpointError where a key that decides something is missing or contradicts another.
    """
    recipe = recognise(state)
    dilation, normalize, window, bonafide_logit = DEFAULTS[recipe]
    prefix = FRONT_END_S3PRL if recipe == "ctrsvdd" else FRONT_END

    def shape(key: str) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"key missing: {key}")
        return tuple(state[key].shape)

    def count(pattern: str) -> int:
        """How many consecutive numbers, from 0, stand for `{}` in some key."""
        expression = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
        found = {int(m.group(1)) for key in state if (m := expression.match(key))}
        return next(n for n in range(len(found) + 1) if n not in found)

    if f"{prefix}feature_extractor.conv_layers.0.2.weight" in state:
        raise CheckpointError(
            "a feature encoder with group norm (wav2vec 2.0 or WavLM Base); "
            "only layer-norm models fit (XLS-R, WavLM Large)"
        )
    convs = [shape(f"{prefix}feature_extractor.conv_layers.{i}.0.weight") for i in range(7)]
    width = shape(f"{prefix}post_extract_proj.weight")[0]
    grouped = shape(prefix + POS_CONV_DIRECTION)  # [width, width / groups, kernel]
    wavlm = recipe != "itw"
    heads = shape(f"{prefix}encoder.layers.0.self_attn.grep_a")[1] if wavlm else XLSR_HEADS
    if wavlm and untold.attention_heads not in (None, heads):
        raise CheckpointError(f"this WavLM has {heads} attention heads, not {untold.attention_heads}")
    heads = untold.attention_heads or heads
    if width % heads:
        raise CheckpointError(
            f"{heads} attention heads do not divide the width {width}: give --attention-heads"
        )
    buckets = shape(f"{prefix}encoder.layers.0.self_attn.relative_attention_bias.weight")[0] if wavlm else 0

    aggregation = _aggregation(state) if recipe == "ctrsvdd" else "last"
    bottleneck_key = {"sea": "fc_att_merge.0.weight", "attm": "W2"}.get(aggregation)

    group = shape(f"{BACK_END}bns.0.weight")[0]
    pooling_bottleneck = f"{BACK_END}pooling.linear1.weight"
    logits = shape(f"{BACK_END}fc.weight")[0]
    return ModelConfig(
        family="wavlm" if wavlm else "wav2vec2",
        conv_channels=tuple(c[0] for c in convs),
        conv_bias=f"{prefix}feature_extractor.conv_layers.0.0.bias" in state,
        width=width,
        layers=count(f"{prefix}encoder.layers.{{}}.fc1.weight"),
        attention_heads=heads,
        feed_forward=shape(f"{prefix}encoder.layers.0.fc1.weight")[0],
        pos_conv_kernel=grouped[2],
        pos_conv_groups=grouped[0] // grouped[1],
        aggregation=aggregation,
        aggregation_bottleneck=shape(AGGREGATION + bottleneck_key)[0] if bottleneck_key else 0,
        backend="nes2net-x" if f"{BACK_END}Build_in_Res2Nets.0.weighted_sum.0" in state else "nes2net",
        outer_splits=width // group,
        inner_splits=1 + count(f"{BACK_END}Build_in_Res2Nets.0.convs.{{}}.weight"),
        se_bottleneck=shape(f"{BACK_END}Build_in_Res2Nets.0.se.se.1.weight")[0],
        pooling="astp" if pooling_bottleneck in state else "mean",
        pooling_bottleneck=shape(pooling_bottleneck)[0] if pooling_bottleneck in state else 0,
        logits=logits,
        bonafide_logit=min(bonafide_logit, logits - 1),
        dilation=untold.dilation or dilation,
        activation=untold.activation or "relu",
        normalize_waveform=normalize if untold.normalize_waveform is None else untold.normalize_waveform,
        window_samples=window,
        relative_buckets=buckets,
        relative_max_distance=800 if wavlm else 0,
    )


def _aggregation(state: StateDict) -> Aggregation:
    for name, keys in AGGREGATIONS.items():
        if keys and AGGREGATION + next(iter(keys)) in state:
            return name
    raise CheckpointError("no layer aggregation: no key of SEA, WeightedSum or AttM")


def load_detector(state: StateDict, config: ModelConfig) -> Detector:
    """Build the detector of `config` in evaluation mode with these weights, as float32.

    Every key is loaded, or known and unused. One CheckpointError names what is missing, unknown or misshapen.
    """
    state = fold_weight_norm(state, front_end_prefix(config))
    table = key_table(config)
    detector = Detector(config)
    ours = detector.state_dict()
    # Nes2Net-X: the sums (1, 1, 1, n) are vectors here
    tensors = {
        key: state[key].reshape(-1) if ".weighted_sum." in key else state[key]
        for key in table
        if key in state
    }

    missing = [key for key in table if key not in state]
    unknown = [key for key in state if key not in table and not UNUSED.fullmatch(key)]
    misshapen = [
        f"{key} is {list(tensor.shape)}, expected {list(ours[table[key]].shape)}"
        for key, tensor in tensors.items()
        if tensor.shape != ours[table[key]].shape
    ]
    faults = [("missing", missing), ("unknown", unknown), ("of the wrong shape", misshapen)]
    if any(keys for _, keys in faults):
        raise CheckpointError(
            "; ".join(f"{len(keys)} keys {what}: {_some(keys)}" for what, keys in faults if keys)
        )
    nonfinite = [key for key, tensor in tensors.items() if not tensor.isfinite().all()]
    if nonfinite:
        raise CheckpointError(f"{len(nonfinite)} tensors hold NaN or infinity: {_some(nonfinite)}")

    weights = {table[key]: tensor.float().contiguous() for key, tensor in tensors.items()}
    detector.load_state_dict(
        {**ours, **weights}, assign=True
    )  # `ours` adds batch norm's unused step counters
    return detector.eval().requires_grad_(False)


def official_state_dict(detector: Detector) -> dict[str, Tensor]:
    """The detector's weights under the official keys (inverse of `load_detector`)."""
    ours = detector.state_dict()
    state = {key: ours[name].detach().contiguous() for key, name in key_table(detector.config).items()}
    for key in state:
        if ".weighted_sum." in key:
            state[key] = state[key].reshape(1, 1, 1, -1)
    prefix = front_end_prefix(detector.config)
    weight = state.pop(f"{prefix}encoder.pos_conv.0.weight")
    state[prefix + POS_CONV_GAIN] = weight.norm(dim=(0, 1), keepdim=True)
    state[prefix + POS_CONV_DIRECTION] = weight
    return state


def fold_weight_norm(state: StateDict, prefix: str) -> dict[str, Tensor]:
    """weight = g v / |v|, the norm over output and input channels (fairseq: weight_norm with dim=2)."""
    folded = dict(state)
    gain, direction = folded.pop(prefix + POS_CONV_GAIN, None), folded.pop(prefix + POS_CONV_DIRECTION, None)
    if gain is None or direction is None:
        raise CheckpointError(f"key missing: {prefix}{POS_CONV_GAIN if gain is None else POS_CONV_DIRECTION}")
    if gain.shape != (1, 1, direction.shape[-1]):
        raise CheckpointError(
            f"{prefix}{POS_CONV_GAIN} is {list(gain.shape)}, expected {[1, 1, direction.shape[-1]]}"
        )
    direction = direction.to(torch.float64)
    norm = direction.norm(dim=(0, 1), keepdim=True)
    folded[f"{prefix}encoder.pos_conv.0.weight"] = (gain.to(torch.float64) * direction / norm).float()
    return folded


def _some(keys: list[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
