"""A bundle and a list of labelled trials become a calibration, rule by rule; and the bundle gets it."""

import functools
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from msgspec.structs import replace

from nes2net_calib.progress import Say, Track
from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.rules import CalibratedRule, EvidenceError, calibrate_rule, check_evidence
from nes2net_calib.score_cache import ScoreCache, cache_path
from nes2net_calib.scoring import EARLY, LabelledScore, Length, score_signals, seconds, signals
from nes2net_calib.streaming import choose_streaming
from nes2net_calib.thresholds import Choice
from nes2net_runtime import BundleError, Detector, ProtocolError
from nes2net_runtime.bundle import MANIFEST, Bundle
from nes2net_runtime.bundle_writer import add_calibration, check_free, new_bundle
from nes2net_runtime.detector import MAX_FULL
from nes2net_runtime.inference.providers import Provider
from nes2net_runtime.manifest import (
    CalibrationRule,
    Streaming,
)

SHOWN = 20  # problems


@dataclass(frozen=True)
class Plan:
    """What is wanted of a calibration."""

    rules: tuple[CalibrationRule, ...]  # in the order first, full, windows, early
    choice: Choice  # of the threshold
    prior_spoof: float  # the share of spoofs that p_spoof assumes
    partial: bool  # leave out audio that can't be scored
    streaming: bool  # with windows: choose the decision defaults of streams, too


@dataclass(frozen=True)
class Calibrated:
    """All rules that could be calibrated, and why others could not."""

    bundle: Bundle  # as it was before
    protocol: Protocol
    rules: tuple[CalibratedRule, ...]
    left_out: Mapping[CalibrationRule, str]
    streaming: Streaming | None = None


def open_detector(bundle: Bundle, provider: Provider, threads: int | None) -> Detector:
    """The detector, without a calibration that its bundle has; raises BundleError for random weights."""
    if bundle.manifest.source.random:
        raise BundleError(f"{bundle.path}: has random weights; only a trained detector can be calibrated")
    return Detector(
        Bundle(bundle.path, replace(bundle.manifest, calibration=None, streaming=None)), provider, threads
    )


def calibrate(detector: Detector, protocol: Protocol, plan: Plan, say: Say, track: Track) -> Calibrated:
    """Score, fit and choose the threshold for each rule.

    A rule whose evidence is too little is left out, with a warning. Raises EvidenceError where that is
    `first`, or every one; ProtocolError with all audio that can't be scored, unless the plan leaves it out.
    """
    if protocol.uncounted:
        say(
            f"{protocol.name}: {protocol.uncounted} trials left out: the official scoring of "
            f"{protocol.format} counts {protocol.counted}; --split all takes them, too"
        )
    if protocol.missing:
        say(_listed(f"warning: {protocol.name}: left out:", protocol.missing))
    done: list[CalibratedRule] = []
    left_out: dict[CalibrationRule, str] = {}
    trials = protocol.trials
    length = functools.cache(seconds)  # two rules ask for it
    for rule in plan.rules:
        if rule in ("full", "windows"):
            _measure(trials, length, track("lengths", len(trials)))
        try:
            scored, lost = _score(detector, protocol.name, trials, rule, plan, length, say, track)
            done.append(calibrate_rule(rule, scored, protocol, plan.choice, plan.prior_spoof, track))
        except EvidenceError as error:
            if rule == "first" or len(left_out) + 1 == len(plan.rules):
                raise
            left_out[rule] = str(error)
            say(f"warning: {error}; {rule} is not calibrated")
        else:
            trials = tuple(trial for trial in trials if trial not in lost)
    streaming = _streaming(detector, protocol, trials, done, say, track) if plan.streaming else None
    return Calibrated(detector.bundle, protocol, tuple(done), left_out, streaming)


def _streaming(
    detector: Detector,
    protocol: Protocol,
    trials: Sequence[Trial],
    rules: Sequence[CalibratedRule],
    say: Say,
    track: Track,
) -> Streaming | None:
    """Decision defaults of streams; None, with a warning, where the evidence is too little."""
    for rule in rules:
        if rule.rule == "windows":
            try:
                return choose_streaming(detector, protocol, trials, rule.entry, track)
            except EvidenceError as error:
                say(f"warning: {error}; streams keep the usual ones")
    return None


def _measure(trials: Sequence[Trial], length: Length, advance: Callable[[int], None]) -> None:
    """Ask for all lengths. That opens every file, which takes minutes where a list names 600,000."""
    for trial in trials:
        length(trial)
        advance(1)


def _score(
    detector: Detector,
    name: str,
    trials: Sequence[Trial],
    rule: CalibrationRule,
    plan: Plan,
    length: Length,
    say: Say,
    track: Track,
) -> tuple[list[LabelledScore], set[Trial]]:
    """Scores under a rule, and the trials whose audio can't be scored."""
    window = detector.bundle.manifest.audio.window_samples
    wanted = signals(trials, rule, window, length)
    if unheard := len(trials) - sum(map(len, wanted)):
        reasons = {
            "full": f"are longer than the {MAX_FULL:g} s that full takes at once",
            "windows": "fill no window, not even joined with others of their speaker and system",
            "early": f"are shorter than {EARLY[0]:g} s",
        }
        say(f"{rule}: {unheard} of {len(trials)} files {reasons[rule]}")
    if rule != "windows":
        check_evidence(name, rule, [signal[0] for signal in wanted], plan.choice)  # before hours of scoring
    cache = ScoreCache(cache_path(detector.bundle.manifest, detector.stages.provider, rule), say)
    before = len(cache.known)
    scored, problems = score_signals(detector, wanted, rule, cache, track(f"scoring {rule}", len(wanted)))
    new = len(cache.known) - before
    kept = len(wanted) - len(problems) - new
    known = f", {kept} of them scored before" if kept else ""
    say(f"{rule}: {len(scored)} scores of {len(wanted)} {'joined ' * (rule == 'windows')}recordings{known}")
    if problems:
        lines = [f"line {trial.line}: {reason}" for trial, reason in problems.items()]
        text = f"{name}: {len(problems)} of {len(wanted)} recordings can't be scored"
        if not plan.partial:
            raise ProtocolError(_listed(f"{text}; repair them, or leave them out with --partial:", lines))
        say(_listed(f"warning: {text}, left out:", lines))
    return scored, set(problems)


def _listed(title: str, lines: Sequence[str]) -> str:
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "\n  ".join([title, *lines[:SHOWN], *more])


def check_target(bundle: Path, output: Path | None, force: bool) -> None:
    """Raise BundleError where the calibration can't be written: to `output`, or to the bundle itself."""
    if output is None:
        folder, refused, remedy = bundle, bundle, "-o writes a copy elsewhere"
    else:
        check_free(output, force)
        folder = next(parent for parent in output.absolute().parents if parent.exists())
        refused, remedy = output, "choose another -o"
    try:
        TemporaryFile(dir=folder).close()
    except OSError as error:
        raise BundleError(f"{refused}: can't be written ({error.strerror}); {remedy}") from error


def write(calibrated: Calibrated, documents: Mapping[str, bytes], output: Path | None, force: bool) -> Path:
    """Write calibration and documents to the bundle, or to a copy of it; returns the bundle's path.

    Raises BundleError where it can't be written.
    """
    entries = {rule.rule: rule.entry for rule in calibrated.rules}
    source = calibrated.bundle.path
    if output is None:
        add_calibration(source, entries, documents, calibrated.streaming)
        return source
    with new_bundle(output, force) as copy:
        for file in (MANIFEST, *(file.path for file in calibrated.bundle.manifest.files)):
            (copy / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, copy / file)
        add_calibration(copy, entries, documents, calibrated.streaming)
    return output
