"""`nes2net-run --tune`: which provider is fastest on this machine, for this bundle and this many threads.

All that work here score one window, taking turns, so that a machine that slows down slows all of them. One
is faster where the whole interval of the ratios of its turns to the reference's is below 0.95, and its
scores are the CPU's.
"""

import random
import time
from collections.abc import Callable
from datetime import datetime, timezone
from statistics import median

import numpy as np

from nes2net_runtime.audio import Samples
from nes2net_runtime.bundle import Bundle
from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.opening import ORDER
from nes2net_runtime.inference.providers import PROVIDERS, Provider, available_providers
from nes2net_runtime.inference.sessions import Stages
from nes2net_runtime.inference.tuning_cache import Candidate, Tuning, holds_for

ROUNDS = 15
# The 4th smallest and the 4th largest of 15 ratios enclose their median with 96 % (sign test).
RANK = 4
WORTH = 0.95  # what gains less is not worth a longer start and more memory
TURN = 0.1  # seconds; a window that takes longer is a turn alone
LEVELS = (0.5, 0.05, 0.005)  # of the noise whose scores are compared: loud, as speech is, quiet
# Relative difference of scores that sums in another order may make; and where they end in a rounding.
EXACT, ROUNDED = 1e-3, 5e-2


def tune(bundle: Bundle, threads: int | None, advance: Callable[[], None] = lambda: None) -> Tuning:
    """Measure; `advance` is called after each of the ROUNDS. Raises BundleError and ProviderError."""
    opened, absent = _open(bundle, threads)
    noise = np.random.default_rng(0).standard_normal((1, bundle.manifest.audio.window_samples), np.float32)
    scores = {
        name: np.concatenate([stages.score(level * noise) for level in LEVELS])
        for name, stages in opened.items()
    }
    turns: dict[Provider, list[float]] = {name: [] for name in opened}
    order, draw = list(opened), random.Random(0)
    for _ in range(ROUNDS):
        draw.shuffle(order)
        for name in order:
            turns[name].append(_turn(opened[name], LEVELS[1] * noise))
        advance()
    reference = next(name for name in ORDER if name in opened)
    bound = EXACT if bundle.manifest.precision in ("fp32", "fp16") else ROUNDED
    candidates = []
    for name in opened:
        ratios = sorted(a / b for a, b in zip(turns[name], turns[reference], strict=True))
        difference = np.abs(scores[name] - scores["cpu"]).max() / max(1.0, np.abs(scores["cpu"]).max())
        candidates.append(
            Candidate(
                provider=name,
                milliseconds=1e3 * median(turns[name]),
                ratio=(median(ratios), ratios[RANK - 1], ratios[-RANK]),
                difference=float(difference),
                agrees=bool(difference <= bound),
            )
        )
    faster = [candidate for candidate in candidates if candidate.agrees and candidate.ratio[2] < WORTH]
    best = min(faster, key=lambda candidate: candidate.ratio[0], default=None)
    return Tuning(
        holds_for=holds_for(bundle, opened["cpu"].threads),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        reference=reference,
        fastest=best.provider if best else reference,
        candidates=candidates,
        absent=absent,
    )


def _open(bundle: Bundle, threads: int | None) -> tuple[dict[Provider, Stages], list[str]]:
    """The bundle on all providers that take it, and why others do not; OpenVINO can be had everywhere."""
    opened: dict[Provider, Stages] = {"cpu": Stages(bundle, "cpu", threads)}
    absent = []
    for name in PROVIDERS:
        if name in ("auto", "cpu") or name not in (*available_providers(), "openvino"):
            continue
        try:
            stages = Stages(bundle, name, threads)
            if not stages.takes(bundle.manifest.audio.window_samples):
                raise ProviderError(f"provider {name}: its engines do not take one window of the bundle")
        except ProviderError as error:
            absent.append(str(error))
        else:
            opened[name] = stages
    return opened, absent


def _turn(stages: Stages, window: Samples) -> float:
    """Seconds that a window takes: the median of as many as fit into a turn, one at least, after one."""
    stages.score(window)  # caches hold what the others did
    taken: list[float] = []
    while sum(taken) < TURN:
        start = time.perf_counter()
        stages.score(window)
        taken.append(time.perf_counter() - start)
    return median(taken)
