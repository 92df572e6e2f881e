"""A detector's stages, one after the other, in one place: here, in the memory of the host.

A place keeps an encoder's frames where its stages run, so that a stream's frames need not travel. Other
places are `device_binding.OnDevice` and `native_tensorrt.OnTensorRT`.
"""

from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.float32]
Frames: TypeAlias = Any  # [1, frames, channels] of one pipeline: an array, or memory of its device


class Pipeline(Protocol):
    """Stages that are loaded; safe to share between threads."""

    def logits(self, waveforms: Array) -> Array:
        """[batch, samples] -> [batch, logits], by all stages."""

    def frames(self, waveform: Array) -> Frames:
        """[1, samples] -> the encoder's frames, which stay where they are."""

    def join(self, kept: Frames, new: Frames) -> Frames:
        """`kept` without as many of its first frames as `new` has, then `new`: as many frames as `kept`."""

    def logits_of(self, frames: Frames) -> Array:
        """The encoder's frames -> [1, logits], by the other stages."""


class OnHost:
    """Stages in the memory of the host: arrays go from session to session."""

    def __init__(self, sessions: Sequence[Any], inputs: Sequence[str]) -> None:
        self._steps = list(zip(sessions, inputs, strict=True))

    def logits(self, waveforms: Array) -> Array:
        return self._run(waveforms, slice(None))

    def frames(self, waveform: Array) -> Frames:
        return self._run(waveform, slice(0, 1))

    def join(self, kept: Frames, new: Frames) -> Frames:
        return np.concatenate([kept[:, new.shape[1] :], new], axis=1)

    def logits_of(self, frames: Frames) -> Array:
        return self._run(frames, slice(1, None))

    def _run(self, tensor: Array, steps: slice) -> Array:
        for session, name in self._steps[steps]:
            (tensor,) = session.run(None, {name: tensor})
        return tensor
