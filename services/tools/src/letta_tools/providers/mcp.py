"""The client of MCP servers, loaded when the first server is spoken to: the SDK takes half a second and 30 MB."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from letta_common.actor import Actor
from letta_common.egress import AddressGuard
from letta_common.fair_slots import Shares
from letta_sandbox.local.programs import Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import Ask, OAuthGrants
from letta_tools.domain.mcp.servers import MCPClient
from letta_tools.domain.mcp.tools import Offer


@dataclass(frozen=True, slots=True)
class StdioOptions:
    """Who may have servers that are programs, which ones, and how organizations share them. `*`: every organization.

    A program counts as the memory that it may take.
    """

    enabled: bool = False
    organizations: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    shares: Shares = field(default_factory=lambda: Shares(slots=64, tenant_slots=8, leave_room=True))
    memory_bytes: int = 0
    idle_seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class MCPOptions:
    """Limits of what is asked of servers."""

    stdio: StdioOptions = field(default_factory=StdioOptions)
    connect_seconds: float = 30.0
    list_seconds: float = 30.0
    most_bytes: int = 8 << 20


class LateClient:
    """Does what `SDKClient` does, and imports it at the first question."""

    def __init__(self, guard: AddressGuard, options: MCPOptions, programs: Programs, grants: OAuthGrants) -> None:
        self._guard = guard
        self._options = options
        self._programs = programs
        self._grants = grants
        self._client: MCPClient | None = None

    async def check(self, connection: MCPConnection) -> None:
        """Refuse what may not be connected to. Raises InvalidArgument, ValidationFailed, IsolationUnavailable."""
        await (await self._loaded()).check(connection)

    async def list_tools(self, connection: MCPConnection) -> list[Offer]:
        """Return what a server offers. Raises MCPConnectionFailed, MCPTimeout."""
        return await (await self._loaded()).list_tools(connection)

    async def authorize(self, actor: Actor, connection: MCPConnection, ask: Ask) -> list[Offer]:
        """Have a person authorize a server; return what it offers then. Raises as `list_tools`, AuthorizationNeeded."""
        return await (await self._loaded()).authorize(actor, connection, ask)

    async def call_tool(
        self, connection: MCPConnection, name: str, arguments: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[bool, str]:
        """Call a tool; return whether it succeeded, and its text. Raises MCPConnectionFailed, MCPTimeout."""
        return await (await self._loaded()).call_tool(connection, name, arguments, timeout_seconds)

    async def end(self, organization_id: str, server_id: str) -> None:
        """End what runs of a server."""
        if self._client is not None:
            await self._client.end(organization_id, server_id)

    async def close(self) -> None:
        """End everything that runs."""
        if self._client is not None:
            await self._client.close()

    async def _loaded(self) -> MCPClient:
        if self._client is None:
            module: Any = await asyncio.to_thread(importlib.import_module, "letta_tools.providers.mcp_client")
            self._client = module.SDKClient(self._guard, self._options, self._programs, self._grants)
        return self._client
