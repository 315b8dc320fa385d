"""Calls of the built-in tools that this service carries out: code, web search, web pages."""

from __future__ import annotations

from collections.abc import Mapping

from letta_common.actor import Actor
from letta_tools.domain.execution import Result
from letta_tools.domain.executions import Executor, Work, refused


class BuiltinExecutor:
    """Hands a call to the executor of the tool's name."""

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = executors

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end. Raises IsolationUnavailable."""
        executor = self._executors.get(work.tool.name)
        if executor is None:
            return refused(
                f"`{work.tool.name}` is not available in this deployment; web tools need the setting web_egress"
            )
        return await executor.run(actor, work)
