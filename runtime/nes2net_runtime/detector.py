"""The public API: a Detector scores waveforms and files with a bundle."""

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from pathlib import Path
from typing import get_args

import numpy as np

from nes2net_runtime.audio import (
    RATES,
    SAMPLE_RATE,
    Channels,
    Samples,
    audio_info,
    find_audio,
    read_blocks,
    resampler,
)
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle
from nes2net_runtime.decisions import pick_calibration, usable_calibrations
from nes2net_runtime.errors import AudioError
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.inference.receipt import Receipt
from nes2net_runtime.inference.sessions import Stages
from nes2net_runtime.manifest import (
    Calibration,
)
from nes2net_runtime.results import FileResult, Score
from nes2net_runtime.segments import MIN_SAMPLES, Cut, Segment, SegmentRule, cut, round_hop
from nes2net_runtime.streaming.stream import PIECE, Stream
from nes2net_runtime.streaming.voice_activity import VoiceActivity

WINDOWS_HOP = 2.0  # seconds
STREAM_HOP = 0.5  # seconds
MIN_SPEECH = 0.25  # share of a window that must be speech, where a stream asks for speech
MAX_FULL = 60.0  # seconds; attention grows with the square
ACCELERATOR_BATCH = 8  # segments at once; on a CPU one at a time is as fast, and smallest
NOT_FINITE = "the detector's output is not a finite number; is the audio far too loud?"
SILENT = "all silent (every sample is zero): the score means nothing"
# Segments that wait for others of their length: at most this many samples (64 MiB), then all are scored.
MAX_WAITING = 1 << 24


class Detector:
    """Scores audio with a bundle; `None` is the demo detector that comes with the package.

    Safe to share between threads. `rebuild`: build engines on this machine, for the providers tensorrt and
    trt-rtx. Raises BundleError and ProviderError where it can't be loaded.
    """

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Bundle | None = None,
        provider: Provider = "auto",
        threads: int | None = None,
        rebuild: bool = False,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else read_bundle(Path(bundle or DEMO))
        self.stages = Stages(self.bundle, provider, threads, rebuild)

    @property
    def receipt(self) -> Receipt:
        """What the detector really runs on."""
        return self.stages.receipt()

    def calibrations(
        self, segment: SegmentRule = "windows", window_samples: int | None = None
    ) -> dict[SegmentRule, Calibration]:
        """The calibrations that such segments may have, by rule; empty: scores come without labels."""
        manifest = self.bundle.manifest
        return usable_calibrations(manifest, segment, window_samples or manifest.audio.window_samples)

    def score(
        self,
        waveform: Samples,
        sample_rate: int = SAMPLE_RATE,
        segment: SegmentRule = "windows",
        hop: float = WINDOWS_HOP,
        window_samples: int | None = None,
        max_seconds: float = MAX_FULL,
    ) -> list[Score]:
        """Score one mono waveform (1-D, floats in [-1, 1]); `hop` and `max_seconds` in seconds.

        Raises AudioError for an empty, non-finite or multi-channel waveform, or one too long for `full`.
        """
        how = self._cut(segment, hop, window_samples, max_seconds)
        signal = np.asarray(waveform)
        if signal.ndim != 1 or not np.issubdtype(signal.dtype, np.floating):
            raise AudioError(
                f"waveform: a 1-D float array is expected, not {signal.dtype} of shape {signal.shape}"
            )
        if not signal.size:
            raise AudioError("waveform: holds no audio (0 samples)")
        if sample_rate not in RATES:
            raise AudioError(f"waveform: {sample_rate} Hz; {RATES.start} to {RATES.stop - 1} Hz are read")
        with np.errstate(over="ignore"):
            signal = signal.astype(np.float32, copy=False)
        if not np.isfinite(signal).all():
            raise AudioError("waveform: holds NaN or infinity")
        signal = resampler(sample_rate)(signal, True)
        segments = list(cut([signal], how, "waveform", []))
        size = self._batch_size(None)
        batches = (segments[i : i + size] for i in range(0, len(segments), size))
        scores = [score for batch in batches for score in self._run(batch)]
        if not all(isfinite(score.score) for score in scores):
            raise AudioError(f"waveform: {NOT_FINITE}")
        silent = not any(piece.samples.any() for piece in segments)
        result = FileResult("waveform", silent=silent, scores=scores)
        self._calibrate(result, how)
        return result.scores

    def stream(
        self,
        window_samples: int | None = None,
        hop: float = STREAM_HOP,
        first_after: float | None = None,
        min_speech: float | None = None,
    ) -> Stream:
        """Score a mono signal at 16 kHz as it arrives: `feed` its pieces, `close` it; `hop` in seconds.

        `first_after`: seconds after which a first, early score comes. `min_speech`: the share of a
        window that must be speech for it to be scored; None scores every window. For one thread at a time.
        """
        how = self._cut("windows", hop, window_samples, MAX_FULL)
        calibrations = self.calibrations("windows", window_samples)
        return Stream(
            self.stages,
            how.window,
            how.hop,
            calibrations,
            (self.bundle.manifest.calibration or {}).get("early") if calibrations else None,
            None if first_after is None else max(1, round(first_after * SAMPLE_RATE)),
            None if min_speech is None else VoiceActivity(how.window + PIECE),
            min_speech or 0.0,
        )

    def score_files(
        self,
        paths: Sequence[str | os.PathLike[str]],
        segment: SegmentRule = "windows",
        hop: float = WINDOWS_HOP,
        window_samples: int | None = None,
        max_seconds: float = MAX_FULL,
        channels: Channels = "mix",
        batch_size: int | None = None,
        on_segment: Callable[[FileResult, Score], None] = lambda result, score: None,
    ) -> Iterator[FileResult]:
        """Score files and folders in order, in bounded memory; a file that fails gives a result with `error`.

        Segments of equal length share a batch, over files too; `on_segment` is called for each score, not
        calibrated yet.
        """
        how = self._cut(segment, hop, window_samples, max_seconds)
        if channels not in ("mix", "each") and (not isinstance(channels, int) or channels < 1):
            raise ValueError(f"channels: {channels!r} is not 'mix', 'each' or a number from 1")
        queue = _Queue(self._run, self._batch_size(batch_size), on_segment)
        for path, error in find_audio(paths):
            for result in _results(path, error, channels):
                queue.open(result)
                if result.error is None:
                    self._read(result, how, queue)
                queue.close(result)
                yield from self._calibrated(queue.done(), how)
        queue.flush()
        yield from self._calibrated(queue.done(), how)

    def _cut(self, rule: SegmentRule, hop: float, window_samples: int | None, max_seconds: float) -> Cut:
        window = window_samples or self.bundle.manifest.audio.window_samples
        if rule not in get_args(SegmentRule) or window < MIN_SAMPLES or not hop > 0 or not max_seconds > 0:
            raise ValueError(f"no such cut: {rule!r}, window {window}, hop {hop} s, at most {max_seconds} s")
        most = round(max_seconds * SAMPLE_RATE) if isfinite(max_seconds) else sys.maxsize
        return Cut(rule, window, round_hop(hop), most)

    def _batch_size(self, wanted: int | None) -> int:
        if wanted or self.stages.provider in ("cpu", "openvino"):
            return wanted or 1
        return min(ACCELERATOR_BATCH, self.stages.largest_batch or ACCELERATOR_BATCH)

    def _read(self, result: FileResult, how: Cut, queue: "_Queue") -> None:
        """Cut one file (or channel) into segments and queue them."""
        result.silent = True
        try:
            blocks = _timed(read_blocks(Path(result.file), result.channel, result.warnings), result)
            for piece in cut(blocks, how, result.file, result.warnings):
                result.silent = result.silent and not piece.samples.any()
                queue.add(result, piece)
        except AudioError as error:
            result.error = error
        else:
            if result.silent:
                result.warnings.append(SILENT)

    def _calibrated(self, results: Iterator[FileResult], how: Cut) -> Iterator[FileResult]:
        for result in results:
            if result.error is None:
                self._calibrate(result, how)
            yield result

    def _calibrate(self, result: FileResult, how: Cut) -> None:
        """Calibrate a result, where the bundle has a calibration that holds for such audio."""
        if result.silent:
            return
        usable = self.calibrations(how.rule, how.window)
        heard = result.scores[-1].end  # seconds: a file's last window ends where the file does
        calibration = pick_calibration(usable, how.rule, how.window, heard, result.warnings)
        if calibration is not None:
            result.calibrate(calibration)

    def _run(self, segments: Sequence[Segment]) -> list[Score]:
        """Score segments of equal length as one batch."""
        batch = np.stack([segment.samples for segment in segments])
        scores = self.stages.score(batch)
        return [
            Score(segment.start / SAMPLE_RATE, segment.end / SAMPLE_RATE, float(score), segment.tail)
            for segment, score in zip(segments, scores, strict=True)
        ]


def _results(path: Path, error: AudioError | None, channels: Channels) -> list[FileResult]:
    """The results that a file will have: one, or one a channel."""
    if error is None and channels == "each":
        try:
            return [FileResult(str(path), channel) for channel in range(1, audio_info(path).channels + 1)]
        except AudioError as failure:
            error = failure
    return [FileResult(str(path), channels if isinstance(channels, int) else None, error=error)]


def _timed(blocks: Iterator[Samples], result: FileResult) -> Iterator[Samples]:
    for block in blocks:
        result.seconds += len(block) / SAMPLE_RATE
        yield block


class _Queue:
    """Collects segments of equal length into batches; gives results back in the order of files."""

    def __init__(
        self,
        run: Callable[[Sequence[Segment]], list[Score]],
        batch_size: int,
        on_segment: Callable[[FileResult, Score], None],
    ) -> None:
        self.run, self.batch_size, self.on_segment = run, batch_size, on_segment
        self.waiting: defaultdict[int, list[tuple[FileResult, Segment]]] = defaultdict(list)  # by length
        self.samples = 0  # in `waiting`
        self.order: list[FileResult] = []
        self.unfinished: dict[
            int, int
        ] = {}  # id of a result -> its segments that wait, plus 1 while it is read

    def open(self, result: FileResult) -> None:
        self.order.append(result)
        self.unfinished[id(result)] = 1

    def add(self, result: FileResult, segment: Segment) -> None:
        length = len(segment.samples)
        self.waiting[length].append((result, segment))
        self.unfinished[id(result)] += 1
        self.samples += length
        if len(self.waiting[length]) == self.batch_size:
            self._score(length)
        elif self.samples > MAX_WAITING:
            self.flush()

    def close(self, result: FileResult) -> None:
        self.unfinished[id(result)] -= 1

    def flush(self) -> None:
        for length in list(self.waiting):
            self._score(length)

    def done(self) -> Iterator[FileResult]:
        while self.order and self.unfinished[id(self.order[0])] == 0:
            result = self.order.pop(0)
            del self.unfinished[id(result)]
            if result.error is not None:
                result.scores.clear()
            yield result

    def _score(self, length: int) -> None:
        batch = self.waiting.pop(length)
        self.samples -= length * len(batch)
        for (result, _), score in zip(batch, self.run([segment for _, segment in batch]), strict=True):
            result.scores.append(score)
            if not isfinite(score.score) and result.error is None:
                result.error = AudioError(f"{result.file}: {NOT_FINITE}")
            self.unfinished[id(result)] -= 1
            self.on_segment(result, score)
