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


# Official defaults of the families: dilation, waveform normalisation, window, logits (bona fide is the last).
DEFAULTS: dict[Recipe, tuple[int, bool, int, int]] = {
    "itw": (2, False, 64_600, 2),  # Nes2Net_ASVspoof_ITW, main: XLS-R
    "asvspoof5": (1, False, 64_600, 2),  # its branch asvspoof5: WavLM
    "ctrsvdd": (1, True, 64_000, 1),  # Nes2Net: WavLM through s3prl
}
XLSR_HEADS = 16  # of every XLS-R; WavLM's are read from `grep_a`


def recognise(state: StateDict) -> Recipe:
    """Tell the three official families apart by their keys."""
    if not any(key.startswith(BACK_END) for key in state):
        example = next(iter(state), "no key at all")
        raise CheckpointError(
            f"not a Nes2Net detector: no key starts with {BACK_END!r} (first key: {example})"
        )
    if any(key.startswith(f"{FRONT_END_S3PRL}encoder.layers.") for key in state):
        return "ctrsvdd"
    layers = [key for key in state if key.startswith(f"{FRONT_END}encoder.layers.")]
    if layers:
        return "asvspoof5" if any(".grep_" in key for key in layers) else "itw"
    raise CheckpointError(f"not a Nes2Net detector: no front-end under {FRONT_END!r} or {FRONT_END_S3PRL!r}")


def infer_config(state: StateDict, untold: Untold = Untold()) -> ModelConfig:
    """Read a detector's configuration from an official state dict.

    Raises CheckpointError where a key that decides something is missing or contradicts another.
    """
    recipe = recognise(state)
    dilation, normalize, window, logits = DEFAULTS[recipe]
    prefix = FRONT_END_S3PRL if recipe == "ctrsvdd" else FRONT_END

    def shape(key: str, dimensions: int) -> tuple[int, ...]:
        if key not in state:
            raise CheckpointError(f"key missing: {key}")
        sizes = tuple(state[key].shape)
        if len(sizes) != dimensions or 0 in sizes:
            raise CheckpointError(f"{key} is {list(sizes)}, expected {dimensions} dimensions, none empty")
        return sizes

    def some(prefix: str) -> bool:
        return any(key.startswith(prefix) for key in state)

    def count(prefix: str) -> int:
        """How many consecutive numbers, from 0, follow `prefix` in some key."""
        expression = re.compile(re.escape(prefix) + r"(\d+)\.")
        found = {int(m.group(1)) for key in state if (m := expression.match(key))}
        for n in range(len(found)):
            if n not in found:
                raise CheckpointError(f"keys missing: {prefix}{n}.*")
        return len(found)

    if f"{prefix}feature_extractor.conv_layers.0.2.weight" in state:
        raise CheckpointError(
            "a feature encoder with group norm (wav2vec 2.0 or WavLM Base); "
            "only layer-norm models fit (XLS-R, WavLM Large)"
        )
    convs = [shape(f"{prefix}feature_extractor.conv_layers.{i}.0.weight", 3) for i in range(7)]
    width = shape(f"{prefix}post_extract_proj.weight", 2)[0]
    grouped = shape(prefix + POS_CONV_DIRECTION, 3)  # [width, width / groups, kernel]
    wavlm = recipe != "itw"
    heads = shape(f"{prefix}encoder.layers.0.self_attn.grep_a", 4)[1] if wavlm else XLSR_HEADS
    if wavlm and untold.attention_heads not in (None, heads):
        raise CheckpointError(f"this WavLM has {heads} attention heads, not {untold.attention_heads}")
    heads = untold.attention_heads or heads
    if width % heads:
        raise CheckpointError(
            f"{heads} attention heads do not divide the width {width}: give --attention-heads"
        )
    bias_table = f"{prefix}encoder.layers.0.self_attn.relative_attention_bias.weight"
    buckets = shape(bias_table, 2)[0] if wavlm else 0

    aggregation = _aggregation(state) if recipe == "ctrsvdd" else "last"
    bottleneck_key = {"sea": "fc_att_merge.0.weight", "attm": "W2"}.get(aggregation)

    group = shape(f"{BACK_END}bns.0.weight", 1)[0]
    if width % group:
        raise CheckpointError(f"{BACK_END}bns.0.weight is [{group}], which does not divide the width {width}")
    pooling_bottleneck = f"{BACK_END}pooling.linear1.weight"
    astp = some(f"{BACK_END}pooling.")
    if (found := shape(f"{BACK_END}fc.weight", 2)[0]) != logits:
        raise CheckpointError(f"{found} logits, where detectors of this family ({recipe}) have {logits}")
    block = f"{BACK_END}Build_in_Res2Nets.0."
    return ModelConfig(
        family="wavlm" if wavlm else "wav2vec2",
        conv_channels=tuple(c[0] for c in convs),
        conv_bias=any(f"{prefix}feature_extractor.conv_layers.{i}.0.bias" in state for i in range(7)),
        width=width,
        layers=count(f"{prefix}encoder.layers."),
        attention_heads=heads,
        feed_forward=shape(f"{prefix}encoder.layers.0.fc1.weight", 2)[0],
        pos_conv_kernel=grouped[2],
        pos_conv_groups=grouped[0] // grouped[1],
        aggregation=aggregation,
        aggregation_bottleneck=shape(AGGREGATION + bottleneck_key, 2)[0] if bottleneck_key else 0,
        backend="nes2net-x" if some(f"{block}weighted_sum.") else "nes2net",
        outer_splits=width // group,
        inner_splits=1 + count(f"{block}convs."),
        se_bottleneck=shape(f"{block}se.se.1.weight", 3)[0],
        pooling="astp" if astp else "mean",
        pooling_bottleneck=shape(pooling_bottleneck, 3)[0] if astp else 0,
        logits=logits,
        bonafide_logit=logits - 1,
        dilation=untold.dilation or dilation,
        activation=untold.activation or "relu",
        normalize_waveform=normalize if untold.normalize_waveform is None else untold.normalize_waveform,
        window_samples=window,
        relative_buckets=buckets,
        relative_max_distance=800 if wavlm else 0,
    )


def _aggregation(state: StateDict) -> Aggregation:
    for name, keys in AGGREGATIONS.items():
        if any(AGGREGATION + key in state for key in keys):
            return name
    raise CheckpointError("no layer aggregation: no key of SEA, WeightedSum or AttM")


def load_detector(state: StateDict, config: ModelConfig) -> Detector:
    """Build the detector of `config` in evaluation mode with these weights, as float32.

    Every key is loaded, or known and unused. One CheckpointError names what is missing, unknown or misshapen.
    """
    used = {key: tensor for key, tensor in state.items() if not UNUSED.fullmatch(key)}
    _require_numbers(used)
    state = fold_weight_norm(state, front_end_prefix(config))
    table = key_table(config)
    detector = Detector(config)
    ours = detector.state_dict()
    # Nes2Net-X: the sums (1, 1, 1, n) are vectors here
    tensors = {
        key: state[key].squeeze((0, 1, 2))
        if ".weighted_sum." in key and state[key].dim() == 4
        else state[key]
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
    if not norm.all():
        raise CheckpointError(f"{prefix}{POS_CONV_DIRECTION} is zero at a tap: no direction")
    folded[f"{prefix}encoder.pos_conv.0.weight"] = (gain.to(torch.float64) * direction / norm).float()
    return folded


def _require_numbers(state: StateDict) -> None:
    """Raise CheckpointError unless all tensors are dense, real and finite, and variances not negative."""
    odd = [
        k
        for k, t in state.items()
        if t.layout != torch.strided or t.is_quantized or not t.is_floating_point()
    ]
    if odd:
        raise CheckpointError(f"{len(odd)} tensors are not dense floating-point numbers: {_some(odd)}")
    infinite = [key for key, tensor in state.items() if not tensor.float().isfinite().all()]
    if infinite:
        raise CheckpointError(f"{len(infinite)} tensors hold NaN or infinity: {_some(infinite)}")
    negative = [key for key, tensor in state.items() if key.endswith(".running_var") and (tensor < 0).any()]
    if negative:
        raise CheckpointError(f"{len(negative)} variances are negative: {_some(negative)}")


def _some(keys: list[str], limit: int = 3) -> str:
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
