"""Feature encoder of wav2vec 2.0 and WavLM: waveform -> one frame every 320 samples (20 ms).

Source: fairseq `models/wav2vec/wav2vec2.py` (ConvFeatureExtractionModel, mode "layer_norm") and WavLM's copy.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from nes2net_export.models.config import ModelConfig


class ConvLayer(nn.Module):
    """Strided convolution, layer norm over channels, GELU (the erf form)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, bias: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride, bias=bias)
        self.norm = nn.LayerNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).transpose(1, 2)  # [batch, channels, time] -> [batch, time, channels]
        return F.gelu(self.norm(x)).transpose(1, 2)


class FeatureEncoder(nn.Module):
    """Seven convolutions; frame i sees samples [320 i, 320 i + 400)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        inputs = (1, *config.conv_channels[:-1])
        shapes = zip(inputs, config.conv_channels, config.conv_kernels, config.conv_strides, strict=True)
        self.layers = nn.ModuleList(ConvLayer(*shape, bias=config.conv_bias) for shape in shapes)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> [batch, frames, channels]."""
        x = waveform.unsqueeze(1)
        for layer in self.layers:
            x = layer(x)
        return x.transpose(1, 2)
