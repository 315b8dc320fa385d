"""Calls that leave this host, in turns of the organizations that make them."""

from __future__ import annotations

from letta_common.actor import Actor
from letta_common.fair_slots import FairSlots
from letta_sandbox.calls import Result
from letta_tools.domain.executions.executions import Executor, Work


class FairExecutor:
    """Has another executor carry out calls, a bounded number at once for each organization."""

    def __init__(self, executor: Executor, slots: FairSlots) -> None:
        self._executor = executor
        self._slots = slots

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end, when it is its turn. Raises RateLimited, and what the other one does."""
        async with self._slots.hold(actor.organization_id):
            return await self._executor.run(actor, work)
