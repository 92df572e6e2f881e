"""Measurements of streams: the cost of a hop, exactness under jitter, decisions, memory over a day."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from statistics import median

import msgspec
import numpy as np
import psutil

from nes2net_calib.progress import Track
from nes2net_calib.protocols import Protocol
from nes2net_calib.streaming import hear_streams, outcome, poisson_interval
from nes2net_runtime import BundleError, Detector, Score
from nes2net_runtime.audio import SAMPLE_RATE, Samples, read_blocks
from nes2net_runtime.bundle import Bundle

SAMPLE_EVERY = 60.0  # simulated seconds between two looks at the memory
SETTLED = 600.0  # simulated seconds after which memory is compared
SPAN = 300.0  # simulated seconds whose median counts: what a window needs comes and goes while one looks


@dataclass(frozen=True)
class Percentiles:
    """Of a measured quantity."""

    p50: float
    p95: float
    p99: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Percentiles":
        p50, p95, p99 = np.percentile(values, [50, 95, 99])
        return cls(float(p50), float(p95), float(p99), len(values))


@dataclass(frozen=True)
class HopCost:
    """CPU milliseconds of a hop, encoder frames kept or all computed anew; runs of both in turn."""

    hop_seconds: float
    encoder_new: float  # median: the frames of a hop
    encoder_whole: float  # median: the frames of a window
    rest: float  # median: context network and back-end
    hop_kept: Percentiles  # the whole stream, frames kept
    hop_whole: Percentiles  # the same, windows computed whole
    wall_kept: Percentiles  # milliseconds of wall time

    @property
    def encoder_ratio(self) -> float:
        """How many times less the encoder works."""
        return self.encoder_whole / self.encoder_new


@dataclass(frozen=True)
class Jitter:
    """The same signal in even pieces and in pieces of 1 to 100,000 samples."""

    scores: int
    largest_difference: float  # of a score
    cpu_ratio: float  # CPU time of uneven to even pieces


@dataclass(frozen=True)
class Decided:
    """What the bundle's decision defaults do on labelled audio."""

    protocol: str
    split: str | None
    hours: float  # of bona fide speech
    false_alarms: int
    false_alarms_per_hour: float
    interval: tuple[float, float]  # exact, 95 %, of the rate
    changes: int
    detected: int
    delay: Percentiles | None  # seconds, of the detected ones; None: too few


@dataclass(frozen=True)
class Memory:
    """Resident memory of `nes2net-run -` while it hears a long signal."""

    hours: float  # simulated
    hop_seconds: float
    wall_seconds: float
    settled: int  # bytes: median of SPAN seconds from SETTLED on
    last: int  # the same, of the last SPAN seconds
    peak: int
    growth: float  # share, from settled to last
    slope: float  # bytes a simulated hour, least squares
    samples: list[tuple[float, int]]  # (hours, bytes)


@dataclass(frozen=True)
class StreamingReport:
    """All of it: the `results` of benchmarks/streaming.py's document."""

    bundle: str
    hop: dict[str, HopCost]  # by bundle
    jitter: Jitter
    decisions: Decided
    memory: Memory


def hop_cost(detector: Detector, speech: Samples, hops: int) -> HopCost:
    """Cost of `hops` hops; the arms take turns, hop by hop."""
    whole = Detector(_without_reuse(detector.bundle), threads=detector.stages.threads)
    kept, anew = detector.stream(), whole.stream()
    stages, window = detector.stages, kept.window
    new = speech[: kept.hop + 80]  # 25 frames of a hop of half a second
    first = speech[:window]
    frames = stages.encode(first)
    for stream in (kept, anew):
        stream.feed(first)
    arms: dict[str, list[float]] = {name: [] for name in ("new", "whole", "rest", "kept", "anew", "wall")}
    for i in range(hops):
        piece = np.take(speech, np.arange(i * kept.hop, (i + 1) * kept.hop), mode="wrap")
        start = time.perf_counter()
        arms["kept"].append(_cpu(partial(kept.feed, piece)))
        arms["wall"].append(1e3 * (time.perf_counter() - start))
        arms["anew"].append(_cpu(partial(anew.feed, piece)))
        arms["new"].append(_cpu(partial(stages.encode, new)))
        arms["whole"].append(_cpu(partial(stages.encode, first)))
        arms["rest"].append(_cpu(partial(stages.score_frames, frames)))
    return HopCost(
        hop_seconds=kept.hop / SAMPLE_RATE,
        encoder_new=median(arms["new"]),
        encoder_whole=median(arms["whole"]),
        rest=median(arms["rest"]),
        hop_kept=Percentiles.of(arms["kept"]),
        hop_whole=Percentiles.of(arms["anew"]),
        wall_kept=Percentiles.of(arms["wall"]),
    )


def jitter(detector: Detector, speech: Samples, seed: int = 0) -> Jitter:
    """Even pieces of 100 ms against pieces of random sizes."""
    rng = np.random.default_rng(seed)
    even, even_cpu = _streamed(detector, speech, lambda: 1600)
    uneven, uneven_cpu = _streamed(detector, speech, lambda: int(10 ** rng.uniform(0, 5)))
    difference = max(abs(a.score - b.score) for a, b in zip(even, uneven, strict=True))
    return Jitter(len(even), difference, uneven_cpu / even_cpu)


def decided(detector: Detector, protocol: Protocol, track: Track) -> Decided:
    """Delays and false alarms of the bundle's decision defaults; raises BundleError where it has none."""
    manifest = detector.bundle.manifest
    if manifest.streaming is None or manifest.calibration is None:
        raise BundleError(
            f"{detector.bundle.path}: has no decision defaults of streams; nes2net-calib chooses them"
        )
    heard = hear_streams(detector, protocol.name, protocol.trials, manifest.calibration["windows"], track)
    found = outcome(manifest.streaming.rule, heard.genuine, heard.changed)
    low, high = poisson_interval(found.false_alarms)
    delays = [delay for delay in found.delays if delay < inf]
    return Decided(
        protocol=protocol.name,
        split=protocol.split,
        hours=heard.hours,
        false_alarms=found.false_alarms,
        false_alarms_per_hour=found.false_alarms / heard.hours,
        interval=(low / heard.hours, high / heard.hours),
        changes=len(found.delays),
        detected=found.detected,
        delay=Percentiles.of(delays) if delays else None,
    )


def memory(
    bundle: Path, speech: Samples, hours: float, hop: float, advance: Callable[[float], None]
) -> Memory:
    """Feed `hours` of speech, over and over, to the command; `advance` hears of simulated seconds."""
    command = [
        sys.executable,
        "-m",
        "nes2net_runtime",
        "-",
        "--bundle",
        str(bundle),
        "--vad",
        "--format",
        "jsonl",
        "--hop",
        f"{hop}",
    ]
    second = np.round(32767 * np.clip(speech, -1, 1)).astype("<i2")
    pcm = second[: len(second) // SAMPLE_RATE * SAMPLE_RATE].tobytes()
    size = 2 * SAMPLE_RATE
    start, samples = time.perf_counter(), []
    null = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null) as process:
        assert process.stdin is not None
        watched = psutil.Process(process.pid)
        for at in range(round(3600 * hours)):
            place = at * size % len(pcm)
            process.stdin.write(pcm[place : place + size])
            if at % SAMPLE_EVERY == 0 and at:
                samples.append((at / 3600, watched.memory_info().rss))
                advance(SAMPLE_EVERY)
        process.stdin.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    settled = [(hour, rss) for hour, rss in samples if 3600 * hour >= min(SETTLED, 1800 * hours)]
    hours_of, bytes_of = np.array([hour for hour, _ in settled]), np.array([float(rss) for _, rss in settled])
    slope = np.polyfit(hours_of, bytes_of, 1)[0] if len(settled) > 2 else 0.0
    looks = round(SPAN / SAMPLE_EVERY)
    first, last = (round(float(np.median(part))) for part in (bytes_of[:looks], bytes_of[-looks:]))
    return Memory(
        hours=hours,
        hop_seconds=hop,
        wall_seconds=time.perf_counter() - start,
        settled=first,
        last=last,
        peak=max(rss for _, rss in samples),
        growth=last / first - 1,
        slope=float(slope),
        samples=samples,
    )


def read_speech(protocol: Protocol, seconds: float) -> Samples:
    """Clips of both classes in the list's order, joined."""
    blocks, length = [], 0
    for trial in protocol.trials:
        for block in read_blocks(trial.path, None, []):
            blocks.append(block)
            length += len(block)
        if length > seconds * SAMPLE_RATE:
            break
    return np.concatenate(blocks)[: round(seconds * SAMPLE_RATE)]


def _without_reuse(bundle: Bundle) -> Bundle:
    audio = msgspec.structs.replace(bundle.manifest.audio, frames_reusable=False)
    return Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, audio=audio))


def _cpu(call: Callable[[], object]) -> float:
    """CPU milliseconds of all threads."""
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def _streamed(detector: Detector, signal: Samples, size: Callable[[], int]) -> tuple[list[Score], float]:
    stream, scores, at = detector.stream(), [], 0
    start = time.process_time()
    while at < len(signal):
        count = size()
        scores += stream.feed(signal[at : at + count])
        at += count
    return scores + stream.close(), time.process_time() - start
