"""Many streams at once: each hop of each stream is due at its own time; when is its score there?

    stream 0   |------hop------|------hop------|            a hop is due when its last sample was heard
    stream 1        |------hop------|------hop------|       each stream began at some moment of its own
    latency                    |==>                         from there to its score, waiting included

Streams are dealt to as many threads as work at the same time; a stream's hops are in order.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np

from nes2net_bench.latency.memory import process_memory
from nes2net_bench.latency.orders import Serve, Served
from nes2net_bench.latency.timing import Timing

Hop = tuple[float, int]  # when it is due (time.perf_counter), and whose it is
IDLE = 0.02  # share of the time that threads wait, where they keep up
TELLING = 100  # hops from which on a 99th percentile means something


@dataclass(frozen=True)
class Load:
    """Streams that were served together, in real time."""

    streams: int
    hops: int
    latency: Timing  # milliseconds from the end of a hop to its score
    busy: float  # share of the time that the threads computed
    late: float  # share of hops whose score came after the next hop's end
    fits: bool  # p99 (the largest, of fewer than 100 hops) within a hop, and the threads kept up


def serve(
    feeds: Sequence[Callable[[int], object]], due: Sequence[Hop], at_once: int, paced: bool
) -> tuple[list[float], list[float]]:
    """Feed each stream its hops when they are due (`paced`) or at once: seconds of latency, and of service.

    `feeds[i](k)` scores the k-th hop of stream i. Both lists are in the order of `due`.
    """
    latency, service = [0.0] * len(due), [0.0] * len(due)
    queues: list[SimpleQueue[tuple[int, float, int, int] | None]] = [SimpleQueue() for _ in range(at_once)]
    errors: list[BaseException] = []

    def work(queue: "SimpleQueue[tuple[int, float, int, int] | None]") -> None:
        while (job := queue.get()) is not None:
            number, when, stream, hop = job
            start = time.perf_counter()
            try:
                feeds[stream](hop)
            except BaseException as error:  # told to the caller below
                errors.append(error)
                return
            done = time.perf_counter()
            latency[number], service[number] = done - when, done - start

    threads = [Thread(target=work, args=(queue,), daemon=True) for queue in queues]
    for thread in threads:
        thread.start()
    hops = [0] * len(feeds)
    for number, (when, stream) in enumerate(due):
        if paced and (wait := when - time.perf_counter()) > 0:
            time.sleep(wait)
        moment = when if paced else time.perf_counter()
        queues[stream % at_once].put((number, moment, stream, hops[stream]))
        hops[stream] += 1
    for queue in queues:
        queue.put(None)
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return latency, service


def timetable(streams: int, hop: float, hops: int, start: float, seed: int) -> list[Hop]:
    """When hops are due: each stream begins somewhere within the first hop."""
    draw = random.Random(seed)
    begins = [start + draw.random() * hop for _ in range(streams)]
    return sorted((begins[i] + k * hop, i) for i in range(streams) for k in range(hops))


def serve_streams(detector: Any, order: Serve) -> Served:
    """Streams of one detector; each has heard a window before, so that every hop gives a score."""
    streams = [detector.stream(hop=order.hop) for _ in range(order.streams)]
    window, hop = streams[0].window, streams[0].hop
    noise = 0.05 * np.random.default_rng(order.seed).standard_normal(window + 8 * hop, np.float32)
    for stream in streams:
        stream.feed(noise[:window])

    def feed(stream: Any) -> Callable[[int], object]:
        def score(number: int) -> None:
            at = number % 8 * hop
            if len(stream.feed(noise[at : at + hop])) != 1:
                raise RuntimeError("a hop gave no score")

        return score

    feeds = [feed(stream) for stream in streams]
    for each in feeds:  # shapes of a hop are new
        each(0)
        each(1)
    cpu, start = time.process_time(), time.perf_counter()
    due = timetable(order.streams, order.hop, order.hops, start, order.seed)
    latency, service = serve(feeds, due, order.at_once, order.paced)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    return Served(latency, service, wall, cpu, process_memory())


def kept_up(served: Served, hop: float, at_once: int) -> tuple[float, float, bool]:
    """Share of time that threads computed, share of late hops, and whether the streams fit.

    A backlog that grows slowly would still look fine in a short test; threads that never wait tell it.
    """
    busy = sum(served.service) / (served.wall * at_once)
    latency = np.asarray(served.latency)
    worst = float(np.percentile(latency, 99)) if len(latency) >= TELLING else float(latency.max())
    return busy, float((latency > hop).mean()), worst <= hop and busy <= 1 - IDLE


def most_that_fit(try_streams: Callable[[int], bool], guess: int, trials: int) -> tuple[int, int | None]:
    """The most streams that fit, and the fewest that did not (None: none failed), in so many trials.

    Begins at `guess`, goes up or down by a sixth until it has both, then halves what is between.
    """
    fits, fails, streams = 0, None, max(1, guess)
    for _ in range(trials):
        if try_streams(streams):
            fits = streams
        else:
            fails = streams
        if fails is None:
            streams = fits + max(1, fits // 6)
        elif fits == 0:
            streams = fails - max(1, fails // 6)
        else:
            streams = (fits + fails) // 2
        if streams <= fits or streams == fails:
            break
    return fits, fails
