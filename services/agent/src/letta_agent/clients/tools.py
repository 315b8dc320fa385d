"""The tools service. Requests and answers pass as they are; here is how long and how often each is tried."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from letta.tools.v1 import (
    mcp_server_service_pb2,
    mcp_server_service_pb2_grpc,
    tool_execution_service_pb2_grpc,
    tool_service_pb2,
    tool_service_pb2_grpc,
)
from letta.tools.v1 import tool_execution_service_pb2 as execution_pb2
from letta_agent.clients.patience import AWAY, patiently
from letta_agent.domain.peers.tools import MCPServer, Tool

TIMEOUT = 15.0  # for look-ups alone
EXECUTION_TIMEOUT = 900.0


class ToolClient:
    """Tools over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._registry = tool_service_pb2_grpc.ToolServiceStub(channel)
        self._servers = mcp_server_service_pb2_grpc.MCPServerServiceStub(channel)
        self._executor = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)

    async def resolve(self, tool_ids: Sequence[str], names: Sequence[str] = ()) -> list[Tool]:
        """Return tools by id and by name, in the order asked."""
        request = tool_service_pb2.ResolveToolsRequest(tool_ids=tool_ids, names=names)
        return list((await self._registry.ResolveTools(request, timeout=TIMEOUT)).tools)

    async def attached(self, tool_ids: Sequence[str], etag: str = "") -> tool_service_pb2.ResolveToolsResponse:
        """Return those of an agent's tools that still exist, or that none has changed since `etag`."""
        request = tool_service_pb2.ResolveToolsRequest(tool_ids=tool_ids, skip_missing=True, etag=etag)
        return await self._registry.ResolveTools(request, timeout=TIMEOUT)

    async def find(self, names: Sequence[str]) -> list[Tool]:
        """Return those tools of these names that exist."""
        request = tool_service_pb2.ResolveToolsRequest(names=names, skip_missing=True)
        return list((await self._registry.ResolveTools(request, timeout=TIMEOUT)).tools)

    async def put(self, tool: Tool) -> Tool:
        """Make a custom tool, or overwrite the one of its name."""
        return (await self._registry.UpsertTool(tool_service_pb2.UpsertToolRequest(tool=tool), timeout=TIMEOUT)).tool

    async def servers(self) -> Sequence[MCPServer]:
        """Return the MCP servers of the organization, newest first."""
        request = mcp_server_service_pb2.ListMCPServersRequest()
        return (await self._servers.ListMCPServers(request, timeout=TIMEOUT)).mcp_servers

    async def execute(self, request: execution_pb2.ExecuteRequest) -> execution_pb2.ExecuteResponse:
        """Execute a call, once for each key."""
        return await patiently(
            # A call that used up its time is not asked for again: the tool may be at work still.
            lambda: self._executor.Execute(request, timeout=EXECUTION_TIMEOUT),
            over=AWAY,
            what="Execute",
        )
