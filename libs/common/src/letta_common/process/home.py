"""Where everything is kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def home_directory() -> Path:
    """Return LETTA_HOME, by default `~/.letta`."""
    return Path(os.environ.get("LETTA_HOME") or "~/.letta").expanduser()
