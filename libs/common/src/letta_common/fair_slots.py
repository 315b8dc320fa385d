"""Fair shares of what tenants use at once: slots, and with them a size such as bytes of memory."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram

from letta_common.errors import RateLimited

# So often smaller requests go before a larger one; then what becomes free is kept until it fits.
_MOST_PASSED = 32
_RETRY_SECONDS = "5"

_held = Gauge("letta_slots_held", "Slots that are held.", ["what"])
_waiting = Gauge("letta_slots_waiting", "Requests that wait for a slot.", ["what"])
_refused = Counter("letta_slots_refused", "Requests that got no slot: too many waited, or none came in time.", ["what"])
_waited = Histogram("letta_slots_wait_seconds", "Time that requests waited for a slot.", ["what"])


@dataclass(frozen=True, slots=True)
class Shares:
    """How much may be held at once, by all tenants and by each; 0 is no limit. Sizes are of any one unit.

    At most `waiting` requests of one tenant wait, none longer than `patience` seconds. With `leave_room` a tenant that
    holds something gets no more than it leaves free, so that one more tenant finds room whatever the others do.
    """

    slots: int = 0
    tenant_slots: int = 0
    size: int = 0
    tenant_size: int = 0
    waiting: int = 256
    patience: float = math.inf
    leave_room: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """The right of a tenant to one slot and a size, until it is given back."""

    tenant: str
    size: int


@dataclass(slots=True)
class _Use:
    """What is held."""

    slots: int = 0
    size: int = 0


@dataclass(slots=True, eq=False)
class _Turn:
    """One request that waits, and how often others went before it because it needed more than there was."""

    size: int
    future: asyncio.Future[None]
    passed: int = 0


class FairSlots:
    """Hands out slots. Of those who wait the tenant comes next that holds the smallest share, of equals by turns.

    Within a tenant the order is that of arrival. A tenant at the end of its own share holds nobody up. A request that
    is larger than what is free lets smaller ones of others pass, yet not for ever. One that asks for more than there is
    counts as all that one tenant may have. Belongs to one event loop.
    """

    def __init__(self, shares: Shares, what: str) -> None:
        self._shares, self._what = shares, what
        self._slots = shares.slots or math.inf
        self._size = shares.size or math.inf
        self._tenant_slots = shares.tenant_slots or math.inf
        self._tenant_size = min(shares.tenant_size or math.inf, self._size)
        self._all = _Use()
        self._uses: dict[str, _Use] = {}
        self._queues: dict[str, deque[_Turn]] = {}

    @property
    def held(self) -> int:
        """How many slots are held."""
        return self._all.slots

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return sum(map(len, self._queues.values()))

    @property
    def idle(self) -> bool:
        """Whether nobody holds and nobody waits."""
        return not self._uses and not self._queues

    def held_by(self, tenant: str) -> int:
        """Return how many slots a tenant holds."""
        use = self._uses.get(tenant)
        return use.slots if use else 0

    @asynccontextmanager
    async def hold(self, tenant: str, size: int = 0) -> AsyncIterator[None]:
        """Hold a slot. Raises RateLimited when too many of the tenant wait, or none comes in time."""
        grant = await self.take(tenant, size)
        try:
            yield
        finally:
            self.give(grant)

    def try_take(self, tenant: str, size: int = 0) -> Grant | None:
        """Take a slot if one is to be had at once, and nobody waits whose turn comes first."""
        size = self._countable(size)
        use = self._uses.get(tenant) or _Use()
        if tenant in self._queues or not (self._within_share(use, size) and self._fits(size)):
            return None
        if any(self._may_wait_for_all(each) for each in self._queues):
            return None
        return self._grant(tenant, size)

    async def take(self, tenant: str, size: int = 0) -> Grant:
        """Wait for a slot and take it. Raises RateLimited as `hold` does."""
        grant = self.try_take(tenant, size)
        if grant is not None:
            return grant
        size = self._countable(size)
        if len(self._queues.get(tenant, ())) >= self._shares.waiting:
            raise self._refusal(f"{self._shares.waiting} {self._what} of the organization wait already")
        begun = time.monotonic()
        _waiting.labels(self._what).inc()
        try:
            async with asyncio.timeout(None if math.isinf(self._shares.patience) else self._shares.patience):
                await self._turn(tenant, size)
        except TimeoutError as error:
            raise self._refusal(f"no slot for {self._what} became free in {self._shares.patience:g} s") from error
        finally:
            _waiting.labels(self._what).dec()
        _waited.labels(self._what).observe(time.monotonic() - begun)
        return Grant(tenant, size)

    def give(self, grant: Grant) -> None:
        """Give a slot back, and to those whose turn is next."""
        use = self._uses[grant.tenant]
        for each in (use, self._all):
            each.slots -= 1
            each.size -= grant.size
        if not use.slots:
            del self._uses[grant.tenant]
        _held.labels(self._what).dec()
        self._serve()

    async def _turn(self, tenant: str, size: int) -> None:
        turn = _Turn(size, asyncio.get_running_loop().create_future())
        self._queues.setdefault(tenant, deque()).append(turn)
        self._serve()
        try:
            await turn.future
        except asyncio.CancelledError:
            if turn.future.done() and not turn.future.cancelled():  # the turn came while its caller left
                self.give(Grant(tenant, size))
            else:
                self._leave(tenant, turn)
            raise

    def _serve(self) -> None:
        """Grant what can be granted, each time to the one whose turn it is."""
        while (tenant := self._next()) is not None:
            turn = self._queues[tenant].popleft()
            self._requeue(tenant)
            if not turn.future.cancelled():  # else its caller left and has not noticed yet
                self._grant(tenant, turn.size)
                turn.future.set_result(None)

    def _next(self) -> str | None:
        """Return the tenant whose turn it is; nobody's when the first one must wait until more is free."""
        if self._all.slots >= self._slots:
            return None
        blocked: list[_Turn] = []
        for tenant in sorted(self._queues, key=self._share):  # of equals the first of the dict
            turn = self._queues[tenant][0]
            if turn.future.cancelled():
                return tenant
            if not self._within_share(self._uses.get(tenant) or _Use(), turn.size):
                continue
            if self._fits(turn.size):
                for each in blocked:
                    each.passed += 1
                return tenant
            if turn.passed >= _MOST_PASSED:
                return None
            blocked.append(turn)
        return None

    def _share(self, tenant: str) -> float:
        """Return the larger part that a tenant holds of slots and size."""
        use = self._uses.get(tenant) or _Use()
        return max(use.slots / self._part(self._slots), use.size / self._size)

    def _part(self, slots: float) -> float:
        """Return what slots are counted against; without a limit any number orders tenants alike."""
        return slots if math.isfinite(slots) else 1 << 20

    def _may_wait_for_all(self, tenant: str) -> bool:
        """Whether a tenant waits for what all share, and not for its own."""
        return self._within_share(self._uses.get(tenant) or _Use(), self._queues[tenant][0].size)

    def _within_share(self, use: _Use, size: int) -> bool:
        """Whether a tenant may have one slot more, as far as its own share goes."""
        if use.slots + 1 > self._tenant_slots or use.size + size > self._tenant_size:
            return False
        if not self._shares.leave_room or not use.slots:
            return True
        free_slots, free_size = self._slots - self._all.slots, self._size - self._all.size
        return use.slots + 1 <= free_slots and use.size + size <= free_size

    def _fits(self, size: int) -> bool:
        return self._all.slots + 1 <= self._slots and self._all.size + size <= self._size

    def _countable(self, size: int) -> int:
        return int(min(size, self._tenant_size))

    def _grant(self, tenant: str, size: int) -> Grant:
        for use in (self._uses.setdefault(tenant, _Use()), self._all):
            use.slots += 1
            use.size += size
        _held.labels(self._what).inc()
        return Grant(tenant, size)

    def _requeue(self, tenant: str) -> None:
        """Put a tenant that was served behind the others."""
        queue = self._queues.pop(tenant)
        if queue:
            self._queues[tenant] = queue

    def _leave(self, tenant: str, turn: _Turn) -> None:
        """Forget one who waited; those behind may be smaller."""
        queue = self._queues.get(tenant)
        if queue and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._queues[tenant]
            self._serve()

    def _refusal(self, why: str) -> RateLimited:
        _refused.labels(self._what).inc()
        return RateLimited(f"{why}; try later", retry_after=_RETRY_SECONDS)
