"""Scores of a list by several bundles: in worker processes or on a Ray cluster, kept as they come.

What is scored goes out in small tasks; every task's scores are kept by the content of bundle and audio before
the next one's are waited for. A run that was killed goes on where it was; audio as it is shares its scores
with nes2net-calib.
"""

import logging
import signal as signals_of_the_system
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile

from nes2net_bench.drift.conditions import CLEAN, Apply, condition, recipe
from nes2net_calib.progress import Say, Track
from nes2net_calib.protocols import Trial
from nes2net_calib.score_cache import Heard, ScoreCache, cache_path
from nes2net_calib.scoring import Signal, content, score_signals
from nes2net_runtime import AudioError, Detector
from nes2net_runtime.audio import SAMPLE_RATE, read_blocks
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProtocolError, ProviderError
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.segments import SegmentRule

SIGNALS_A_TASK = 8  # a killed run loses as many a worker
SHOWN = 20  # problems

Result = list[Heard | str]  # of a task's signals: scores, or why there are none
Run = Callable[[Sequence["Task"]], Iterator[tuple[int, Result]]]  # tasks -> (which, its result), as they end


@dataclass(frozen=True)
class Task:
    """A few signals for a detector; everything that a worker needs to know."""

    bundle: Path
    provider: Provider
    threads: int
    rule: SegmentRule
    condition: str
    signals: tuple[Signal, ...]


@dataclass(frozen=True)
class Scoring:
    """How a list is scored."""

    run: Run
    provider: Provider
    threads: int  # of each worker
    say: Say
    track: Track


def score_list(
    bundle: Bundle, wanted: Sequence[Signal], rule: SegmentRule, name: str, how: Scoring
) -> tuple[list[Heard | None], list[str]]:
    """What a bundle says to each signal under a condition, and what is wrong with those that have no scores.

    Only what is not kept from earlier runs is computed.
    """
    cache = _cache(bundle, rule, name, how)
    keys = [content(signal) for signal in wanted]
    new = list({key: signal for key, signal in zip(keys, wanted, strict=True) if key not in cache}.items())
    parts = [new[i : i + SIGNALS_A_TASK] for i in range(0, len(new), SIGNALS_A_TASK)]
    tasks = [
        Task(bundle.path, how.provider, how.threads, rule, name, tuple(signal for _, signal in part))
        for part in parts
    ]
    advance = how.track(f"{bundle.manifest.name}: {rule}, {name}", len(wanted))
    advance(len(wanted) - len(new))
    problems: list[str] = []
    for i, result in how.run(tasks):
        for (key, signal), heard in zip(parts[i], result, strict=True):
            if isinstance(heard, str):
                problems.append(f"line {signal[0].line}: {heard}")
            else:
                cache.add(key, heard)
        advance(len(result))
    if known := len(wanted) - len(new):
        how.say(f"{bundle.manifest.name}: {rule}, {name}: {known} of {len(wanted)} kept from an earlier run")
    return [cache.known.get(key) for key in keys], problems


def check_problems(title: str, problems: Sequence[str], partial: bool, say: Say) -> None:
    """Raise ProtocolError with what could not be scored; `partial`: only say so."""
    if not problems:
        return
    distinct = list(dict.fromkeys(problems))
    more = [f"... and {len(distinct) - SHOWN} more"] if len(distinct) > SHOWN else []
    lines = "\n  ".join(["", *distinct[:SHOWN], *more])
    if not partial:
        raise ProtocolError(
            f"{title}: {len(distinct)} recordings can't be scored; leave them out with --partial:{lines}"
        )
    say(f"warning: {title}: {len(distinct)} recordings can't be scored, left out:{lines}")


def score_task(task: Task) -> Result:
    """One task, in a worker."""
    detector, apply = _detector(task.bundle, task.provider, task.threads), condition(task.condition)
    results: Result = []
    for signal in task.signals:
        with TemporaryDirectory() as scratch:
            changed = tuple(
                _changed(trial, apply, Path(scratch) / f"{i}.wav") if task.condition != CLEAN else trial
                for i, trial in enumerate(signal)
            )
            own = ScoreCache(Path(scratch) / "scores.jsonl", lambda line: None)
            scores, problems = score_signals(detector, [changed], task.rule, own)
        if problems:
            reason = next(iter(problems.values()))
            for trial, copy in zip(signal, changed, strict=True):
                reason = reason.replace(str(copy.path), str(trial.path))
            results.append(reason)
        else:
            seconds = scores[0].seconds if scores else 0.0
            results.append(Heard(seconds, [score.score for score in scores]))
    return results


def _changed(trial: Trial, apply: Apply, path: Path) -> Trial:
    """The trial under a condition, in a file of its own; as it is where something is wrong with it."""
    warnings: list[str] = []
    try:
        samples = np.concatenate(list(read_blocks(trial.path, None, warnings)))
    except AudioError:
        return trial
    if warnings or not samples.any():
        return trial
    soundfile.write(path, apply(samples), SAMPLE_RATE, subtype="FLOAT")
    return replace(trial, path=path)


@lru_cache(maxsize=1)  # tasks come bundle by bundle
def _detector(bundle: Path, provider: Provider, threads: int) -> Detector:
    return Detector(bundle, provider, threads)


def _cache(bundle: Bundle, rule: SegmentRule, name: str, how: Scoring) -> ScoreCache:
    path = cache_path(bundle.manifest, how.provider, rule)
    return ScoreCache(path if name == CLEAN else path.with_name(f"{path.stem}-{recipe(name)}.jsonl"), how.say)


@contextmanager
def local_workers(workers: int) -> Iterator[Run]:
    """Processes of this machine; they start with the first task."""
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_leave_interrupts) as pool:

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
            numbers = {pool.submit(score_task, task): i for i, task in enumerate(tasks)}
            try:
                for done in as_completed(numbers):
                    yield numbers[done], done.result()
            except BrokenProcessPool as error:
                raise ProviderError(
                    "a worker process died (out of memory?): use fewer --workers; the scores are kept, the "
                    "same command goes on from here"
                ) from error
            finally:
                for future in numbers:
                    future.cancel()

        yield run


@contextmanager
def ray_workers(address: str, threads: int) -> Iterator[Run]:
    """A Ray cluster, whose nodes have this package, and the list's audio and the bundles at the same paths.

    Raises ProviderError where Ray is not installed or no cluster answers.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ProviderError("ray is not installed: pip install 'nes2net-edge[ray]' brings it") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ProviderError(f"--ray {address}: no cluster answers ({error})") from error
    try:
        remote = ray.remote(num_cpus=threads)(score_task)
        most = 2 * max(1, round(_cpus(ray)) // threads)  # tasks that are out at once

        def run(tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
            waiting = iter(enumerate(tasks))
            out = {remote.remote(task): i for i, task in _first(waiting, most)}
            while out:
                (done,), _ = ray.wait(list(out), num_returns=1)
                i = out.pop(done)
                yield i, ray.get(done)
                out |= {remote.remote(task): i for i, task in _first(waiting, 1)}

        yield run
    finally:
        ray.shutdown()


def _cpus(ray: Any) -> float:
    return float(ray.cluster_resources().get("CPU", 1))


def _first(tasks: Iterator[tuple[int, Task]], count: int) -> Iterator[tuple[int, Task]]:
    for _, task in zip(range(count), tasks, strict=False):
        yield task


def _leave_interrupts() -> None:
    """Ctrl-C ends the run, which then ends its workers."""
    signals_of_the_system.signal(signals_of_the_system.SIGINT, signals_of_the_system.SIG_IGN)
