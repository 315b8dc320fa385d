"""The tools service."""

from __future__ import annotations

import json
from collections.abc import Sequence

import grpc.aio

from letta.tools.v1 import tool_execution_service_pb2 as execution_pb2
from letta.tools.v1 import tool_execution_service_pb2_grpc, tool_service_pb2, tool_service_pb2_grpc
from letta_agent.clients.patience import AWAY, patiently
from letta_agent.domain.peers.tools import Attached, CallResult, Tool, ToolCallRequest

TIMEOUT = 15.0
EXECUTION_TIMEOUT = 900.0


class ToolClient:
    """Tools over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._registry = tool_service_pb2_grpc.ToolServiceStub(channel)
        self._executor = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)

    async def resolve(self, tool_ids: Sequence[str], names: Sequence[str] = ()) -> list[Tool]:
        """Return tools by id and by name, in the order asked."""
        request = tool_service_pb2.ResolveToolsRequest(tool_ids=tool_ids, names=names)
        return list((await self._registry.ResolveTools(request, timeout=TIMEOUT)).tools)

    async def attached(self, tool_ids: Sequence[str], etag: str = "") -> Attached:
        """Return those of an agent's tools that still exist, or that none has changed since `etag`."""
        request = tool_service_pb2.ResolveToolsRequest(tool_ids=tool_ids, skip_missing=True, etag=etag)
        answer = await self._registry.ResolveTools(request, timeout=TIMEOUT)
        return Attached(tuple(answer.tools), answer.etag, answer.unchanged)

    async def execute(self, call: ToolCallRequest) -> CallResult:
        """Execute a call, once for each key."""
        request = execution_pb2.ExecuteRequest(
            tool_id=call.tool_id,
            tool_version=call.tool_version,
            arguments=call.arguments,
            environment_variables=call.environment,
            agent_state=call.agent_state,
            idempotency_key=call.key,
            agent_id=call.agent_id,
        )
        answer = await patiently(
            lambda: self._executor.Execute(request, timeout=EXECUTION_TIMEOUT), over=AWAY, what="Execute"
        )
        stdout, stderr = tuple(answer.stdout.splitlines()), tuple(answer.stderr.splitlines())
        if answer.status == execution_pb2.EXECUTION_STATUS_SUCCESS:
            return CallResult(
                _text(answer.result),
                result=answer.result,
                stdout=stdout,
                stderr=stderr,
                state_changes=answer.agent_state_changes,
            )
        kind = f"{answer.error_type}: " if answer.error_type else ""
        return CallResult(f"{kind}{answer.error_message}", is_error=True, stdout=stdout, stderr=stderr)


def _text(result: str) -> str:
    """Return a result as the model reads it: a string without its quotes, anything else as JSON."""
    try:
        value = json.loads(result)
    except ValueError:
        return result
    if isinstance(value, str):
        return value
    return "None" if value is None else result
