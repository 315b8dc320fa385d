"""What keeps a failing vendor from failing its callers: retries, a circuit breaker, limits of concurrency."""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from letta_common.errors import AppError, LLMInvalidResponse, LLMRateLimit, LLMTimeout, LLMUnavailable, RateLimited
from letta_common.fair_slots import FairSlots, Shares

FAILOVER = (LLMUnavailable, LLMTimeout, LLMRateLimit, LLMInvalidResponse)
"""Errors of one vendor after which another may be asked."""


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a vendor is asked again."""

    attempts: int = 3
    pause: float = 0.5
    patience: float = 20.0
    """Longest Retry-After that is waited for; a longer one fails at once and is told to the caller."""

    def wait(self, error: AppError, attempt: int, *, left: float = math.inf) -> float | None:
        """Return the seconds to wait before the next attempt, or None when there shall be none, or no time is left."""
        pause = self._pause(error, attempt)
        return pause if pause is not None and pause < left else None

    def _pause(self, error: AppError, attempt: int) -> float | None:
        # Where no connection was made nothing was asked, so another try costs nothing.
        passing = isinstance(error, (LLMRateLimit, LLMUnavailable, LLMInvalidResponse))
        if attempt >= self.attempts or not (passing or error.metadata.get("phase") == "connect"):
            return None
        # Each answer is paid for, and a model that gave none twice gives none the third time.
        if isinstance(error, LLMInvalidResponse) and attempt > 1:
            return None
        asked = error.metadata.get("retry_after")
        if asked is not None:
            return float(asked) if float(asked) <= self.patience else None
        return min(self.patience, self.pause * float(2 ** (attempt - 1))) * random.uniform(0.75, 1.25)  # noqa: S311 jitter


class Breaker:
    """Refuses calls to a vendor that failed `most` times in a row, and lets one through after `rest` seconds."""

    def __init__(self, vendor: str, now: Callable[[], float], *, most: int = 8, rest: float = 15.0) -> None:
        self._vendor, self._now, self._most, self._rest = vendor, now, most, rest
        self._failures = 0
        self._open_until = 0.0

    def check(self) -> None:
        """Raise LLMUnavailable while the breaker is open; the one that comes after the rest passes as a trial."""
        if self._failures < self._most:
            return
        left = self._open_until - self._now()
        if left > 0:
            raise LLMUnavailable(
                f"{self._vendor} failed {self._failures} times in a row; not asked again for {left:.0f} s",
                provider=self._vendor,
                retry_after=f"{left:.1f}",
            )
        self._open_until = self._now() + self._rest

    def note(self, error: Exception | None) -> None:
        """Count a result. Refusals that are the caller's fault say that the vendor is well; ours say nothing."""
        if isinstance(error, RateLimited):
            return
        if isinstance(error, (LLMUnavailable, LLMTimeout)):
            self._failures += 1
            self._open_until = self._now() + self._rest
        else:
            self._failures = 0


class Slots:
    """Limits how many calls one key (a provider, an organization) has at once; 0 is no limit. Tenants come by turns."""

    def __init__(
        self, most: int, what: str, *, special: Mapping[str, int] | None = None, patience: float = 30.0
    ) -> None:
        self._most, self._what, self._special, self._patience = most, what, special or {}, patience
        self._pools: dict[str, FairSlots] = {}

    @asynccontextmanager
    async def hold(self, key: str, tenant: str = "") -> AsyncIterator[None]:
        """Hold a slot. Raises RateLimited when none becomes free in time, or too many wait."""
        most = self._special.get(key, self._most)
        if not most:
            yield
            return
        pool = self._pools.get(key)
        if pool is None:
            shares = Shares(slots=most, waiting=_MOST_WAITING, patience=self._patience)
            pool = self._pools[key] = FairSlots(shares, f"generations by {self._what}")
        try:
            async with pool.hold(tenant):
                yield
        finally:
            # Keys come from outside, so pools that nobody uses must not pile up.
            if pool.idle:
                self._pools.pop(key, None)


_MOST_WAITING = 10_000
