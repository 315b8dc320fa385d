"""What an organization may spend in a month."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import BudgetExceeded

_BELIEVED_NS = 60_000_000_000


class Spending(Protocol):
    """Knows what was booked."""

    async def spent(self, actor: Actor, since: datetime) -> int:
        """Return what the organization's generations have cost, in millionths of a dollar."""
        ...


class Budgets:
    """Refuses generations beyond a limit of cost; 0 is no limit.

    The books are read once a minute for each organization that generates, and what this process adds is counted at
    once; so replicas may together exceed the limit by what they spend in a minute.
    """

    def __init__(self, spending: Spending, clock: Clock, *, limit_microdollars: int = 0) -> None:
        self._spending, self._clock, self._limit = spending, clock, limit_microdollars
        self._known: dict[str, tuple[int, int]] = {}  # organization -> read until, spent

    async def check(self, actor: Actor) -> None:
        """Raise BudgetExceeded when the organization has spent what it may."""
        if not self._limit:
            return
        until, spent = self._known.get(actor.organization_id, (0, 0))
        now = self._clock.monotonic_ns()
        if now >= until:
            month = self._clock.now().replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            spent = await self._spending.spent(actor, month)
            self._known[actor.organization_id] = (now + _BELIEVED_NS, spent)
        if spent >= self._limit:
            raise BudgetExceeded(
                f"the organization has spent ${spent / 1e6:.2f} of ${self._limit / 1e6:.2f} this month; raise "
                "LETTA_BUDGET_DOLLARS or wait",
                spent_microdollars=str(spent),
                limit_microdollars=str(self._limit),
            )

    def spend(self, actor: Actor, microdollars: int) -> None:
        """Count a cost."""
        if self._limit and microdollars:
            until, spent = self._known.get(actor.organization_id, (0, 0))
            self._known[actor.organization_id] = (until, spent + microdollars)
