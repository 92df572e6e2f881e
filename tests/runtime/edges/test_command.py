"""nes2net-run at its edges: closed streams, odd file names, wishes about colour, counts that must agree."""

import json
import os
import shutil

import numpy as np
import pytest


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["--help"], ["--info"], ["--info", "--format=jsonl"], ["x.wav"]],
    ids=" ".join,
)
def test_a_stdout_that_nobody_reads_ends_quietly_with_0(command, wav, arguments) -> None:
    wav("x.wav")
    read, write = os.pipe()
    os.close(read)
    done = command(*arguments, stdout=write)
    os.close(write)
    assert done.returncode == 0
    assert "Traceback" not in done.stderr and "Broken" not in done.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_results_that_cannot_be_written_are_one_error(command, wav, format) -> None:
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = command(wav("x.wav"), f"--format={format}", stdout=full)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: No space left on device"]


@pytest.mark.parametrize("variable", ["FORCE_COLOR", "TTY_COMPATIBLE"])
def test_progress_needs_a_terminal_whatever_is_wished_about_colour(command, wav, variable) -> None:
    done = command(wav("x.wav"), env={variable: "1"})
    assert done.returncode == 0
    assert "\x1b[2K" not in done.stderr and "\x1b[?25l" not in done.stderr and "scoring" not in done.stderr


@pytest.mark.parametrize("format", ["text", "jsonl", "csv"])
def test_a_file_name_that_is_not_utf8_is_scored(command, wav, tmp_path, format) -> None:
    shutil.copy(wav("x.wav"), os.fsencode(tmp_path) + b"/caf\xe9.wav")
    (tmp_path / "x.wav").unlink()
    done = command(tmp_path, f"--format={format}", "-o", tmp_path / "out", "--scores", tmp_path / "scores")
    assert done.returncode == 0, done.stderr[-300:]
    assert len((tmp_path / "scores").read_bytes().splitlines()) == 1


@pytest.mark.parametrize("name", ["a:smile:b.wav", "[bold]x[/bold].wav", "[x]\\[y].wav", "é.wav"])
def test_errors_show_names_as_they_are(run, name) -> None:
    assert f"error: {name}: no such file or folder" in run(name).stderr.splitlines()


@pytest.mark.parametrize("option", ["--hop=nan", "--hop=inf", "--max-seconds=nan", "--max-seconds=0"])
def test_numbers_that_are_none_are_wrong_usage(run, wav, option) -> None:
    assert run(wav("x.wav"), "--segment=full", option).exit_code == 2


def test_a_name_too_long_fails_alone(run, wav) -> None:
    done = run("x" * 300, wav("good.wav"), "--format=jsonl")
    assert done.exit_code == 1
    assert [json.loads(line)["type"] for line in done.stdout.splitlines()] == [
        *["error", "score", "file", "summary"]
    ]


def test_the_summary_counts_the_scores_that_were_printed(run, wav, noise) -> None:
    """A file that fails late (NaN at its end) has no scores, and counts for none."""
    late = noise(300_000)
    late[-1] = np.nan
    done = run(
        wav("late.wav", late, subtype="FLOAT"), wav("good.wav", 9.0), "--format=jsonl", "--batch-size=1"
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    kinds = [record["type"] for record in records]
    assert kinds == ["error", *["score"] * 4, "file", "summary"]
    assert records[-1]["segments"] == kinds.count("score")
    assert records[-1]["audio_seconds"] == pytest.approx(9.0)


def test_the_receipt_is_a_record_where_results_are_records(run, wav) -> None:
    done = run(wav("x.wav"), "--receipt", "--format=jsonl", "--provider=cpu")
    receipt = json.loads(done.stdout.splitlines()[-2])
    assert receipt["type"] == "receipt"
    assert [stage["provider"] for stage in receipt["receipt"]["stages"]] == ["cpu"] * 3
    assert receipt["receipt"]["threads"] == 1 and receipt["receipt"]["load_seconds"] > 0


@pytest.mark.parametrize("format", ["text", "jsonl"])
def test_info_names_every_damaged_file_and_exits_with_3(run, bundle, format) -> None:
    content = bytearray((bundle / "detector.onnx").read_bytes())
    content[-1] ^= 1
    (bundle / "detector.onnx").write_bytes(content)
    done = run("--info", "--bundle", bundle, f"--format={format}")
    assert done.exit_code == 3
    if format == "jsonl":
        assert json.loads(done.stdout)["damaged"] == ["detector.onnx"]
    else:
        assert "1 damaged: detector.onnx" in done.stdout


def test_the_score_file_follows_the_order_of_files_and_leaves_failures_out(run, wav, tmp_path) -> None:
    paths = [wav("b.wav", 5.0, seed=1), tmp_path / "none.wav", wav("a.b.wav", 1.0, seed=2)]
    done = run(*paths, "--scores", "scores.txt", "--format=jsonl")
    means = [r["score"] for r in map(json.loads, done.stdout.splitlines()) if r["type"] == "file"]
    lines = [line.split(" ") for line in (tmp_path / "scores.txt").read_text().splitlines()]
    assert [name for name, _ in lines] == ["b", "a.b"]
    assert [float(score) for _, score in lines] == pytest.approx(means, rel=1e-8)
