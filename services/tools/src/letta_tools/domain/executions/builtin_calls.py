"""Calls of the built-in tools that this service carries out: code, web search, web pages."""

from __future__ import annotations

from collections.abc import Mapping

from letta_common.actor import Actor
from letta_sandbox.calls import Result
from letta_tools.domain.executions.executions import Executor, Work, refused

_WEB = "web tools need the setting web_egress"
_ABSENT = {
    "run_code_with_tools": "code in a sandbox has neither network nor credentials to call the agent's other tools; "
    "call them one by one, and use run_code for what lies between"
}


class BuiltinExecutor:
    """Hands a call to the executor of the tool's name."""

    def __init__(self, executors: Mapping[str, Executor]) -> None:
        self._executors = executors

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end. Raises IsolationUnavailable."""
        executor = self._executors.get(work.tool.name)
        if executor is None:
            why = _ABSENT.get(work.tool.name, _WEB)
            return refused(f"`{work.tool.name}` is not available in this deployment: {why}")
        return await executor.run(actor, work)
