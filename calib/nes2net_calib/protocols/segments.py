"""PartialSpoof's segment labels: which spans of an utterance are synthetic.

Read from the RTTM files that the data set's own metrics use, `<set>/con_data/rttm_2cls_0sil` and
`rttm_2cls_0sil_spoof` (nii-yamagishilab/PartialSpoof, metric/README.md), ten columns a line:

    SPEAKER CON_D_0000000 1 0.52 1.30 <NA> <NA> spoof <NA> <NA>     (start and length in seconds)

`segment_labels/*.npy` hold pickles, which are never opened.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from nes2net_calib.protocols.records import Problem, Spans

NAMES = ("rttm_2cls_0sil", "rttm_2cls_0sil_spoof")
FOLDERS = ("", "con_data", "../con_data", "train/con_data", "dev/con_data", "eval/con_data")


def read_spans(bases: Sequence[Path]) -> tuple[Mapping[str, Spans], Sequence[Problem]]:
    """Synthetic spans in seconds by utterance, of the label files at or near these folders, if any."""
    files: dict[Path, Path] = {}  # one for each folder that has some
    for file in (base / folder / name for base in bases for folder in FOLDERS for name in NAMES):
        if file.is_file():
            files.setdefault(file.parent.resolve(), file)
    spans: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    problems = []
    for file in files.values():
        for number, line in enumerate(file.read_text("utf-8", errors="replace").split("\n"), 1):
            if not line.strip():
                continue
            try:
                _, id, _, start, length, _, _, label, _, _ = line.split()
                begin, end = float(start), round(float(start) + float(length), 5)
                if not 0 <= begin < end < math.inf:
                    raise ValueError
            except ValueError:
                problems.append(Problem(number, "not ten RTTM columns with a start and a length", str(file)))
                continue
            if label == "spoof":
                spans[id].append((begin, end))
    return {id: tuple(sorted(times)) for id, times in spans.items()}, problems
