"""Scores kept by the content of detector and audio: a run that was stopped goes on where it was."""

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
from platformdirs import user_cache_path

from nes2net_runtime.commands import installed_versions
from nes2net_runtime.inference.providers import DISTRIBUTIONS
from nes2net_runtime.manifest import (
    CalibrationRule,
    Manifest,
)


class Heard(msgspec.Struct, frozen=True, array_like=True):
    """The scores of one signal."""

    seconds: float  # of audio that each score is of
    scores: list[float]


class ScoreCache:
    """A file of JSON lines, [key, heard], that grows as scores come."""

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        """Read what is there; a last line that a killed run left unfinished is no line."""
        self.path, self.say, self.writable = path, say, True
        self.known: dict[str, Heard] = {}
        for line in _lines(path):
            with suppress(msgspec.DecodeError):
                key, heard = msgspec.json.decode(line, type=tuple[str, Heard])
                self.known[key] = heard

    def __contains__(self, key: str) -> bool:
        return key in self.known

    def __getitem__(self, key: str) -> Heard:
        return self.known[key]

    def add(self, key: str, heard: Heard) -> None:
        """Keep scores; where they can't be written, say so once and keep them for this run."""
        self.known[key] = heard
        if not self.writable:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as file:
                file.write(b"\n" + msgspec.json.encode((key, heard)))  # the line break ends a cut line, too
        except OSError as error:
            self.writable = False
            self.say(f"warning: {self.path}: scores are not kept for a later run ({error.strerror})")


def _lines(path: Path) -> list[bytes]:
    try:
        return path.read_bytes().splitlines()
    except OSError:
        return []


def cache_path(manifest: Manifest, provider: str, rule: CalibrationRule) -> Path:
    """In the user's cache folder, one file for all that a score depends on but the audio.

    Weights may have any name, so every file of the bundle counts but its reports.
    """
    files = sorted(file.sha256 for file in manifest.files if not file.path.startswith("reports/"))
    versions = installed_versions("nes2net-edge", *DISTRIBUTIONS)
    parts = [files, manifest.stages, manifest.audio, manifest.score.bonafide_logit, provider, rule, versions]
    name = hashlib.sha256(json.dumps(msgspec.to_builtins(parts)).encode()).hexdigest()[:32]
    return user_cache_path("nes2net-edge") / "scores" / f"{name}.jsonl"
