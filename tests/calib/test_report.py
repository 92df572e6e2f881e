"""The report: plots that tell the truth, a page that needs nothing else."""

import io
import re
import struct
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace
from rich.console import Console
from scipy.special import expit, logit

from nes2net_calib.calibrate import Calibrated
from nes2net_calib.metrics import Costs
from nes2net_calib.output import print_tables
from nes2net_calib.plots import reliability
from nes2net_calib.protocols import Protocol, Trial
from nes2net_calib.report import documents, page
from nes2net_calib.rules import CalibratedRule, calibrate_rule
from nes2net_calib.scoring import LabelledScore
from nes2net_calib.thresholds import Choice, Target
from nes2net_runtime.bundle import DEMO, Bundle, read_bundle

VOID = {"meta", "br", "path", "use", "rect"}
OPTIONAL = {"html", "p", "li", "tr", "th", "td"}  # whose ends HTML lets one leave out


def calibrated_rule(
    rule, bonafide, spoof, choice: Choice = "eer", prior: float = 0.5, systems: int = 3, name: str = "[A{}]"
) -> CalibratedRule:
    scored = [
        LabelledScore(
            Trial(f"{label}{i}", Path("x"), label, system, f"s{i % 9}", None, "<i>wide</i>", 1, ()),
            score,
            2.0,
        )
        for label, scores in ((True, bonafide), (False, spoof))
        for i, score in enumerate(map(float, scores))
        for system in [None if label else name.format(i % systems)]
    ]
    trials = tuple(one.trial for one in scored)
    return calibrate_rule(rule, scored, Protocol("list.csv", "CSV", "ab" * 32, trials, ()), choice, prior)


def normal(seed: int, counts: tuple[int, int] = (200, 150), distance: float = 3.0):
    rng = np.random.default_rng(seed)
    return rng.normal(distance, 1, counts[0]), rng.normal(0, 1.3, counts[1])


def calibrated(*rules: CalibratedRule, left_out=None, list_name: str = "list.csv", **changes) -> Calibrated:
    bundle = read_bundle(DEMO)
    manifest = replace(bundle.manifest, calibration=None, **changes)
    protocol = Protocol(list_name, "CSV", "ab" * 32, (), ("line 3: no audio for 'x'",))
    return Calibrated(Bundle(bundle.path, manifest), protocol, rules, left_out or {})


class Page(HTMLParser):
    """Every tag with its attributes, the text, and whether the tags are closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID | OPTIONAL:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag) -> None:
        if tag not in VOID | OPTIONAL:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text += data


def test_the_page_needs_nothing_else_and_is_whole() -> None:
    rules = [calibrated_rule(name, *normal(i)) for i, name in enumerate(("first", "full", "windows"))]
    found = Page(page(calibrated(*rules)))
    assert found.open == []
    assert not {tag for tag, _ in found.tags} & {"script", "link", "img", "iframe", "object"}
    for tag, attributes in found.tags:
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
    assert "url(http" not in page(calibrated(*rules)) and "@import" not in page(calibrated(*rules))
    pictures = [attributes for _, attributes in found.tags if attributes.get("role") == "img"]
    assert len(pictures) == 1 + 3 + 3
    for rule in rules:
        texts = [p["aria-label"] for p in pictures if rule.rule in p["aria-label"]]
        assert len(texts) == 3
        assert sum(f"EER {100 * rule.entry.provenance.eer:.1f} %" in text for text in texts) == 2


def test_the_page_tells_the_numbers() -> None:
    rule = calibrated_rule("first", *normal(0), Costs(0.1, 2, 5), 0.1)
    left_out = {"windows": "list.csv: too small to calibrate windows: 3 bona fide and 0 spoof windows"}
    text = Page(page(calibrated(rule, left_out=left_out))).text
    entry = rule.entry
    assert f"{entry.provenance.cllr_before:.3f} → {entry.provenance.cllr_after:.3f}" in text
    assert f"{entry.threshold:+.3f}" in text
    assert "chosen by least expected cost (bona fide rejected 2, spoof accepted 5)" in text
    assert "Not calibrated. list.csv: too small" in text
    assert "SHA-256 " + "ab" * 32 in text
    assert "10 % spoofs" in text
    assert "; 1 lines of the list could not be used" in text
    assert "[A0]" in text and "50 spoofs" in text
    assert "nan" not in text.lower().split() and "inf" not in text.lower().split()


def test_attacks_that_a_rule_did_not_hear_and_those_of_one_voice_have_no_figures() -> None:
    """In the terminal and on the page. Nine speakers: each of nine attacks has one of them."""
    rules = [calibrated_rule("first", *normal(0)), calibrated_rule("windows", *normal(1), systems=9)]
    result = calibrated(*rules, list_name="[bold]list.csv")
    console = Console(width=100, file=io.StringIO())
    print_tables(result, console)
    printed = console.file.getvalue()
    assert "calibrated on [bold]list.csv" in printed
    rows = {row[0]: row[1:] for line in printed.splitlines() if (row := line.split())}
    assert rows["[A8]"][:2] == ["-", "-"] and rows["[A8]"][3:] == ["(-)", "16"]
    assert len(rows["[A0]"]) == 3 + 3 and rows["[A0]"][2] == "50"
    text = Page(page(result)).text
    assert re.search(r"\[A8\]\s*-\s*\d+\.\d \(-\)\s*16 spoofs", text)


def test_names_are_text_and_no_markup() -> None:
    rule = calibrated_rule("first", *normal(0), name="<script>{}</script>&")
    html = page(calibrated(rule, name='<b>"&', list_name="<img src=x>"))
    assert "<script>" not in html and "<img" not in html and '<b>"' not in html and "<i>wide" not in html
    text = Page(html).text
    assert "<script>0</script>&" in text and 'Calibration of <b>"&' in text and "<i>wide</i>" in text


@pytest.mark.parametrize(
    "bonafide, spoof, choice",
    [
        (np.full(50, 2.0), np.full(50, -2.0), "eer"),
        (np.full(50, 2.0), np.full(50, -2.0), Costs()),
        (np.repeat([0.0, 1.0], [20, 80]), np.repeat([0.0, 1.0], [70, 30]), Target("spoof accepted", 0.1)),
        (*normal(1, (60, 5_000)), Target("spoof accepted", 0.001)),
        (1e5 * normal(2)[0], 1e5 * normal(2)[1], "eer"),
        (*normal(3, distance=0.3), "eer"),
    ],
    ids=["separated", "separated, by costs", "two values", "a rare error", "huge scores", "a poor detector"],
)
def test_every_set_that_can_be_calibrated_can_be_drawn(bonafide, spoof, choice) -> None:
    made = documents(calibrated(calibrated_rule("full", bonafide, spoof, choice)))
    assert len(made) == 4
    assert Page(made["reports/calibration.html"].decode()).open == []


@pytest.mark.slow
def test_documents_of_a_large_set_are_small() -> None:
    rules = [
        calibrated_rule(name, *normal(i, (30_000, 40_000), 4), systems=5)
        for i, name in enumerate(("first", "full", "windows"))
    ]
    made = documents(calibrated(*rules))
    html = made.pop("reports/calibration.html")
    assert len(html) < 300_000
    assert sum(map(len, made.values())) < 200_000
    for name in ("det", "scores", "reliability"):
        picture = made[f"reports/calibration-{name}.png"]
        width, height = struct.unpack(">II", picture[16:24])
        assert picture.startswith(b"\x89PNG") and 600 < width < 2000 and 400 < height < 1500


@pytest.mark.parametrize("prior", [0.5, 0.1, 0.01])
def test_llrs_that_hold_are_reliable_at_every_prior(prior: float) -> None:
    """llrs of normal classes whose likelihoods are known, more spoofs in the set than the prior says."""
    rng = np.random.default_rng(0)
    bonafide, spoof = (2 * rng.normal(mean, 1, count) for mean, count in ((1, 20_000), (-1, 30_000)))
    said, seen, low, high = reliability(bonafide, spoof, prior)
    assert len(said) == 10 and (np.diff(said) < 0).all()
    assert (low <= seen).all() and (seen <= high).all()
    assert np.count_nonzero((low <= said) & (said <= high)) >= 8
    # and of llrs that claim twice as much, most are not
    said, _, low, high = reliability(2 * bonafide, 2 * spoof, prior)
    assert np.count_nonzero((low <= said) & (said <= high)) <= 4


def test_a_bin_has_its_share_of_spoofs_at_the_prior() -> None:
    """Four llrs, 25 trials each, half of all spoofs; a tenth is assumed: odds are a ninth of the counts'."""
    llrs, spoofs = np.arange(-2.0, 2.0), np.array([22, 16, 9, 3])
    said, seen, low, high = reliability(np.repeat(llrs, 25 - spoofs), np.repeat(llrs, spoofs), 0.1)
    np.testing.assert_allclose(said, expit(-llrs - np.log(9)))
    np.testing.assert_allclose(seen / (1 - seen), spoofs / (25 - spoofs) / 9)
    wilson = np.array([0.041668, 0.299558])  # of 3 in 25
    np.testing.assert_allclose([low[3], high[3]], expit(logit(wilson) - np.log(9)), rtol=1e-4)
