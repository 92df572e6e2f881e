"""A whole detector, in the three stages that a bundle holds."""

from torch import Tensor, nn

from nes2net_export.models.aggregation import build_aggregation
from nes2net_export.models.config import ModelConfig
from nes2net_export.models.context import ContextNetwork
from nes2net_export.models.encoder import FeatureEncoder
from nes2net_export.models.nes2net import Nes2Net


class Context(nn.Module):
    """Context network and layer aggregation."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.network = ContextNetwork(config)
        self.aggregation = build_aggregation(config)

    def forward(self, frames: Tensor) -> Tensor:
        """[batch, frames, channels] -> features [batch, frames, width]."""
        return self.aggregation(self.network(frames))


class Detector(nn.Module):
    """encoder -> context -> backend; the caller normalises the waveform where the configuration says so."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = FeatureEncoder(config)
        self.context = Context(config)
        self.backend = Nes2Net(config)

    def forward(self, waveform: Tensor) -> Tensor:
        """[batch, samples] -> [batch, logits]."""
        return self.backend(self.context(self.encoder(waveform)))
