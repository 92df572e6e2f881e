"""The TensorRT that is installed: TensorRT 10 or 11, or TensorRT-RTX. Their Python interfaces are one."""

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Literal

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.nvidia import find_driver

Kind = Literal["trt", "trt-rtx"]
MODULES: dict[Kind, str] = {"trt": "tensorrt", "trt-rtx": "tensorrt_rtx"}
NAMES: dict[Kind, str] = {"trt": "TensorRT", "trt-rtx": "TensorRT-RTX"}
OLDEST: dict[Kind, int] = {"trt": 10, "trt-rtx": 1}
INSTALL = (
    "pip install 'nes2net-edge[trt-rtx]' for GeForce RTX and RTX PRO cards (builds without a GPU too), "
    "'nes2net-edge[trt]' for data-centre cards; JetPack brings TensorRT for Jetson"
)


@dataclass(frozen=True)
class TensorRT:
    """An imported TensorRT."""

    kind: Kind
    module: ModuleType
    version: str

    @property
    def name(self) -> str:
        return f"{NAMES[self.kind]} {self.version}"


def find_tensorrt(kind: Kind | None) -> TensorRT:
    """Import the TensorRT asked for; None: TensorRT where it and a GPU are there, else TensorRT-RTX.

    Raises ProviderError, with what to install, where none is there, it is too old, or it needs a GPU.
    """
    if kind is None:
        there: list[Kind] = [k for k in MODULES if _installed(k)]
        if not there:
            raise ProviderError(f"no TensorRT is installed: {INSTALL}")
        kind = "trt-rtx" if there == ["trt-rtx"] or ("trt-rtx" in there and not _gpu()) else "trt"
    try:
        module = importlib.import_module(MODULES[kind])
    except ImportError as error:
        reason = f"can't be loaded ({str(error).splitlines()[0]})" if _installed(kind) else "is not installed"
        raise ProviderError(f"{NAMES[kind]} {reason}: {INSTALL}") from error
    found = TensorRT(kind, module, str(module.__version__))
    if int(found.version.split(".")[0]) < OLDEST[kind]:
        raise ProviderError(
            f"{found.name} is too old: {NAMES[kind]} {OLDEST[kind]} or newer builds these graphs"
        )
    if kind == "trt" and not _gpu():
        raise ProviderError(
            f"{found.name} builds engines on the card that they are for, and no NVIDIA GPU works here; "
            "run this there, or make engines for RTX cards with --engine trt-rtx"
        )
    return found


def _installed(kind: Kind) -> bool:
    return importlib.util.find_spec(MODULES[kind]) is not None


def _gpu() -> bool:
    driver = find_driver()
    return driver is not None and bool(driver.cards)
