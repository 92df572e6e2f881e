"""The README's tables are those of the committed results."""

import subprocess
import sys
from pathlib import Path

import pytest

from nes2net_bench.report.tables import BLOCK, TABLES, rewrite
from nes2net_runtime.errors import BundleError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EAGER, FP32 = "PyTorch eager fp32", "nes2net-run fp32"


def block(name: str, file: str, text: str = "") -> str:
    return f"before\n\n<!-- table {name} from {file} -->\n{text}<!-- end -->\n\nafter\n"


def test_the_readme_has_the_tables_of_the_results() -> None:
    assert rewrite(README, ROOT) == README, "run make benchmark-tables"


def test_committed_results_that_have_a_table_are_in_the_readme() -> None:
    shown = {(found[2], found[3]) for found in BLOCK.finditer(README)}
    assert {
        ("streams", "benchmarks/results/streaming.json"),
        ("macs", "benchmarks/results/macs.json"),
    } <= shown
    assert {name for name, _ in shown} <= set(TABLES)


def test_a_changed_figure_is_noticed_and_made_anew() -> None:
    wrong = README.replace("| 91.35 | 87 % |", "| 91.34 | 87 % |")
    assert wrong != README
    assert rewrite(wrong, ROOT) == README


def test_what_is_outside_the_marks_stays(keep, make_latency) -> None:
    file = keep("latency", "latency", make_latency({EAGER: 80.0, FP32: 50.0}))
    text = block("latency", file.name, "old\n")
    made = rewrite(text, file.parent)
    assert made.startswith("before\n\n<!-- table latency from latency.json -->\n\n| 4.04 s on ")
    assert made.endswith("|\n\n<!-- end -->\n\nafter\n")
    assert "old" not in made and rewrite(made, file.parent) == made
    (row,) = (line for line in made.splitlines() if line.startswith(f"| {FP32} |"))
    assert [cell.strip() for cell in row.split("|")][4].startswith("0.62")


@pytest.mark.parametrize("name", ["latency", "peak", "real-time"])
def test_latency(keep, make_latency, name: str) -> None:
    file = keep("latency", "latency", make_latency({EAGER: 80.0, FP32: 50.0}))
    rows = [line for line in rewrite(block(name, file.name), file.parent).splitlines() if line[:1] == "|"]
    assert len({line.count("|") for line in rows}) == 1
    assert len(rows) == {"latency": 4, "peak": 4, "real-time": 3}[name]


def test_drift(keep, make_drift) -> None:
    report = make_drift(candidates={"demo-fp16": 0.0, "demo-int8": 0.6})
    file = keep("drift", "drift", report)
    made = rewrite(block("drift", file.name), file.parent)
    for comparison in report.comparisons:
        eer = comparison.metrics["eer"]
        expected = (
            f"{100 * eer.reference:.2f} \u2192 {100 * eer.candidate:.2f} | {100 * eer.difference:+.2f} ("
        )
        assert f"| {comparison.candidate}, first | {expected}" in made


def test_a_table_whose_results_are_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert rewrite(block("latency", "none.json", "old\n"), tmp_path) == block("latency", "none.json")


def test_mistakes_are_one_line(keep, make_latency, tmp_path: Path) -> None:
    keep("latency", "latency", make_latency({EAGER: 80.0, FP32: 50.0}))
    for text, complaint in (
        (block("latencies", "latency.json"), "no table is called 'latencies'"),
        (block("drift", "latency.json"), "is of the latency benchmark, the table 'drift' is of drift"),
        (block("latency", "latency.json").replace("<!-- end -->", ""), "1 tables begin and 0 end"),
    ):
        with pytest.raises(BundleError, match=complaint):
            rewrite(text, tmp_path)


def test_the_command_checks_and_writes(keep, make_latency, tmp_path: Path) -> None:
    keep("latency", "latency", make_latency({EAGER: 80.0, FP32: 50.0}))
    file = tmp_path / "page.md"
    file.write_text(block("latency", "latency.json") + block("drift", "none.json"))

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "benchmarks/tables.py", str(file), *options]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    checked = run("--check")
    assert checked.returncode == 4 and "run make benchmark-tables" in checked.stderr
    assert FP32 not in file.read_text()
    written = run()
    assert written.returncode == 0 and "none.json: not there yet" in written.stderr
    assert FP32 in file.read_text()
    assert run("--check").returncode == 0
