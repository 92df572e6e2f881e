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


def derived_card(parent: str, manifest: Manifest) -> str:
    """The parent's card, and what its figures do not say of this bundle."""
    drift = manifest.drift
    assert drift is not None
    lines = [
        f"{parent.rstrip()}",
        "",
        f"## This bundle is {manifest.precision}",
        "",
        "The figures above are of the float32 bundle that this one was made from. Its scores differ "
        f"by {drift.mean:.2g} of their standard deviation on average (at most {drift.largest:.2g}; rank "
        f"correlation {drift.correlation:.5f}), on {drift.windows} windows of {drift.audio}.",
    ]
    if drift.flips is not None:
        lines.append(f"Of decisions at the calibrated threshold, {100 * drift.flips:.1f} % changed.")
    if drift.eer is not None:
        lines.append(f"EER on them: {100 * drift.eer[0]:.1f} % before, {100 * drift.eer[1]:.1f} % after.")
    if drift.float32_nodes:
        lines.append(f"In float32 for accuracy: {', '.join(f'`{name}`' for name in drift.float32_nodes)}.")
    if manifest.calibration is None:
        lines.append("It has no calibration of its own yet: nes2net-calib makes one.")
    return "\n".join(lines) + "\n"
