"""Bundles with integers for CPUs, of every family: all products converted, then scored as users would."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from tests.conftest import COMMITTED
from typer.testing import CliRunner

from nes2net_export.cli import app
from nes2net_runtime import Detector
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.bundle_writer import write_manifest


def export(*arguments: str | Path) -> None:
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output


@pytest.mark.slow
@pytest.mark.parametrize("entry", COMMITTED.entries, ids=lambda entry: entry["name"])
@pytest.mark.parametrize("graph", ["stages", "single"])
def test_integers_of_every_family(entry: dict, graph: str, tmp_path: Path) -> None:
    """Near the float32 logits, whatever is beside a window in its batch; the shortest audio, too."""
    parent = tmp_path / "fp32.nes2net"
    untold = [f"--{name.replace('_', '-')}={value}" for name, value in COMMITTED.untold(entry).items()]
    single = ["--single-graph"] if graph == "single" else []
    export("--checkpoint", COMMITTED.checkpoint(entry), "-o", parent, *untold, *single)
    manifest = read_bundle(parent).manifest  # random weights: all is converted
    write_manifest(parent, replace(manifest, source=replace(manifest.source, random=True)))
    random = np.random.default_rng(0)
    batch = random.standard_normal((3, 20_000)).astype(np.float32) * [[0.5], [0.05], [0.005]]
    batch = batch.astype(np.float32)
    expected = Detector(parent).stages.score(batch)
    for precision, options in (("int8", ["--int8"]), ("int4", ["--int4", "--block-size", "32"])):
        target = tmp_path / f"{precision}.nes2net"
        export("--from", parent, *options, "-o", target)
        derived = read_bundle(target).manifest
        assert derived.drift is not None and derived.drift.float32_nodes == []
        operators = {
            node.op_type
            for stage in derived.stages
            for node in onnx.load(target / stage.file, load_external_data=False).graph.node
        }
        assert {"QuantizeLinear", "MatMulInteger"} <= operators  # the encoder; the positional convolution
        assert ("MatMulNBits" in operators) == (precision == "int4")
        stages = Detector(target).stages
        together = stages.score(batch)
        alone = np.concatenate([stages.score(row[None]) for row in batch])
        np.testing.assert_array_equal(together, alone)
        scale = np.abs(expected).max()
        assert np.abs(together - expected).max() < (0.1 if precision == "int8" else 0.5) * max(scale, 0.2)
        assert np.isfinite(stages.score(batch[:, :400])).all()


def test_integers_for_cpus_are_refused_by_engines_before_any_work(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    export("--int8", "-o", tmp_path / "int8.nes2net")
    arguments = ["--from", tmp_path / "int8.nes2net", "--to", "trt", "--engine", "trt-rtx", "--force"]
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == 3
    assert "its int8 is for CPUs" in " ".join(result.stderr.split())
