"""Time as a dependency, so that tests are exact."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Return a clock that never goes back, in nanoseconds."""
        ...


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """Return the time of day, in UTC."""
        return datetime.now(UTC)

    def monotonic_ns(self) -> int:
        """Return a clock that never goes back, in nanoseconds."""
        return time.monotonic_ns()
