"""MCP servers in memory, for tests."""

from __future__ import annotations

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_tools.domain.mcp.servers import SealedMCPServer
from letta_tools.domain.registry.records import ToolFilter
from tests.fakes.tools.stores import FakeToolStore


class FakeMCPServerStore:
    """Servers by organization and id; their tools go with them."""

    def __init__(self, tools: FakeToolStore) -> None:
        self._tools = tools
        self._servers: dict[tuple[str, str], SealedMCPServer] = {}

    async def find(self, actor: Actor, server_id: str) -> SealedMCPServer | None:
        """Return one server."""
        return self._servers.get((actor.organization_id, server_id))

    async def find_named(self, actor: Actor, name: str) -> SealedMCPServer | None:
        """Return one server by name."""
        return next((server for server in self._mine(actor) if server.server_name == name), None)

    async def list_servers(self, actor: Actor, page: Page) -> list[SealedMCPServer]:
        """Return a page of servers."""
        return page.slice(self._mine(actor), key=lambda server: (server.created_at, server.id))

    async def create(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Add a server; say whether its name was free."""
        if any(other.server_name == server.server_name and other.id != server.id for other in self._mine(actor)):
            return False
        self._servers[actor.organization_id, server.id] = server
        return True

    async def update(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Write a server; say whether its name was free."""
        return await self.create(actor, server)

    async def delete(self, actor: Actor, server_id: str) -> bool:
        """Remove a server and its tools; say whether there was one."""
        for tool in await self._tools.list_tools(actor, ToolFilter(mcp_server_id=server_id), Page(limit=1000)):
            await self._tools.delete(actor, tool.id)
        return self._servers.pop((actor.organization_id, server_id), None) is not None

    def _mine(self, actor: Actor) -> list[SealedMCPServer]:
        return [server for (owner, _), server in self._servers.items() if owner == actor.organization_id]
