"""Typed identifiers: a prefix and a UUID of version 7, so that ids sort by time (RFC 9562, section 5.7)."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from uuid import UUID

_lock = threading.Lock()
_last = 0


def uuid7() -> UUID:
    """Return a UUID of version 7 that is larger than each one this process made before."""
    global _last
    with _lock:
        _last = max(_last + 1, time.time_ns() // 1_000_000 << 12)
        tick = _last
    high = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    low = 0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8)) >> 2
    return UUID(int=high << 64 | low)


def new_id(prefix: str) -> str:
    """Return a new id, `<prefix>-<uuid7>`."""
    return f"{prefix}-{uuid7()}"


def derived_id(prefix: str, *parts: str) -> str:
    """Return the one id that belongs to these parts, so that a repeated step makes the same object."""
    digest = hashlib.sha256("\x1f".join((prefix, *parts)).encode()).digest()[:16]
    return f"{prefix}-{UUID(bytes=digest, version=5)}"
