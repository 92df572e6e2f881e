"""Documents of benchmarks, made by the benchmarks' own arithmetic from figures that a test chooses."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest

from nes2net_bench.documents import Document, document
from nes2net_bench.drift.curves import curve
from nes2net_bench.drift.measure import System, compare
from nes2net_bench.drift.results import DriftReport, Listed
from nes2net_bench.latency.arms import Absent
from nes2net_bench.latency.memory import Memory
from nes2net_bench.latency.orders import Peak, Peaks
from nes2net_bench.latency.results import (
    ArmResult,
    BundleCard,
    LatencyResults,
    Plan,
    StreamResult,
    StreamsResult,
    ThreadPoint,
    Throughput,
)
from nes2net_bench.latency.roofline import roofline
from nes2net_bench.latency.serving import Load
from nes2net_bench.latency.timing import ratio, timing
from nes2net_calib.protocols import Trial

EAGER, FP32, FP16 = "PyTorch eager fp32", "nes2net-run fp32", "nes2net-run fp16"
PEAKS = Peaks(
    {"fp32": Peak(48e9, "numpy", 9), "int8": Peak(215e9, "PyTorch", 9)},
    Peak(11e9, "PyTorch", 9),
    {"bf16": "no library here multiplies such matrices"},
)
Latency = Callable[..., LatencyResults]
Drift = Callable[..., DriftReport]
Keep = Callable[..., Path]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """(name, kind, results, **of the machine) -> the file of such a document."""

    def write(name: str, kind, results, **machine) -> Path:
        made = document(kind, results)
        made = msgspec.structs.replace(made, machine={**made.machine, **machine})
        path = tmp_path / f"{name}.json"
        path.write_bytes(msgspec.json.encode(made))
        return path

    return write


@pytest.fixture
def make_latency() -> Latency:
    """Milliseconds and megabytes of arms -> what latency.py would find; all scenarios unless `bare`."""

    def make(
        milliseconds: Mapping[str, float],
        megabytes: float = 100.0,
        bare: bool = False,
        seed: int = 0,
        absent: Sequence[Absent] = (),
    ) -> LatencyResults:
        rng = np.random.default_rng(seed)
        weather = rng.lognormal(0, 0.2, 30)  # slows all arms down alike
        rounds = {name: 1e-3 * ms * weather * rng.lognormal(0, 0.02, 30) for name, ms in milliseconds.items()}
        reference, *_ = milliseconds
        arms = [_arm(name, rounds, reference, megabytes, bare) for name in milliseconds]
        ours = [] if bare else [arm.name for arm in arms if arm.kind == "bundle"]
        wall = timing(rounds[reference])
        load = Load(8, 80, wall, 0.7, 0.0, True), Load(12, 120, wall, 1.0, 0.4, False)
        return LatencyResults(
            plan=Plan("cpu", 2, scenarios=() if bare else Plan.scenarios),
            window_seconds=4.0375,
            reference=reference,
            bundles=[BundleCard("demo", "fp32", "demo.safetensors", False, 6_600_000, {"a.onnx": "ab" * 32})],
            arms=arms,
            absent=[Absent("OpenVINO fp32", "openvino is not installed: pip install openvino"), *absent],
            threads=[
                ThreadPoint(name, threads, wall, ratio(rounds[name] / threads**0.8, rounds[name]))
                for name in ours
                for threads in (1, 2)
            ],
            streaming=[
                StreamResult(
                    name, 0.5, wall, 13.0, 0.03, load[0], ratio(0.2 * rounds[name], rounds[reference])
                )
                for name in ours
            ],
            streams=[StreamsResult(name, 0.5, 2, 8, 12, list(load), arms[0].memory) for name in ours],
            peaks=[] if bare else [PEAKS, PEAKS],
            macs={"encoder": 1_000_000},
            energy="unavailable: no counters",
            load_average=(0.5, 0.6),
            others=0.2,
            stolen=0.0,
            phases={},
            seconds=60.0,
        )

    return make


def _arm(
    name: str, rounds: Mapping[str, np.ndarray], reference: str, megabytes: float, bare: bool
) -> ArmResult:
    ours, precision = name.startswith("nes2net-run"), name.rpartition(" ")[2]
    found = ratio(rounds[name], rounds[reference])
    wall = timing(np.repeat(rounds[name], 4))
    place = None if bare else roofline(PEAKS, "fp32", 10**9, 6_600_000, wall.p50 / 1e3)
    size = round(megabytes * 1e6)
    bundle = {"fp32": "demo", "fp16": "demo-fp16", "int8": "demo-int8"}[precision]
    return ArmResult(
        name=name,
        kind="bundle" if ours else "eager",
        precision=precision,
        provider="cpu" if ours else None,
        runtime="onnxruntime 1.32.0",
        threads=2,
        load=[0.4, 0.3],
        first_run=[0.1, 0.09],
        wall=wall,
        cpu=wall,
        cpu_share=0.9,
        real_time_factor=0.02,
        ratio=found,
        cpu_ratio=found,
        rounds=(1e3 * rounds[name]).tolist(),
        windows=[10.0, 10.1, 10.2],
        stable=True,
        memory=Memory(size, size, round(0.6 * size), round(0.4 * size)),
        baseline=40_000_000,
        device_memory=None,
        joules=None,
        roofline=place,
        difference=1e-6,
        receipt={"bundle": bundle} if ours else None,
        throughput=[
            Throughput(batch, wall, 10.0 * batch, 40.0 * batch, found, place)
            for batch in ((1,) if bare else (1, 4))
        ],
    )


@pytest.fixture
def make_drift() -> Drift:
    """How far the classes are apart -> what eer_drift.py would find, 40 speakers a class."""

    def make(
        apart: float = 2.0, candidates: Mapping[str, float] | None = None, sha256: str = "ab" * 32
    ) -> DriftReport:
        rng = np.random.default_rng(3)
        labels = np.arange(400) < 200
        trials = [
            Trial(f"u{i}", Path(f"u{i}.flac"), bool(own), None if own else f"A0{i % 3}", f"s{i % 40}", None,
                  None, i + 1, ())
            for i, own in enumerate(labels)
        ]  # fmt: skip
        noise = rng.normal(0, 1, 400)
        reference = apart * labels + noise
        names = {"demo-fp16": 0.0} if candidates is None else candidates
        scores = {
            name: reference - worse * labels + rng.normal(0, 0.02, 400) for name, worse in names.items()
        }
        systems = [
            System(name, name.partition("-")[2] or "fp32", "cd" * 32, size)
            for name, size in zip(("demo", *names), (6_900_000, 3_700_000, 4_100_000), strict=False)
        ]
        return DriftReport(
            protocol=Listed("corpus.csv", sha256, "dev", 400),
            note=None,
            reference=systems[0],
            candidates=tuple(systems[1:]),
            provider="cpu",
            resamples=100,
            comparisons=tuple(
                compare(name, "first", "clean", trials, (reference, own), (None, None), 100)
                for name, own in scores.items()
            ),
            det=tuple(
                curve(name, "first", "clean", own[labels], own[~labels])
                for name, own in {"demo": reference, **scores}.items()
            ),
        )

    return make


@pytest.fixture
def of_schema() -> Callable[[Path, int], None]:
    """(file, schema) -> the file says that it has this schema."""

    def write(path: Path, schema: int) -> None:
        made = msgspec.json.decode(path.read_bytes(), type=Document)
        path.write_bytes(msgspec.json.encode(msgspec.structs.replace(made, schema=schema)))

    return write
