"""nes2net-run with a calibrated bundle: the table, records, rows, and what it says of the labels."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from nes2net_runtime import Detector
from nes2net_runtime.records import SCHEMA_FILE

RULES = ("first", "full", "windows")


@pytest.fixture
def offset(examples: Path) -> float:
    """At a slope of 3, an llr of 0 lies between the two examples, whichever demo detector is there."""
    human, synthetic = Detector(None, "cpu", threads=1).score_files(sorted(examples.glob("*.flac")))
    return -3 * (human.mean + max(score.score for score in synthetic.scores)) / 2


@pytest.fixture
def bundle(calibrated, offset: float) -> Path:
    """The human example is bona fide here, the synthetic one a spoof."""
    return calibrated(**{rule: {"slope": 3.0, "offset": offset} for rule in RULES})


def columns(header: str) -> list[slice]:
    """Where each column but the last is: the first is 8 wide, the others end where their headings do."""
    ends = [match.end() for match in re.finditer(r"\S+( \S+)*", header)]
    starts = [0, 8, *ends[1:-2]]
    return [slice(a, b) for a, b in zip(starts, [8, *ends[1:-1]], strict=True)]


def test_the_table_has_label_and_probability_first(run, bundle: Path, examples: Path, tmp_path: Path) -> None:
    done = run(*sorted(examples.glob("*.flac")), tmp_path / "none.wav", "--bundle", bundle)
    assert done.returncode == 1
    header, human, synthetic, failed = done.stdout.splitlines()
    names = ["label", "p_spoof", "score", "lowest", "at", "spoof windows", "file"]
    assert re.split(r"\s{2,}", header) == names
    rows = [[line[where].strip() for where in columns(header)] for line in (human, synthetic)]
    assert [row[0] for row in rows] == ["bonafide", "spoof"]
    assert float(rows[0][1]) < 0.5 < float(rows[1][1])
    assert float(rows[1][2]) < float(rows[0][2])
    assert [row[5] for row in rows] == ["0 of 1", "2 of 2"]
    assert [line.split()[-1] for line in (human, synthetic, failed)] == [
        *map(str, sorted(examples.glob("*.flac"))),
        str(tmp_path / "none.wav"),
    ]
    assert failed.split()[0] == "failed"
    assert failed.index(str(tmp_path)) == human.index(str(examples)) == header.index("file")


def test_stderr_says_what_threshold_and_prior_are(run, calibrated, good: Path) -> None:
    bundle = calibrated(full={"threshold": 1.25, "chosen_by": "spoof accepted <= 1 %", "prior_spoof": 0.05})
    stderr = run(good, "--bundle", bundle, "--segment=full").stderr
    assert "bonafide from a mean llr of +1.25 on (spoof accepted <= 1 %)" in stderr
    assert "5 % of recordings are spoofs" in stderr
    assert "not calibrated" not in stderr


@pytest.mark.parametrize(
    ("offset", "shown"), [(30.0, "<0.001"), (-30.0, ">0.999")], ids=["nearly 0", "nearly 1"]
)
def test_no_probability_looks_certain(run, calibrated, good: Path, offset: float, shown: str) -> None:
    done = run(good, "--bundle", calibrated(first={"offset": offset}), "--segment=first")
    assert done.stdout.splitlines()[1].split()[1] == shown


def test_a_file_without_a_label_among_others(run, calibrated, good: Path, examples: Path) -> None:
    bundle = calibrated(first={"min_seconds": 3.0}, windows={})
    done = run(good, examples / "human.flac", "--bundle", bundle)
    unlabelled, labelled = (re.split(r"\s{2,}", line) for line in done.stdout.splitlines()[1:])
    assert [unlabelled[0], unlabelled[1], unlabelled[5]] == ["-", "-", "- of 1"]
    assert labelled[0] in ("bonafide", "spoof")
    assert f"warning: {good}: shorter than the 3.00 s" in done.stderr


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--segment=full"], "not calibrated for --segment full (only first, windows): no labels;"),
        (["--window-samples=32000"], "not calibrated for windows of 32000 samples but of 64600: no labels."),
    ],
    ids=["rule", "window"],
)
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_why_there_are_no_labels_is_said_once(
    run, calibrated, good: Path, examples: Path, options, reason: str, format: str
) -> None:
    bundle = calibrated(first={}, windows={})
    done = run(good, examples, "--bundle", bundle, f"--format={format}", *options)
    assert done.returncode == 0
    assert done.stderr.count("no labels") == done.stderr.count(reason) == 1
    assert "bonafide" not in done.stdout and "warning" not in done.stderr


def test_windows_with_a_calibration_of_first_alone(run, calibrated, good: Path, examples: Path) -> None:
    done = run(good, examples / "synthetic.flac", "--bundle", calibrated(first={}))
    short, long = (line.split()[0] for line in done.stdout.splitlines()[1:])
    assert short in ("bonafide", "spoof") and long == "-"
    assert "--segment windows (only first): no labels but on audio shorter than a window" in done.stderr


def test_records_are_valid_and_agree(run, bundle: Path, offset: float, good: Path, examples: Path) -> None:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA_FILE.read_text()))
    lines = run(good, examples, "--bundle", bundle, "--format=jsonl").stdout.splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        validator.validate(record)
    for file in (r for r in records if r["type"] == "file"):
        scores = [r for r in records if r["type"] == "score" and r["file"] == file["file"]]
        assert all(r["llr"] == pytest.approx(3 * r["score"] + offset) for r in scores)
        assert file["llr"] == pytest.approx(sum(r["llr"] for r in scores) / len(scores))
        assert file["spoof_segments"] == sum(r["label"] == "spoof" for r in scores)
        assert (file["p_spoof"] > 0.5) == (file["label"] == "spoof") == (file["llr"] < 0)
    wrong = {**records[0], "label": "human"}
    assert not validator.is_valid(wrong)


def test_uncalibrated_records_have_nulls(run, uncalibrated: Path, good: Path) -> None:
    done = run(good, "--bundle", uncalibrated, "--format=jsonl")
    score, file = map(json.loads, done.stdout.splitlines()[:2])
    assert (score["llr"], score["p_spoof"], score["label"]) == (None, None, None)
    assert (file["llr"], file["p_spoof"], file["label"], file["spoof_segments"]) == (None,) * 4
    assert done.stderr.count("not calibrated") == 1


def test_csv_has_the_decision_beside_the_score(
    run, bundle: Path, offset: float, good: Path, tmp_path: Path
) -> None:
    done = run(good, tmp_path / "none.wav", "--bundle", bundle, "--format=csv")
    row, failed = csv.DictReader(io.StringIO(done.stdout))
    assert float(row["llr"]) == pytest.approx(3 * float(row["score"]) + offset)
    assert row["label"] == ("bonafide" if float(row["llr"]) >= 0 else "spoof")
    assert 0 < float(row["p_spoof"]) < 1
    assert (failed["llr"], failed["p_spoof"], failed["label"]) == ("", "", "")
    assert "no such file" in failed["error"]


def test_info_shows_the_calibration(run, calibrated, entry) -> None:
    costs = {"prior_spoof": 0.05, "bonafide_rejected": 1, "spoof_accepted": 10}
    provenance = {**entry()["provenance"], "split": "b"}
    first = {"offset": -0.25, "chosen_by": "least cost", "costs": costs, "provenance": provenance}
    bundle = calibrated(first=first, full={}, windows={})
    lines = {
        line[:20].strip(): line[20:] for line in reversed(run("--info", "-b", bundle).stdout.splitlines())
    }
    assert lines["calibration first"] == "llr = 2 x score - 0.25"
    assert lines["calibration full"] == "llr = 2 x score + 0.5"
    assert lines["label"] == (
        "bonafide from llr +0 on; chosen by least cost (bona fide rejected 1, spoof accepted 10, 5 % spoofs)"
    )
    counts = "1000 bona fide, 2100 spoof trials, 24 speakers; 2026-12-01T10:00:00+00:00"
    assert lines["fitted on"] == f"dev.tsv, split b: {counts}"
    assert lines["protocol sha256"] == "ab" * 32
    assert lines["there"] == "EER 5.20 %, Cllr 0.710 before, 0.210 after"
    assert "2100 spoof windows" in run("--info", "-b", bundle).stdout
    document = json.loads(run("--info", "-b", bundle, "--format=jsonl").stdout)
    assert document["manifest"]["calibration"]["first"]["costs"] == costs


def test_info_of_an_uncalibrated_bundle_names_the_command(run, uncalibrated: Path) -> None:
    assert "nes2net-calib BUNDLE --protocol FILE" in run("--info", "-b", uncalibrated).stdout


def test_help_says_what_the_numbers_are(run) -> None:
    text = re.sub(r"\s+", " ", run("--help").stdout)
    assert "It does not depend on how common spoofs are." in text
    assert "It depends on how common spoofs are" in text


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_labels_have_a_colour_on_a_terminal(bundle: Path, examples: Path, variables, coloured: bool) -> None:
    pty = pytest.importorskip("pty")
    main, terminal = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    command = [sys.executable, "-m", "nes2net_runtime", str(examples), "--bundle", str(bundle)]
    done = subprocess.run(
        command,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env={**environment, "TERM": "xterm-256color", **variables},
    )
    shown = os.read(main, 65536)
    os.close(terminal)
    os.close(main)
    assert done.returncode == 0
    assert (b"\x1b[31mspoof   \x1b[0m" in shown, b"\x1b[32mbonafide\x1b[0m" in shown) == (coloured, coloured)
    assert b"spoof" in shown and (coloured or b"\x1b" not in shown)
