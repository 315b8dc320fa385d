"""What the rules need of the tools service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from letta.tools.v1 import mcp_server_pb2, tool_execution_service_pb2, tool_pb2, tool_service_pb2

MCPServer = mcp_server_pb2.MCPServer
Tool = tool_pb2.Tool


class ToolPeer(Protocol):
    """The tools service."""

    async def attached(self, tool_ids: Sequence[str], etag: str = "") -> tool_service_pb2.ResolveToolsResponse:
        """Return those of an agent's tools that still exist, in the order asked, or that none changed since `etag`."""
        ...

    async def resolve(self, tool_ids: Sequence[str], names: Sequence[str] = ()) -> list[Tool]:
        """Return tools by id and by name, in the order asked. Raises ToolNotFound."""
        ...

    async def find(self, names: Sequence[str]) -> list[Tool]:
        """Return those tools of these names that exist."""
        ...

    async def put(self, tool: Tool) -> Tool:
        """Make a custom tool, or overwrite the one of its name. Raises ToolSourceInvalid and ToolNameTaken."""
        ...

    async def servers(self) -> Sequence[MCPServer]:
        """Return the MCP servers of the organization, newest first."""
        ...

    async def execute(
        self, request: tool_execution_service_pb2.ExecuteRequest
    ) -> tool_execution_service_pb2.ExecuteResponse:
        """Execute a call, once for each key. What the tool does is a status of the answer, not an error."""
        ...
