"""What a protocol holds, and what a reader of one format is."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Spans = tuple[tuple[float, float], ...]  # start and end in seconds

LABELS = {"bonafide": True, "bona-fide": True, "spoof": False, "deepfake": False}  # as the sets spell them


@dataclass(frozen=True)
class Trial:
    """One labelled utterance."""

    id: str  # unique within the protocol
    path: Path  # of the audio, which is there
    bonafide: bool
    system: str | None  # attack id; None: bona fide, or not told
    speaker: str | None
    split: str | None  # as the list names it
    condition: str | None  # codec, data set...: what metrics per condition group by; each format says which
    line: int  # of the list, from 1
    spoofed: Spans  # PartialSpoof: synthetic spans; () otherwise


@dataclass(frozen=True)
class Protocol:
    """A list that was read, its audio found."""

    name: str  # of the file
    format: str  # "ASVspoof 2019 LA"
    sha256: str  # of the file
    trials: tuple[Trial, ...]  # in the list's order
    missing: tuple[str, ...]  # one line for each problem that was left out
    split: str | None = None  # that was chosen, perhaps "all"; None: what the official scoring counts
    uncounted: int = 0  # trials left out since the official scoring does not count them
    counted: str = ""  # which ones it counts

    @property
    def title(self) -> str:
        """The list's name and split, for people."""
        return self.name if self.split is None else f"{self.name}, split {self.split}"


class Row(NamedTuple):
    """A line of a list, before its audio is looked for."""

    line: int
    id: str
    bonafide: bool
    system: str | None
    speaker: str | None
    split: str | None
    condition: str | None


class Problem(NamedTuple):
    """Why a line can't be used."""

    line: int
    reason: str
    file: str = ""  # where it is not the list itself

    def __str__(self) -> str:
        return f"{self.file}{self.file and ' '}line {self.line}: {self.reason}"


Recogniser = Callable[[Sequence[str]], bool]  # from all lines of a list
Parser = Callable[[Sequence[str]], Iterator[Row | Problem]]
SpanReader = Callable[[Sequence[Path]], tuple[Mapping[str, Spans], Sequence[Problem]]]


@dataclass(frozen=True)
class Format:
    """How one data set writes its lists and where it keeps its audio."""

    name: str
    example: str  # a line of it
    recognise: Recogniser
    parse: Parser
    folders: tuple[str, ...] = ("",)  # that may hold the audio, from the audio folder
    suffixes: tuple[str, ...] = (".flac", ".wav")  # of the audio, after the id
    root: str = "."  # of the unpacked data set, from the folder of its lists
    counts: Callable[[Row], bool] = lambda row: True  # in the official scoring
    counted: str = ""  # the same in words
    spans: SpanReader = lambda folders: ({}, ())  # synthetic spans by id, from files near the audio


def row_or_problem(
    line: int, id: str, label: str, system: str, speaker: str, split: str, condition: str
) -> Row | Problem:
    """A row of cells as they are written: "-" or nothing is None; a bona fide trial has no system."""
    bonafide = LABELS.get(label)
    if bonafide is None:
        return Problem(line, f"unknown label {label!r} (known: {', '.join(LABELS)})")
    if not id:
        return Problem(line, "names no file")
    told = ["-" if bonafide else system, speaker, split, condition]
    return Row(line, id, bonafide, *(None if cell in ("", "-") else cell for cell in told))
