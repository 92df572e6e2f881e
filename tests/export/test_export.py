"""`nes2net-export` and `nes2net-run` as commands: the whole way from a checkpoint to scores."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from typer.testing import CliRunner, Result

from nes2net_export.cli import app as export_app
from nes2net_export.parity import relative_error
from nes2net_runtime import Detector
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.cli import app as run_app


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(export_app, [str(a) for a in arguments])


def export_golden(goldens, golden, target: Path, *more: str) -> Result:
    untold = goldens.untold(golden)
    options = [f"--{name.replace('_', '-')}={value}" for name, value in untold.items()]
    return export("--checkpoint", goldens.checkpoint(golden), "-o", target, *options, *more)


def run_full(bundle: Path, files: list[Path]) -> list[float]:
    result = CliRunner().invoke(
        run_app, ["--bundle", str(bundle), "--segment", "full", "--format", "jsonl", *map(str, files)]
    )
    assert result.exit_code == 0, result.output
    records = [json.loads(line) for line in result.stdout.splitlines()]
    return [record["score"] for record in records if record["type"] == "score"]


@pytest.fixture(scope="module")
def bundle(committed_goldens, tmp_path_factory) -> Path:
    """An exported golden of the ITW family."""
    target = tmp_path_factory.mktemp("bundle") / "golden.nes2net"
    result = export_golden(committed_goldens, committed_goldens.entries[0], target)
    assert result.exit_code == 0, result.output
    return target


@pytest.mark.slow
def test_scores_of_every_golden_through_both_commands(goldens, golden, tmp_path: Path) -> None:
    """Exported and run, each golden gives the official logits within 3 times its float32 tolerance."""
    target = tmp_path / "golden.nes2net"
    result = export_golden(goldens, golden, target)
    assert result.exit_code == 0, result.output
    expected = goldens.outputs(golden)
    tolerance = 3 * golden["tolerance"]["logits"]

    files, scores = [], []
    for name, batch in goldens.waveforms.items():
        for i, waveform in enumerate(batch):
            files.append(tmp_path / f"{name}_{i}.wav")
            soundfile.write(
                files[-1], waveform, 16_000, subtype="PCM_16"
            )  # the waveforms are on the 16-bit grid
            scores.append(expected[f"{name}.logits"][i, golden["score"]["bonafide_index"]])
    assert np.abs(np.array(run_full(target, files)) - scores).max() <= tolerance

    detector = Detector(target)  # both logits, and the batch of two as a batch
    if not golden["ssl"]["normalize"]:
        for name, batch in goldens.waveforms.items():
            assert np.abs(detector.stages.run(batch) - expected[f"{name}.logits"]).max() <= tolerance
    check_stream(detector)


def check_stream(detector: Detector) -> None:
    """A stream has the scores of windows; those of normalised detectors to the last bit, computed whole."""
    signal = 0.1 * np.random.default_rng(0).standard_normal(40_000).astype(np.float32)
    stream, how = detector.stream(16_000, hop=0.3), {"window_samples": 16_000, "hop": 0.3}
    pieces = np.split(signal, [1, 5_000, 5_001, 33_333])
    scores = [score for piece in pieces for score in stream.feed(piece)] + stream.close()
    windows = detector.score(signal, **how)
    assert [(s.start, s.tail) for s in scores] == [(w.start, w.tail) for w in windows]
    scale = max(1.0, max(abs(w.score) for w in windows))
    close = 1e-4 * scale if detector.stages.frames_reusable else 0.0
    np.testing.assert_allclose([s.score for s in scores], [w.score for w in windows], atol=close, rtol=0)


def check_clean(bundle: Path) -> None:
    """No weight norm, dropout, NaN guards, functions or duplicated weights; the batch is dynamic."""
    for path in bundle.glob("*.onnx"):
        model = onnx.load(path)
        operators = {node.op_type for node in model.graph.node}
        assert not operators & {"Dropout", "IsNaN", "Where", "ReduceL2", "Div", "Identity", "Cast"}
        assert not model.functions
        assert all(node.domain == "" and not node.metadata_props for node in model.graph.node)
        large = [t.raw_data for t in model.graph.initializer if len(t.raw_data) > 256]
        assert len(set(large)) == len(large)
        for tensor in (*model.graph.input, *model.graph.output):
            assert tensor.type.tensor_type.shape.dim[0].dim_param == "batch"


def test_graphs_are_clean_and_dynamic(bundle: Path) -> None:
    check_clean(bundle)
    detector = Detector(bundle)
    for batch, samples in ((1, 400), (2, 719), (5, 16_001), (1, 64_600)):
        assert detector.stages.run(np.zeros((batch, samples), np.float32)).shape == (batch, 2)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_graphs_of_the_other_families_are_clean(committed_goldens, tmp_path: Path, number: int) -> None:
    target = tmp_path / "x"
    result = export_golden(committed_goldens, committed_goldens.entries[number], target)
    assert result.exit_code == 0, result.output
    check_clean(target)


def test_manifest_says_what_the_golden_is(bundle: Path, committed_goldens) -> None:
    golden = committed_goldens.entries[0]
    manifest = read_bundle(bundle).manifest
    assert manifest.source.checkpoint == golden["checkpoint"]
    assert not manifest.source.random
    assert manifest.model["attention_heads"] == golden["ssl"]["heads"]
    assert [manifest.model["outer_splits"], manifest.model["inner_splits"]] == golden["backend"]["nes_ratio"]
    assert manifest.score.bonafide_logit == golden["score"]["bonafide_index"]
    assert manifest.audio.normalize == "none"
    assert manifest.audio.window_samples == 64_600
    assert 0 < manifest.parity.worst <= manifest.parity.bound == 1e-3
    assert len({(case.batch, case.samples) for case in manifest.parity.cases}) >= 4
    assert max(case.batch for case in manifest.parity.cases) > 1


@pytest.mark.slow
def test_single_graph_scores_like_the_stages(bundle: Path, committed_goldens, tmp_path: Path) -> None:
    result = export_golden(
        committed_goldens, committed_goldens.entries[0], tmp_path / "one", "--single-graph"
    )
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "one").glob("*.onnx")) == ["detector.onnx"]
    waveform = committed_goldens.waveforms["b2x32000"]
    one, three = Detector(tmp_path / "one"), Detector(bundle)
    np.testing.assert_allclose(one.stages.run(waveform), three.stages.run(waveform), atol=1e-5)
    assert not one.stages.frames_reusable
    check_stream(one)


def test_a_failed_comparison_writes_nothing_and_exits_with_4(committed_goldens, tmp_path: Path) -> None:
    result = export_golden(committed_goldens, committed_goldens.entries[0], tmp_path / "x", "--max-parity=0")
    assert result.exit_code == 4
    assert "differ from torch by" in result.stderr
    assert "no bundle was written" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bound", ["inf", "-1", "2"])
def test_a_bound_that_bounds_nothing_is_wrong_usage(tmp_path: Path, bound: str) -> None:
    assert export("--max-parity", bound, "-o", tmp_path / "x").exit_code == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    "family, option, said",
    [
        ("wav2vec2-itw", "--normalize-waveform", "per-window"),
        ("wavlm-ctrsvdd", "--no-normalize-waveform", "none"),
    ],
)
def test_normalisation_is_as_told(committed_goldens, tmp_path: Path, family, option, said) -> None:
    """Not what the family's authors use."""
    (golden,) = (entry for entry in committed_goldens.entries if entry["family"] == family)
    result = export_golden(committed_goldens, golden, tmp_path / "x", option)
    assert result.exit_code == 0, result.output
    assert read_bundle(tmp_path / "x").manifest.audio.normalize == said


def test_help_fits_a_terminal_of_80_columns() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "nes2net_export", "--help"],
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
    ).stdout
    assert "--normalize-waveform " in shown and "--no-normalize-waveform " in shown
    assert "\u2026" not in shown  # nothing is cut off


def test_nan_anywhere_is_no_parity() -> None:
    good, bad = np.zeros(3, np.float32), np.array([0, np.nan, 0], np.float32)
    assert relative_error(good, good) == 0
    assert relative_error(good, bad) == relative_error(bad, good) == relative_error(bad, bad) == np.inf


def test_a_name_that_is_not_utf8_is_refused_before_any_work(committed_goldens, tmp_path: Path) -> None:
    result = export_golden(committed_goldens, committed_goldens.entries[0], Path(f"{tmp_path}/\udcff"))
    assert result.exit_code == 3
    assert "UTF-8" in result.stderr


def test_what_is_there_is_kept_without_force(bundle: Path, committed_goldens, tmp_path: Path) -> None:
    before = (bundle / "manifest.json").read_bytes()
    result = export_golden(committed_goldens, committed_goldens.entries[0], bundle)
    assert result.exit_code == 3
    assert "--force replaces it" in result.stderr
    assert (bundle / "manifest.json").read_bytes() == before
    (tmp_path / "letters.txt").write_text("not a bundle")
    result = export_golden(committed_goldens, committed_goldens.entries[0], tmp_path, "--force")
    assert result.exit_code == 3
    assert (tmp_path / "letters.txt").exists()


def interrupt(goldens, golden, target: Path, number: signal.Signals) -> int:
    """Send a signal to an export that has written its first stage; its exit code."""
    command = [sys.executable, "-m", "nes2net_export", "--checkpoint", str(goldens.checkpoint(golden))]
    command += ["--attention-heads", "4", "-o", str(target)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(target.parent.glob(f".{target.name}.partial-*/encoder.onnx")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    return process.wait()


@pytest.mark.slow
def test_a_killed_export_leaves_nothing_that_looks_whole(committed_goldens, tmp_path: Path) -> None:
    golden, target = committed_goldens.entries[0], tmp_path / "golden.nes2net"
    interrupt(committed_goldens, golden, target, signal.SIGKILL)
    assert not target.exists()

    result = export_golden(committed_goldens, golden, target)  # the next one cleans up
    assert result.exit_code == 0, result.output
    assert [p.name for p in tmp_path.iterdir()] == ["golden.nes2net"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_export_leaves_nothing(
    committed_goldens, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    golden = committed_goldens.entries[0]
    assert interrupt(committed_goldens, golden, tmp_path / "x", number) == code
    assert list(tmp_path.iterdir()) == []


def test_transforms_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from nes2net_export.transforms import simplify"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
def test_a_full_disk_is_one_line_and_leaves_nothing(committed_goldens, tmp_path: Path) -> None:
    golden = committed_goldens.entries[0]
    command = (
        f"ulimit -f 20; exec {sys.executable} -m nes2net_export -o {tmp_path / 'x'} --attention-heads 4 "
    )
    command += f"--checkpoint {committed_goldens.checkpoint(golden)}"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert result.returncode == 3
    error = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "not written" in error[0]
    assert list(tmp_path.iterdir()) == []


def test_json_is_the_manifest_and_progress_is_for_terminals(committed_goldens, tmp_path: Path) -> None:
    result = export_golden(committed_goldens, committed_goldens.entries[0], tmp_path / "x", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert "tracing" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--checkpoint", "none.pth"], 3, "No such file"),
        (["--checkpoint", "random:gpt"], 3, "random:xlsr-300m"),
        (["--checkpoint", "random:xlsr-300m", "--dilation", "1"], 2, "fixed shape"),
        (["--normalize-waveform", "--no-normalize-waveform"], 2, "--no-normalize-waveform"),
        (["--to", "tflite"], 2, "tflite"),
        (["--opset", "12"], 2, "opset"),
    ],
)
def test_wrong_usage(arguments: list[str], code: int, reason: str) -> None:
    result = export(*arguments)
    assert result.exit_code == code
    assert reason in result.stderr


def test_the_demo_checkpoint_gives_the_scores_of_the_demo_bundle(examples: Path, tmp_path: Path) -> None:
    result = export("-o", tmp_path / "demo")
    assert result.exit_code == 0, result.output
    files = sorted(examples.glob("*.flac"))
    exported = [f.mean for f in Detector(tmp_path / "demo").score_files(files)]
    shipped = [f.mean for f in Detector().score_files(files)]
    np.testing.assert_allclose(exported, shipped, atol=1e-4)
