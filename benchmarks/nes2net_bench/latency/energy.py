"""Energy counters: RAPL's of the processor's packages, NVML's of a card."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from nes2net_bench.nvml import open_nvml

POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True)
class Meter:
    """A counter of joules, or why there is none."""

    source: str  # what it counts, or the reason
    read: Callable[[], float] | None  # joules from any beginning


def open_meter(device: str, powercap: Path = POWERCAP) -> Meter:
    """The meter of a device: "cpu" or "cuda". It counts all that runs there, not this process alone."""
    if device == "cuda":
        return _card_meter()
    domains = sorted(powercap.glob("*-rapl:?")) if powercap.is_dir() else []
    packages = [domain for domain in domains if _name(domain).startswith("package")]
    if not packages:
        return Meter("unavailable: this platform exposes no RAPL counters (virtual machines rarely do)", None)
    try:
        counters = [_Rapl(package) for package in packages]
    except OSError as error:  # since CVE-2020-8694 for root alone
        return Meter(f"unavailable: RAPL counters can't be read ({error.strerror}): run as root", None)
    return Meter(f"RAPL, {len(counters)} package(s)", lambda: sum(counter.read() for counter in counters))


class _Rapl:
    """One package's counter, which goes round at a known number of microjoules."""

    def __init__(self, domain: Path) -> None:
        self._file = domain / "energy_uj"
        self._range = int((domain / "max_energy_range_uj").read_text())
        self._last = int(self._file.read_text())
        self._total = 0

    def read(self) -> float:
        now = int(self._file.read_text())
        self._total += (now - self._last) % (self._range + 1)
        self._last = now
        return self._total / 1e6


def _name(domain: Path) -> str:
    try:
        return (domain / "name").read_text().strip()
    except OSError:
        return ""


def _card_meter() -> Meter:
    nvml = open_nvml()
    if nvml is None:
        return Meter("unavailable: no NVML (NVIDIA's driver, and a card)", None)
    if nvml.joules() is None:
        return Meter("unavailable: NVML has no energy counter for this card", None)
    return Meter("NVML, the card", lambda: nvml.joules() or 0.0)
