"""Lists with a fixed number of columns between spaces or tabs, without a header.

Columns are counted from 0; each format names the source that its columns were checked against.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from nes2net_calib.protocols.records import LABELS, Format, Parser, Problem, Recogniser, Row, row_or_problem
from nes2net_calib.protocols.segments import read_spans


@dataclass(frozen=True)
class Columns:
    """Which column says what."""

    count: int
    speaker: int
    id: int
    system: int
    label: int
    ids: tuple[str, ...]  # how ids begin; in a list of mixed ids one line is enough
    condition: int | None = None
    split: int | None = None
    uncoded: str = "-"  # the condition where the list has "-"


def _recognise(columns: Columns, lines: Sequence[str]) -> bool:
    return any(
        len(cells := line.split()) == columns.count
        and cells[columns.label] in LABELS
        and cells[columns.id].startswith(columns.ids)
        for line in lines
    )


def _parse(columns: Columns, lines: Sequence[str]) -> Iterator[Row | Problem]:
    for number, line in enumerate(lines, 1):
        cells = line.split()
        if not cells:
            continue
        if len(cells) != columns.count:
            yield Problem(number, f"{len(cells)} columns instead of {columns.count}")
            continue
        condition = "-" if columns.condition is None else cells[columns.condition]
        yield row_or_problem(
            number,
            cells[columns.id],
            cells[columns.label],
            system=cells[columns.system],
            speaker=cells[columns.speaker],
            split="-" if columns.split is None else cells[columns.split],
            condition=columns.uncoded if condition == "-" else condition,
        )


def _reader(columns: Columns) -> tuple[Recogniser, Parser]:
    return partial(_recognise, columns), partial(_parse, columns)


# Conditions are codecs; "-" is none, as LA 2021 writes it. Columns: nii-yamagishilab/AntiDeepfake,
# protocols/ASVspoof5.py, and for the codec the dataset card SpeechAntiSpoofingBenchmarks/ASVspoof5 (Hugging
# Face); folders: README.txt of the release (Zenodo 14498691).
ASVSPOOF_5 = Format(
    "ASVspoof 5",
    "D_4461 D_0000000169 F - - - AC1 A14 spoof -",
    *_reader(
        Columns(10, speaker=0, id=1, condition=3, system=7, label=8, ids=("T_", "D_", "E_"), uncoded="none")
    ),
    folders=("", "flac_T", "flac_D", "flac_E_eval"),
    root="..",
)

# The list of the challenge, which its baselines read. Columns: asvspoof-challenge/asvspoof5,
# Baseline-AASIST/data_utils.py (id and label); the others, as the organisers' SASV baseline names them:
# speaker, utterance, gender, codec, attack, spoofing.
ASVSPOOF_5_METADATA = Format(
    "ASVspoof 5 metadata",
    "T_4850 T_0000000000 F - A05 spoof",
    *_reader(
        Columns(6, speaker=0, id=1, condition=3, system=4, label=5, ids=("T_", "D_", "E_"), uncoded="none")
    ),
    folders=ASVSPOOF_5.folders,
    root="..",
)

# Conditions are codecs (LA) or compressions (DF). Official scoring takes the partition eval alone, not
# progress, nor the hidden track. Columns: asvspoof-challenge/2021, eval-package/config.py (p_names).
ASVSPOOF_2021_LA = Format(
    "ASVspoof 2021 LA",
    "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval",
    *_reader(Columns(8, speaker=0, id=1, condition=2, system=4, label=5, split=7, ids=("LA_E_",))),
    folders=("", "flac", "ASVspoof2021_LA_eval/flac"),
    counts=lambda row: row.split == "eval",
    counted="the partition eval alone",
)
ASVSPOOF_2021_DF = Format(
    "ASVspoof 2021 DF",
    "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -",
    *_reader(Columns(13, speaker=0, id=1, condition=2, system=4, label=5, split=7, ids=("DF_E_",))),
    folders=("", "flac", "ASVspoof2021_DF_eval/flac"),
    counts=lambda row: row.split == "eval",
    counted="the partition eval alone",
)

# Conditions are the data sets that the singers come from. Columns: SVDDChallenge/CtrSVDD_Utils, README.md;
# folders: CtrSVDD2024_Baseline, datasets.py. What counts is what Nes2Net's EER_minDCF.py reports last and the
# papers quote ("w/o ACE. B.F."): neither attack A14 nor anything of acesinger.
CTRSVDD = Format(
    "CtrSVDD",
    "jvsmusic CtrSVDD_0097 CtrSVDD_0097_D_0010993 - A06 deepfake",
    *_reader(Columns(6, condition=0, speaker=1, id=2, system=4, label=5, ids=("CtrSVDD_",))),
    folders=("", "train_set", "dev_set", "test_set"),
    counts=lambda row: row.system != "A14" and row.condition != "acesinger",
    counted="neither attack A14 nor anything of acesinger",
)

# Bona fide utterances have ASVspoof 2019's ids. Columns: bagustris/nkululeko,
# data/partialspoofing/process_database.py; folders: nii-yamagishilab/PartialSpoof, README.md.
PARTIALSPOOF = Format(
    "PartialSpoof",
    "LA_0079 CON_T_0000029 - CON spoof",
    *_reader(Columns(5, speaker=0, id=1, system=3, label=4, ids=("CON_",))),
    folders=("", "con_wav", "train/con_wav", "dev/con_wav", "eval/con_wav"),
    root="../..",
    spans=read_spans,
)

# Columns: Liu-Tianchi/Nes2Net_ASVspoof_ITW, data_utils_SSL.py; folders: its main.py.
ASVSPOOF_2019 = Format(
    "ASVspoof 2019 LA",
    "LA_0069 LA_D_1047731 - - bonafide",
    *_reader(Columns(5, speaker=0, id=1, system=3, label=4, ids=("LA_",))),
    folders=("", "flac", *(f"ASVspoof2019_LA_{part}/flac" for part in ("train", "dev", "eval"))),
    root="..",
)
