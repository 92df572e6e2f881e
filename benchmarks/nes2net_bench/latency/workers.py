"""A process of its own for each arm: what one does (threads that spin, memory, a crash) is not the others'.

    this process  -- Open, Run, Serve … -->  python -m nes2net_bench.latency.worker
                  <-- its answer ----------

One worker computes at a time; the others wait for their next command.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import TypeVar

import msgspec

from nes2net_bench.latency.orders import Failed, Order

T = TypeVar("T")


class ArmFailed(Exception):  # noqa: N818 - it is a finding, not a mistake
    """An arm could not be opened or run; one line says why. `crashed`: its process died, or was ended."""

    def __init__(self, reason: str, crashed: bool = False) -> None:
        super().__init__(reason)
        self.crashed = crashed


class Worker:
    """A process that does as it is told. Leaving the `with` block ends it."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._pipe, theirs = Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nes2net_bench.latency.worker", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **(environment or {})},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the others
        )
        theirs.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, order: Order, answer: type[T], timeout: float) -> T:
        """Have an order done; raises ArmFailed where it can't be, or takes longer than `timeout` seconds."""
        try:
            self._pipe.send_bytes(msgspec.json.encode(order))
            if not self._pipe.poll(timeout):
                self._process.kill()
                raise ArmFailed(f"no answer within {timeout:g} s", crashed=True)
            reply = self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise ArmFailed(self._last_words(), crashed=True) from error
        decoded = msgspec.json.decode(reply, type=answer | Failed)
        if isinstance(decoded, Failed):
            raise ArmFailed(decoded.reason)
        done: T = decoded
        return done

    def close(self) -> None:
        """End the process, also one that is at work."""
        self._pipe.close()  # it ends when it sees this
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _last_words(self) -> str:
        """How the process ended, and the last line that it wrote."""
        code = self._process.wait()
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        self._log.seek(0)
        lines = self._log.read()[-4096:].decode(errors="replace").strip().splitlines()
        return f"{how} ({lines[-1].strip()[:200]})" if lines else how


def worker_environment(scratch: Path, threads: int) -> dict[str, str]:
    """Variables of workers: one number of threads for all libraries; compiled code is this run's own."""
    return {
        "OMP_NUM_THREADS": str(threads),
        "OPENBLAS_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TRITON_CACHE_DIR": str(scratch / "triton"),
    }
