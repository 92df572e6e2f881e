"""Stages on a device: the waveform goes up once, the logits come down once, the rest stays there.

    waveform --> | input -> encoder -> frames -> context -> features -> backend -> logits | --> logits
                 |                     frames of a stream: kept, joined, used again       |

A shape that comes again gets a lane: buffers of its own at fixed addresses, and, where the provider can,
CUDA graphs, which start a whole stage with one call. Other shapes run without. ONNX Runtime captures a lane's
graphs, told apart by `gpu_graph_id`, in the lane's first runs; -1 is a run without.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.ort_sessions import first_line
from nes2net_runtime.inference.pipeline import Array, Frames

LANES = 16  # at most: each holds its buffers, and its graphs, as long as the detector lives
SEEN = 64  # shapes that are remembered while they wait to come again
NO_GRAPH = -1


class Lane:
    """Some stages at one shape: every buffer keeps its address."""

    def __init__(self, runtime: ModuleType, number: int, source: Any) -> None:
        self.input = self.output = source
        self._steps: list[tuple[Any, Any]] = []  # session, its binding
        self._options = _run_options(runtime, number)

    def add(self, session: Any, name: str, output: Any) -> None:
        """Go on from the last buffer, the session's input `name`, to the buffer `output`."""
        binding = session.io_binding()
        binding.bind_ortvalue_input(name, self.output)
        binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
        self._steps.append((session, binding))
        self.output = output

    def run(self, tensor: Any) -> Any:
        """Copy an array, or a value on the device, in and run; the next run overwrites what this returns."""
        self.input.update_inplace(tensor)
        for session, binding in self._steps:
            session.run_with_iobinding(binding, self._options)
        return self.output


class OnDevice:
    """Stages on one device (ONNX Runtime's name of it: "cuda", "cpu").

    `open_join` opens join.onnx there, when a stream first needs it. `fixed`: the stages take one shape alone,
    and a provider that captures a graph does so in its first run, so that run is in a lane, too.
    """

    def __init__(
        self,
        runtime: ModuleType,
        sessions: Sequence[Any],
        inputs: Sequence[str],
        device: str,
        open_join: Callable[[], Any],
        fixed: bool = False,
    ) -> None:
        self._runtime, self._device, self._fixed = runtime, device, fixed
        self._steps = list(zip(sessions, inputs, strict=True))
        self._open_join, self._joining = open_join, None
        self._without_graph = _run_options(runtime, NO_GRAPH)
        self._lanes: dict[tuple[int, ...], Lane] = {}  # by first stage, stage after the last, shape
        self._seen: set[tuple[int, ...]] = set()  # once, and have no lane yet
        self._lock = Lock()

    def logits(self, waveforms: Array) -> Array:
        with self._turn():
            return self._down(self._run(np.ascontiguousarray(waveforms), 0, len(self._steps)))

    def frames(self, waveform: Array) -> Frames:
        with self._turn():
            frames = self._run(np.ascontiguousarray(waveform), 0, 1)
            if any(lane.output is frames for lane in self._lanes.values()):
                own = self._empty(frames.shape())
                own.update_inplace(frames)
                return own
            return frames

    def join(self, kept: Frames, new: Frames) -> Frames:
        with self._turn():
            self._joining = self._joining or self._open_join()
            return self._bound(self._joining, {"kept": kept, "new": new})

    def logits_of(self, frames: Frames) -> Array:
        with self._turn():
            return self._down(self._run(frames, 1, len(self._steps)))

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """One thread at a time, for lanes share their buffers; errors of the device in one line."""
        with self._lock:
            try:
                yield
            except ProviderError:
                raise
            except Exception as error:  # ONNX Runtime raises a dozen unrelated types
                raise ProviderError(
                    f"the device failed ({first_line(error)}); smaller --batch-size and --window-samples "
                    "need less of its memory"
                ) from error

    def _run(self, tensor: Any, first: int, last: int) -> Any:
        """Stages [first, last) of an array, or of a value on the device."""
        shape = tuple(tensor.shape if isinstance(tensor, np.ndarray) else tensor.shape())
        key = (first, last, *shape)
        if lane := self._lanes.get(key):
            return lane.run(tensor)
        again = key in self._seen or self._fixed
        if len(self._lanes) < LANES and again:
            self._seen.discard(key)
            return self._first_run_of_lane(key, tensor, shape)
        if len(self._seen) < SEEN:
            self._seen.add(key)
        value = tensor
        if isinstance(tensor, np.ndarray):
            value = self._empty(shape)
            value.update_inplace(tensor)
        for session, name in self._steps[first:last]:
            value = self._bound(session, {name: value})
        return value

    def _first_run_of_lane(self, key: tuple[int, ...], tensor: Any, shape: tuple[int, ...]) -> Any:
        """Run without a graph, which shows the shapes of all buffers; they become the lane's."""
        source = self._empty(shape)
        source.update_inplace(tensor)
        lane = self._lanes[key] = Lane(self._runtime, len(self._lanes) + 1, source)
        for session, name in self._steps[key[0] : key[1]]:
            lane.add(session, name, self._bound(session, {name: lane.output}))
        return lane.output

    def _bound(self, session: Any, inputs: Mapping[str, Any]) -> Any:
        """Run one session on values on the device: its output, there, too."""
        binding = session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(session.get_outputs()[0].name, self._device, 0)
        session.run_with_iobinding(binding, self._without_graph)
        return binding.get_outputs()[0]

    def _empty(self, shape: Sequence[int]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, self._device, 0)

    def _down(self, value: Any) -> Array:
        return np.array(value.numpy(), np.float32)  # a copy: the buffer may be a lane's


def _run_options(runtime: ModuleType, graph: int) -> Any:
    options = runtime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
