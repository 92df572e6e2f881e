"""Where a window's time goes on the CPU: ONNX Runtime's profile of bundles, by kernel.

    python scripts/kernel_times.py BUNDLE... [--threads N]

Prints a Markdown table of milliseconds a window, the mean of RUNS windows of noise after others that warm up.
"""

import json
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import typer

from nes2net_runtime.audio import normalize
from nes2net_runtime.bundle import read_bundle
from nes2net_runtime.inference.ort_sessions import session_options
from nes2net_runtime.inference.providers import import_onnxruntime
from nes2net_runtime.threads import usable_threads

WARM_UP, RUNS = 5, 5
LEAST = 0.01  # of a bundle's time: kernels with less in all bundles are one row


def kernel_times(bundles: list[Path], threads: int = usable_threads()) -> None:
    """Print the table."""
    times = {bundle.name: times_of(bundle, threads) for bundle in bundles}
    totals = {name: sum(found.values()) for name, found in times.items()}
    kernels = sum(times.values(), Counter())
    shown = [k for k, _ in kernels.most_common() if any(f[k] > LEAST * totals[n] for n, f in times.items())]
    print("| kernel |", " | ".join(f"{name}, ms" for name in times), "|")
    print("| --- |", " | ".join("--:" for _ in times), "|")
    for kernel in shown:
        print(f"| {kernel} |", " | ".join(f"{found[kernel]:.1f}" for found in times.values()), "|")
    rest = {name: totals[name] - sum(found[k] for k in shown) for name, found in times.items()}
    print("| others |", " | ".join(f"{one:.1f}" for one in rest.values()), "|")
    print("| all |", " | ".join(f"{total:.1f}" for total in totals.values()), "|")


def times_of(folder: Path, threads: int) -> Counter[str]:
    """Milliseconds a window of each kernel, over all stages of a bundle."""
    runtime, manifest = import_onnxruntime(), read_bundle(folder).manifest
    noise = np.random.default_rng(0).standard_normal((1, manifest.audio.window_samples), np.float32)
    tensor = 0.05 * noise
    if manifest.audio.normalize == "per-window":
        tensor = normalize(tensor)
    times: Counter[str] = Counter()
    for stage in manifest.stages:
        with tempfile.TemporaryDirectory() as scratch:
            options = session_options(runtime, threads)
            options.enable_profiling = True
            options.profile_file_prefix = f"{scratch}/profile"
            session = runtime.InferenceSession(
                folder / stage.file, options, providers=["CPUExecutionProvider"]
            )
            given = {stage.inputs[0].name: tensor}
            for _ in range(WARM_UP + RUNS):
                (tensor,) = session.run(None, given)
            events = json.loads(Path(session.end_profiling()).read_text())
        begin = [event["ts"] for event in events if event["name"] == "model_run"][-RUNS]
        for event in events:
            if event["name"].endswith("_kernel_time") and event["ts"] >= begin:
                times[event["args"]["op_name"]] += event["dur"] / 1e3 / RUNS
    return times


if __name__ == "__main__":
    typer.run(kernel_times)
