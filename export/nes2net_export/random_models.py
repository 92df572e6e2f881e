"""Full-size detectors with random weights: as large and as fast as real ones, and good for nothing else."""

from dataclasses import replace

import torch

from nes2net_export.models.config import ModelConfig
from nes2net_export.models.detector import Detector
from nes2net_runtime.errors import CheckpointError

# XLS-R 300M + Nes2Net-X as the ITW repository has it; WavLM large + SEA + Nes2Net-X as the CtrSVDD one.
XLSR_300M = ModelConfig(
    family="wav2vec2",
    conv_channels=(512,) * 7,
    conv_bias=True,
    width=1024,
    layers=24,
    attention_heads=16,
    feed_forward=4096,
    pos_conv_kernel=128,
    pos_conv_groups=16,
    aggregation="last",
    aggregation_bottleneck=0,
    backend="nes2net-x",
    outer_splits=8,
    inner_splits=8,
    se_bottleneck=128,
    pooling="mean",
    pooling_bottleneck=0,
    logits=2,
    bonafide_logit=1,
    dilation=2,
    activation="relu",
    normalize_waveform=False,
    window_samples=64_600,
)
WAVLM_LARGE = replace(
    XLSR_300M,
    family="wavlm",
    conv_bias=False,
    aggregation="sea",
    aggregation_bottleneck=8,
    logits=1,
    bonafide_logit=0,
    dilation=1,
    normalize_waveform=True,
    window_samples=64_000,
    relative_buckets=320,
    relative_max_distance=800,
)
RANDOM_MODELS = {"xlsr-300m": XLSR_300M, "wavlm-large": WAVLM_LARGE}


def random_detector(name: str) -> Detector:
    """A detector of RANDOM_MODELS with torch's default initialisation, seed 0."""
    if name not in RANDOM_MODELS:
        raise CheckpointError(f"random:{name}: there is random:{', random:'.join(RANDOM_MODELS)}")
    torch.manual_seed(0)
    return Detector(RANDOM_MODELS[name]).eval().requires_grad_(False)
