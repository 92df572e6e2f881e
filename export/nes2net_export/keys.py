"""Names of the official state dicts, as explicit tables: official key <-> parameter of our modules.

The official repositories name the front-end `ssl_model.model.*` (fairseq, WavLM) or `ssl_model.model.model.*`
(WavLM through s3prl), the layer aggregation `ssl_model.*` and the back-end `Nested_Res2Net_TDNN.*`.
"""

import re

from nes2net_export.models.config import Aggregation, ModelConfig

FRONT_END = "ssl_model.model."
FRONT_END_S3PRL = "ssl_model.model.model."
AGGREGATION = "ssl_model."
BACK_END = "Nested_Res2Net_TDNN."

# A row names a module, whose tensors have one of these endings, or (WHOLE) one tensor.
WEIGHT = (".weight",)
WEIGHT_BIAS = (".weight", ".bias")
BATCH_NORM = (".weight", ".bias", ".running_mean", ".running_var")
WHOLE = ("",)

# {i} is a layer of the feature encoder or of the transformer.
CONV = {"feature_extractor.conv_layers.{i}.0": "encoder.layers.{i}.conv"}
CONV_NORM = {"feature_extractor.conv_layers.{i}.2.1": "encoder.layers.{i}.norm"}
CONTEXT = {
    "layer_norm": "context.network.input_norm",
    "post_extract_proj": "context.network.projection",
    "encoder.pos_conv.0": "context.network.positional.conv",  # weight: folded from weight_g and weight_v
    "encoder.layer_norm": "context.network.norm",
}
TRANSFORMER_LAYER = {
    "encoder.layers.{i}.self_attn.q_proj": "context.network.layers.{i}.attention.query",
    "encoder.layers.{i}.self_attn.k_proj": "context.network.layers.{i}.attention.key",
    "encoder.layers.{i}.self_attn.v_proj": "context.network.layers.{i}.attention.value",
    "encoder.layers.{i}.self_attn.out_proj": "context.network.layers.{i}.attention.output",
    "encoder.layers.{i}.self_attn_layer_norm": "context.network.layers.{i}.attention_norm",
    "encoder.layers.{i}.fc1": "context.network.layers.{i}.expand",
    "encoder.layers.{i}.fc2": "context.network.layers.{i}.contract",
    "encoder.layers.{i}.final_layer_norm": "context.network.layers.{i}.feed_forward_norm",
}
WAVLM_GATE = {"encoder.layers.{i}.self_attn.grep_linear": "context.network.layers.{i}.attention.gate.linear"}
WAVLM_GATE_SCALE = {"encoder.layers.{i}.self_attn.grep_a": "context.network.layers.{i}.attention.gate.scale"}
WAVLM_BIAS = {  # one table, in layer 0, for all layers
    "encoder.layers.0.self_attn.relative_attention_bias": "context.network.position_bias.embedding",
}
AGGREGATIONS: dict[Aggregation, dict[str, str]] = {
    "last": {},
    "weighted-sum": {"weight_hidd": "context.aggregation.weight"},
    "sea": {
        "fc_att_merge.0.weight": "context.aggregation.squeeze.weight",
        "fc_att_merge.2.weight": "context.aggregation.excite.weight",
    },
    "attm": {
        "W": "context.aggregation.embed",
        "W1": "context.aggregation.squeeze",
        "W2": "context.aggregation.excite",
        "linear_proj.weight": "context.aggregation.projection.weight",
        "linear_proj.bias": "context.aggregation.projection.bias",
    },
}
# {g} is a group of the outer Res2Net, {i} a split of the block inside it.
GROUP = {
    "Build_in_Res2Nets.{g}.conv1": "backend.blocks.{g}.reduce",
    "Build_in_Res2Nets.{g}.conv3": "backend.blocks.{g}.expand",
    "Build_in_Res2Nets.{g}.se.se.1": "backend.blocks.{g}.se.squeeze",
    "Build_in_Res2Nets.{g}.se.se.3": "backend.blocks.{g}.se.excite",
}
GROUP_NORMS = {
    "Build_in_Res2Nets.{g}.bn1": "backend.blocks.{g}.reduce_norm",
    "Build_in_Res2Nets.{g}.bn3": "backend.blocks.{g}.expand_norm",
    "bns.{g}": "backend.norms.{g}",
}
SPLIT = {"Build_in_Res2Nets.{g}.convs.{i}": "backend.blocks.{g}.convs.{i}"}
SPLIT_NORM = {"Build_in_Res2Nets.{g}.bns.{i}": "backend.blocks.{g}.norms.{i}"}
SPLIT_SUM = {"Build_in_Res2Nets.{g}.weighted_sum.{i}": "backend.blocks.{g}.sums.{i}"}
HEAD = {"fc": "backend.classifier"}
HEAD_NORM = {"bn": "backend.norm"}
ASTP = {"pooling.linear1": "backend.pooling.embed", "pooling.linear2": "backend.pooling.attend"}

POS_CONV_GAIN = "encoder.pos_conv.0.weight_g"
POS_CONV_DIRECTION = "encoder.pos_conv.0.weight_v"

# Known, and unused at inference: pre-training heads, the mask embedding, batch norm's step counters.
UNUSED = re.compile(
    r"ssl_model\.model\.(model\.)?(mask_emb|quantizer\.vars|quantizer\.weight_proj\.(weight|bias)"
    r"|project_q\.(weight|bias)|final_proj\.(weight|bias))"
    r"|Nested_Res2Net_TDNN\..*\.num_batches_tracked"
)


def front_end_prefix(config: ModelConfig) -> str:
    """The official prefix: s3prl wraps WavLM once more, and only it merges layers."""
    return FRONT_END if config.aggregation == "last" else FRONT_END_S3PRL


def key_table(config: ModelConfig) -> dict[str, str]:
    """Every official key that inference uses -> parameter or buffer of `models.detector.Detector`.

    The positional convolution's `weight` stands for the official pair `weight_g`, `weight_v`.
    """
    table: dict[str, str] = {}
    prefix = front_end_prefix(config)

    def add(prefix: str, rows: dict[str, str], ends: tuple[str, ...], **index: int) -> None:
        for official, ours in rows.items():
            for end in ends:
                table[prefix + official.format(**index) + end] = ours.format(**index) + end

    for i in range(len(config.conv_channels)):
        add(prefix, CONV, WEIGHT_BIAS if config.conv_bias else WEIGHT, i=i)
        add(prefix, CONV_NORM, WEIGHT_BIAS, i=i)
    add(prefix, CONTEXT, WEIGHT_BIAS)
    for i in range(config.layers):
        add(prefix, TRANSFORMER_LAYER, WEIGHT_BIAS, i=i)
        if config.family == "wavlm":
            add(prefix, WAVLM_GATE, WEIGHT_BIAS, i=i)
            add(prefix, WAVLM_GATE_SCALE, WHOLE, i=i)
    if config.family == "wavlm":
        add(prefix, WAVLM_BIAS, WEIGHT)
    add(AGGREGATION, AGGREGATIONS[config.aggregation], WHOLE)

    for g in range(config.outer_splits - 1):
        add(BACK_END, GROUP, WEIGHT_BIAS, g=g)
        add(BACK_END, GROUP_NORMS, BATCH_NORM, g=g)
        for i in range(config.inner_splits - 1):
            add(BACK_END, SPLIT, WEIGHT_BIAS, g=g, i=i)
            add(BACK_END, SPLIT_NORM, BATCH_NORM, g=g, i=i)
            if config.backend == "nes2net-x":
                add(BACK_END, SPLIT_SUM, WHOLE, g=g, i=i)
    add(BACK_END, HEAD, WEIGHT_BIAS)
    add(BACK_END, HEAD_NORM, BATCH_NORM)
    if config.pooling == "astp":
        add(BACK_END, ASTP, WEIGHT_BIAS)
    return table
