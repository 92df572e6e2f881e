"""What `--checkpoint` names -> a detector with its weights, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nes2net_export.checkpoints import DEMO, DEMO_DOCUMENTS, read_checkpoint
from nes2net_export.models.detector import Detector
from nes2net_export.random_models import random_detector
from nes2net_export.state_dict import Untold, infer_config, load_detector
from nes2net_runtime.errors import CheckpointError
from nes2net_runtime.manifest import (
    Source,
)


@dataclass(frozen=True)
class Loaded:
    """A detector with its weights, and what is known of them."""

    detector: Detector
    source: Source
    name: str  # for its bundle
    documents: tuple[Path, ...] = ()  # that go with the weights: licence, model card


def load_source(checkpoint: str | None, untold: Untold) -> Loaded:
    """Load FILE, hf:REPO[/FILE], random:NAME, or with None the demo detector; raises CheckpointError.

    `untold` does not apply to random:NAME, whose shape is fixed.
    """
    if checkpoint is not None and checkpoint.startswith("random:"):
        name = checkpoint.removeprefix("random:")
        source = Source(checkpoint=checkpoint, sha256=None, random=True)
        return Loaded(random_detector(name), source, f"random-{name}")
    if checkpoint == "":
        raise CheckpointError("--checkpoint is empty: name a file, or leave it out for the demo detector")
    read = read_checkpoint(str(DEMO) if checkpoint is None else checkpoint)
    try:
        config = infer_config(read.state, _with_metadata(untold, read.metadata))
        detector = load_detector(read.state, config)
    except CheckpointError as error:
        raise CheckpointError(f"{read.name}: {error}") from error
    source = Source(checkpoint=read.name, sha256=read.sha256, random=False)
    return Loaded(detector, source, Path(read.name).stem, DEMO_DOCUMENTS if checkpoint is None else ())


def _with_metadata(untold: Untold, metadata: Mapping[str, str]) -> Untold:
    """Options win; then what a .safetensors file says of itself."""
    if untold.attention_heads is None and "attention_heads" in metadata:
        heads = metadata["attention_heads"]
        if not heads.isdecimal() or int(heads) < 1:
            raise CheckpointError(f"its metadata says attention_heads={heads!r}, not a number of heads")
        return replace(untold, attention_heads=int(heads))
    return untold
