"""What scoring gives: the scores of segments and of files, and what a stream lost."""

from dataclasses import asdict, dataclass, field, replace
from statistics import fmean

from nes2net_runtime.decisions import Label, decide
from nes2net_runtime.errors import AudioError
from nes2net_runtime.manifest import (
    Calibration,
)


@dataclass(frozen=True)
class Score:
    """The score of one segment. Times in seconds of the signal; higher is more human.

    llr, p_spoof and label are None unless the bundle is calibrated for such segments.
    """

    start: float
    end: float
    score: float  # the bona fide logit, as the official scripts print it
    tail: bool = False  # end-aligned window after the last one on the grid
    llr: float | None = None  # log-likelihood ratio: natural log, positive = bona fide
    p_spoof: float | None = None  # probability of spoof, at the calibration's prior
    label: Label | None = None
    early: bool = False  # of a stream's beginning, before a whole window was there


@dataclass(frozen=True)
class Outage:
    """Audio that is missing from a stream. Times in seconds of the signal."""

    start: float
    end: float
    cause: str


@dataclass
class FileResult:
    """All scores of a file, or of one of its channels; `error` says why there are none.

    llr (the mean over the segments), p_spoof and label are None unless the bundle is calibrated for them.
    """

    file: str
    channel: int | None = None  # counted from 1, None for the mix
    seconds: float = 0.0  # of audio that was read
    silent: bool = False  # every sample is zero: the score means nothing, and has no label
    scores: list[Score] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: AudioError | None = None
    llr: float | None = None
    p_spoof: float | None = None
    label: Label | None = None

    @property
    def mean(self) -> float:
        """Mean score: the file's score in a score file."""
        return fmean(score.score for score in self.scores)

    @property
    def lowest(self) -> Score:
        """The least human segment."""
        return min(self.scores, key=lambda score: score.score)

    @property
    def spoof_segments(self) -> int | None:
        """How many segments are labelled spoof: a short synthetic part of a long file shows here."""
        return None if self.label is None else sum(score.label == "spoof" for score in self.scores)

    def calibrate(self, calibration: Calibration) -> None:
        """Give the scores and the file llr, p_spoof and label."""
        self.scores = [replace(s, **asdict(decide(s.score, calibration))) for s in self.scores]
        whole = decide(self.mean, calibration)
        self.llr, self.p_spoof, self.label = whole.llr, whole.p_spoof, whole.label
