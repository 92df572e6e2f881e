"""Stands in for the modules `tensorrt` (11) and `cuda.bindings.runtime`.

An "engine" is an ONNX graph that ONNX Runtime runs on the CPU; the card's memory is memory of the host, and
only addresses that `cudaMalloc` gave, and that are not freed, may be read or written. What is put on the
stream is done when somebody waits for it, and not before.
"""

import ctypes
import enum
import io
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as real


class CudaError(enum.IntEnum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class MemcpyKind(enum.IntEnum):
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815
    cudaMemcpyDeviceToDevice = 3  # noqa: N815


class Card:
    """The card's memory, and the copies made."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}  # address -> block
        self.copies: dict[str, int] = {kind.name: 0 for kind in MemcpyKind}
        self.full = False
        self.waiting: list[Callable[[], None]] = []  # on the stream

    def inside(self, address: int, count: int) -> bool:
        """Whether these bytes are in one block of the card."""
        return any(at <= address and address + count <= at + len(block) for at, block in self.blocks.items())

    def cuda(self) -> types.ModuleType:
        """The module `cuda.bindings.runtime`."""
        module = types.ModuleType("cuda.bindings.runtime")
        module.cudaError_t, module.cudaMemcpyKind = CudaError, MemcpyKind
        module.cudaMalloc, module.cudaFree = self._malloc, self._free
        module.cudaMemcpyAsync = self._copy
        module.cudaStreamCreate = lambda: (CudaError.cudaSuccess, 77)
        module.cudaStreamSynchronize = self._finish
        return module

    def tensorrt(self, version: str) -> types.ModuleType:
        """The module `tensorrt`."""
        module = types.ModuleType("tensorrt")
        module.__version__ = version
        module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
        module.Runtime = lambda logger: Runtime(self)
        return module

    def _malloc(self, count: int) -> tuple[CudaError, int | None]:
        if self.full:
            return CudaError.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(count)
        self.blocks[ctypes.addressof(block)] = block
        return CudaError.cudaSuccess, ctypes.addressof(block)

    def _finish(self, stream: int) -> tuple[CudaError]:
        assert stream == 77
        for step in self.waiting:
            step()
        self.waiting.clear()
        return (CudaError.cudaSuccess,)

    def _free(self, address: int) -> tuple[CudaError]:
        assert not self.waiting, "freed while it may be in use"
        del self.blocks[address]
        return (CudaError.cudaSuccess,)

    def _copy(self, target: int, source: int, count: int, kind: MemcpyKind, stream: int) -> tuple[CudaError]:
        assert stream == 77
        assert self.inside(target, count) == (kind != MemcpyKind.cudaMemcpyDeviceToHost)
        assert self.inside(source, count) == (kind != MemcpyKind.cudaMemcpyHostToDevice)
        self.waiting.append(lambda: ctypes.memmove(target, source, count))
        self.copies[kind.name] += 1
        return (CudaError.cudaSuccess,)


class Runtime:
    def __init__(self, card: Card) -> None:
        self._card = card
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, blob: bytes) -> Any:
        try:
            session = real.InferenceSession(io.BytesIO(blob).getvalue(), providers=["CPUExecutionProvider"])
        except Exception:  # an engine that does not fit: None, and a message of TensorRT's own
            return None
        return types.SimpleNamespace(create_execution_context=lambda: Context(self._card, session))


class Context:
    """Knows its output's shape once its input's is set; runs on addresses of the card."""

    def __init__(self, card: Card, session: Any) -> None:
        self._card, self._session = card, session
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name == self._session.get_inputs()[0].name
        self._shapes = {name: tuple(shape)}
        try:
            (output,) = self._session.run(None, {name: np.zeros(shape, np.float32)})
        except Exception:  # outside the profile
            return False
        self._shapes[self._session.get_outputs()[0].name] = output.shape
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == 77
        arrays = {}
        for name, shape in self._shapes.items():
            count = int(np.prod(shape))
            assert self._card.inside(self._addresses[name], 4 * count)
            memory = (ctypes.c_float * count).from_address(self._addresses[name])
            arrays[name] = np.frombuffer(memory, np.float32).reshape(shape)
        source, target = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name

        def compute() -> None:
            arrays[target][...] = self._session.run(None, {source: arrays[source].copy()})[0]

        self._card.waiting.append(compute)
        return True
