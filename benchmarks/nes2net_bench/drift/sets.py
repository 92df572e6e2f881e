"""What drift is measured on and against where nobody names it: two clips in pieces, and float16."""

from pathlib import Path

import soundfile
from platformdirs import user_cache_path

from nes2net_calib.progress import Say
from nes2net_calib.protocols import Protocol, read_protocol
from nes2net_export.make import Derivation, make_bundle
from nes2net_export.probe import signal_probe
from nes2net_runtime.audio import SAMPLE_RATE
from nes2net_runtime.bundle import MANIFEST, Bundle, read_bundle, sha256
from nes2net_runtime.commands import installed_versions
from nes2net_runtime.errors import BundleError, ProtocolError

CLIPS = {"human.flac": ("bonafide", "-"), "synthetic.flac": ("spoof", "synthetic")}
PIECE, STEP = 1.0, 0.125  # seconds
WARNING = (
    "pieces of one human and one synthetic clip: they show how far scores move, and nothing of error rates; "
    "--protocol FILE measures those"
)


def pieces(clips: Path, folder: Path) -> Protocol:
    """A list of overlapping pieces of the example clips, written to a folder; each is a trial.

    Raises ProtocolError where the clips are not there.
    """
    rows = ["file,label,system,speaker"]
    for name, (label, system) in CLIPS.items():
        if not (clips / name).is_file():
            raise ProtocolError(f"{clips / name}: no such clip; name a list with --protocol")
        samples, _ = soundfile.read(clips / name, dtype="int16")
        length, step = round(PIECE * SAMPLE_RATE), round(STEP * SAMPLE_RATE)
        for i, start in enumerate(range(0, len(samples) - length + 1, step)):
            piece = f"{Path(name).stem}-{i:03d}.flac"
            soundfile.write(folder / piece, samples[start : start + length], SAMPLE_RATE)
            rows.append(f"{piece},{label},{system},{Path(name).stem}")
    (folder / "pieces.csv").write_text("\n".join(rows) + "\n")
    return read_protocol(folder / "pieces.csv")


def float16_of(parent: Bundle, say: Say) -> Bundle:
    """The bundle in float16, made once, in the user's cache; raises BundleError where it is not float32."""
    if parent.manifest.precision != "fp32":
        raise BundleError(
            f"{parent.path}: is {parent.manifest.precision}; name what to compare it with: --candidate BUNDLE"
        )
    version = installed_versions("nes2net-edge").get("nes2net-edge", "unknown")
    place = user_cache_path("nes2net-edge") / "float16" / f"{version}-{sha256(parent.path / MANIFEST)[:16]}"
    target = place / f"{parent.manifest.name}-fp16.nes2net"
    if not target.is_dir():
        say(f"{parent.manifest.name} in float16: made, and kept in {target}")
        place.mkdir(parents=True, exist_ok=True)
        make_bundle(
            parent, target, Derivation("fp16", signal_probe, None), None, True, lambda what, share: None
        )
    return read_bundle(target)
