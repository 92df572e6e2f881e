"""Execution providers, ONNX Runtime's distributions, threads, and what the runtime may import."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import onnxruntime
import pytest

from nes2net_runtime import Detector, ProviderError
from nes2net_runtime.inference.ort_sessions import session_options
from nes2net_runtime.inference.providers import PROVIDERS, available_providers
from nes2net_runtime.threads import cgroup_cpus, physical_cores, usable_threads


def python(code: str, *path: Path) -> subprocess.CompletedProcess[str]:
    """Run code with folders in front of everything else that can be imported."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("provider", [p for p in PROVIDERS if p not in {"auto", *available_providers()}])
def test_a_provider_that_is_not_there_is_an_error_that_says_what_is(run, good: Path, provider) -> None:
    said = "is not here .*: pip install openvino" if provider == "openvino" else "is not in this .*is: .*cpu"
    with pytest.raises(ProviderError, match=f"{provider} {said}"):
        Detector(provider=provider)
    done = run(good, f"--provider={provider}")
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"error: provider {provider} is not ")


def test_two_distributions_of_onnxruntime_are_an_error_with_the_remedy(tmp_path: Path) -> None:
    info = tmp_path / "onnxruntime_gpu-1.31.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: onnxruntime-gpu\nVersion: 1.31.1\n")
    code = "import sys; sys.argv[1:] = ['--info']; from nes2net_runtime.cli import main; main()"
    done = python(code, tmp_path)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert (
        "onnxruntime-gpu 1.31.1 overwrite each other: pip uninstall -y onnxruntime onnxruntime-gpu"
        in done.stderr
    )


def test_no_onnxruntime_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('No module named onnxruntime')")
    code = "import sys; sys.argv[1:] = ['--info']; from nes2net_runtime.cli import main; main()"
    done = python(code, tmp_path)
    assert done.returncode == 3
    assert done.stderr == (
        "error: ONNX Runtime is not installed: pip install 'nes2net-edge[cpu]' (or [gpu])\n"
    )


def test_the_runtime_needs_no_torch_onnx_scipy_or_sklearn(tmp_path: Path, good: Path) -> None:
    """Not loaded by an import, and scoring works where importing them fails."""
    heavy = ("torch", "onnx", "scipy", "sklearn", "matplotlib")
    code = f"import sys, nes2net_runtime; print(*set({(*heavy, 'onnxruntime')}) & sys.modules.keys())"
    done = python(code)
    assert (done.returncode, done.stdout.strip()) == (0, "")
    for name in heavy:
        (tmp_path / f"{name}.py").write_text("raise ImportError('forbidden')")
    score = f"next(Detector().score_files([{str(good)!r}]))"
    code = f"from nes2net_runtime import Detector; print(len({score}.scores))"
    done = python(code, tmp_path)
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "250000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "399999\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({}, None),
    ],
)
def test_cgroup_quota_is_rounded_down(tmp_path: Path, files: dict[str, str], cpus: int | None) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cgroup_cpus(tmp_path) == cpus


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
def test_hyperthreads_count_once(tmp_path: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    for cpu in cpus:
        folder = tmp_path / f"cpu{cpu}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpus[0]}-{cpus[-1]}\n")
    assert physical_cores(tmp_path) == 1
    assert physical_cores(tmp_path / "none") is None


@pytest.mark.parametrize(("version", "spins"), [("1.25.1", False), ("1.26.0", True), ("1.32.0", True)])
def test_threads_spin_only_where_it_can_be_bounded(version: str, spins: bool) -> None:
    runtime = SimpleNamespace(__version__=version, SessionOptions=onnxruntime.SessionOptions)
    options = session_options(runtime, 2)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == str(int(spins))
    if spins:
        assert int(options.get_session_config_entry("session.intra_op.spin_duration_us")) <= 100


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux only")
def test_threads_stay_within_the_affinity() -> None:
    code = (
        "import os; from nes2net_runtime.threads import usable_threads; "
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_threads())"
    )
    assert python(code).stdout.strip() == "1"
    assert 1 <= usable_threads() <= len(os.sched_getaffinity(0))
