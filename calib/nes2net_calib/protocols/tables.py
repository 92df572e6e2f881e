"""Lists with commas and a header: our own CSV, and In-the-Wild's, which is nearly the same.

Ours has the columns file and label, and may have system, speaker, split and condition; others are ignored.
A file is relative to the audio folder, or absolute; its text is the trial's id.
"""

import csv
import re
from collections.abc import Iterator, Sequence

from nes2net_calib.protocols.records import Format, Problem, Row, row_or_problem

MORE = ("system", "speaker", "split", "condition")


def _header(lines: Sequence[str]) -> list[str]:
    first = next((line for line in lines if line.strip()), "")
    try:
        return [name.strip().lower() for name in next(csv.reader([first], strict=True), [])]
    except csv.Error:
        return []


def _recognise(lines: Sequence[str]) -> bool:
    return {"file", "label"} <= set(_header(lines))


def _recognise_in_the_wild(lines: Sequence[str]) -> bool:
    published = _header(lines) == ["file", "speaker", "label"]
    return published and any(re.match(r"\d+\.wav,", line) for line in lines)


def _parse(lines: Sequence[str]) -> Iterator[Row | Problem]:
    header = _header(lines)
    reader = csv.reader(lines, strict=True)
    seen_header = False
    while True:
        number = reader.line_num + 1  # where the row begins: a quoted cell may span lines
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Problem(number, f"not CSV, perhaps a quote that is never closed ({error})")
            continue
        if not any(cell.strip() for cell in cells):
            continue
        if not seen_header:
            seen_header = True
        elif len(cells) != len(header):
            until = f", up to line {reader.line_num}" if reader.line_num > number else ""
            yield Problem(number, f"{len(cells)} columns instead of {len(header)}{until}")
        else:
            row = dict(zip(header, cells, strict=True))
            more = {name: row.get(name, "").strip() for name in MORE}
            yield row_or_problem(number, row["file"], row["label"].strip(), **more)


def _parse_in_the_wild(lines: Sequence[str]) -> Iterator[Row | Problem]:
    """Ids without .wav, as the official scores have them (Nes2Net_ASVspoof_ITW, Cal_EER_in_the_wild.py)."""
    for row in _parse(lines):
        yield row._replace(id=row.id.removesuffix(".wav")) if isinstance(row, Row) else row


CSV = Format(
    "CSV",
    "a header of its own, file,label[,system,speaker,split,condition], then clip.wav,bonafide",
    _recognise,
    _parse,
    suffixes=("",),
)

# Layout: the same script; labels are bona-fide and spoof, the audio lies beside meta.csv.
IN_THE_WILD = Format(
    "In-the-Wild",
    "the header file,speaker,label, then 0.wav,Alec Guinness,spoof",
    _recognise_in_the_wild,
    _parse_in_the_wild,
    folders=("", "release_in_the_wild"),
)
