"""Where speech is, whatever the pieces."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from nes2net_runtime.streaming.voice_activity import VoiceActivity

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
SECOND = 16_000


@pytest.fixture(scope="module")
def signal() -> np.ndarray:
    """3 s of silence, 7 s of speech (both examples), 3 s of faint noise."""
    clips = [soundfile.read(EXAMPLES / f"{name}.flac", dtype="float32")[0] for name in ("human", "synthetic")]
    noise = 0.003 * np.random.default_rng(0).standard_normal(3 * SECOND).astype(np.float32)
    return np.concatenate([np.zeros(3 * SECOND, np.float32), *clips, noise])


def test_speech_is_where_speech_is(signal: np.ndarray) -> None:
    heard = VoiceActivity(len(signal))
    heard.feed(signal)
    end = len(signal) - 3 * SECOND
    assert heard.share(0, 3 * SECOND) < 0.05
    assert heard.share(3 * SECOND, end) > 0.7
    assert heard.share(end + SECOND, len(signal)) < 0.05


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(1, 30_000), min_size=1, max_size=5))
def test_pieces_do_not_matter(signal: np.ndarray, sizes: list[int]) -> None:
    whole, pieces = VoiceActivity(len(signal)), VoiceActivity(len(signal))
    whole.feed(signal)
    at = i = 0
    while at < len(signal):
        pieces.feed(signal[at : at + sizes[i % len(sizes)]])
        at, i = at + sizes[i % len(sizes)], i + 1
    for start in range(0, len(signal) - SECOND, SECOND // 2):
        assert pieces.share(start, start + SECOND) == whole.share(start, start + SECOND)


def test_what_was_not_heard_is_no_speech(signal: np.ndarray) -> None:
    heard = VoiceActivity(2 * SECOND)
    assert heard.share(0, SECOND) == 0
    heard.feed(signal[: 8 * SECOND])
    assert heard.share(20 * SECOND, 21 * SECOND) == 0
    assert heard.share(3 * SECOND, 4 * SECOND) == 0  # forgotten
    assert heard.share(6 * SECOND, 8 * SECOND) > 0.5


def test_it_begins_anew(signal: np.ndarray) -> None:
    fresh, used = VoiceActivity(len(signal)), VoiceActivity(len(signal))
    used.feed(signal[5 * SECOND : 9 * SECOND])
    used.reset()
    for heard in (fresh, used):
        heard.feed(signal)
    for start in range(0, len(signal), SECOND):
        assert used.share(start, start + SECOND) == fresh.share(start, start + SECOND)
