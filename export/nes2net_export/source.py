"""What `--checkpoint` names -> a detector with its weights, and where it came from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from nes2net_export.checkpoints import DEMO, read_checkpoint
from nes2net_export.models.detector import Detector
from nes2net_export.random_models import random_detector
from nes2net_export.state_dict import Untold, infer_config, load_detector
from nes2net_runtime.bundle import Source
from nes2net_runtime.errors import CheckpointError


def load_source(checkpoint: str | None, untold: Untold) -> tuple[Detector, Source, str]:
    """FILE, hf:REPO[/FILE], random:NAME or None (the demo) -> detector, source, a name for its bundle."""
    if checkpoint is not None and checkpoint.startswith("random:"):
        if untold != Untold():
            raise CheckpointError(
                f"{checkpoint}: its shape is fixed; leave the options that describe a checkpoint out"
            )
        name = checkpoint.removeprefix("random:")
        return (
            random_detector(name),
            Source(checkpoint=checkpoint, sha256=None, random=True),
            f"random-{name}",
        )
    read = read_checkpoint(checkpoint or str(DEMO))
    try:
        config = infer_config(read.state, _with_metadata(untold, read.metadata))
        detector = load_detector(read.state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{read.name}: {error}") from error
    return detector, Source(checkpoint=read.name, sha256=read.sha256, random=False), Path(read.name).stem


def _with_metadata(untold: Untold, metadata: Mapping[str, str]) -> Untold:
    """Options win; then what a .safetensors file says of itself."""
    if untold.attention_heads is None and "attention_heads" in metadata:
        return replace(untold, attention_heads=int(metadata["attention_heads"]))
    return untold
