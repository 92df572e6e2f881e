"""The roofline: what this machine can do at all, and the least time that a window could take on it.

    least time = max(operations / GEMM peak of the precision, bytes of weights / copy bandwidth)

Peaks are the best of many runs (as STREAM reports them): large square products by whatever library that is
here does them fastest, and a copy that no cache holds. A multiply-accumulate is two operations, a copied byte
is read and written. Products alone are counted (convolutions, linear layers, attention): norms, activations
and their memory traffic come on top, so no detector reaches 100 %.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nes2net_bench.latency.arms import Device
from nes2net_bench.latency.orders import Peak, Peaks, Work
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.inference.ort_sessions import first_line

SIZE = {"cpu": 2048, "cuda": 8192}  # of square products
COPY_BYTES = {"cpu": 1 << 28, "cuda": 1 << 30}
Run = Callable[[], object]  # one product or copy, done when it returns


@dataclass(frozen=True)
class Roofline:
    """How far an arm is from the machine, at one batch."""

    precision: str  # of the peak: what the arm computes in
    operations: float  # a run
    weights: int  # bytes
    per_second: float  # operations, achieved
    share_of_peak: float  # achieved / GEMM peak
    least: float  # milliseconds
    share: float  # least / achieved time
    bound: str  # "compute" or "memory": which of the two is the larger


def roofline(peaks: Peaks, precision: str, macs: int, weights: int, seconds: float) -> Roofline | None:
    """Place a run of `seconds`; None where the precision's peak is not known."""
    peak = peaks.gemm.get(precision)
    if peak is None:
        return None
    operations = 2.0 * macs
    compute, memory = operations / peak.per_second, weights / peaks.copy.per_second
    least = max(compute, memory)
    return Roofline(
        precision=precision,
        operations=operations,
        weights=weights,
        per_second=operations / seconds,
        share_of_peak=compute / seconds,
        least=1e3 * least,
        share=least / seconds,
        bound="compute" if compute >= memory else "memory",
    )


def computes_in(precision: str, device: Device) -> str:
    """What a precision is computed in: ONNX Runtime's CPU kernels widen float16 and 4 bits."""
    if device == "cpu":
        return {"fp16": "fp32", "int4": "int8"}.get(precision, precision)
    return precision


def best_of(peaks: Peaks, again: Peaks) -> Peaks:
    """The better of two measurements of the same machine."""
    gemm = {
        name: max((p.gemm[name] for p in (peaks, again) if name in p.gemm), key=lambda peak: peak.per_second)
        for name in {**peaks.gemm, **again.gemm}
    }
    copy = max(peaks.copy, again.copy, key=lambda peak: peak.per_second)
    return Peaks(gemm, copy, peaks.unavailable)


def measure_peaks(device: Device, threads: int, seconds: float) -> Peaks:
    """Measure each precision's product and the copy for `seconds`."""
    size = SIZE[device]
    gemm: dict[str, Peak] = {}
    unavailable: dict[str, str] = {}
    for precision in ("fp32", "bf16", "int8") if device == "cpu" else ("fp32", "fp16", "bf16", "int8"):
        found: list[Peak] = []
        reasons: list[str] = []
        for by, make in _products(device, precision, threads):
            try:
                found.append(_best(make(size), 2.0 * size**3, by, seconds))
            except Exception as error:  # a library that has no such kernel says so in its own way
                reasons.append(f"{by}: {first_line(error)}")
        if found:
            gemm[precision] = max(found, key=lambda peak: peak.per_second)
        else:
            unavailable[precision] = "; ".join(reasons) or "no library here multiplies such matrices"
    run, by = _copy(device, threads)
    return Peaks(gemm, _best(run, 2.0 * COPY_BYTES[device], by, seconds), unavailable)


def _best(run: Run, work: float, by: str, seconds: float) -> Peak:
    run()
    best, runs, begin = np.inf, 0, time.perf_counter()
    while runs < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        best, runs = min(best, time.perf_counter() - start), runs + 1
    return Peak(work / best, by, runs)


def _products(device: Device, precision: str, threads: int) -> list[tuple[str, Callable[[int], Run]]]:
    """Libraries that might multiply matrices of this precision, and how."""
    ways: list[tuple[str, Callable[[int], Run]]] = []
    if find_spec("torch"):
        ways.append(("PyTorch", lambda size: _torch_product(device, precision, size, threads)))
    if device == "cpu" and precision == "fp32":
        ways.append(("numpy", _numpy_product))
    if device == "cpu" and precision in ("fp32", "int8") and find_spec("onnx"):
        ways.append(("ONNX Runtime", lambda size: _onnx_product(precision, size, threads)))
    return ways


def _torch_product(device: Device, precision: str, size: int, threads: int) -> Run:
    import torch

    torch.set_num_threads(threads)
    if precision == "int8":
        a = torch.randint(-127, 127, (size, size), dtype=torch.int8, device=device)
        product: Callable[..., Any] = torch._int_mm
    else:
        kinds = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
        a = torch.randn(size, size, device=device).to(kinds[precision])
        product = torch.mm
    b = a.t().contiguous().t() if precision == "int8" else a.clone()  # cuBLAS wants int8 by columns
    wait: Run = torch.cuda.synchronize if device == "cuda" else int

    def run() -> None:
        product(a, b)
        wait()

    return run


def _numpy_product(size: int) -> Run:
    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    out = np.empty_like(a)
    return lambda: np.matmul(a, a, out=out)


def _onnx_product(precision: str, size: int, threads: int) -> Run:
    """MatMul, or MatMulInteger of unsigned activations and signed weights, as our INT8 graphs have it."""
    import tempfile

    import onnx
    from onnx import helper, numpy_helper

    from nes2net_runtime.inference.ort_sessions import cpu_session

    draw = np.random.default_rng(0)
    if precision == "int8":
        a, weights = (draw.integers(0, 255, (size, size), kind) for kind in (np.uint8, np.uint8))
        weights = (weights.astype(np.int16) - 128).astype(np.int8)
        kind, operator, result = onnx.TensorProto.UINT8, "MatMulInteger", onnx.TensorProto.INT32
    else:
        a = weights = draw.standard_normal((size, size), np.float32)
        kind, operator, result = onnx.TensorProto.FLOAT, "MatMul", onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "product",
        [helper.make_tensor_value_info("a", kind, [size, size])],
        [helper.make_tensor_value_info("c", result, [size, size])],
        [numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "product.onnx"
        path.write_bytes(model.SerializeToString())
        session = cpu_session(path, threads)
    return lambda: session.run(None, {"a": a})


def _copy(device: Device, threads: int) -> tuple[Run, str]:
    if not find_spec("torch"):
        source = np.ones(COPY_BYTES[device], np.uint8)
        target = np.empty_like(source)
        return lambda: np.copyto(target, source), "numpy, one thread"
    import torch

    torch.set_num_threads(threads)
    here = torch.ones(COPY_BYTES[device] // 4, dtype=torch.float32, device=device)
    there = torch.empty_like(here)
    wait: Run = torch.cuda.synchronize if device == "cuda" else int

    def run() -> None:
        there.copy_(here)
        wait()

    return run, "PyTorch"


def count_work(folder: Path, samples: int) -> Work:
    """Multiply-accumulates of one window's products, and the weights that they read, of a bundle's graphs."""
    from nes2net_bench.macs.graphs import bundle_macs

    stages = bundle_macs(read_bundle(folder), samples)
    return Work(
        macs={stage.stage: stage.macs for stage in stages},
        parameters=sum(stage.parameters for stage in stages),
        weights=sum(stage.weight_bytes for stage in stages),
    )
