"""The folder where this machine's own things are kept: engines, measurements."""

import os
from pathlib import Path


def user_cache() -> Path:
    """$XDG_CACHE_HOME/nes2net-edge, or in ~/.cache; it may not be there yet."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nes2net-edge"
