"""Calls of tools of MCP servers."""

from __future__ import annotations

import json

from letta_common.actor import Actor
from letta_common.errors import InvalidArgument, MCPConnectionFailed, MCPServerNotFound, MCPTimeout
from letta_sandbox.calls import CallEnding, Isolation, Result, ToolFailure
from letta_tool_schemas.fitting import SchemaMismatch, fit_arguments
from letta_tools.domain.executions.executions import Work, refused
from letta_tools.domain.executions.surroundings import Environment
from letta_tools.domain.mcp.servers import MCPServers

PROVIDER = "mcp"


class MCPExecutor:
    """Hands calls to MCP servers. What goes wrong there is the tool's failure."""

    def __init__(self, servers: MCPServers, environment: Environment) -> None:
        self._servers = servers
        self._environment = environment

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end."""
        execution = work.execution
        try:
            arguments = fit_arguments(work.tool.parameters, work.arguments)
        except SchemaMismatch as error:
            return refused(str(error), "ArgumentError")
        variables = {**await self._environment.variables(actor), **execution.environment_variables}
        try:
            good, text = await self._servers.call(
                actor, work.tool, arguments, variables, execution.limits.timeout_seconds
            )
        except MCPTimeout as error:
            return _failed(CallEnding.TIMEOUT, error.reason, error.message)
        except (MCPConnectionFailed, MCPServerNotFound, InvalidArgument) as error:
            return _failed(CallEnding.CRASHED, error.reason, error.message)
        if not good:
            # A server chooses how long its complaint is, and a model reads it.
            return _failed(CallEnding.TOOL_ERROR, "ToolError", text[:8192])
        result = json.dumps(text)
        if len(result) > execution.limits.result_bytes:
            return _failed(CallEnding.OUTPUT_LIMIT, "ResultTooLarge", f"the result has {len(result)} bytes")
        return Result(CallEnding.SUCCESS, Isolation.NONE, PROVIDER, result=result)


def _failed(status: CallEnding, kind: str, message: str) -> Result:
    return Result(status, Isolation.NONE, PROVIDER, failure=ToolFailure(kind, message))
