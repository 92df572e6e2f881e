"""Reading a protocol: which format it is, which trials count, where their audio is, and all that is wrong."""

import hashlib
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Sequence
from pathlib import Path, PurePath

from nes2net_calib.protocols import columns, tables
from nes2net_calib.protocols.audio_files import finder
from nes2net_calib.protocols.records import Format, Problem, Protocol, Row, Trial
from nes2net_runtime.errors import ProtocolError
from nes2net_runtime.records import printable

FORMATS = (
    tables.IN_THE_WILD,
    tables.CSV,
    columns.ASVSPOOF_2021_DF,
    columns.ASVSPOOF_2021_LA,
    columns.ASVSPOOF_5,
    columns.ASVSPOOF_5_METADATA,
    columns.CTRSVDD,
    columns.PARTIALSPOOF,
    columns.ASVSPOOF_2019,
)
ALL = "all"  # as a split: every trial of the list, also those that the official scoring leaves out
SHOWN = 20
NOT_UTF8 = "not UTF-8; save it as UTF-8 text"


def read_protocol(
    path: Path, audio: Path | None = None, split: str | None = None, partial: bool = False
) -> Protocol:
    """Read a list of labelled trials and find their audio.

    Audio is looked for in the folder `audio` and the usual folders of the data set below it; without it in
    the list's own folder and where the data set, unpacked as published, has it. Without a `split` the trials
    are those that the official scoring counts (ASVspoof 2021: the partition eval; CtrSVDD: no A14, no
    ACESinger), all in other formats; a split is one by the list's own name, or "all".
    Raises ProtocolError with every problem, a line each; `partial` leaves those trials out and says so in
    `missing`, and raises where nothing is left.
    """
    data = _read(path)
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in data[:4]:
        raise ProtocolError(f"{path}: {NOT_UTF8} (this looks like UTF-16)")
    if audio is not None and not audio.is_dir():
        raise ProtocolError(f"{audio}: no such folder with audio")
    lines, problems = _decode(data)
    format = _format_of(path, lines, problems)
    rows: dict[str, Row] = {}
    for item in format.parse(lines):
        if isinstance(item, Problem):
            problems.append(item)
        elif item.id in rows:
            problems.append(Problem(item.line, f"{item.id!r} again, first in line {rows[item.id].line}"))
        else:
            rows[item.id] = item
    chosen = _choose(path, list(rows.values()), format, split)

    bases = [path.parent, path.parent / format.root] if audio is None else [audio]
    folders = list(dict.fromkeys(base / name for base in bases for name in format.folders))
    find = finder(folders, format.suffixes)
    spans, damaged = format.spans(bases)
    problems += damaged
    trials, unheard = [], False
    for row in chosen:
        if "/" in row.id and ".." in PurePath(row.id).parts:
            problems.append(Problem(row.line, f"{row.id!r} leads out of the audio folder"))
        elif (found := find(row.id)) is None:
            problems.append(Problem(row.line, f"no audio for {row.id!r}"))
            unheard = True
        else:
            trials.append(Trial(row.id, found, *row[2:], row.line, spans.get(row.id, ())))
    problems.sort(key=lambda problem: (problem.file, problem.line))
    if problems and not (partial and trials):
        raise ProtocolError(_listed(path, problems, partial) + (_places(folders, format) if unheard else ""))
    if not trials:
        raise ProtocolError(f"{path}: holds no trials")
    return Protocol(
        printable(path.name),
        format.name,
        hashlib.sha256(data).hexdigest(),
        tuple(trials),
        tuple(map(str, problems)),
        split,
        len(rows) - len(chosen) if split is None else 0,
        format.counted,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ProtocolError(f"{path}: can't be read ({error.strerror})") from error


def _decode(data: bytes) -> tuple[list[str], list[Problem]]:
    """Lines, with an empty one in the place of each that is not UTF-8."""
    lines = list(io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", errors="surrogateescape"))
    problems = []
    for i, line in enumerate(lines):
        if not line.isascii() and any("\udc80" <= character <= "\udcff" for character in line):
            problems.append(Problem(i + 1, "not UTF-8"))
            lines[i] = "\n"
    return lines, problems


def _format_of(path: Path, lines: Sequence[str], problems: Sequence[Problem]) -> Format:
    first = next((line.strip() for line in lines if line.strip()), None)
    if first is None:
        raise ProtocolError(f"{path}: {NOT_UTF8 if problems else 'holds no trials'}")
    for format in FORMATS:
        if format.recognise(lines):
            return format
    known = "".join(f"\n  {format.name}: {format.example}" for format in FORMATS)
    raise ProtocolError(
        f"{path}: not a list that is known; its first line is {first[:100]!r}; known are:{known}"
    )


def _choose(path: Path, rows: Sequence[Row], format: Format, split: str | None) -> Sequence[Row]:
    if split == ALL or not rows:
        return rows
    if split is None:
        chosen = [row for row in rows if format.counts(row)]
        wanted = "trial that the official scoring counts"
    else:
        chosen = [row for row in rows if row.split == split]
        wanted = f"split {split!r}"
    if not chosen:
        there = [*sorted({row.split for row in rows if row.split}), ALL]
        raise ProtocolError(f"{path}: no {wanted}; splits here: {', '.join(there)}")
    return chosen


def _listed(path: Path, problems: Sequence[Problem], partial: bool) -> str:
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    remedy = "and nothing else" if partial else "correct the list, or leave these out with --partial"
    lines = [f"{path}: {count}, {remedy}:", *(f"  {problem}" for problem in problems[:SHOWN])]
    if len(problems) > SHOWN:
        lines.append(f"  ... and {len(problems) - SHOWN} more")
    return "\n".join(lines)


def _places(folders: Sequence[Path], format: Format) -> str:
    there = ", ".join(str(folder) for folder in folders if folder.is_dir())
    return f"\naudio was looked for in {there} (NAME{', NAME'.join(format.suffixes)})"
