"""The wheel, installed into an environment of its own outside the checkout: what a user gets."""

import json
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT, cwd=out)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory) -> Path:
    """A virtual environment with the wheel and its [cpu] extra; its bin folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    install = ("-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{wheel}[cpu]")
    done = run(folder / "bin/python", *install, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in ("nes2net_runtime", "nes2net_calib", "nes2net_export", "nes2net_bench"):
        assert f"{package}/py.typed" in names
    assert "nes2net_runtime/demo.nes2net/manifest.json" in names
    assert "nes2net_runtime/records.schema.json" in names
    assert "nes2net_export/demo/demo.safetensors" in names
    assert sum(name.endswith("LICENSE") and ".dist-info/licenses/" in name for name in names) == 4
    assert not [name for name in names if name.startswith(("tests/", "docs/", "demo/"))]


def test_the_commands_run_without_torch(environment: Path, examples: Path, tmp_path: Path) -> None:
    done = run(environment / "nes2net-run", *sorted(examples.glob("*.flac")), "--format=jsonl", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [Path(r["file"]).name for r in records if r["type"] == "file"] == ["human.flac", "synthetic.flac"]

    done = run(environment / "nes2net-run", "--info", cwd=tmp_path)
    assert done.returncode == 0 and "all hashes match" in done.stdout
    assert "nes2net-edge 0." in run(environment / "nes2net-run", "--version", cwd=tmp_path).stdout

    done = run(environment / "nes2net-export", cwd=tmp_path)  # one line that says what to install
    assert done.returncode == 3
    assert done.stderr.strip() == (
        "error: onnx is not installed: pip install 'nes2net-edge[export,cpu]' makes bundles"
    )


def test_importing_the_runtime_loads_nothing_heavy(environment: Path, tmp_path: Path) -> None:
    code = (
        "import sys, nes2net_runtime; "
        "print(*{'torch', 'onnx', 'scipy', 'sklearn', 'onnxruntime', 'matplotlib'} & sys.modules.keys())"
    )
    done = run(environment / "python", "-c", code, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.strip() == "", done.stdout + done.stderr
