"""The report: every document's sections, nothing empty, nothing that a page would load or run."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nes2net_bench.latency.arms import Absent
from nes2net_bench.report.content import number
from nes2net_bench.report.documents import load
from nes2net_bench.report.html import html
from nes2net_bench.report.markdown import markdown
from nes2net_bench.report.page import make_report
from nes2net_bench.report.plots_accuracy import Choice, front

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
EAGER, FP32, FP16 = "PyTorch eager fp32", "nes2net-run fp32", "nes2net-run fp16"
ARMS = {EAGER: 80.0, FP32: 50.0, FP16: 65.0}
VOID = {"meta", "th", "td", "tr", "thead", "tbody", "li", "p", "html", "head", "body"}  # may stay open


class Page(HTMLParser):
    """Elements with their attributes, and the text under each heading."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.headings: list[str] = []
        self.cells: list[list[str]] = []  # by row
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("h2", "h3"):
            self.headings.append("")
        if tag == "tr":
            self.cells.append([])
        if tag in ("th", "td"):
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h2", "h3"):
            self.headings[-1] += data
        if self.open and self.open[-1] == "table":
            self.cells[-1][-1] += data

    def row(self, name: str) -> list[list[str]]:
        """The rows that begin with this cell."""
        return [row for row in self.cells if row[0] == name]


def command(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "benchmarks/report.py", *map(str, options)], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture
def files(keep, make_latency, make_drift) -> list[Path]:
    """One document of each benchmark."""
    return [
        RESULTS / "macs.json",
        RESULTS / "streaming.json",
        keep("drift-now", "drift", make_drift()),
        keep("latency-now", "latency", make_latency(ARMS)),
    ]


@pytest.fixture
def page(files: list[Path]) -> Page:
    """All of them as a page."""
    return Page(html(make_report([load(path) for path in files])))


def test_every_section_is_there(page: Page) -> None:
    assert page.headings == [
        "What to choose: drift-now",
        *("Latency: latency-now", "Latency, once it runs", "Load, first run, steady state", "Memory"),
        *("Throughput by batch", "Threads", "Streams", "How far from the machine", "What was measured"),
        *("Not in this document", "Command and machine"),
        *("Drift: drift-now", "Error rates, paired", "Scores and decisions", "DET curves"),
        *("Attack by attack", "What was compared", "Not in this document", "Command and machine"),
        *("Work: macs", "Work by stage", "Work by layer", "The papers' table", "Command and machine"),
        *("Streams: streaming", "What a hop costs", "Decisions and exactness", "Memory over hours"),
        "Command and machine",
    ]
    assert not page.open
    drawn = [attributes for tag, attributes in page.elements if tag == "svg"]
    described = [attributes["aria-label"] for tag, attributes in page.elements if "aria-label" in attributes]
    assert len(drawn) == len(described) == 16 and all(described)


def test_figures_are_those_of_the_documents(page: Page, files: list[Path]) -> None:
    latency, drift = load(files[3]).results, load(files[2]).results
    fast = latency.arms[1]
    times, ratios, *_ = page.row(FP32)
    assert times[1:4] == [f"{value:.1f}" for value in (fast.wall.p50, fast.wall.p95, fast.wall.p99)]
    assert ratios[1] == f"{fast.ratio.estimate:.3f} ({fast.ratio.low:.3f} to {fast.ratio.high:.3f})"
    assert abs(fast.ratio.estimate - 50 / 80) < 0.02
    eer = drift.comparisons[0].metrics["eer"]
    assert page.row("first")[0][2:5] == [
        f"{100 * eer.reference:.2f}",
        f"{100 * eer.candidate:.2f}",
        f"{100 * eer.difference:+.2f}",
    ]
    assert page.row("Nes2Net-X")[0] == ["Nes2Net-X", "91.35", "87 %", "84.52", "511,014"]
    assert ["context", "64,485.64", "86.6 %"] in [row[:3] for row in page.cells]


def test_accuracy_stands_beside_latency_where_documents_share_bundles(page: Page, files: list[Path]) -> None:
    latency = load(files[3]).results
    (row,) = (row for row in page.row("demo-fp16") if row[2] == "3.7" and row[1] != "fp16")
    assert row[3] == f"{latency.arms[2].wall.p50:.1f}"
    assert "By latency (latency-now)" in page.source


def test_without_shared_bundles_accuracy_stands_beside_size_alone(keep, make_latency, make_drift) -> None:
    drift = keep("d", "drift", make_drift(candidates={"demo-int8": 0.0}))
    other = keep("l", "latency", make_latency(ARMS))
    source = html(make_report([load(drift), load(other)]))
    assert "By size" in source and "By latency" not in source
    assert "No document of latency has two of these bundles" in source


def test_what_a_document_lacks_is_said_and_leaves_no_gap(keep, make_latency) -> None:
    crash = Absent("torch.compile fp32", "its process died", crashed=True)
    bare = make_latency({FP32: 50.0}, bare=True, absent=[crash])
    page = Page(html(make_report([load(keep("bare", "latency", bare))])))
    assert page.headings == [
        *("Latency: bare", "Latency, once it runs", "Load, first run, steady state", "Memory"),
        *("What was measured", "Not in this document", "Command and machine"),
    ]
    for words in (
        "larger batches: was left out",
        "one stream: was left out",
        "OpenVINO fp32: openvino is not installed",
        "torch.compile fp32: its process died",
        "energy: unavailable",
        "Not here: eer_drift.py",
    ):
        assert words in page.source, words
    assert not re.search(r"<(table|figure|ul)[^>]*></", page.source)
    assert "<tbody></tbody>" not in page.source


def test_the_page_loads_nothing_and_runs_nothing(page: Page) -> None:
    tags = {tag for tag, _ in page.elements}
    assert not {"script", "link", "img", "image", "iframe", "object", "embed", "base", "form"} & tags
    outside = [
        value
        for _, attributes in page.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "srcset") and not value.startswith("#")
    ]
    assert outside == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert not re.search(r"url\((?!#)|@import", page.source)
    policy = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_ids_are_unique_links_lead_somewhere_and_colours_are_the_pages_own(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    references = re.findall(r'(?:href="|url\()#([^")]+)', page.source)
    assert references and set(references) <= set(ids)
    drawn = page.source[page.source.index("<svg") :]
    assert not re.search(r"(?:fill|stroke): #(?!000000)", drawn)  # that no dark screen could change
    named = set(re.findall(r"var\(--(\w+)\)", page.source))
    light, dark = re.findall(r":root \{(.*?)\}", page.source, re.DOTALL)
    for theme in (light, dark):
        assert named <= set(re.findall(r"--(\w+):", theme))


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>", "a|b*c*`d`", "$title ${x} $$", "\"'><img src=x>"]
)
def test_names_are_text_and_nothing_else(keep, make_drift, name: str) -> None:
    report = make_report([load(keep("drift", "drift", make_drift(candidates={f"demo-{name}": 0.0})))])
    page = Page(html(report))
    assert not {"script", "img"} & {tag for tag, _ in page.elements}
    assert any(f"demo-{name}" in row[0] for row in page.cells)
    lines = [line for line in markdown(report).splitlines() if line.startswith("| demo-")]
    assert lines and all("<" not in re.sub(r"\\.", "", line) for line in lines)


def test_markdown_has_every_table(files: list[Path], page: Page) -> None:
    text = markdown(make_report([load(path) for path in files]))
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| :--")]
    assert len(rows) == len(page.cells)
    widths = [len(re.findall(r"(?<!\\)\|", line)) - 1 for line in rows]
    assert widths == [len(row) for row in page.cells]


def test_the_command_takes_committed_results_and_writes_both(tmp_path: Path) -> None:
    done = command("--html", tmp_path / "sub/page.html", "--markdown", tmp_path / "page.md")
    assert done.returncode == 0 and done.stdout == "", done.stderr
    page = (tmp_path / "sub/page.html").read_text(encoding="utf-8")
    for path in RESULTS.glob("*.json"):
        assert f": {path.stem}</h2>" in page
    assert "91.35" in (tmp_path / "page.md").read_text(encoding="utf-8")


def test_bad_newer_and_foreign_documents_are_one_line(keep, make_latency, of_schema, tmp_path: Path) -> None:
    newer, older, foreign = (keep(name, "latency", make_latency(ARMS)) for name in ("new", "old", "foreign"))
    of_schema(newer, 3)
    of_schema(older, 1)
    foreign.write_bytes(foreign.read_bytes().replace(b'"type":"latency"', b'"type":"drift"'))
    (tmp_path / "broken.json").write_text('{"schema": 2, "type": "latency"')
    for path, complaint in (
        (newer, "schema 3, this version reads 2: a newer nes2net-edge wrote it"),
        (older, "schema 1, this version reads 2: measure again"),
        (foreign, "not a document of the drift benchmark"),
        (tmp_path / "broken.json", "not a benchmark's document"),
        (tmp_path / "nowhere.json", "No such file"),
    ):
        done = command(path, "--html", tmp_path / "page.html")
        assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
        assert complaint in done.stderr and str(path) in done.stderr
    assert not (tmp_path / "page.html").exists()


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[int, int]]) -> None:
    choices = [Choice(str(i), cost, cost, cost, eer, None) for i, (cost, eer) in enumerate(points)]
    best = front(choices)
    for one in choices:
        beaten = any(
            o.cost <= one.cost and o.eer <= one.eer and (o.cost < one.cost or o.eer < one.eer)
            for o in choices
        )
        assert (one in best) != beaten
    assert [choice.cost for choice in best] == sorted(choice.cost for choice in best)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "\u2013"), (0, "0"), (0.0128, "0.0128"), (1.0, "1.00"), (64.0, "64.0"), (1234.5, "1,234")],
)
def test_numbers_have_three_digits(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
@pytest.mark.parametrize(
    ("width", "height", "theme"), [(1200, 2600, "light"), (400, 6000, "light"), (1200, 2600, "dark")]
)
def test_a_browser_shows_it(page: Page, tmp_path: Path, width: int, height: int, theme: str) -> None:
    import matplotlib.image
    import numpy as np

    shown, shot = tmp_path / "page.html", tmp_path / "page.png"
    source = page.source
    if theme == "dark":
        source = source.replace("(prefers-color-scheme: dark)", "(min-width: 1px)")
    shown.write_text(source, encoding="utf-8")
    done = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}", f"--screenshot={shot}",
        shown.as_uri(),
    ]  # fmt: skip
    subprocess.run(done, check=True, capture_output=True, timeout=120)
    pixels = np.round(255 * matplotlib.image.imread(shot)[..., :3]).astype(int)
    light = theme == "light"
    colours = {
        "paper": (255, 255, 255) if light else (13, 17, 23),
        "ink": (36, 41, 47) if light else (230, 237, 243),
        "blue": (0, 103, 177) if light else (88, 166, 255),
        "pink": (184, 68, 126) if light else (240, 122, 180),
    }
    for name, colour in colours.items():
        where = np.abs(pixels - colour).max(axis=-1) < 12
        assert where.sum() > (0.5 * where.size if name == "paper" else 100), name
        if name == "blue":
            assert np.ptp(np.argwhere(where)[:, 1]) > width / 2  # plots fill the page
