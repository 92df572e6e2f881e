"""Engines run by TensorRT itself, where ONNX Runtime can't: it links one major version of TensorRT.

Memory is CUDA's, by NVIDIA's bindings. Never make a `tensorrt.Runtime` where there is no driver: the process
ends with a segmentation fault.
"""

from collections.abc import Sequence
from importlib.util import find_spec
from math import prod
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.pipeline import Array, Frames

FLOAT = np.dtype(np.float32).itemsize
MODULES = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}


def import_tensorrt(kind: str) -> ModuleType | None:
    """TensorRT's own module for engines of this kind; None where it, or CUDA's bindings, are not there."""
    if find_spec(MODULES[kind]) is None or find_spec("cuda") is None:
        return None
    try:
        module: ModuleType = __import__(MODULES[kind])
        cuda_runtime()
    except (ImportError, OSError):  # its wheel is there, and the libraries are not
        return None
    return module


def cuda_runtime() -> ModuleType:
    """NVIDIA's bindings of CUDA's runtime."""
    from cuda.bindings import runtime

    module: ModuleType = runtime
    return module


class Memory:
    """Float32 memory on the card, freed with its last reference."""

    def __init__(self, cuda: ModuleType, shape: Sequence[int]) -> None:
        self.shape = tuple(shape)
        self.address = 0
        self._cuda = cuda
        self.address = int(_done(cuda, cuda.cudaMalloc(self.bytes)))

    @property
    def bytes(self) -> int:
        return prod(self.shape) * FLOAT

    def __del__(self) -> None:
        if self.address:
            self._cuda.cudaFree(self.address)


class OnTensorRT:
    """The stages' engines, in order, on one stream of the first card."""

    def __init__(
        self,
        tensorrt: ModuleType,
        engines: Sequence[Path],
        names: Sequence[tuple[str, str]],  # of each one's input and output
        own_code: bool = False,  # version-compatible engines carry code; the bundle's hashes vouch for it
    ) -> None:
        self._cuda = cuda_runtime()
        self._runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        if own_code:
            self._runtime.engine_host_code_allowed = True
        self._steps = [
            (self._context(tensorrt, path), *both) for path, both in zip(engines, names, strict=True)
        ]
        self._stream = _done(self._cuda, self._cuda.cudaStreamCreate())
        self._lock = Lock()

    def logits(self, waveforms: Array) -> Array:
        with self._lock:
            return self._down(self._run(self._up(waveforms), slice(None)))

    def frames(self, waveform: Array) -> Frames:
        with self._lock:
            frames = self._run(self._up(waveform), slice(0, 1))
            self._finish()
            return frames

    def join(self, kept: Frames, new: Frames) -> Frames:
        with self._lock:
            joined = Memory(self._cuda, kept.shape)
            rest = kept.bytes - new.bytes
            self._copy(joined.address, kept.address + new.bytes, rest, "DeviceToDevice")
            self._copy(joined.address + rest, new.address, new.bytes, "DeviceToDevice")
            self._finish()  # before `kept` may be freed
            return joined

    def logits_of(self, frames: Frames) -> Array:
        with self._lock:
            return self._down(self._run(frames, slice(1, None)))

    def _context(self, tensorrt: ModuleType, path: Path) -> Any:
        engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        context = None if engine is None else engine.create_execution_context()
        if context is None:
            raise ProviderError(
                f"{path.name}: TensorRT {tensorrt.__version__} can't load this engine; build one here: "
                "nes2net-export --from BUNDLE --to trt"
            )
        return context

    def _run(self, value: Memory, steps: slice) -> Memory:
        for context, source, target in self._steps[steps]:
            taken = context.set_input_shape(source, value.shape)
            output = Memory(self._cuda, context.get_tensor_shape(target))
            context.set_tensor_address(source, value.address)
            context.set_tensor_address(target, output.address)
            if not taken or not context.execute_async_v3(int(self._stream)):
                raise ProviderError(f"TensorRT can't run an input of shape {value.shape}")
            self._finish()  # before `value` may be freed
            value = output
        return value

    def _up(self, array: Array) -> Memory:
        array = np.ascontiguousarray(array, np.float32)
        value = Memory(self._cuda, array.shape)
        self._copy(value.address, array.ctypes.data, value.bytes, "HostToDevice")
        self._finish()
        return value

    def _down(self, value: Memory) -> Array:
        array = np.empty(value.shape, np.float32)
        self._copy(array.ctypes.data, value.address, value.bytes, "DeviceToHost")
        self._finish()
        return array

    def _copy(self, target: int, source: int, count: int, way: str) -> None:
        kind = getattr(self._cuda.cudaMemcpyKind, f"cudaMemcpy{way}")
        _done(self._cuda, self._cuda.cudaMemcpyAsync(target, source, count, kind, self._stream))

    def _finish(self) -> None:
        _done(self._cuda, self._cuda.cudaStreamSynchronize(self._stream))


def _done(cuda: ModuleType, answer: tuple[Any, ...]) -> Any:
    """The value of a CUDA call that gave (error, value); raises ProviderError for an error."""
    error, *values = answer
    if error != cuda.cudaError_t.cudaSuccess:
        raise ProviderError(
            f"CUDA failed ({error.name}); smaller --batch-size and --window-samples need less memory"
        )
    return values[0] if values else None
