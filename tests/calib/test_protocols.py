"""Every published list format on a few hand-made lines, and everything that can be wrong with a list."""

import csv
import hashlib
import io
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nes2net_calib.protocols import read_protocol
from nes2net_runtime.errors import ProtocolError

SHARED = Path(__file__).parents[3] / "shared"

LA_2019 = "LA_0069 LA_D_1047731 - - bonafide\nLA_0070 LA_D_1000265 - A04 spoof\n"
LA_2021 = (
    "LA_0009 LA_E_9332881 alaw ita_tx A07 spoof notrim eval\n"
    "LA_0020 LA_E_7294490 none loc_tx bonafide bonafide notrim eval\n"
    "LA_0020 LA_E_7294491 g722 loc_tx bonafide bonafide notrim progress\n"
    "LA_0020 LA_E_7294492 g722 loc_tx bonafide bonafide trim hidden\n"
)
DF_2021 = (
    "LA_0023 DF_E_2000011 nocodec asvspoof A14 spoof notrim progress traditional_vocoder - - - -\n"
    "TEF2 DF_E_2000013 low_m4a vcc2020 Task1-team20 spoof notrim eval neural_vocoder Task1 team20 FF E\n"
    "LA_0023 DF_E_2000012 nocodec asvspoof - bonafide notrim eval bonafide - - - -\n"
)
ASVSPOOF_5 = (
    "D_0461 D_0000000190 M - - - - bonafide bonafide -\n"
    "E_4608 E_0000000024 M C11 4 E_0004890277 AC1 A24 spoof -\n"
)
ASVSPOOF_5_METADATA = "T_4850 T_0000000000 F - A05 spoof\nT_0461 T_0000000190 M - bonafide bonafide\n"
CTRSVDD = (
    "m4singer CtrSVDD_0110 CtrSVDD_0110_E_0015416 - - bonafide\n"
    "jvsmusic CtrSVDD_0097 CtrSVDD_0097_E_0010993 - A09 deepfake\n"
    "acesinger CtrSVDD_0115 CtrSVDD_0115_E_0000001 - - bonafide\n"
    "m4singer CtrSVDD_0116 CtrSVDD_0116_E_0000002 - A14 deepfake\n"
)
PARTIALSPOOF = "LA_0098 LA_T_9497115 - - bonafide\nLA_0079 CON_T_0000029 - CON spoof\n"
IN_THE_WILD = "file,speaker,label\n0.wav,Alec Guinness,spoof\n4.wav,Christopher Hitchens,bona-fide\n"
OURS = (
    "file,label,system,speaker,split,condition\na.wav,bonafide,-,ann,dev,wide\nb/c.flac,spoof,A1,bob,eval,\n"
)

# name: list, where its audio lies, bona fide ids, spoof ids, systems, conditions; what counts officially
FORMATS = {
    "ASVspoof 2019 LA": (
        LA_2019,
        ("LA/lists/x.txt", "LA/ASVspoof2019_LA_dev/flac/{}.flac"),
        {"LA_D_1047731": (True, None, None), "LA_D_1000265": (False, "A04", None)},
    ),
    "ASVspoof 2021 LA": (
        LA_2021,
        ("x.txt", "ASVspoof2021_LA_eval/flac/{}.flac"),
        {"LA_E_9332881": (False, "A07", "alaw"), "LA_E_7294490": (True, None, "none")},
    ),
    "ASVspoof 2021 DF": (
        DF_2021,
        ("x.txt", "flac/{}.flac"),
        {"DF_E_2000013": (False, "Task1-team20", "low_m4a"), "DF_E_2000012": (True, None, "nocodec")},
    ),
    "ASVspoof 5": (
        ASVSPOOF_5,
        ("ASVspoof5_protocols/x.tsv", "flac_D/{}.flac"),
        {"D_0000000190": (True, None, "none"), "E_0000000024": (False, "A24", "C11")},
    ),
    "ASVspoof 5 metadata": (
        ASVSPOOF_5_METADATA,
        ("ASVspoof5.train.metadata.txt", "flac_T/{}.flac"),
        {"T_0000000000": (False, "A05", "none"), "T_0000000190": (True, None, "none")},
    ),
    "CtrSVDD": (
        CTRSVDD,
        ("test.txt", "test_set/{}.flac"),
        {
            "CtrSVDD_0110_E_0015416": (True, None, "m4singer"),
            "CtrSVDD_0097_E_0010993": (False, "A09", "jvsmusic"),
        },
    ),
    "PartialSpoof": (
        PARTIALSPOOF,
        ("database/protocols/lists/x.txt", "database/train/con_wav/{}.wav"),
        {"LA_T_9497115": (True, None, None), "CON_T_0000029": (False, "CON", None)},
    ),
    "In-the-Wild": (
        IN_THE_WILD,
        ("meta.csv", "{}.wav"),
        {"0": (False, None, None), "4": (True, None, None)},
    ),
    "CSV": (
        OURS,
        ("lists/mine.csv", "lists/{}"),
        {"a.wav": (True, None, "wide"), "b/c.flac": (False, "A1", None)},
    ),
}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def problems(path: Path, **options: object) -> list[str]:
    """The lines of the error, without the file's path."""
    with pytest.raises(ProtocolError) as error:
        read_protocol(path, **options)
    first, *others = str(error.value).removeprefix(f"{path}: ").splitlines()
    return [first, *(line.strip() for line in others)]


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_is_found_by_content_and_its_audio_where_it_is_published(tmp_path: Path, name) -> None:
    content, (place, audio), expected = FORMATS[name]
    path = write(tmp_path / place, content)
    touch(*(tmp_path / audio.format(id) for id in expected))
    protocol = read_protocol(path)
    assert (protocol.name, protocol.format, protocol.missing) == (path.name, name, ())
    assert protocol.sha256 == hashlib.sha256(content.encode()).hexdigest()
    assert {t.id: (t.bonafide, t.system, t.condition) for t in protocol.trials} == expected
    for trial in protocol.trials:
        assert trial.path.samefile(tmp_path / audio.format(trial.id))
        assert trial.speaker in content.splitlines()[trial.line - 1]
        assert trial.id in content.splitlines()[trial.line - 1]


@pytest.mark.parametrize("name", FORMATS)
def test_an_audio_folder_is_looked_into_and_nowhere_else(tmp_path: Path, name) -> None:
    content, (place, audio), expected = FORMATS[name]
    path = write(tmp_path / "keys" / place, content)
    files = [tmp_path / "audio" / Path(audio.format(id)).name for id in expected]
    if name == "CSV":
        files[1] = tmp_path / "audio" / "b/c.flac"
    touch(*files)
    assert [t.path for t in read_protocol(path, tmp_path / "audio").trials] == files
    touch(*(tmp_path / "keys" / audio.format(id) for id in expected))
    (tmp_path / "empty").mkdir()
    lines = problems(path, audio=tmp_path / "empty")
    assert lines[0].startswith("2 problems, correct the list, or leave these out with --partial")
    assert lines[-1].startswith(f"audio was looked for in {tmp_path / 'empty'} (NAME")


def test_2021_counts_the_eval_partition_unless_another_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "trial_metadata.txt", LA_2021)
    touch(*(tmp_path / f"LA_E_{n}.flac" for n in (9332881, 7294490, 7294491, 7294492)))
    usual, everything = read_protocol(path), read_protocol(path, split="all")
    assert [t.split for t in usual.trials] == ["eval", "eval"]
    assert (usual.uncounted, usual.counted) == (2, "the partition eval alone")
    assert [t.id for t in read_protocol(path, split="progress").trials] == ["LA_E_7294491"]
    assert [t.id for t in read_protocol(path, split="hidden").trials] == ["LA_E_7294492"]
    assert (len(everything.trials), everything.uncounted) == (4, 0)
    assert problems(path, split="test") == ["no split 'test'; splits here: eval, hidden, progress, all"]
    write(path, LA_2021.splitlines()[2])
    assert problems(path) == ["no trial that the official scoring counts; splits here: progress, all"]


def test_ctrsvdd_leaves_out_a14_and_acesinger_unless_all_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "test.txt", CTRSVDD)
    ids = [line.split()[2] for line in CTRSVDD.splitlines()]
    touch(*(tmp_path / "test_set" / f"{id}.flac" for id in ids))
    assert [t.id for t in read_protocol(path).trials] == ids[:2]
    everything = read_protocol(path, split="all").trials
    assert [(t.id, t.system) for t in everything] == list(zip(ids, [None, "A09", None, "A14"], strict=True))


RTTM = (
    "SPEAKER CON_T_0000029 1 1.5 0.25 <NA> <NA> spoof <NA> <NA>\n"
    "SPEAKER CON_T_0000029 1 0.7 0.1 <NA> <NA> spoof <NA> <NA>\n"
    "SPEAKER CON_T_0000029 1 0 0.7 <NA> <NA> bonafide <NA> <NA>\n"
)


@pytest.mark.parametrize("name", ["rttm_2cls_0sil", "rttm_2cls_0sil_spoof"])
def test_partialspoof_spans_come_from_the_rttm_of_the_set(tmp_path: Path, name: str) -> None:
    database = tmp_path / "database"
    path = write(database / "protocols/PartialSpoof_LA_cm_protocols/x.txt", PARTIALSPOOF)
    touch(database / "train/con_wav/LA_T_9497115.wav", database / "train/con_wav/CON_T_0000029.wav")
    assert [t.spoofed for t in read_protocol(path).trials] == [(), ()]
    rttm = write(database / "train/con_data" / name, RTTM)
    for audio in (None, database, database / "train", database / "train/con_wav"):
        assert [t.spoofed for t in read_protocol(path, audio).trials] == [(), ((0.7, 0.8), (1.5, 1.75))]
    write(
        rttm, RTTM + "SPEAKER CON_T_0000029 1 2.5\nSPEAKER CON_T_0000029 1 2 nan <NA> <NA> spoof <NA> <NA>\n"
    )
    first, *others = problems(path, audio=database)
    assert first.startswith("2 problems")
    assert others == [
        f"{database / 'train/con_data' / name} line {n}: not ten RTTM columns with a start and a length"
        for n in (4, 5)
    ]


def test_all_that_is_wrong_is_reported_at_once_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.txt",
        "LA_0001 LA_D_1 - - bonafide\n"
        "\n"
        "LA_0001 LA_D_2 - A01 fake\n"
        "LA_0001 LA_D_1 - A01 spoof\n"
        "LA_0001 LA_D_3 - A01 spoof\n"
        "LA_0001 ../LA_D_1 - A01 spoof\n"
        "LA_0001 LA_D_4 - A0",
    )
    touch(tmp_path / "flac/LA_D_1.flac", tmp_path / "LA_D_1.flac")
    expected = [
        "line 3: unknown label 'fake' (known: bonafide, bona-fide, spoof, deepfake)",
        "line 4: 'LA_D_1' again, first in line 1",
        "line 5: no audio for 'LA_D_3'",
        "line 6: '../LA_D_1' leads out of the audio folder",
        "line 7: 4 columns instead of 5",
    ]
    first, *others = problems(path)
    assert first == "5 problems, correct the list, or leave these out with --partial:"
    assert others[:-1] == expected
    assert others[-1].startswith("audio was looked for in ")
    partial = read_protocol(path, partial=True)
    assert [(t.id, t.line, t.bonafide) for t in partial.trials] == [("LA_D_1", 1, True)]
    assert list(partial.missing) == expected


def test_a_csv_with_everything_wrong(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.csv",
        b"\xef\xbb\xbfFile, Label ,note\r\n"
        b'"a,1.wav",bonafide,"two\r\nlines"\r\n'
        b"b.wav,spoof\r\n"
        b",spoof,\r\n"
        b"caf\xe9.wav,spoof,\r\n"
        b",,\r\n"
        b'"c"d,spoof,\r\n'
        b"d.wav,real,x\r\n"
        b'e.wav,spoof,"open\r\n'
        b"f.wav,spoof,x\r\n",
    )
    touch(tmp_path / "a,1.wav", tmp_path / "f.wav")
    expected = [
        "line 4: 2 columns instead of 3",
        "line 5: names no file",
        "line 6: not UTF-8",
        "line 8: not CSV, perhaps a quote that is never closed (',' expected after '\"')",
        "line 9: unknown label 'real' (known: bonafide, bona-fide, spoof, deepfake)",
        "line 10: not CSV, perhaps a quote that is never closed (unexpected end of data)",
    ]
    assert problems(path)[1:] == expected
    partial = read_protocol(path, partial=True)
    assert [(t.id, t.line) for t in partial.trials] == [("a,1.wav", 2)]
    assert list(partial.missing) == expected


def test_only_the_first_twenty_problems_are_listed(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "".join(f"LA_0001 LA_D_{n} - - bonafide\n" for n in range(50)))
    first, *others = problems(path)
    assert first.startswith("50 problems")
    assert len(others) == 22
    assert others[19:21] == ["line 20: no audio for 'LA_D_19'", "... and 30 more"]


def test_partial_with_nothing_left_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", LA_2019)
    assert problems(path, partial=True)[0] == "2 problems, and nothing else:"
    write(path, LA_2019.replace("bonafide", "good").replace(" spoof", "") + "LA_1 LA_D_1 - A01 spoof")
    assert problems(path, partial=True)[1:4] == [
        "line 1: unknown label 'good' (known: bonafide, bona-fide, spoof, deepfake)",
        "line 2: 4 columns instead of 5",
        "line 3: no audio for 'LA_D_1'",
    ]


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"\xef\xbb\xbf", b"file,label\n", b"file,label\n,\n"])
def test_a_list_without_trials(tmp_path: Path, content: bytes) -> None:
    assert problems(write(tmp_path / "x.csv", content)) == ["holds no trials"]


@pytest.mark.parametrize(
    "content",
    [
        b"a.wav,bonafide\n",
        b"file;label\na.wav;bonafide\n",
        b"PA_0010 PA_T_0000001 aaa - bonafide\n",
        b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(256)) * 1000,
        b'"file,label\na.wav,bonafide\n',
    ],
)
def test_an_unknown_list_shows_its_first_line_and_what_is_known(tmp_path: Path, content: bytes) -> None:
    first, *known = problems(write(tmp_path / "x.txt", content))
    assert first.startswith("not a list that is known; its first line is ")
    assert len(first) < 500
    assert {line.partition(":")[0] for line in known} == set(FORMATS)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("content", [OURS, "LA_0069 LA_D_1047731 - - bonafide"])
def test_a_list_in_utf16_is_said_not_to_be_utf8(tmp_path: Path, content: str, encoding: str) -> None:
    path = write(tmp_path / "x.csv", content.encode(encoding))
    assert problems(path) == ["not UTF-8; save it as UTF-8 text (this looks like UTF-16)"]


def test_a_list_without_a_line_of_utf8_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.txt", "LA_0069 LA_D_é - - bonafide\n".encode("latin-1"))
    assert problems(path) == ["not UTF-8; save it as UTF-8 text"]


def test_files_and_folders_that_are_not_there(tmp_path: Path) -> None:
    assert problems(tmp_path / "none.txt") == ["can't be read (No such file or directory)"]
    assert problems(tmp_path) == ["can't be read (Is a directory)"]
    path = write(tmp_path / "x.txt", LA_2019)
    with pytest.raises(ProtocolError, match=r"none: no such folder with audio$"):
        read_protocol(path, tmp_path / "none")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_list_whose_name_is_not_utf8_has_one_that_can_be_written(tmp_path: Path) -> None:
    path = write(tmp_path / os.fsdecode(b"l\xe9.txt"), LA_2019)
    touch(tmp_path / "LA_D_1047731.flac", tmp_path / "LA_D_1000265.flac")
    assert read_protocol(path).name == r"l\xe9.txt"


def test_folders_and_broken_links_are_no_audio(tmp_path: Path) -> None:
    path = write(tmp_path / "x.csv", "file,label\na.wav,spoof\nb.wav,spoof\nc.wav,spoof\nd.wav,spoof\n")
    (tmp_path / "a.wav").mkdir()
    (tmp_path / "b.wav").symlink_to("nowhere.wav")
    touch(tmp_path / "c.wav")
    (tmp_path / "d.wav").symlink_to("c.wav")
    partial = read_protocol(path, partial=True)
    assert [t.id for t in partial.trials] == ["c.wav", "d.wav"]
    assert partial.missing == ("line 2: no audio for 'a.wav'", "line 3: no audio for 'b.wav'")


def test_a_folder_that_is_locked_is_named(tmp_path: Path) -> None:
    """As an ordinary user: root may read everything."""
    path = write(tmp_path / "x.csv", "file,label\nlocked/a.wav,spoof\n")
    touch(tmp_path / "locked/a.wav")
    (tmp_path / "locked").chmod(0)
    for parent in (tmp_path, *list(tmp_path.parents)[:3]):  # pytest's are private
        parent.chmod(0o755)
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom nes2net_calib.protocols import read_protocol\n"
        "'a'.encode('utf-8-sig')\n"  # loaded while Python's own files can be read
        "if os.getuid() == 0:\n    os.setgid(65534); os.setuid(65534)\n"
        "try:\n    read_protocol(Path(sys.argv[1]))\nexcept ValueError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    (tmp_path / "locked").chmod(0o755)
    assert done.stdout == f"{tmp_path / 'locked'}: can't be read (Permission denied)\n", done.stderr


def test_our_csv_takes_absolute_paths_and_ignores_other_columns(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "a.wav"
    touch(elsewhere, tmp_path / "audio/b.wav")
    path = write(tmp_path / "x.csv", f"text,label,file\nhello,spoof,{elsewhere}\n,bonafide,b.wav\n")
    trials = read_protocol(path, tmp_path / "audio").trials
    assert [t.path for t in trials] == [elsewhere, tmp_path / "audio/b.wav"]
    assert [(t.system, t.speaker, t.split, t.condition) for t in trials] == [(None,) * 4] * 2


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=12
)
CELLS = st.none() | NAMES.filter(lambda text: text == text.strip() and text != "-" and text)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(
    rows=st.lists(st.tuples(NAMES, st.booleans(), CELLS, CELLS, CELLS, CELLS), min_size=1, max_size=8),
    end=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_is_written_as_csv_is_read_back(tmp_path_factory, rows, end: str, quoting: int) -> None:
    folder = tmp_path_factory.mktemp("csv")
    rows = list({f"{row[0]}.wav": row for row in rows}.items())
    text = io.StringIO()
    writer = csv.writer(text, lineterminator=end, quoting=quoting)
    writer.writerow(["file", "label", "system", "speaker", "split", "condition"])
    for name, (_, bonafide, *cells) in rows:
        touch(folder / name)
        writer.writerow(
            [name, "bonafide" if bonafide else "spoof", *("-" if c is None else c for c in cells)]
        )
    trials = read_protocol(write(folder / "list.csv", text.getvalue())).trials
    assert [(t.id, t.bonafide, t.system, t.speaker, t.split, t.condition) for t in trials] == [
        (name, bonafide, None if bonafide else system, *rest) for name, (_, bonafide, system, *rest) in rows
    ]
    assert [t.line for t in trials] == list(range(2, 2 + len(rows)))


def test_a_long_list_takes_one_listing_a_folder(tmp_path: Path) -> None:
    """20,000 trials whose audio lies in the last of the usual folders."""
    flac = tmp_path / "ASVspoof2021_DF_eval/flac"
    flac.mkdir(parents=True)
    line = "LA_0023 DF_E_{} nocodec asvspoof - bonafide notrim eval bonafide - - - -\n"
    for n in range(20_000):
        os.close(os.open(flac / f"DF_E_{n}.flac", os.O_CREAT))
    path = write(tmp_path / "trial_metadata.txt", "".join(map(line.format, range(20_000))))
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom nes2net_calib.protocols import read_protocol\n"
        "def hook(event, args):\n    if event in ('os.scandir', 'os.listdir'):\n        print(args[0])\n"
        "sys.addaudithook(hook)\n"
        "print(len(read_protocol(Path(sys.argv[1])).trials))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert "20000" in lines, done.stderr
    listed = lines[: lines.index("20000")]  # after it, measuring coverage may list folders of its own
    assert [folder for folder in listed if str(tmp_path) in folder] == [
        str(tmp_path), str(tmp_path / "flac"), str(flac)
    ]  # fmt: skip


@pytest.mark.skipif(not (SHARED / "corpus/corpus.csv").exists(), reason="needs ../shared/corpus")
def test_the_corpus_is_read_as_it_is() -> None:
    corpus = SHARED / "corpus/corpus.csv"
    trials = read_protocol(corpus).trials
    assert Counter((t.split, t.bonafide) for t in trials) == {
        ("train", True): 678,
        ("train", False): 423,
        ("dev", True): 210,
        ("dev", False): 175,
        ("eval", True): 287,
        ("eval", False): 338,
    }
    assert len(trials) == 2111
    assert len(read_protocol(corpus, split="dev").trials) == 385
    assert all((t.system is None) == t.bonafide and t.speaker for t in trials)
