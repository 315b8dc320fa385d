"""What an organization may spend."""

from __future__ import annotations

from letta_common.actor import Actor
from letta_common.errors import BudgetExceeded


class Budgets:
    """Counts cost per organization and refuses beyond a limit; 0 is no limit."""

    def __init__(self, limit_microdollars: int = 0) -> None:
        self._limit = limit_microdollars
        self._spent: dict[str, int] = {}

    def check(self, actor: Actor) -> None:
        """Raise BudgetExceeded when the organization has spent what it may."""
        spent = self._spent.get(actor.organization_id, 0)
        if self._limit and spent >= self._limit:
            raise BudgetExceeded(
                f"the organization has spent ${spent / 1e6:.2f} of ${self._limit / 1e6:.2f}; raise the budget or wait",
                spent_microdollars=str(spent),
            )

    def spend(self, actor: Actor, microdollars: int) -> None:
        """Count a cost."""
        if self._limit and microdollars:
            self._spent[actor.organization_id] = self._spent.get(actor.organization_id, 0) + microdollars
