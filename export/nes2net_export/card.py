"""MODEL_CARD.md of a bundle: what it is, where it comes from, what it is not for."""

from nes2net_runtime.manifest import (
    Manifest,
)


def model_card(manifest: Manifest) -> str:
    """Markdown from the manifest alone."""
    m, model = manifest, manifest.model
    splits = f"{model['outer_splits']} x {model['inner_splits']}"
    weights = (
        "**Random weights.** For measuring speed and memory; its scores mean nothing."
        if m.source.random
        else f"Weights of `{m.source.checkpoint}` (SHA-256 `{m.source.sha256}`). What they were trained on, "
        "how well they do and under which licence is known to those who published them."
    )
    return f"""# {m.name}

A speech deepfake detector in the family of Nes2Net (arXiv 2504.05657), exported to ONNX by nes2net-edge.

{weights}

| | |
| --- | --- |
| front-end | {model["family"]}, {model["layers"]} layers of {model["width"]}, {model["aggregation"]} |
| back-end | {model["backend"]}, {splits} splits, {model["pooling"]} pooling |
| input | 16 kHz mono, normalised: {m.audio.normalize}, official window {m.audio.window_samples} samples |
| score | {m.score.meaning} |
| precision | {m.precision} |
| parity with torch | {m.parity.worst:.1e} relative at worst (bound {m.parity.bound:g}) |

## Not for

- Decisions about a person on a score alone. Detectors err most on voices, devices and synthesisers that they
  were not trained on, and a score says nothing of who speaks or what is said.
- Reading a score as a probability: it orders recordings, and a threshold has to be chosen on labelled audio
  like yours.
"""
