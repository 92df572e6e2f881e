"""A detector's stages, one after the other, in one place: here, in the memory of the host.

A place keeps an encoder's frames where its stages run, so that a stream's frames need not travel. Other
places are `device_binding.OnDevice` and `native_tensorrt.OnTensorRT`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nes2net_runtime.manifest import Manifest

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


CACHED = 1 << 23  # bytes of an encoder's activation that a CPU's caches hold while the next layer reads it
WIDEST = 512  # channels
POSITIONS = 64  # of the encoder's first layer, a frame: strides 2, 2, 2, 2, 2 and 2 come after it


class OnHost:
    """Stages in the memory of the host: arrays go from session to session.

    A separate encoder hears one waveform at a time, in pieces whose activations stay in the caches: a third
    less time with 512 channels, and less memory. A frame sees its own samples alone, so frames are the same.
    """

    def __init__(self, sessions: Sequence[Any], manifest: Manifest) -> None:
        self._steps = [(s, stage.inputs[0].name) for s, stage in zip(sessions, manifest.stages, strict=True)]
        self._audio = manifest.audio
        self._piece = _frames_of_a_piece(manifest)

    def logits(self, waveforms: Array) -> Array:
        if self._piece is None:
            return self._run(waveforms, slice(None))
        rows = [self.frames(waveforms[i : i + 1]) for i in range(len(waveforms))]
        return self.logits_of(rows[0] if len(rows) == 1 else np.concatenate(rows))

    def frames(self, waveform: Array) -> Frames:
        field, hop = self._audio.frame_field, self._audio.frame_hop
        count = (waveform.shape[1] - field) // hop + 1
        assert self._piece is not None
        pieces = -(-count // self._piece)
        ends = [count * i // pieces for i in range(pieces + 1)]
        parts = [
            self._run(waveform[:, hop * first : hop * (last - 1) + field], slice(0, 1))
            for first, last in pairwise(ends)
        ]
        return parts[0] if pieces == 1 else np.concatenate(parts, axis=1)

    def join(self, kept: Frames, new: Frames) -> Frames:
        return np.concatenate([kept[:, new.shape[1] :], new], axis=1)

    def logits_of(self, frames: Frames) -> Array:
        return self._run(frames, slice(1, None))

    def _run(self, tensor: Array, steps: slice) -> Array:
        for session, name in self._steps[steps]:
            (tensor,) = session.run(None, {name: tensor})
        return tensor


def _frames_of_a_piece(manifest: Manifest) -> int | None:
    """Frames whose largest activation has CACHED bytes; None: the encoder is not a stage of its own."""
    if manifest.stages[0].name != "encoder":
        return None
    channels = manifest.model.get("conv_channels") or [WIDEST]
    largest = max(width * POSITIONS >> layer for layer, width in enumerate(channels))
    return max(1, CACHED // (int(largest) * np.float32().itemsize))
