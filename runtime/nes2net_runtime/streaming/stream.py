"""Windows of a signal that arrives in pieces, scored as soon as they are full.

    signal   |---------------------------------- gap --------------------|
    stretch  |----------------------------------|   |--------------------|
    early    |====|                                  |====|                 repeated to a window
             |========|                              |========|
    windows  |==============|                        |==============|       start 0, hop, 2 hop …
                    |==============|
                       |===============|                   |============|   tail, end-aligned

A stretch between two gaps is scored as a file is under `--segment windows`: the same windows, and the same
scores to rounding, however the signal was cut into pieces. Windows start on the grid of encoder frames, so a
frame is computed once and kept for all windows that it is in (frame i is samples [320 i, 320 i + 400) of its
stretch). Where that is not allowed (waveforms normalised window by window, a single graph) windows are
computed whole.
"""

from collections.abc import Mapping
from dataclasses import asdict, replace
from math import isfinite

import numpy as np

from nes2net_runtime.audio import SAMPLE_RATE, Samples
from nes2net_runtime.decisions import decide, pick_calibration
from nes2net_runtime.errors import AudioError
from nes2net_runtime.inference.pipeline import Frames
from nes2net_runtime.inference.sessions import Stages
from nes2net_runtime.manifest import (
    Calibration,
)
from nes2net_runtime.results import Score
from nes2net_runtime.segments import FRAME_HOP, MIN_SAMPLES, SegmentRule, repeat_to
from nes2net_runtime.streaming.tape import Tape
from nes2net_runtime.streaming.voice_activity import VoiceActivity

PIECE = 16_000  # samples taken at once, so that memory does not depend on how much is fed


class Stream:
    """Scores of a mono signal at 16 kHz; `feed` and `gap` return those that are new. Memory is constant.

    `hop` (samples, a multiple of 320) may be changed between two calls. `first_after` (samples): from so many
    samples on, and until a whole window is there, score what is there, repeated to a window as the official
    protocol does. With `voice_activity` only windows of which a share of `min_speech` is speech are
    scored; the others are counted in `without_speech`.
    """

    def __init__(
        self,
        stages: Stages,
        window: int,
        hop: int,
        calibrations: Mapping[SegmentRule, Calibration] | None = None,
        early_calibration: Calibration | None = None,
        first_after: int | None = None,
        voice_activity: VoiceActivity | None = None,
        min_speech: float = 0.0,
    ) -> None:
        self.window, self.hop = window, hop
        self.scored = self.without_speech = 0  # windows
        self.quiet = False  # the last window was without speech
        self._stages = stages
        self._calibrations, self._early_calibration = calibrations or {}, early_calibration
        self._first_after = first_after
        self._voice_activity = voice_activity
        self._min_speech = min_speech
        self._closed = False
        self._begin(0)

    @property
    def seconds(self) -> float:
        """Where the signal's end is: all that was fed, and the gaps."""
        return (self._origin + self._samples.end) / SAMPLE_RATE

    @property
    def windows(self) -> int:
        """Windows that were full, scored or not."""
        return self.scored + self.without_speech

    def feed(self, samples: Samples) -> list[Score]:
        """Take the next samples (1-D float32 in [-1, 1]); any number of them.

        Raises AudioError for samples that are NaN or infinite; the stream is then as before.
        """
        if self._closed:
            raise ValueError("the stream is closed")
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise AudioError("stream: holds NaN or infinity, or more than one channel")
        scores: list[Score] = []
        for at in range(0, len(samples), PIECE):
            piece = samples[at : at + PIECE].astype(np.float32, copy=False)
            self._samples.append(piece)
            if self._voice_activity is not None:
                self._voice_activity.feed(piece)
            scores += self._new_windows()
        return scores

    def gap(self, seconds: float) -> list[Score]:
        """Audio of this length was lost: the stretch before it ends, and a new one begins after it."""
        scores = self._end()
        self._begin(self._origin + self._samples.end + round(seconds * SAMPLE_RATE))
        return scores

    def close(self) -> list[Score]:
        """The signal has ended: the scores that are left."""
        scores = [] if self._closed else self._end()
        self._closed = True
        return scores

    def _begin(self, origin: int) -> None:
        """Begin a stretch at sample `origin` of the signal; positions below are relative to it."""
        self._origin = origin
        self._samples = Tape()
        self._frames: Frames = None  # the encoder's, of the last window
        self._frames_end = 0  # index of the frame after them
        self._start = 0  # of the next window
        self._heard = 0  # where the last window ended
        self._early = self._first_after
        if self._voice_activity is not None:
            self._voice_activity.reset()

    def _new_windows(self) -> list[Score]:
        scores: list[Score] = []
        end = self._samples.end
        while self._early is not None and self._early < self.window and self._early <= end:
            end_of_early, self._early = self._early, self._early + self.hop
            scores += self._repeated(end_of_early, early=True)
        while self._start + self.window <= end:
            start = self._start
            self._early, self._heard, self._start = None, start + self.window, start + self.hop
            scores += self._on_grid(start)
        self._samples.forget(min(self._start, end - self.window))  # a tail needs the last window's worth
        return scores

    def _end(self) -> list[Score]:
        """The windows that `--segment windows` adds where a signal ends."""
        end = self._samples.end
        if end == 0 or self._heard == end:
            return []
        if end < self.window:
            return self._repeated(end, early=False)
        start = end - self.window
        if not self._speech(start, end):
            return []
        samples = self._samples[start:end]
        score = float(self._stages.score(samples[None])[0])
        return [self._score(start, end, score, samples, tail=True)]

    def _repeated(self, end: int, early: bool) -> list[Score]:
        """What there is of a stretch shorter than a window, repeated to one."""
        if not self._speech(0, end):
            return []
        samples = self._samples[0:end]
        score = float(self._stages.score(repeat_to(samples, self.window)[None])[0])
        return [self._score(0, end, score, samples, early=early)]

    def _on_grid(self, start: int) -> list[Score]:
        end = start + self.window
        if not self._speech(start, end):
            return []
        frames = self._window_frames(start) if self._stages.frames_reusable else None
        if frames is None:
            score = float(self._stages.score(self._samples[start:end][None])[0])
        else:
            score = self._stages.score_frames(frames)
        return [self._score(start, end, score, self._samples[start:end])]

    def _window_frames(self, start: int) -> Frames | None:
        """Encoder frames of the window at `start`, of which new ones are computed; None: engines can't.

        The frames that are kept are those of the last window, as many as any window has.
        """
        first = start // FRAME_HOP
        last = first + (self.window - MIN_SAMPLES) // FRAME_HOP + 1
        new = max(first, self._frames_end)
        heard = self._samples[new * FRAME_HOP : (last - 1) * FRAME_HOP + MIN_SAMPLES]
        if not (self._stages.takes(len(heard)) and self._stages.takes(self.window)):
            return None
        frames = self._stages.encode(heard)
        self._frames = frames if new == first else self._stages.join(self._frames, frames)
        self._frames_end = last
        return self._frames

    def _speech(self, start: int, end: int) -> bool:
        """Whether there is speech enough to score; counts the windows."""
        heard = self._voice_activity
        enough = heard is None or heard.share(start, end) >= self._min_speech
        self.quiet = not enough
        self.scored += enough
        self.without_speech += not enough
        return enough

    def _score(
        self, start: int, end: int, score: float, samples: Samples, tail: bool = False, early: bool = False
    ) -> Score:
        if not isfinite(score):
            raise AudioError(
                "stream: the detector's output is not a finite number; is the audio far too loud?"
            )
        at = (self._origin + start) / SAMPLE_RATE
        plain = Score(at, (self._origin + end) / SAMPLE_RATE, score, tail, early=early)
        if not samples.any():  # all silent: the score means nothing
            return plain
        length = (end - start) / SAMPLE_RATE
        if early:
            calibration = self._early_calibration
            if calibration is not None and length < calibration.min_seconds:
                calibration = None
        else:
            calibration = pick_calibration(self._calibrations, "windows", self.window, length, [])
        return plain if calibration is None else replace(plain, **asdict(decide(score, calibration)))
