"""The folder where this machine's own things are kept: engines, measurements."""

import os
from pathlib import Path

from nes2net_runtime.errors import ProviderError


def user_cache() -> Path:
    """$XDG_CACHE_HOME/nes2net-edge, or in ~/.cache; it may not be there yet.

    Raises ProviderError for a user without a home.
    """
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nes2net-edge"
    except RuntimeError as error:
        raise ProviderError(f"nothing can be kept here ({error}): set XDG_CACHE_HOME to a folder") from error
