"""The benchmark of streams: on real speech where the corpus is here, 20 simulated minutes of memory."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nes2net_bench.streaming import StreamingReport

ROOT = Path(__file__).parents[2]
CORPUS = ROOT.parent / "shared/corpus/corpus.csv"
SLOPE = 3 << 20  # bytes an hour: 20 minutes tell no less; the day is measured by hand


@pytest.mark.slow
@pytest.mark.skipif(not CORPUS.exists(), reason="../shared/corpus is not here")
def test_everything_is_measured_and_memory_does_not_grow(tmp_path: Path) -> None:
    options = ("--protocol", CORPUS, "--split", "dev", "--hours", "0.34", "--hops", "20")
    command = [sys.executable, "benchmarks/streaming.py", *options, "-o", tmp_path / "streaming.json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document == json.loads((tmp_path / "streaming.json").read_text())
    report = msgspec.convert(document["results"], StreamingReport)
    (cost,) = report.hop.values()
    assert cost.encoder_ratio > 3  # 201 frames to 25
    assert report.jitter.largest_difference < 1e-4
    decisions = report.decisions
    assert decisions.hours > 0.1 and decisions.changes >= decisions.detected > 0
    memory = report.memory
    assert len(memory.samples) == 20
    assert memory.slope < SLOPE and memory.growth < 0.01
    assert document["machine"]["versions"]["onnxruntime"]
