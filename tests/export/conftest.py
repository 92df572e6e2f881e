"""Small models: one thread is fastest, and stays so beside other work. And Python without a package."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture
def python_without(tmp_path_factory) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python with a package that can't be found, as where it is not installed."""

    def run(package: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
        folder = tmp_path_factory.mktemp("without")
        (folder / "sitecustomize.py").write_text(
            "import sys\n"
            "class Without:\n"
            "    def find_spec(self, name, path=None, target=None):\n"
            f"        if name.split('.')[0] == {package!r}:\n"
            f"            raise ModuleNotFoundError('No module named {package}', name={package!r})\n"
            "sys.meta_path.insert(0, Without())\n"
        )
        environment = {**os.environ, "PYTHONPATH": str(folder)}
        return subprocess.run(
            [sys.executable, *map(str, arguments)], capture_output=True, text=True, env=environment
        )

    return run
