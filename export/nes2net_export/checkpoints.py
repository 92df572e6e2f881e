"""Checkpoints from a file or the Hugging Face hub, as a flat state dict of official keys."""

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from nes2net_runtime.bundle import sha256
from nes2net_runtime.errors import CheckpointError

DEMO = Path(__file__).parent / "demo" / "demo.safetensors"
DEMO_DOCUMENTS = (DEMO.parent / "LICENSE", DEMO.parent / "MODEL_CARD.md")
SUFFIXES = (".safetensors", ".pth", ".pt")
NESTED = ("model_state_dict", "state_dict", "model")  # of files that a training run resumes from


@dataclass(frozen=True)
class Checkpoint:
    """A state dict under official keys, and where it came from."""

    name: str
    state: Mapping[str, Tensor]
    sha256: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)  # of a .safetensors file


def read_checkpoint(source: str) -> Checkpoint:
    """Read FILE or hf:REPO[/FILE]; raises CheckpointError with the reason in one line."""
    try:
        source.encode()
    except UnicodeEncodeError as error:
        raise CheckpointError(f"{source!a}: not a name in UTF-8; rename the file") from error
    path = download(source.removeprefix("hf:")) if source.startswith("hf:") else Path(source)
    try:
        state, metadata = _read(path)
        return Checkpoint(path.name, _flatten(state), sha256(path), metadata)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _read(path: Path) -> tuple[Any, dict[str, str]]:
    if path.is_dir():
        raise CheckpointError(
            "a folder, not a checkpoint (a bundle is already exported: nes2net-run --bundle)"
        )
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise CheckpointError("empty file")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(
            "an HTML page, not a checkpoint: the download saved a web page; fetch the file itself"
        )
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError("a Git LFS pointer, not the checkpoint itself: run git lfs pull")
    if path.suffix.lower() == ".safetensors":
        try:
            with safetensors.safe_open(path, "pt") as file:
                return safetensors.torch.load_file(path), dict(file.metadata() or {})
        except safetensors.SafetensorError as error:
            raise CheckpointError(f"not a safetensors file, or cut short ({error})") from error
    return _read_pickle(path), {}


def _read_pickle(path: Path) -> Any:
    """Tensors and plain containers alone; numpy's scalars too, since training runs save their best EER."""
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]
    safe: list[Any] = [np.dtype, *(type(np.dtype(kind)) for kind in ("f4", "f8", "i8"))]
    safe += [scalar, (scalar, "numpy.core.multiarray.scalar")]  # numpy < 2 wrote the old module's name
    try:
        with torch.serialization.safe_globals(safe):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (
        Exception
    ) as error:  # torch raises RuntimeError, UnpicklingError, EOFError, KeyError, ... for a broken file
        if foreign := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"holds objects that are not tensors ({foreign[1]}), which could run code when loaded; "
                "save its state_dict() alone, best as .safetensors"
            ) from error
        raise CheckpointError("not a PyTorch checkpoint, or cut short") from error


def _flatten(state: Any) -> dict[str, Tensor]:
    """The state dict inside a resume file, without DataParallel's prefix."""
    for key in NESTED:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"holds a {type(state).__name__}, not a state dict")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise CheckpointError(f"not a state dict: {others[0]!r} is no tensor")
    parallel = all(str(key).startswith("module.") for key in state)
    return {str(key).removeprefix("module.") if parallel else str(key): value for key, value in state.items()}


def download(name: str) -> Path:
    """`OWNER/REPO[/FILE]` from the hub, or from its cache; at once an error where neither can be reached."""
    import huggingface_hub
    from huggingface_hub import constants, errors

    owner_repo, file = "/".join(name.split("/")[:2]), "/".join(name.split("/")[2:])
    if owner_repo.count("/") != 1 or not all(owner_repo.split("/")):
        raise CheckpointError(f"hf:{name}: give hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    try:
        if file:
            cached = huggingface_hub.try_to_load_from_cache(owner_repo, file)
            if isinstance(cached, str):
                return Path(cached)
        elif constants.is_offline_mode():
            return _only_cached(owner_repo)
        _require_hub(constants.ENDPOINT, constants.is_offline_mode())
        return Path(huggingface_hub.hf_hub_download(owner_repo, file or _only_checkpoint(owner_repo)))
    except errors.HFValidationError as error:
        raise CheckpointError(f"hf:{name}: not a repository's name ({error})") from error
    except (errors.RepositoryNotFoundError, errors.GatedRepoError) as error:
        raise CheckpointError(
            f"hf:{owner_repo}: no such repository, or it is private: run hf auth login first"
        ) from error
    except errors.RemoteEntryNotFoundError as error:
        raise CheckpointError(f"hf:{owner_repo}: has no file {file}") from error
    except CheckpointError:
        raise
    except Exception as error:  # of the hub, of files, and whatever its HTTP client raises
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"hf:{name}: not downloaded ({reason})") from error


def _only_checkpoint(repo: str) -> str:
    import huggingface_hub

    return _one(repo, huggingface_hub.HfApi().list_repo_files(repo))


def _only_cached(repo: str) -> Path:
    import huggingface_hub

    try:
        folder = Path(huggingface_hub.snapshot_download(repo, local_files_only=True))
    except huggingface_hub.errors.LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"hf:{repo}: HF_HUB_OFFLINE is set and nothing of it is in the cache"
        ) from error
    return folder / _one(repo, [path.relative_to(folder).as_posix() for path in folder.rglob("*")])


def _one(repo: str, files: list[str]) -> str:
    checkpoints = [file for file in files if file.endswith(SUFFIXES)]
    if len(checkpoints) != 1:
        listed = ", ".join(checkpoints) or "none"
        raise CheckpointError(f"hf:{repo}: name the checkpoint, hf:{repo}/FILE; there are: {listed}")
    return checkpoints[0]


def _require_hub(endpoint: str, offline: bool) -> None:
    """huggingface_hub retries for 20 seconds before it gives up; one look tells whether that can help."""
    url = urlsplit(endpoint)
    if (proxy := getproxies().get(url.scheme)) and not proxy_bypass(url.hostname or ""):
        url = urlsplit(proxy)
    problem = "HF_HUB_OFFLINE is set" if offline else None
    if not offline:
        port = url.port or (443 if url.scheme == "https" else 80)
        try:
            socket.create_connection((url.hostname or "", port), timeout=5).close()
        except OSError:
            problem = f"{url.hostname} can't be reached"
    if problem:
        raise CheckpointError(
            f"{problem} and the file is not in the cache; download it elsewhere and give --checkpoint FILE"
        )
