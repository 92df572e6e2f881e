"""Streams as sections of a report."""

from collections.abc import Iterator

from nes2net_bench.report import plots_streams
from nes2net_bench.report.content import Picture, Section, number, percent, table
from nes2net_bench.streaming import StreamingReport
from nes2net_runtime.output import count


def streaming_lede(report: StreamingReport) -> str:
    """What was measured, in one line."""
    return f"{report.bundle}: cost of a hop, decisions on {report.decisions.protocol}, memory over hours"


def streaming_sections(report: StreamingReport) -> Iterator[Section]:
    """Cost, exactness, decisions, memory."""
    yield Section(
        "What a hop costs",
        "CPU milliseconds of all threads, encoder frames kept from window to window or computed anew; "
        "medians.",
        (Picture(plots_streams.hop_costs(report.hop), "CPU time of a hop; the table has the figures."),),
        (
            table(
                ("", "hop, s", "kept", "p99", "whole", "encoder, kept", "whole", "ratio", "the rest", "wall"),
                (
                    (
                        name,
                        f"{cost.hop_seconds:g}",
                        number(cost.hop_kept.p50),
                        number(cost.hop_kept.p99),
                        number(cost.hop_whole.p50),
                        number(cost.encoder_new),
                        number(cost.encoder_whole),
                        f"{cost.encoder_ratio:.1f}",
                        number(cost.rest),
                        number(cost.wall_kept.p50),
                    )
                    for name, cost in report.hop.items()
                ),
            ),
        ),
    )
    decided, shaken = report.decisions, report.jitter
    low, high = decided.interval
    rows = [
        (
            "false alarms",
            f"{decided.false_alarms} in {decided.hours:.3f} h of bona fide speech: "
            f"{number(low, 2)} to {number(high, 2)} an hour (95 %)",
        ),
        ("changes from human to synthetic", f"{decided.detected} of {decided.changes} noticed"),
    ]
    if decided.delay is not None:
        delay = decided.delay
        rows.append(("delay", f"median {delay.p50:.1f} s, p95 {delay.p95:.1f} s, p99 {delay.p99:.1f} s"))
    rows.append(
        (
            "even against uneven pieces",
            f"{count(shaken.scores, 'score')} differ by at most {shaken.largest_difference:.1e}; "
            f"{shaken.cpu_ratio:.2f} times the CPU time",
        )
    )
    yield Section("Decisions and exactness", tables=(table(("", ""), rows),))
    memory = report.memory
    yield Section(
        "Memory over hours",
        f"Resident memory of nes2net-run while it hears {memory.hours:g} simulated hours, a window every "
        f"{memory.hop_seconds:g} s.",
        (
            Picture(
                plots_streams.memory(memory),
                f"{memory.settled / 1e6:.1f} MB when settled, {memory.last / 1e6:.1f} MB at the end.",
            ),
        ),
        facts=(
            f"{memory.settled / 1e6:.1f} MB when settled, {memory.last / 1e6:.1f} MB at the end: "
            f"{percent(memory.growth, 1)}, {memory.slope / 1e3:+.1f} kB an hour.",
        ),
    )
