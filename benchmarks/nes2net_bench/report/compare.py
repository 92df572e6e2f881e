"""What became better or worse from one document to another, beyond what measuring again would change.

- latency: ratios to the reference (wall and CPU time, each batch) whose intervals do not overlap, memory past
  5 %, arms that crash now.
- drift: EER and Cllr of the reference, and how far each candidate is from it, outside the interval they had.
- macs: any difference.
- streaming: memory past 5 %, false alarms outside their interval, scores that pieces change. Times of streams
  have no interval and are not judged.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nes2net_bench.drift.intervals import Interval, Paired
from nes2net_bench.drift.measure import Comparison
from nes2net_bench.drift.results import DriftReport
from nes2net_bench.latency.results import ArmResult, LatencyResults
from nes2net_bench.latency.timing import Ratio
from nes2net_bench.report.content import NONE, mega, number, ratio
from nes2net_bench.report.documents import Loaded
from nes2net_bench.streaming import StreamingReport
from nes2net_runtime.errors import BundleError

MEMORY = 0.05  # share within which memory is the same
ROUNDING = 1e-9  # differences of error rates that are none
EXACT = 1e-4  # of scores, between pieces of any size
Verdict = Literal["better", "worse", "same", "unknown"]
PASSING = frozenset({"load"})  # of the machine, another at every look


@dataclass(frozen=True)
class Difference:
    """What the two documents were not made alike with."""

    what: str
    old: str
    new: str


@dataclass(frozen=True)
class Change:
    """One figure of both."""

    what: str
    old: str
    new: str
    verdict: Verdict
    why: str = ""  # where the figures alone don't tell


@dataclass(frozen=True)
class Comparing:
    """All of it."""

    kind: str
    old: str
    new: str
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]
    only_old: tuple[str, ...]
    only_new: tuple[str, ...]

    @property
    def regressions(self) -> tuple[Change, ...]:
        """What became worse."""
        return tuple(change for change in self.changes if change.verdict == "worse")


def compare_documents(old: Loaded, new: Loaded) -> Comparing:
    """Compare two documents of one benchmark; raises BundleError where their figures mean other things."""
    if old.kind != new.kind:
        raise BundleError(
            f"{old.name} is of the {old.kind} benchmark, {new.name} of {new.kind}: no comparison"
        )
    what, other = _alike(old), _alike(new)
    if what != other:
        raise BundleError(f"{old.name} has {what}; {new.name} has {other}: no comparison")
    if isinstance(old.results, LatencyResults):
        changes = list(_latency(old.results, new.results))
    elif isinstance(old.results, DriftReport):
        changes = list(_drift(old.results, new.results))
    elif isinstance(old.results, StreamingReport):
        changes = list(_streaming(old.results, new.results))
    else:
        changes = list(_macs(old.results, new.results))
    before, after = _members(old), _members(new)
    return Comparing(
        kind=old.kind,
        old=old.name,
        new=new.name,
        differences=tuple(_differences(old, new)),
        changes=tuple(changes),
        only_old=tuple(name for name in before if name not in after),
        only_new=tuple(name for name in after if name not in before),
    )


def _alike(one: Loaded) -> str:
    """What must be alike, or figures of the same name are not of the same thing."""
    results = one.results
    if isinstance(results, LatencyResults):
        batch, seconds = results.plan.batches[0], results.window_seconds
        device, reference = results.plan.device, results.reference
        return f"windows of {seconds:.2f} s, {batch} at once, on {device}, beside {reference}"
    if isinstance(results, DriftReport):
        listed, reference = results.protocol, results.reference.name
        return f"{listed.name} ({listed.sha256[:12]}), split {listed.split}, beside {reference}"
    if isinstance(results, StreamingReport):
        return f"{results.bundle} on {results.decisions.protocol}, split {results.decisions.split}"
    return f"{results.detector} ({results.precision}), {results.window_samples} samples"


def _members(one: Loaded) -> list[str]:
    """What is compared by name."""
    results = one.results
    if isinstance(results, LatencyResults):
        return [arm.name for arm in results.arms]
    if isinstance(results, DriftReport):
        return [_named(comparison) for comparison in results.comparisons]
    if isinstance(results, StreamingReport):
        return list(results.hop)
    return [stage.stage for stage in results.stages]


def _differences(old: Loaded, new: Loaded) -> Iterator[Difference]:
    flat = [_flat(one.document.machine) for one in (old, new)]
    for one, found in zip((old, new), flat, strict=True):
        if isinstance(one.results, LatencyResults):
            found["threads of the arms"] = str(one.results.plan.threads)
            for card in one.results.bundles:
                found |= {f"{card.name}, {file}": digest[:12] for file, digest in card.graphs.items()}
        if isinstance(one.results, DriftReport):
            found["provider"] = one.results.provider
            systems = (one.results.reference, *one.results.candidates)
            found |= {f"{system.name}, manifest": system.manifest_sha256[:12] for system in systems}
    before, after = flat
    for name in {**before, **after}:
        if before.get(name) != after.get(name):
            yield Difference(name, before.get(name, NONE), after.get(name, NONE))


def _flat(machine: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in machine.items():
        if name in PASSING:
            continue
        if isinstance(value, Mapping):
            found |= {str(key): str(inner) for key, inner in value.items()}
        elif isinstance(value, list):
            found[name] = "; ".join(map(_words, value))
        else:
            found[name] = str(value)
    return found


def _words(value: Any) -> str:
    """Of a card what stays: its clocks and temperature do not."""
    return str(value.get("name", value)) if isinstance(value, Mapping) else str(value)


def _latency(old: LatencyResults, new: LatencyResults) -> Iterator[Change]:
    before = {arm.name: arm for arm in old.arms}
    for arm in new.arms:
        if (was := before.get(arm.name)) is None:
            continue
        for what, of in (("wall time", _wall), ("CPU time", _cpu)):
            if arm.name != new.reference:
                yield _ratios(f"{arm.name}: {what}", of(was), of(arm))
        yield _memory(f"{arm.name}: peak memory, MB", was.memory.peak, arm.memory.peak)
        if was.memory.anonymous is not None and arm.memory.anonymous is not None:
            yield _memory(f"{arm.name}: anonymous memory, MB", was.memory.anonymous, arm.memory.anonymous)
    for absent in new.absent:
        if absent.crashed and absent.name in before:
            yield Change(absent.name, "measured", "failed", "worse", absent.reason)


def _wall(arm: ArmResult) -> Ratio:
    return arm.ratio


def _cpu(arm: ArmResult) -> Ratio:
    return arm.cpu_ratio


def _ratios(what: str, old: Ratio, new: Ratio) -> Change:
    verdict: Verdict = "same"
    if new.high < old.low:
        verdict = "better"
    elif new.low > old.high:
        verdict = "worse"
    return Change(what, ratio(old), ratio(new), verdict)


def _memory(what: str, old: float, new: float) -> Change:
    verdict: Verdict = "same"
    if new > (1 + MEMORY) * old:
        verdict = "worse"
    elif old > (1 + MEMORY) * new:
        verdict = "better"
    return Change(what, mega(old), mega(new), verdict)


def _named(comparison: Comparison) -> str:
    return f"{comparison.candidate}, {comparison.rule}, {comparison.condition}"


def _drift(old: DriftReport, new: DriftReport) -> Iterator[Change]:
    before = {_named(comparison): comparison for comparison in old.comparisons}
    seen: set[tuple[str, str, str]] = set()
    for comparison in new.comparisons:
        if (was := before.get(_named(comparison))) is None:
            continue
        for metric, label, scale in (("eer", "EER, points", 100.0), ("cllr", "Cllr, bits", 1.0)):
            earlier, now = was.metrics.get(metric), comparison.metrics.get(metric)
            if earlier is None or now is None:
                continue
            key = (comparison.rule, comparison.condition, metric)
            if key not in seen:
                seen.add(key)
                where = f"{new.reference.name}, {comparison.rule}, {comparison.condition}: {label}"
                yield _rate(where, earlier, now, _reference, scale)
            yield _rate(f"{_named(comparison)}: drift of {label}", earlier, now, _drifted, scale)


Figure = tuple[float, Interval | None]


def _reference(found: Paired) -> Figure:
    return found.reference, found.reference_interval


def _drifted(found: Paired) -> Figure:
    return found.difference, found.difference_interval


def _rate(what: str, old: Paired, new: Paired, of: Callable[[Paired], Figure], scale: float) -> Change:
    (before, interval), (after, _) = of(old), of(new)
    digits = 2 if scale > 1 else 4
    shown = f"{scale * before:.{digits}f}"
    if interval is not None:
        shown += f" ({' to '.join(f'{scale * end:.{digits}f}' for end in interval)})"
    verdict: Verdict = "same"
    why = ""
    if abs(after - before) <= ROUNDING:
        pass
    elif interval is None:
        verdict, why = "unknown", "no interval: a class has one speaker"
    elif after > interval[1] + ROUNDING:
        verdict = "worse"
    elif after < interval[0] - ROUNDING:
        verdict = "better"
    return Change(what, shown, f"{scale * after:.{digits}f}", verdict, why)


def _macs(old: Any, new: Any) -> Iterator[Change]:
    yield _count("MACs of a window", old.macs, new.macs)
    yield _count("parameters", old.parameters, new.parameters)
    before = {stage.stage: stage for stage in old.stages}
    for stage in new.stages:
        if (was := before.get(stage.stage)) is not None:
            yield _count(f"{stage.stage}: MACs", was.macs, stage.macs)
            yield _count(f"{stage.stage}: bytes stored", was.weight_bytes, stage.weight_bytes)
    rows = {row.name: row.macs for row in old.table}
    for row in new.table:
        if row.name in rows:
            yield _count(f"{row.name}: MACs by the papers' convention", rows[row.name], row.macs)


def _count(what: str, old: int, new: int) -> Change:
    verdict: Verdict = "same" if old == new else "worse" if new > old else "better"
    return Change(what, f"{old:,}", f"{new:,}", verdict)


def _streaming(old: StreamingReport, new: StreamingReport) -> Iterator[Change]:
    yield _memory("memory when settled, MB", old.memory.settled, new.memory.settled)
    yield _memory("memory at the end, MB", old.memory.last, new.memory.last)
    low, high = old.decisions.interval
    rate = new.decisions.false_alarms_per_hour
    verdict: Verdict = "worse" if rate > high else "better" if rate < low else "same"
    shown = f"{number(old.decisions.false_alarms_per_hour)} ({number(low)} to {number(high)})"
    yield Change("false alarms an hour", shown, number(rate), verdict)
    before, after = old.jitter.largest_difference, new.jitter.largest_difference
    broken, was = after > EXACT, before > EXACT
    verdict = "same" if broken == was else "worse" if broken else "better"
    yield Change("difference between even and uneven pieces", f"{before:.1e}", f"{after:.1e}", verdict)


def summary(compared: Comparing) -> str:
    """In one line."""
    verdicts = [change.verdict for change in compared.changes]
    counts = ((name, verdicts.count(name)) for name in ("worse", "better", "same", "unknown"))
    return ", ".join(f"{times} {name}" for name, times in counts if times) or "nothing in common"


def sorted_changes(changes: Sequence[Change]) -> list[Change]:
    """The worst first."""
    return sorted(changes, key=lambda change: ("worse", "better", "unknown", "same").index(change.verdict))
