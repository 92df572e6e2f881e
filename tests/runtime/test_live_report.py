"""The report of a stream: no extreme is lost in its bounded memory, and its page is safe and on its own."""

import io
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from nes2net_runtime.bundle import DEMO, read_bundle
from nes2net_runtime.live.history import BIN, MOST_BINS, MOST_EVENTS, Envelope, Weightiest
from nes2net_runtime.live.loop import Event
from nes2net_runtime.live.picture import draw
from nes2net_runtime.live.report import Report
from nes2net_runtime.manifest import (
    AlertRule,
)
from nes2net_runtime.results import Outage, Score
from nes2net_runtime.streaming.alerts import Alert

RULE = AlertRule(smoothing=0.0, patience=0.0, alert_llr=-3.0, clear_llr=0.5)
ANY_ALERT = ("--alert-llr", "50", "--clear-llr", "60", "--patience", "0")
CHROMIUM = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
LARGEST = 300_000  # bytes of a page


class Page(HTMLParser):
    """What is in a page: its elements with their attributes, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.text += data

    def classes(self, tag: str) -> list[str]:
        return [attributes.get("class", "") for name, attributes in self.elements if name == tag]


def window(end: float, llr: float) -> Score:
    return Score(max(end - 4, 0.0), end, llr / 2, llr=llr, p_spoof=0.5, label="bonafide")


@pytest.fixture
def page() -> Callable[..., Page]:
    """(events, name, rule, seconds of audio) -> the page of such a stream."""
    manifest = read_bundle(DEMO).manifest

    def make(
        events: Sequence[Event], name: str = "call.wav", rule: AlertRule | None = RULE, seconds: float = 0.0
    ) -> Page:
        out = io.StringIO()
        report = Report(out, name, replace(manifest, name="<demo & co>"), rule)
        report.audio(np.sin(np.arange(round(16_000 * seconds)), dtype=np.float32))
        for event in events:
            report.event(event)
        report.write()
        return Page(out.getvalue())

    return make


@settings(max_examples=40)
@given(
    number=st.integers(1, 5 * MOST_BINS),
    span=st.floats(0.01, 1e6),
    seed=st.integers(0, 2**32 - 1),
    ascending=st.booleans(),
)
def test_an_envelope_keeps_every_extreme_in_bounded_memory(
    number: int, span: float, seed: int, ascending: bool
) -> None:
    rng = np.random.default_rng(seed)
    times = rng.uniform(0, span, number)
    times = np.sort(times) if ascending else times
    lows = rng.normal(size=number)
    highs = lows + rng.exponential(size=number)
    envelope = Envelope()
    for at, low, high in zip(times, lows, highs, strict=True):
        envelope.add(at, low, high)
        assert len(envelope.bins) <= MOST_BINS
    assert envelope.extremes() == (lows.min(), highs.max())
    assert np.log2(envelope.seconds / BIN) % 1 == 0
    assert sum(values.number for values in envelope.bins.values()) == number
    assert sum(v.total for v in envelope.bins.values()) == pytest.approx((lows + highs).sum() / 2, abs=1e-6)
    places = (times / envelope.seconds).astype(int)
    for place in np.unique(places):
        values, inside = envelope.bins[place], places == place
        assert (values.low, values.high) == (lows[inside].min(), highs[inside].max())
    assert (
        envelope.seconds == BIN or times.max() >= MOST_BINS * envelope.seconds / 2
    )  # no coarser than needed


@given(
    times=st.lists(st.floats(0, 90), min_size=1),
    cuts=st.lists(st.floats(0, 90)).map(sorted),
    pause=st.floats(0, 20),
)
def test_runs_are_the_bins_in_order_and_no_run_spans_a_cut_or_a_pause(times, cuts, pause: float) -> None:
    envelope = Envelope()
    for at in times:
        envelope.add(at, at, at)
    runs = envelope.runs(pause, cuts)
    middles = [at for run in runs for at, _ in run]
    assert middles == [(place + 0.5) * envelope.seconds for place in sorted(envelope.bins)]
    for run in runs:
        steps = np.diff([at for at, _ in run])
        assert (steps <= pause + 1.5 * envelope.seconds).all()
        assert not [cut for cut in cuts if run[0][0] < cut <= run[-1][0]]


@given(st.lists(st.integers(), unique=True, max_size=3 * MOST_EVENTS))
def test_the_weightiest_are_kept_in_order(numbers: list[int]) -> None:
    things: Weightiest[int] = Weightiest(lambda number: number)
    for number in numbers:
        things.add(number)
    best = set(sorted(numbers)[-MOST_EVENTS:])
    assert things.kept == [number for number in numbers if number in best]
    assert things.number == len(numbers)


def test_alerts_gaps_and_thresholds_are_in_picture_and_tables(page) -> None:
    events = [window(4, 6.0), window(5, -8.0), Alert("raised", 1, 5, 5, -8.0), Alert("ended", 1, 5, 5, -8.0)]
    made = page([*events, Outage(10, 12.5, "no audio from the device")], seconds=10)
    assert "1 alert in 0:12.5 (0:02.5 of it lost); 2 windows scored." in made.text
    assert "0:01.0 to 0:05.0: alert, llr down to \u22128.0" in made.text
    assert "0:10.0 to 0:12.5: 2.5 s lost, no audio from the device" in made.text
    assert made.text.count("no audio from the device") == 2  # picture and table
    assert made.classes("g") == ["region alert", "region gap"]
    assert {"name alert", "name"} <= set(made.classes("text"))
    assert "below \u22123 alerts begin" in made.text and "above +0.5 they end" in made.text
    assert "<demo & co>, fp32" in made.text


def test_the_line_is_the_llr_that_alerts_are_decided_by(page) -> None:
    made = page([window(4, 8.0), window(4.5, 0.0)], rule=replace(RULE, smoothing=2.0), seconds=5)
    assert "llr, smoothed over 2 s" in made.text and "single windows" in made.text
    falls = []
    for curve in ('polyline class="line"', 'polygon class="range"'):
        first, second = re.search(f'<{curve} points="([^"]*)"', made.source).group(1).split()[:2]
        falls.append(float(second.split(",")[1]) - float(first.split(",")[1]))
    assert falls[0] / falls[1] == pytest.approx(1 - np.exp(-0.5 / 2), abs=0.005)


def test_a_gap_cuts_the_line(page) -> None:
    whole = page([window(4, 1.0), window(5, 2.0)], seconds=6)
    cut = page([window(4, 1.0), Outage(4, 4.2, "x"), window(5, 2.0)], seconds=6)
    assert [made.classes("polyline") for made in (whole, cut)] == [["line"], ["line", "line"]]


def test_an_alert_that_is_on_when_the_stream_breaks_off_goes_up_to_there(page) -> None:
    made = page([window(4, -8.0), Alert("raised", 0, 4, 4, -8.0)], seconds=9)
    assert "1 alert in 0:09.0" in made.text and "0:00.0 to 0:09.0: alert" in made.text


def test_an_alert_that_is_on_at_the_end_ends_there(run, examples: Path, tmp_path: Path) -> None:
    done = run("--stream", examples / "synthetic.flac", *ANY_ALERT, "--report", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    made = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    seconds = re.search(r"1 alert in (\S+); ", made.text).group(1)
    assert f"0:00.0 to {seconds}: alert" in made.text


@pytest.mark.parametrize("rule", [RULE, None], ids=["calibrated", "not"])
@pytest.mark.parametrize("seconds", [0.0, 0.01, 5.0])
def test_a_stream_of_which_nothing_was_scored(page, rule, seconds: float) -> None:
    made = page([], rule=rule, seconds=seconds)
    assert "Nothing was scored in 0:0" in made.text
    assert ("svg" in dict(made.elements)) == (seconds > 0)


def test_without_calibration_there_are_scores_and_no_thresholds(page) -> None:
    made = page([Score(0, 4, 0.3), Score(0.5, 4.5, -0.2)], rule=None, seconds=5)
    assert "2 windows scored in 0:05.0. Not calibrated: no alerts come." in made.text
    assert not {"name", "name alert"} & set(made.classes("text"))
    assert "score" in made.text and "llr" not in made.text


@pytest.mark.parametrize(
    "name", ["<script>alert(1)</script>.wav", "\"'><img src=x onerror=y>", "$name ${x} $$", "\udcff.wav"]
)
def test_names_are_text_and_nothing_else(page, name: str) -> None:
    made = page([Outage(1, 2, f"cause {name}")] if "\udcff" not in name else [], name=name, seconds=1)
    made.source.encode("utf-8")
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    assert made.text.count(shown) >= 2  # title and heading
    assert not {"script", "img"} & dict(made.elements).keys()
    assert not [key for _, attributes in made.elements for key in attributes if key.startswith("on")]


def test_the_page_loads_nothing_and_runs_nothing(page) -> None:
    made = page([window(4, -8.0), Alert("ended", 0, 4, 4, -8.0), Outage(4, 5, "x")], seconds=4)
    loading = {"script", "link", "img", "image", "iframe", "object", "embed", "base", "use", "a", "form"}
    assert not loading & dict(made.elements).keys()
    names = {name for _, attributes in made.elements for name in attributes}
    assert not {"src", "href", "xlink:href", "style", "srcset"} & names
    assert not re.search(r"https?:|//|@import|url\(", made.source)
    policy = [a["content"] for _, a in made.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_a_long_eventful_stream_makes_a_page_of_bounded_size(page) -> None:
    rng = np.random.default_rng(0)
    events: list[Event] = []
    for i in range(20_000):
        at = 20.0 * i
        events += [window(at + 4, rng.normal(0, 8)), window(at + 5, rng.normal(0, 8))]
        events += [
            Alert("ended", at, at + 5, at + 5, -rng.exponential()),
            Outage(at + 10, at + 15, "no audio"),
        ]
    made = page(events, seconds=300)
    assert f"The {MOST_EVENTS} alerts with the lowest llr, of 20000:" in made.text
    assert f"The {MOST_EVENTS} longest gaps, of 20000:" in made.text
    assert len(made.source) < LARGEST


@given(seconds=st.floats(0.05, 1e7), llr=st.floats(-1e4, 1e4))
def test_axes_have_a_few_different_labels(seconds: float, llr: float) -> None:
    envelope = Envelope()
    envelope.add(0.0, llr, llr)
    drawing = draw(seconds, Envelope(), envelope, envelope, [], [], RULE)
    times = re.findall(r'<text class="time[^>]*>([^<]+)', drawing)
    values = re.findall(r'<text class="value"[^>]*>([^<]+)', drawing)[2:]
    assert 3 <= len(times) <= 9 and 2 <= len(values) <= 8
    assert len(set(times)) == len(times) and len(set(values)) == len(values)
    assert times[0] == "0:00"


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [1200, 400])
def test_a_browser_shows_a_real_report(run, examples: Path, tmp_path: Path, width: int) -> None:
    import matplotlib.image

    report, shot, speech = tmp_path / "page.html", tmp_path / "page.png", tmp_path / "speech.flac"
    clips = [soundfile.read(examples / f"{name}.flac")[0] for name in ("human", "synthetic", "human")]
    soundfile.write(speech, np.concatenate(clips), 16_000)
    done = run("--stream", speech, *ANY_ALERT, "--report", report)
    assert done.returncode == 0, done.stderr
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900", f"--screenshot={shot}",
        report.as_uri(),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    pixels = matplotlib.image.imread(shot)[..., :3]
    red, green, blue = 255 * np.moveaxis(pixels, -1, 0)
    seen = {
        "alert": (red > 180) & (green < 60) & (blue < 70),
        "llr": blue - red > 100,
        "waveform": np.abs(255 * pixels - (140, 149, 159)).max(axis=-1) < 12,
        "text": (red < 60) & (green < 60) & (blue < 60),
    }
    for name, where in seen.items():
        assert where.sum() > 100, name
    for name in ("alert", "llr", "waveform"):
        assert np.ptp(np.argwhere(seen[name])[:, 1]) > width / 2, name  # across the page
