"""A worker: it does orders, one by one, until the other side of its pipe is closed (workers.py draws it)."""

import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgspec

from nes2net_bench.latency.arms import Arm
from nes2net_bench.latency.memory import process_memory
from nes2net_bench.latency.orders import (
    CountWork,
    Failed,
    MakeGraphs,
    MeasurePeaks,
    Open,
    Opened,
    Order,
    Ran,
    Run,
    Serve,
    Served,
)


class Desk:
    """An arm that is open, and the orders that it takes."""

    def __init__(self) -> None:
        self._opened: Any = None

    def do(self, order: Order) -> Any:
        """Do one order. Imports come here, so that an arm's memory and load time are its own alone."""
        match order:
            case Open():
                return self._open(order)
            case Run():
                return self._run(order)
            case Serve():
                return self._serve(order)
            case MakeGraphs():
                from nes2net_bench.latency.peers import make_graphs

                return make_graphs(order.arm)
            case MeasurePeaks():
                from nes2net_bench.latency.roofline import measure_peaks

                return measure_peaks(order.device, order.threads, order.seconds)
            case CountWork():
                from nes2net_bench.latency.roofline import count_work

                return count_work(Path(order.folder), order.samples)

    def _open(self, order: Open) -> Opened:
        _read_once(order.arm)
        started = process_memory().peak
        start = time.perf_counter()
        from nes2net_bench.latency.peers import open_arm, windows

        self._opened = opened = open_arm(order.arm)
        load = time.perf_counter() - start
        loaded, batch = process_memory(), windows(order.arm, order.batch)
        start = time.perf_counter()
        logits = opened.run(batch)
        first = time.perf_counter() - start
        self._batches = {order.batch: batch}
        return Opened(
            load, first, logits.tolist(), opened.runtime, opened.receipt, started, loaded, process_memory()
        )

    def _run(self, order: Run) -> Ran:
        from nes2net_bench.latency.peers import windows

        opened = self._opened
        if order.batch not in self._batches:
            self._batches[order.batch] = windows(opened.arm, order.batch)
        batch = self._batches[order.batch]
        call: Callable[[], Any] = lambda: opened.run(batch)  # noqa: E731
        call()  # caches hold what other processes did meanwhile
        wall: list[float] = []
        cpu: list[float] = []
        begin = time.perf_counter()
        while len(wall) < order.runs or time.perf_counter() - begin < order.seconds:
            cpu_start, start = time.process_time(), time.perf_counter()
            call()
            wall.append(time.perf_counter() - start)
            cpu.append(time.process_time() - cpu_start)
        return Ran(wall, cpu, len(wall) + 1, process_memory())

    def _serve(self, order: Serve) -> Served:
        from nes2net_bench.latency.serving import serve_streams

        return serve_streams(self._opened.detector, order)


def _read_once(arm: Arm) -> None:
    """Read an arm's files: it loads from the page cache, whatever else was loaded since they were written."""
    for folder in {Path(path) for path in (arm.folder, arm.source) if path}:
        for path in filter(Path.is_file, folder.rglob("*")):
            with path.open("rb") as file, Path(os.devnull).open("wb") as nowhere:
                shutil.copyfileobj(file, nowhere, 1 << 20)


def main() -> None:
    """Do orders until the pipe is closed."""
    pipe: Connection[bytes, bytes] = Connection(int(sys.argv[1]))
    decode, desk = msgspec.json.Decoder(Order).decode, Desk()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            order = decode(pipe.recv_bytes())
            try:
                answer = desk.do(order)
            except Exception as error:  # whatever a library raises is a finding
                lines = str(error).strip().splitlines()
                kind = type(error).__name__
                ours = kind.endswith("Error") and type(error).__module__.startswith("nes2net_")
                text = lines[0] if lines else kind
                answer = Failed(text if ours else f"{kind}: {text}" if lines else kind)
            pipe.send_bytes(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
