"""Typed identifiers: a prefix and a UUID of version 7, so that ids sort by time (RFC 9562, section 5.7)."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from uuid import UUID


class _Ticks:
    """Counts 1/4096 of a millisecond since 1970, never the same twice in a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        """Return the time, or one more than the last answer if that is larger."""
        with self._lock:
            self._last = max(self._last + 1, time.time_ns() // 1_000_000 << 12)
            return self._last


_ticks = _Ticks()


def uuid7() -> UUID:
    """Return a UUID of version 7 that is larger than each one this process made before."""
    return UUID(int=_number())


def new_id(prefix: str) -> str:
    """Return a new id, `<prefix>-<uuid7>`."""
    digits = f"{_number():032x}"  # without a UUID in between, which takes twice the time
    return f"{prefix}-{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _number() -> int:
    tick = _ticks.next()
    high = (tick >> 12) << 16 | 0x7000 | (tick & 0xFFF)
    low = 0x8000_0000_0000_0000 | int.from_bytes(os.urandom(8)) >> 2
    return high << 64 | low


def derived_id(prefix: str, *parts: str) -> str:
    """Return the one id that belongs to these parts, so that a repeated step makes the same object."""
    digest = hashlib.sha256("\x1f".join((prefix, *parts)).encode()).digest()[:16]
    return f"{prefix}-{UUID(bytes=digest, version=5)}"
