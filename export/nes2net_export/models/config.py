"""What shapes a detector: one frozen record, plain data, written into every bundle's manifest."""

from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

Family = Literal["wav2vec2", "wavlm"]
Aggregation = Literal["last", "weighted-sum", "sea", "attm"]
Backend = Literal["nes2net", "nes2net-x"]
Activation = Literal["relu", "selu"]
Pooling = Literal["mean", "astp"]

KERNELS = (10, 3, 3, 3, 3, 2, 2)  # of the feature encoder, in every wav2vec 2.0 and WavLM model
STRIDES = (5, 2, 2, 2, 2, 2, 2)
FRAME_FIELD: Final = 400  # samples that one frame sees
FRAME_HOP: Final = 320  # samples between frames


@dataclass(frozen=True)
class ModelConfig:
    """A Nes2Net detector: SSL front-end, layer aggregation, nested Res2Net back-end (arXiv 2504.05657).

    The first group is read from a state dict's shapes; `attention_heads` of wav2vec 2.0 models, `dilation`,
    `activation`, `normalize_waveform` and `window_samples` leave no trace there and have the family's
    official default.
    """

    family: Family
    conv_channels: tuple[int, ...]  # outputs of the feature encoder's seven convolutions
    conv_bias: bool  # XLS-R has biases, WavLM has none
    width: int
    layers: int
    attention_heads: int
    feed_forward: int
    pos_conv_kernel: int
    pos_conv_groups: int
    aggregation: Aggregation
    aggregation_bottleneck: int  # of SEA and AttM, else 0
    backend: Backend
    outer_splits: int  # Nes_ratio[0]
    inner_splits: int  # Nes_ratio[1]
    se_bottleneck: int
    pooling: Pooling
    pooling_bottleneck: int  # of ASTP, else 0
    logits: int
    bonafide_logit: int
    dilation: int
    activation: Activation
    normalize_waveform: bool  # each window to zero mean and unit variance, by the runtime
    window_samples: int  # the official protocol's
    conv_kernels: tuple[int, ...] = KERNELS
    conv_strides: tuple[int, ...] = STRIDES
    conv_norm: Literal["layer"] = "layer"
    relative_buckets: int = 0  # WavLM: 320
    relative_max_distance: int = 0  # WavLM: 800

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for the manifest."""
        return asdict(self)
