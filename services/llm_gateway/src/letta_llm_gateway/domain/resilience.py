"""What keeps a failing vendor from failing its callers: retries, a circuit breaker, limits of concurrency."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from letta_common.errors import AppError, LLMInvalidResponse, LLMRateLimit, LLMTimeout, LLMUnavailable, RateLimited

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
        passing = isinstance(error, (LLMRateLimit, LLMUnavailable, LLMInvalidResponse))
        if attempt >= self.attempts or not (passing or error.metadata.get("phase") == "connect"):
            return None
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
    """Limits how many calls one key (a provider, an organization) has at once; 0 is no limit.

    Who waits is served by tenant: the one with the fewest calls under way comes next, of equals the one that has waited
    longest; within a tenant by arrival. So one tenant's burst does not starve another.
    """

    def __init__(
        self, most: int, what: str, *, special: Mapping[str, int] | None = None, patience: float = 30.0
    ) -> None:
        self._most, self._what, self._special, self._patience = most, what, special or {}, patience
        self._pools: dict[str, _Pool] = {}

    @asynccontextmanager
    async def hold(self, key: str, tenant: str = "") -> AsyncIterator[None]:
        """Hold a slot. Raises RateLimited when none becomes free in time, or too many wait."""
        most = self._special.get(key, self._most)
        if not most:
            yield
            return
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(most)
        refusal = f"{self._what} {key} has {most} generations at once; try later"
        if pool.waiting >= _MOST_WAITING:
            raise RateLimited(refusal, retry_after="5")
        try:
            async with asyncio.timeout(self._patience):
                await pool.take(tenant)
        except TimeoutError as error:
            raise RateLimited(refusal, retry_after="5") from error
        try:
            yield
        finally:
            pool.give(tenant)
            if pool.idle:
                self._pools.pop(key, None)


_MOST_WAITING = 10_000


class _Pool:
    """The slots of one key."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._running: Counter[str] = Counter()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def waiting(self) -> int:
        """Say how many wait."""
        return sum(map(len, self._queues.values()))

    @property
    def idle(self) -> bool:
        """Say whether nobody holds and nobody waits."""
        return not self._running and not self._queues

    async def take(self, tenant: str) -> None:
        """Wait for a slot and take it."""
        if self._free and not self._queues:
            self._free -= 1
            self._running[tenant] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # the turn came while its caller left
                self.give(tenant)
            else:
                self._leave(tenant, turn)
            raise

    def give(self, tenant: str) -> None:
        """Give a slot back, and to whom it belongs next."""
        self._free += 1
        self._running[tenant] -= 1
        if not self._running[tenant]:
            del self._running[tenant]
        while self._free and self._queues:
            chosen = min(self._queues, key=lambda each: self._running.get(each, 0))  # of equals the first of the dict
            turn = self._queues[chosen].popleft()
            self._requeue(chosen)
            if turn.cancelled():  # its caller left and has not noticed yet
                continue
            self._free -= 1
            self._running[chosen] += 1
            turn.set_result(None)

    def _requeue(self, tenant: str) -> None:
        """Put a tenant that was served behind the others."""
        queue = self._queues.pop(tenant)
        if queue:
            self._queues[tenant] = queue

    def _leave(self, tenant: str, turn: asyncio.Future[None]) -> None:
        queue = self._queues.get(tenant)
        if queue and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[tenant]
