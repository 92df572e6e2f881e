"""The benchmark of latency: every section of its document, peers that are missing, arms that crash."""

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import psutil
import pytest
import tomllib
import typer.main
from stand_ins import machine as stand_in

from nes2net_bench.documents import document, read_document
from nes2net_bench.latency import arms, peers, targets
from nes2net_bench.latency.arms import Absent, Arm, Weights, bundle_arms, find_weights, peer_arms
from nes2net_bench.latency.measure import measure_latency
from nes2net_bench.latency.orders import Open, Opened, Peak, Run
from nes2net_bench.latency.results import LatencyResults, Plan, Throughput
from nes2net_bench.latency.watch import Watch
from nes2net_bench.latency.workers import ArmFailed, Worker
from nes2net_calib.progress import untracked
from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.bundle_writer import list_files, write_manifest
from nes2net_runtime.errors import ProviderError

ROOT = Path(__file__).parents[2]
SUITE = ROOT / "benchmarks/gpu_suite.sh"
TINY = ("--quick", "--runs", "2", "--seconds", "0.02", "--stream-seconds", "0.1", "--hop", "0.1")
FAST = Plan(
    *("cpu", 1, (1,)),
    runs=1,
    seconds=0.01,
    rounds=1,
    least_windows=3,
    most_windows=3,
    fresh=False,
    scenarios=(),
)


def run_latency(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/latency.py", *map(str, options)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """The command, once, on the demo detector, with two threads wherever the tests run."""
    file = tmp_path_factory.mktemp("latency") / "latency.json"
    return run_latency(*TINY, "--threads", "2", "-o", file), file


@pytest.fixture(scope="module")
def results(measured) -> LatencyResults:
    return msgspec.convert(read_document(measured[1]).results, LatencyResults)


def test_the_last_line_is_the_document_that_is_kept(measured) -> None:
    done, file = measured
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads(file.read_text())
    kept = read_document(file)
    assert kept.type == "latency" and kept.command.startswith("python benchmarks/latency.py --quick")
    assert kept.command.endswith(" -o latency.json")  # where that is, is nobody's business
    for key in ("processor", "governor", "load", "threads", "instructions", "cards"):
        assert key in kept.machine
    assert kept.machine["versions"]["onnxruntime"] and kept.machine["versions"]["torch"]
    assert "\x1b[" not in done.stderr  # no colours, and no bar, in a file


def test_every_arm_has_its_figures(results: LatencyResults) -> None:
    names = [arm.name for arm in results.arms]
    assert names[0] == results.reference == "PyTorch eager fp32"
    assert "PyTorch eager bf16" in names and "nes2net-run fp32" in names
    for arm in results.arms:
        assert arm.wall.samples >= 2 and 0 < arm.wall.least <= arm.wall.p50 <= arm.wall.largest
        assert arm.wall.p99 is None  # of so few runs
        assert len(arm.rounds) == 6 and len(arm.windows) == arm.ratio.pairs == 3
        assert arm.ratio.low <= arm.ratio.estimate <= arm.ratio.high
        assert arm.real_time_factor == pytest.approx(arm.wall.p50 / 1e3 / (64_600 / 16_000))
        assert len(arm.load) == len(arm.first_run) == 2 and min(arm.load + arm.first_run) > 0
        assert arm.memory.peak > arm.baseline > 5e6
        assert arm.cpu.p50 > 0 and 0 < arm.cpu_share < 2
        assert arm.roofline is not None and arm.roofline.share_of_peak > 0
        assert arm.roofline.operations == 2 * sum((results.macs or {}).values())
        assert [point.batch for point in arm.throughput] == [1, 4]
        assert arm.throughput[1].real_time == pytest.approx(arm.throughput[1].windows_per_second * 4.0375)
    reference = results.arms[0]
    assert (reference.ratio.low, reference.ratio.estimate, reference.ratio.high) == (1, 1, 1)


def test_arms_compute_the_same(results: LatencyResults) -> None:
    by_name = {arm.name: arm for arm in results.arms}
    ours, half = by_name["nes2net-run fp32"], by_name["PyTorch eager bf16"]
    assert ours.difference is not None and ours.difference < 1e-4
    # bfloat16 has 8 bits: torch's is 0.02 off on some processors, 0.8 where it computes with AMX
    assert half.difference is not None and 1e-4 < half.difference < 2
    assert ours.receipt is not None and {s["provider"] for s in ours.receipt["stages"]} == {"cpu"}
    torch = by_name["PyTorch eager fp32"]
    assert ours.memory.peak < torch.memory.peak  # torch alone is 150 MB


def test_the_other_scenarios_are_there(results: LatencyResults) -> None:
    assert {(p.name, p.threads) for p in results.threads} == {
        ("nes2net-run fp32", threads) for threads in (1, 2)
    }
    (stream,) = results.streaming
    assert stream.name == "nes2net-run fp32" and stream.saturated.samples == 12  # two in each of six turns
    assert stream.paced.hops == 10 and stream.paced.streams == 1 and stream.saturated_cpu > 0
    assert stream.ratio.pairs == 6 and 0 < stream.ratio.low <= stream.ratio.estimate <= stream.ratio.high
    (streams,) = results.streams
    assert streams.at_once == 2 and len(streams.trials) == 1
    assert streams.trials[0].hops == 4 * streams.trials[0].streams
    assert streams.fit in (0, streams.trials[0].streams)
    assert {"fp32", "bf16", "int8"} == results.peaks[0].gemm.keys() | results.peaks[0].unavailable.keys()
    assert results.peaks[0].copy.per_second > 1e8 and len(results.peaks) == 2
    assert results.energy
    (card,) = results.bundles
    demo = read_bundle(DEMO).manifest
    hashes = {file.path: file.sha256 for file in demo.files if file.path.endswith(".onnx")}
    assert card.graphs == hashes and card.checkpoint == "demo.safetensors"


def test_what_is_missing_is_said_in_the_document_and_on_the_screen(measured, results) -> None:
    missing = {absent.name for absent in results.absent}
    assert {"torch.compile fp32", "torch.compile bf16", "ONNX Runtime, plain export fp32"} <= missing
    if importlib.util.find_spec("openvino") is None:
        assert (
            "unavailable: OpenVINO fp32: openvino is not installed: pip install openvino"
            in measured[0].stderr
        )
    for absent in results.absent:
        assert f"{absent.name}: {absent.reason}" in " ".join(measured[0].stderr.split())


def test_a_machine_without_peers_names_each_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms, "find_spec", lambda name: None)
    bundle = read_bundle(DEMO)
    tried, absent = peer_arms([bundle], Weights({}, None, False), arms.PEERS, "cpu", 1, Path())
    assert tried == []
    reasons = {each.name: each.reason for each in absent}
    torch = "torch is not installed: pip install 'nes2net-edge[export]'"
    assert reasons == {
        "PyTorch eager fp32": torch,
        "PyTorch eager bf16": torch,
        "torch.compile fp32": torch,
        "torch.compile bf16": torch,
        "ONNX Runtime, plain export fp32": torch,
        "ONNX Runtime, dynamic int8": torch,
        "OpenVINO int8": "openvino is not installed: pip install openvino",
        "OpenVINO fp32": "openvino is not installed: pip install openvino",
        "OpenVINO bf16": "openvino is not installed: pip install openvino",
    }


def test_compilation_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arms.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    _, absent = peer_arms([read_bundle(DEMO)], Weights({}, None, False), ("compile",), "cpu", 1, Path())
    reasons = {each.name: each.reason for each in absent}
    assert (
        reasons["torch.compile fp32"]
        == "torch.compile needs a C++ compiler (g++ or clang++), and there is none"
    )
    assert reasons["PyTorch eager fp32"] == "left out: ask for --peer eager"


def test_a_card_has_other_arms_of_which_each_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(DEMO)
    ours = bundle_arms([bundle], arms.PROVIDERS["cuda"], "cuda", 1)
    names = [arm.name for arm in ours]
    assert names == [f"nes2net-run fp32 on {provider}" for provider in ("cuda", "tensorrt", "trt-rtx")]
    monkeypatch.setattr(arms, "find_spec", lambda name: object())
    tried, absent = peer_arms([bundle], find_weights(bundle, None), arms.PEERS, "cuda", 1, Path())
    assert [(arm.name, arm.precision, arm.mode) for arm in tried] == [
        ("PyTorch eager fp32", "fp32", None),
        ("PyTorch eager fp16", "fp16", None),
        ("torch.compile fp32", "fp32", None),
        ("torch.compile fp32, CUDA graphs", "fp32", "reduce-overhead"),
        ("torch.compile fp16", "fp16", None),
        ("torch.compile fp16, CUDA graphs", "fp16", "reduce-overhead"),
        ("ONNX Runtime, plain export fp32", "fp32", None),
    ]
    assert {each.reason for each in absent} == {"OpenVINO has no NVIDIA cards", "its integers are for CPUs"}


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="there is a card")
def test_without_a_card_nothing_is_measured_and_every_reason_is_one_line() -> None:
    done = run_latency(*TINY, "--device", "cuda", "--peer", "eager")
    assert done.returncode == 3 and done.stdout == ""
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: nothing could be measured")
    for name in ("PyTorch eager fp16: torch finds no CUDA card", "nes2net-run fp32 on cuda: provider cuda"):
        assert name in last


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--peer", "jax"), "'jax' is not one of eager, compile, compile-bf16, openvino, plain, dynamic"),
        (("--scenario", "offline"), "'offline' is not one of"),
        (("--provider", "gpu"), "'gpu' is not one of auto, cpu, cuda"),
    ],
)
def test_wrong_usage(options: tuple[str, str], complaint: str) -> None:
    done = run_latency(*options)
    assert done.returncode == 2 and complaint in " ".join(done.stderr.replace("│", " ").split())


def test_a_bundle_that_is_not_there_is_one_line() -> None:
    done = run_latency("--bundle", "nowhere.nes2net")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: nowhere.nes2net: no such bundle")


def broken_bundle(folder: Path) -> Path:
    """A bundle whose hashes match and whose encoder ONNX Runtime can't load."""
    shutil.copytree(DEMO, folder)
    (folder / "encoder.onnx").write_bytes((DEMO / "backend.onnx").read_bytes()[:9000])
    manifest = read_bundle(DEMO).manifest
    files = [file for file in list_files(folder) if file.path != "manifest.json"]
    write_manifest(folder, manifest.with_files(files))
    return folder


def measure(tmp_path: Path, tested: list[Arm], track=untracked, plan: Plan = FAST) -> LatencyResults:
    return measure_latency(plan, [read_bundle(DEMO)], tested, Watch(lambda line: None, track, []), tmp_path)


def two_arms(**second: object) -> list[Arm]:
    (arm,) = bundle_arms([read_bundle(DEMO)], ("cpu",), "cpu", 1)
    return [arm, msgspec.structs.replace(arm, name="second", **second)]


def test_an_arm_that_cannot_be_loaded_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    folder = broken_bundle(tmp_path / "broken.nes2net")
    found = measure(tmp_path, two_arms(folder=str(folder)))
    assert [arm.name for arm in found.arms] == ["nes2net-run fp32"]
    assert found.absent == [Absent("second", found.absent[0].reason, False)]
    assert "encoder.onnx: " in found.absent[0].reason


def test_an_arm_whose_process_dies_is_reported_and_the_others_are_measured(tmp_path: Path) -> None:
    def track(what: str, total: int) -> Callable[[int], None]:
        if what == "steady state, window 2":
            newest = max(psutil.Process().children(), key=lambda child: (child.create_time(), child.pid))
            newest.kill()  # the second arm's
        return lambda count: None

    found = measure(tmp_path, two_arms(), track)
    assert [arm.name for arm in found.arms] == ["nes2net-run fp32"]
    assert found.absent == [Absent("second", "killed by SIGKILL", True)]
    assert len(found.arms[0].rounds) == 3


def test_when_the_reference_dies_the_next_arm_takes_its_place(tmp_path: Path) -> None:
    first, second = two_arms()
    lost = msgspec.structs.replace(first, name="first", folder=str(tmp_path / "gone"))
    found = measure(tmp_path, [lost, second])
    assert found.reference == "second" and found.arms[0].ratio.estimate == 1


def test_fresh_processes_for_each_window(tmp_path: Path) -> None:
    processes: list[set[int]] = []

    def track(what: str, total: int) -> Callable[[int], None]:
        if what.startswith("steady state"):
            processes.append({child.pid for child in psutil.Process().children()})
        return lambda count: None

    measure(tmp_path, two_arms()[:1], track, plan=replace(FAST, fresh=True))
    assert len(processes) == 3 and not (processes[0] & processes[1] or processes[1] & processes[2])


def test_an_arm_starts_twice_with_no_other_beside_it(tmp_path: Path) -> None:
    beside: list[int] = []

    def track(what: str, total: int) -> Callable[[int], None]:
        def advance(count: int) -> None:
            if what.startswith("starting"):
                beside.append(len(psutil.Process().children()))

        return advance

    found = measure(tmp_path, two_arms(), track)
    assert beside == [0, 0, 0, 0]
    for arm in found.arms:
        assert len(arm.load) == len(arm.first_run) == 2


def test_where_nothing_works_the_error_names_every_arm(tmp_path: Path) -> None:
    lost = [msgspec.structs.replace(arm, folder=str(tmp_path / "gone")) for arm in two_arms()]
    with pytest.raises(ProviderError, match=r"nothing could be measured \(nes2net-run fp32: .*; second: "):
        measure(tmp_path, lost)


def test_an_arm_that_does_not_answer_is_ended() -> None:
    (arm,) = bundle_arms([read_bundle(DEMO)], ("cpu",), "cpu", 1)
    with Worker() as worker:
        worker.ask(Open(arm, 1), Opened, 60)
        with pytest.raises(ArmFailed, match=r"no answer within 0\.2 s") as failed:
            worker.ask(Run(1, 1, 1000.0), Opened, 0.2)
        assert failed.value.crashed


def test_what_libraries_print_does_not_reach_the_answers(tmp_path: Path) -> None:
    with Worker() as worker, pytest.raises(ArmFailed, match="gone: no such bundle"):
        worker.ask(Open(two_arms(folder=str(tmp_path / "gone"))[1], 1), Opened, 60)


@pytest.mark.parametrize("provider", ["cuda"])
def test_a_bundle_on_a_card_up_to_the_provider(
    provider: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cpu, cuda = two_arms(device="cuda", provider=provider)
    expected = peers.open_arm(cpu).run(peers.windows(cpu, 2))
    stand_in.install(monkeypatch, tmp_path)
    opened = peers.open_arm(cuda)
    for _ in range(3):  # the lane, its graph, its replay
        np.testing.assert_allclose(opened.run(peers.windows(cuda, 2)), expected, atol=1e-5)
    assert opened.receipt is not None
    stages = opened.receipt["stages"]
    assert {stage["provider"] for stage in stages} == {"cuda"} and all(s["cuda_graph"] for s in stages)


def test_torch_of_the_same_shape_where_the_checkpoint_is_not_known() -> None:
    bundle = read_bundle(DEMO)
    source = msgspec.structs.replace(bundle.manifest.source, checkpoint="mine.pth", sha256="0" * 64)
    manifest = msgspec.structs.replace(bundle.manifest, source=source)
    weights = find_weights(msgspec.structs.replace(bundle, manifest=manifest), None)
    assert weights.checkpoint is None and not weights.same
    (arm, *_), _ = peer_arms([bundle], weights, ("eager",), "cpu", 1, Path())
    assert not arm.same_weights and peers.open_arm(arm).run(peers.windows(arm, 1)).shape == (1, 2)
    assert find_weights(bundle, None).same and find_weights(bundle, "x.pth").checkpoint == "x.pth"


def on_a_card(results: LatencyResults, ratio: float, share: float) -> LatencyResults:
    """The measured arms, as if a card had given them."""
    eager, ours = results.arms[0], next(arm for arm in results.arms if arm.kind == "bundle")
    eager = replace(eager, name="PyTorch eager fp16", precision="fp16", windows=[10.0] * 6)
    assert ours.roofline is not None and ours.receipt is not None
    stages = [{**stage, "provider": "cuda", "cuda_graph": True} for stage in ours.receipt["stages"]]
    roof = replace(ours.roofline, operations=share * 1e15)
    second = replace(ours.wall, p50=1000.0)
    ours = replace(
        ours,
        precision="fp16",
        provider="cuda",
        windows=[10.0 * ratio] * 6,
        receipt={"stages": stages},
        throughput=[Throughput(32, second, 32.0, 129.0, None, roof)],
    )
    peaks = [msgspec.structs.replace(results.peaks[0], gemm={"fp16": Peak(1e15, "PyTorch", 9)})]
    return replace(results, arms=[eager, ours], peaks=peaks)


def judged(found: LatencyResults, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "card.json"
    file.write_bytes(msgspec.json.encode(document("latency", found)))
    command = [sys.executable, "-m", "nes2net_bench.latency.targets", str(file)]
    return subprocess.run(command, capture_output=True, text=True)


def test_targets_of_a_card_hold_or_are_missed(results: LatencyResults, tmp_path: Path) -> None:
    done = judged(on_a_card(results, 0.35, 0.40), tmp_path)
    assert done.returncode == 0 and done.stdout.splitlines() == [
        "HOLDS   batch 1: CUDA fp16 with graphs takes 0.350 (0.350-0.350) of PyTorch eager fp16 "
        "(target 0.35)",
        "HOLDS   batch 32: nes2net-run fp32 does 40.0% of the fp16 GEMM peak of 1000 TFLOP/s (target 40%), "
        "32 windows/s",
    ]
    done = judged(on_a_card(results, 0.36, 0.39), tmp_path)
    assert done.returncode == 0 and done.stdout.count("MISSED") == 2
    assert judged(results, tmp_path).stdout.count("UNKNOWN") == 2


def test_a_card_that_did_not_do_it_is_a_failed_check(results: LatencyResults, tmp_path: Path) -> None:
    good = on_a_card(results, 0.3, 0.5)
    eager, ours = good.arms
    fallen = replace(ours, receipt={"stages": [{"provider": "cpu", "cuda_graph": False}]})
    done = judged(replace(good, arms=[eager, fallen]), tmp_path)
    assert done.returncode == 4 and "asked for cuda, ran on cpu" in done.stdout
    assert "WITHOUT graphs" in done.stdout
    wrong = replace(ours, difference=0.5)
    assert list(targets.failed_checks(replace(good, arms=[eager, wrong]))) == [
        "nes2net-run fp32: logits differ by 5.0e-01 (bound 0.03)"
    ]
    other = tmp_path / "other.json"
    other.write_text('{"schema": 2}')
    command = [sys.executable, "-m", "nes2net_bench.latency.targets", str(other)]
    assert subprocess.run(command, capture_output=True).returncode == 3


def module_of(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"command_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_gpu_suite_is_a_sound_script() -> None:
    assert subprocess.run(["sh", "-n", SUITE]).returncode == 0
    if shutil.which("shellcheck"):
        assert subprocess.run(["shellcheck", SUITE]).returncode == 0


def test_every_command_of_the_gpu_suite_is_one_that_exists() -> None:
    from nes2net_export.cli import app as export
    from nes2net_runtime.cli import app as runtime

    done = subprocess.run(["sh", SUITE, "--dry-run", "place"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    commands = [shlex.split(line[2:]) for line in done.stdout.splitlines() if line.startswith("+ ")]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    apps = {
        "nes2net-export": export,
        "nes2net-run": runtime,
        "benchmarks/latency.py": module_of(ROOT / "benchmarks/latency.py").app,
        "nes2net_bench.latency.targets": targets.app,
    }
    seen = set()
    for program, *words in commands:
        match [Path(program).name, *words]:
            case ["mkdir" | "python3", *_]:
                continue
            case ["python", "-m", "pip", "install", *rest]:
                wanted = rest[-1].removeprefix(".[").removesuffix("]").split(",")
                assert set(wanted) <= extras.keys()
                continue
            case ["python", "-m", name, *arguments] | ["python", name, *arguments] | [name, *arguments]:
                command = typer.main.get_command(apps[name])
                command.make_context(name, arguments)  # raises for an option that is not there
                seen.add(name)
                assert not any(word.startswith("docs/") and not (ROOT / word).exists() for word in arguments)
    assert seen == apps.keys()


def test_a_suite_command_with_an_unknown_option_would_be_noticed() -> None:
    command = typer.main.get_command(module_of(ROOT / "benchmarks/latency.py").app)
    with pytest.raises(Exception, match="No such option"):
        command.make_context("latency", ["--devise", "cuda"])


@pytest.mark.slow
def test_compiled_and_plainly_exported_peers_compute_the_same(tmp_path: Path) -> None:
    options = (
        "--peer",
        "eager",
        "--peer",
        "compile",
        "--peer",
        "plain",
        "--peer",
        "dynamic",
        "--scenario",
        "roofline",
        "--batch",
        "1",
    )
    few = ("--runs", "1", "--seconds", "0.01", "--threads", "1", "--windows", "1")
    file = tmp_path / "latency.json"
    done = run_latency(*options, *few, "-o", file)
    assert done.returncode == 0, done.stderr
    found = msgspec.convert(read_document(file).results, LatencyResults)
    by_name = {arm.name: arm for arm in found.arms}
    absent = {each.name: each for each in found.absent}
    names = ["ONNX Runtime, plain export fp32"]
    if shutil.which("g++"):
        names.append("torch.compile fp32")
    for name in names:
        assert name in by_name, absent.get(name)
        difference = by_name[name].difference
        assert difference is not None and difference < 1e-4
    integers = by_name["ONNX Runtime, dynamic int8"].difference
    assert integers is not None and 1e-4 < integers < 5
    assert found.threads == [] and found.streams == [] and found.streaming == []
