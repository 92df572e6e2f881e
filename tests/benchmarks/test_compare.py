"""Comparing documents: what is beyond noise is found, what is not is not, and the exit code says it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nes2net_bench.latency.arms import Absent
from nes2net_bench.latency.results import LatencyResults
from nes2net_bench.report.compare import Comparing, compare_documents
from nes2net_bench.report.documents import load
from nes2net_runtime.errors import BundleError

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
EAGER, FP32 = "PyTorch eager fp32", "nes2net-run fp32"
ARMS = {EAGER: 80.0, FP32: 50.0}


def command(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/compare.py", *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def compared(old: Path, new: Path) -> Comparing:
    return compare_documents(load(old), load(new))


def verdicts(found: Comparing) -> dict[str, str]:
    return {change.what: change.verdict for change in found.changes if change.verdict != "same"}


@pytest.mark.parametrize("name", ["macs", "streaming"])
def test_committed_results_are_the_same_as_themselves(name: str) -> None:
    path = RESULTS / f"{name}.json"
    found = compared(path, path)
    assert found.changes and not verdicts(found)
    assert not (found.differences or found.only_old or found.only_new)


def test_measuring_again_on_a_slower_day_is_no_change(keep, make_latency) -> None:
    """Milliseconds double, rounds vary; ratios hold."""
    again = {name: 2 * ms for name, ms in ARMS.items()}
    old, new = keep("old", "latency", make_latency(ARMS)), keep("new", "latency", make_latency(again, seed=1))
    found = compared(old, new)
    assert found.changes and not verdicts(found)


@pytest.mark.parametrize(("milliseconds", "verdict"), [(60.0, "worse"), (40.0, "better")])
def test_a_ratio_whose_interval_moved_is_found(keep, make_latency, milliseconds: float, verdict: str) -> None:
    old = keep("old", "latency", make_latency(ARMS))
    new = keep("new", "latency", make_latency({**ARMS, FP32: milliseconds}, seed=1))
    found = verdicts(compared(old, new))
    assert found == {f"{FP32}: {what}": verdict for what in ("wall time", "CPU time")}


@pytest.mark.parametrize(
    ("megabytes", "verdict"), [(104.0, None), (106.0, "worse"), (96.0, None), (94.0, "better")]
)
def test_memory_past_five_percent(keep, make_latency, megabytes: float, verdict: str | None) -> None:
    old = keep("old", "latency", make_latency(ARMS))
    found = verdicts(compared(old, keep("new", "latency", make_latency(ARMS, megabytes))))
    assert set(found.values()) == ({verdict} if verdict else set())
    assert len(found) == (4 if verdict else 0)  # two arms, peak and anonymous


def test_an_arm_that_fails_now_is_worse_and_one_that_is_not_asked_for_is_not(keep, make_latency) -> None:
    old = keep("old", "latency", make_latency(ARMS))
    crash = Absent(FP32, "its process died", crashed=True)
    for absent, worse in (([crash], {FP32: "worse"}), ([Absent(FP32, "left out")], {})):
        new = keep("new", "latency", make_latency({EAGER: 80.0}, absent=absent))
        found = compared(old, new)
        assert verdicts(found) == worse and found.only_old == (FP32,)


@pytest.mark.parametrize(("worse", "verdict"), [(0.0, None), (0.6, "worse"), (-0.6, "better")])
def test_drift_beyond_its_interval(keep, make_drift, worse: float, verdict: str | None) -> None:
    old = keep("old", "drift", make_drift())
    found = verdicts(compared(old, keep("new", "drift", make_drift(candidates={"demo-fp16": worse}))))
    assert found == ({"demo-fp16, first, clean: drift of EER, points": verdict} if verdict else {})


def test_a_reference_that_became_worse_is_found_even_if_its_candidates_did_too(keep, make_drift) -> None:
    old, new = keep("old", "drift", make_drift()), keep("new", "drift", make_drift(apart=1.0))
    assert verdicts(compared(old, new))["demo, first, clean: EER, points"] == "worse"


def test_any_mac_counts(keep) -> None:
    results = load(RESULTS / "macs.json").results
    old = keep("old", "macs", results)
    backend = replace(results.stages[2], macs=results.stages[2].macs + 1)
    new = keep("new", "macs", replace(results, macs=results.macs + 1, stages=(*results.stages[:2], backend)))
    assert verdicts(compared(old, new)) == {"MACs of a window": "worse", "backend: MACs": "worse"}
    assert set(verdicts(compared(new, old)).values()) == {"better"}


def test_streams_that_grow_raise_more_alarms_or_depend_on_pieces(keep) -> None:
    results = load(RESULTS / "streaming.json").results
    old = keep("old", "streaming", results)
    memory = replace(results.memory, last=round(1.06 * results.memory.last))
    decisions = replace(results.decisions, false_alarms_per_hour=results.decisions.interval[1] + 1)
    jitter = replace(results.jitter, largest_difference=0.01)
    new = keep("new", "streaming", replace(results, memory=memory, decisions=decisions, jitter=jitter))
    assert verdicts(compared(old, new)) == {
        "memory at the end, MB": "worse",
        "false alarms an hour": "worse",
        "difference between even and uneven pieces": "worse",
    }


def test_other_machines_are_said(keep, make_latency) -> None:
    results: LatencyResults = make_latency(ARMS)
    versions = {"onnxruntime": "1.33.0"}
    old = keep("old", "latency", results, processor="A", versions={"onnxruntime": "1.32.0"}, load=1.0)
    threads = replace(results, plan=replace(results.plan, threads=8))
    new = keep("new", "latency", threads, processor="B", versions=versions, load=9.0)
    found = {d.what: (d.old, d.new) for d in compared(old, new).differences}
    assert found == {
        "processor": ("A", "B"),
        "onnxruntime": ("1.32.0", "1.33.0"),
        "threads of the arms": ("2", "8"),
    }


def test_what_can_not_be_compared_is_refused(keep, make_latency, make_drift) -> None:
    latency = keep("latency", "latency", make_latency(ARMS))
    other_reference = keep("other", "latency", make_latency({FP32: 50.0, EAGER: 80.0}))
    drift = keep("drift", "drift", make_drift())
    other_list = keep("list", "drift", make_drift(sha256="ef" * 32))
    for old, new, why in (
        (latency, drift, "of the latency benchmark, drift of drift"),
        (latency, other_reference, f"beside {FP32}"),
        (drift, other_list, "efefefefefef"),
    ):
        with pytest.raises(BundleError, match=why):
            compared(old, new)


def test_the_command_exits_with_4_where_something_is_worse(keep, make_latency) -> None:
    old = keep("old", "latency", make_latency(ARMS))
    new = keep("new", "latency", make_latency({**ARMS, FP32: 60.0}, seed=1), processor="B")
    done = command(old, new)
    assert done.returncode == 4 and "2 worse" in done.stdout.splitlines()[-1], done.stderr
    assert "Not measured alike" in done.stdout and f"{FP32}: wall time" in done.stdout
    assert "memory" not in done.stdout and "memory" in command(old, new, "--all").stdout
    as_json = command(old, new, "--json")
    assert as_json.returncode == 4
    said = json.loads(as_json.stdout)
    assert [c["what"] for c in said["changes"] if c["verdict"] == "worse"] == [
        f"{FP32}: {what}" for what in ("wall time", "CPU time")
    ]
    assert command(new, old).returncode == 0


def test_a_newer_document_is_one_line(keep, make_latency, of_schema) -> None:
    old, new = (keep(name, "latency", make_latency(ARMS)) for name in ("old", "new"))
    of_schema(new, 3)
    done = command(old, new)
    assert done.returncode == 3 and done.stderr.count("\n") == 1 and "schema 3" in done.stderr
