"""Bundles in other precisions, through the command: drift, islands, calibration, refusals."""

import csv
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile
from msgspec.structs import replace
from onnx import numpy_helper
from typer.testing import CliRunner, Result

from nes2net_export.cli import app
from nes2net_export.probe import signal_probe
from nes2net_export.transforms import unfold
from nes2net_export.transforms.graph import element_types
from nes2net_runtime import Detector
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest

SHARED = Path(__file__).parents[3] / "shared/corpus/corpus.csv"


def export(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def is_refused(result: Result, code: int, *words: str) -> bool:
    text = " ".join(result.stderr.split())
    return result.exit_code == code and result.stdout == "" and all(word in text for word in words)


def changed(folder: Path, weights: dict[str, float] | None = None, **manifest: object) -> Path:
    """The demo bundle with weights of its context network multiplied, and other things in its manifest."""
    shutil.copytree(DEMO, folder)
    model = onnx.load(folder / "context.onnx")
    for tensor in model.graph.initializer:
        if weights and tensor.name in weights:
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * weights[tensor.name], tensor.name)
            )
    onnx.save(model, folder / "context.onnx")
    write_manifest(folder, replace(read_bundle(DEMO).manifest, files=list_files(folder), **manifest))
    return folder


@pytest.fixture(scope="session")
def speech_list(tmp_path_factory) -> Path:
    """A list of 280 trials that the demo detector tells apart: tones for people, noise for machines."""
    folder = tmp_path_factory.mktemp("speech")
    with (folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "speaker"])
        for i, signal in enumerate(signal_probe(20_000).compare * 20):
            if i == 280:
                break
            random = np.random.default_rng(i)
            label = "bonafide" if i % 2 else "spoof"
            heard = signal if i % 2 else 0.1 * random.standard_normal(20_000)
            soundfile.write(folder / f"{i}.wav", heard * random.uniform(0.3, 1), 16_000)
            rows.writerow([f"{i}.wav", label, f"s{i % 7}"])
    return folder / "list.csv"


@pytest.fixture(scope="module")
def fp16(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("fp16") / "fp16.nes2net"
    result = export("--fp16", "-o", target)
    assert result.exit_code == 0, result.output
    return target


def test_fp16_of_the_demo_detector(fp16: Path, examples: Path) -> None:
    """Half the size, layer norms in float32 because scores suffer from them most, and the same decisions."""
    bundle = read_bundle(fp16)
    manifest, drift = bundle.manifest, bundle.manifest.drift
    bundle.verify()
    assert manifest.precision == "fp16"
    assert [stage.precision for stage in manifest.stages] == ["fp16", "fp16", "fp32"]
    assert drift is not None and 0 < drift.mean <= drift.bound == 0.02
    assert drift.float32_nodes == ["context/LayerNormalization", "encoder/LayerNormalization"]
    assert (drift.audio, drift.windows, drift.eer) == ("built-in signals", 16, None)
    for name in ("encoder.onnx", "context.onnx"):
        assert (fp16 / name).stat().st_size < 0.6 * (DEMO / name).stat().st_size
    assert (fp16 / "backend.onnx").read_bytes() == (DEMO / "backend.onnx").read_bytes()
    clip, rate = soundfile.read(examples / "human.flac", dtype="float32")
    scores = [d.score(clip, rate) for d in (Detector(), Detector(fp16))]
    np.testing.assert_allclose(*([s.score for s in part] for part in scores), atol=0.2)
    assert Detector(fp16).receipt.stages[0].precision == "fp16"


def test_without_labelled_audio_the_calibration_is_not_kept(fp16: Path) -> None:
    manifest = read_bundle(fp16).manifest
    assert read_bundle(DEMO).manifest.calibration is not None
    assert (manifest.calibration, manifest.streaming) == (None, None)
    assert not [file for file in manifest.files if file.path.startswith("reports/")]
    card = (fp16 / "MODEL_CARD.md").read_text()
    assert card.startswith((DEMO / "MODEL_CARD.md").read_text().rstrip()) and "This bundle is fp16" in card


def test_labelled_audio_keeps_it_where_no_decision_changes(speech_list: Path, tmp_path: Path) -> None:
    target = tmp_path / "fp16.nes2net"
    result = export("--fp16", "--calib", speech_list, "-o", target)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(target).manifest
    drift = manifest.drift
    assert drift is not None and (drift.audio, drift.windows) == ("list.csv", 200)
    assert drift.eer is not None and drift.cllr is not None and drift.flips is not None
    assert (manifest.calibration is not None) == (drift.flips <= 0.005)
    assert drift.mean <= 0.001  # decisions are looked at: closer than without
    precisions = [stage.precision for stage in manifest.stages]
    assert precisions[1:] == ["fp16", "fp32"]
    assert (precisions[0] == "fp32") == ("encoder" in drift.float32_nodes)
    assert "EER" in result.stderr and "decisions changed" in result.stderr


def operators(bundle: Path, stage: str) -> set[str]:
    return {node.op_type for node in onnx.load(bundle / f"{stage}.onnx").graph.node}


@pytest.mark.slow
def test_int8_of_the_demo_detector(speech_list: Path, tmp_path: Path) -> None:
    """What scores can't stand stays in float32; the rest holds the bound, and runs."""
    target = tmp_path / "int8.nes2net"
    result = export("--int8", "--calib", speech_list, "-o", target)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(target).manifest
    assert manifest.drift is not None and manifest.drift.mean <= 0.1
    precisions = [stage.precision for stage in manifest.stages]
    assert precisions[1:] == ["int8", "fp32"] and "MatMulInteger" in operators(target, "context")
    assert (precisions[0] == "int8") == ("QuantizeLinear" in operators(target, "encoder"))
    kept = {name for name in manifest.drift.float32_nodes if name.startswith("encoder/")}
    assert kept < {f"encoder/{p.name}" for p in unfold.products(onnx.load(DEMO / "encoder.onnx"))}
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_600).astype(np.float32)
    assert Detector(target).score(noise)[0].score == pytest.approx(Detector().score(noise)[0].score, abs=0.5)


@pytest.mark.slow
def test_int8_without_audio_leaves_the_encoder_as_it_is(tmp_path: Path) -> None:
    """Its scales would have to come from speech; the context network finds its own as it runs."""
    target = tmp_path / "int8.nes2net"
    result = export("--int8", "-o", target)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(target).manifest
    assert [stage.precision for stage in manifest.stages] == ["fp32", "int8", "fp32"]
    assert manifest.drift is not None and manifest.drift.audio == "built-in signals"
    assert (target / "encoder.onnx").read_bytes() == (DEMO / "encoder.onnx").read_bytes()
    assert (target / "context.onnx").stat().st_size < 0.5 * (DEMO / "context.onnx").stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize("block", ["32", "128"])
def test_int4_of_the_demo_detector(block: str, speech_list: Path, tmp_path: Path) -> None:
    target = tmp_path / "int4.nes2net"
    result = export("--int4", "--block-size", block, "--calib", speech_list, "-o", target)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(target).manifest
    assert manifest.precision == manifest.stages[1].precision == "int4"
    assert manifest.drift is not None and manifest.drift.mean <= manifest.drift.bound == 0.3
    model = onnx.load(target / "context.onnx")
    blocks = {
        attribute.i
        for node in model.graph.node
        for attribute in node.attribute
        if node.op_type == "MatMulNBits" and attribute.name == "block_size"
    }
    assert blocks == {int(block)}
    assert (target / "context.onnx").stat().st_size < 0.35 * (DEMO / "context.onnx").stat().st_size
    noise = 0.1 * np.random.default_rng(0).standard_normal(64_600).astype(np.float32)
    assert Detector(target).score(noise)[0].score == pytest.approx(Detector().score(noise)[0].score, abs=1.5)
    assert "bundle is int4" in " ".join((target / "MODEL_CARD.md").read_text().split())


@pytest.mark.slow
def test_int8_asked_and_no_int8_made_is_exit_4(speech_list: Path, tmp_path: Path) -> None:
    options = ("--calib", speech_list, "--max-drift", "0.000001")
    result = export("--int8", *options, "-o", tmp_path / "int8.nes2net")
    assert is_refused(result, 4, "stands INT8", "(1e-06)", "no bundle was written")
    assert list(tmp_path.iterdir()) == []
    result = export("--int4", *options, "-o", tmp_path / "int4.nes2net")
    assert is_refused(result, 4, "stands INT4", "(1e-06)", "no bundle was written")
    assert list(tmp_path.iterdir()) == []


def test_a_product_that_overflows_stays_in_float32(tmp_path: Path) -> None:
    """Queries a million times too large and keys as much too small: the same scores, in float32 alone."""
    context = onnx.load(DEMO / "context.onnx")
    scaled = next(
        n
        for n in context.graph.node
        if n.op_type == "MatMul" and n.input[1] in {t.name for t in context.graph.initializer}
    )
    parent = changed(tmp_path / "parent.nes2net", {scaled.input[1]: 1e6})
    result = export("--from", parent, "--fp16", "--max-drift", "10", "-o", tmp_path / "fp16.nes2net")
    assert result.exit_code == 0, result.output
    manifest = read_bundle(tmp_path / "fp16.nes2net").manifest
    assert manifest.drift is not None and f"context/{scaled.name}" in manifest.drift.float32_nodes
    types = element_types(onnx.load(tmp_path / "fp16.nes2net" / "context.onnx"))
    assert types[scaled.output[0]] == onnx.TensorProto.FLOAT


def test_random_weights_are_converted_whole_and_their_drift_is_recorded(tmp_path: Path) -> None:
    source = replace(read_bundle(DEMO).manifest.source, random=True)
    parent = changed(tmp_path / "random.nes2net", source=source, calibration=None, streaming=None)
    result = export("--from", parent, "--int8", "-o", tmp_path / "int8.nes2net")
    assert result.exit_code == 0, result.output
    drift = read_bundle(tmp_path / "int8.nes2net").manifest.drift
    assert drift is not None and (drift.bound, drift.float32_nodes) == (None, [])
    assert drift.mean > 0.1 and "random weights: no bound" in result.stderr


def test_past_the_bound_nothing_is_written_and_the_exit_code_is_4(tmp_path: Path) -> None:
    result = export("--fp16", "--max-drift", "0.000001", "-o", tmp_path / "fp16.nes2net")
    assert is_refused(result, 4, "standard deviation", "(bound 1e-06)", "no bundle was written")
    assert list(tmp_path.iterdir()) == []


def test_a_tighter_bound_is_held_and_written_down(fp16: Path, tmp_path: Path) -> None:
    target = tmp_path / "closer.nes2net"
    result = export("--fp16", "--max-drift", "0.0035", "-o", target)
    assert result.exit_code == 0, result.output
    default, closer = (read_bundle(bundle).manifest.drift for bundle in (fp16, target))
    assert default is not None and closer is not None
    assert closer.mean <= closer.bound == 0.0035
    kept = set(closer.float32_nodes)
    assert all(node in kept or node.split("/")[0] in kept for node in default.float32_nodes)


@pytest.mark.parametrize(
    "options, words",
    [
        (["--fp16", "--int8"], "--fp16 and --int8 exclude each other"),
        (["--int4", "--int8"], "--int4 and --int8 exclude each other"),
        (["--int8", "--block-size", "64"], "--block-size: only with --int4"),
        (["--to", "trt", "--int4"], "--int4: only with ONNX Runtime on a CPU; engines take --fp16 or --int8"),
        (["--calib", "list.csv"], "--calib: only with --fp16, --int8 or --int4"),
        (["--fp16", "--split", "dev"], "--split: only with --calib"),
        (["--from", DEMO], "--from: only with --fp16, --int8, --int4 or --to trt|triton"),
        (["--from", DEMO, "--fp16", "--opset", "18"], "--opset: only with checkpoints"),
        (["--from", DEMO, "--checkpoint", "x.pth"], "--checkpoint and --from exclude each other"),
        (["--engine", "trt"], "--engine: only with --to trt"),
        (["--batch", "4"], "--batch: only with --to trt or --to triton"),
        (["--to", "triton", "--fp16"], "--fp16: only with bundles"),
        (["--to", "triton", "--json"], "--json: only with bundles, which have a manifest"),
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(
    options: list[str | Path], words: str, tmp_path: Path
) -> None:
    result = export(*options, "-o", tmp_path / "x.nes2net")
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_only_a_float32_bundle_has_children(fp16: Path, tmp_path: Path) -> None:
    result = export("--from", fp16, "--fp16", "-o", tmp_path / "again.nes2net")
    assert is_refused(result, 3, "is fp16", "float32 bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_short_list_does_and_can_not_keep_the_calibration(speech_list: Path, tmp_path: Path) -> None:
    """Of 60 trials 46 are compared on: too few to show that at most 0.5 % of decisions change."""
    rows = (speech_list.parent / "list.csv").read_text().splitlines()
    short = speech_list.parent / "short.csv"
    short.write_text("\n".join(rows[:61]) + "\n")
    result = export("--fp16", "--calib", short, "-o", tmp_path / "fp16.nes2net")
    assert result.exit_code == 0, result.output
    manifest = read_bundle(tmp_path / "fp16.nes2net").manifest
    assert manifest.drift is not None and manifest.drift.windows == 46
    assert manifest.calibration is None


def test_a_list_with_too_little_speech_is_refused(speech_list: Path, tmp_path: Path) -> None:
    rows = (speech_list.parent / "list.csv").read_text().splitlines()
    tiny = speech_list.parent / "tiny.csv"
    tiny.write_text("\n".join(rows[:21]) + "\n")
    result = export("--fp16", "--calib", tiny, "-o", tmp_path / "x.nes2net")
    assert is_refused(result, 3, "tiny.csv: 10 trials of a class; at least 20 of each are needed")
    assert not (tmp_path / "x.nes2net").exists()


def test_precisions_and_engines_need_no_torch(tmp_path: Path, python_without) -> None:
    done = python_without("torch", "-m", "nes2net_export", "--fp16", "-o", tmp_path / "fp16.nes2net")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "fp16.nes2net/manifest.json").is_file()
    done = python_without("torch", "-m", "nes2net_export", "-o", tmp_path / "fp32.nes2net")
    assert done.returncode == 3
    assert (
        done.stderr == "error: torch is not installed: pip install 'nes2net-edge[export,cpu]' makes bundles\n"
    )


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.exists(), reason="the corpus is not here")
def test_fp16_on_the_corpus_changes_no_decision_of_dev(tmp_path: Path) -> None:
    target = tmp_path / "fp16.nes2net"
    result = export("--fp16", "--calib", SHARED, "--split", "dev", "-o", target)
    assert result.exit_code == 0, result.output
    manifest = read_bundle(target).manifest
    assert manifest.drift is not None and manifest.drift.flips == 0 and manifest.drift.correlation > 0.999
    assert manifest.calibration == read_bundle(DEMO).manifest.calibration
    assert manifest.streaming == read_bundle(DEMO).manifest.streaming
