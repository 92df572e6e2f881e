"""Where speech is, by Silero VAD 6.2 (github.com/snakers4/silero-vad, MIT): a probability for each 32 ms.

Each step of the network sees 512 samples and the 64 before them, and keeps the state of an LSTM.
"""

from pathlib import Path

import numpy as np

from nes2net_runtime.audio import Samples
from nes2net_runtime.inference.ort_sessions import cpu_session
from nes2net_runtime.streaming.tape import Tape

MODEL = Path(__file__).parent / "silero_vad" / "silero_vad_16k_sequence.onnx"
STEP = 512  # samples at 16 kHz
CONTEXT = 64
SPEECH = 0.5  # probability from which a step counts as speech: the model's own default


class VoiceActivity:
    """Hears a signal piece by piece, and tells how much of its last `span` samples is speech."""

    def __init__(self, span: int) -> None:
        self._steps = span // STEP + 2
        self._session = cpu_session(MODEL, threads=1)
        self.reset()

    def reset(self) -> None:
        """Begin a new signal."""
        self._h = self._c = np.zeros((1, 1, 128), np.float32)
        self._waiting: Samples = np.zeros(CONTEXT, np.float32)  # the context, then samples short of a step
        self._speech = Tape()  # probability of each step

    def feed(self, samples: Samples) -> None:
        """Hear the next samples of the signal (16 kHz)."""
        heard = np.concatenate([self._waiting, samples])
        steps = (len(heard) - CONTEXT) // STEP
        if steps:
            windows = np.lib.stride_tricks.sliding_window_view(heard, CONTEXT + STEP)[::STEP][:steps]
            inputs = {"input": np.ascontiguousarray(windows), "h": self._h, "c": self._c}
            probabilities, self._h, self._c = self._session.run(None, inputs)
            self._speech.append(probabilities)
            self._speech.forget(self._speech.end - self._steps)
        self._waiting = heard[steps * STEP :]

    def share(self, start: int, end: int) -> float:
        """Share of samples [start, end) of the signal that is speech, by the steps that were heard whole."""
        first = max(start // STEP, self._speech.begin)
        last = min(-(-end // STEP), self._speech.end)
        return float(np.mean(self._speech[first:last] >= SPEECH)) if last > first else 0.0
