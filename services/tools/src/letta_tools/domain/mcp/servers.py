"""MCP servers: their configuration, their tools in the registry, and calls to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Protocol

from letta.tools.v1.mcp_server_pb2 import MCPServer
from letta.tools.v1.mcp_server_service_pb2 import RefreshMCPServerResponse
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AlreadyExists, MCPServerNotFound
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_tools.domain.mcp.connections import MCPConnection, check_complete, connection_of
from letta_tools.domain.mcp.oauth import Ask, AuthorizationNeeded
from letta_tools.domain.mcp.tools import Offer, tool_of
from letta_tools.domain.registry.records import EPOCH, LONGEST_NAME, RegisteredTool, ToolFilter
from letta_tools.domain.registry.tools import ToolStore

SERVERS = "tools.mcp_servers.secrets"


@dataclass(frozen=True, slots=True)
class SealedMCPServer:
    """A server of an organization. `config` is open JSON text, `secrets` sealed JSON text."""

    id: str
    server_name: str
    server_type: str
    config: str
    secrets: bytes
    created_by_id: str = ""
    last_updated_by_id: str = ""
    version: int = 1
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH


class MCPServerStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def find(self, actor: Actor, server_id: str) -> SealedMCPServer | None:
        """Return one server."""
        ...

    async def find_named(self, actor: Actor, name: str) -> SealedMCPServer | None:
        """Return one server by name."""
        ...

    async def list_servers(self, actor: Actor, page: Page) -> list[SealedMCPServer]:
        """Return a page of servers. Raises CursorNotFound."""
        ...

    async def create(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Add a server; say whether its name was free."""
        ...

    async def update(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Write a server; say whether its name was free."""
        ...

    async def delete(self, actor: Actor, server_id: str) -> bool:
        """Remove a server and its tools; say whether there was one."""
        ...


class MCPClient(Protocol):
    """Speaks the protocol."""

    async def check(self, connection: MCPConnection) -> None:
        """Refuse what may not be connected to. Raises InvalidArgument, ValidationFailed, IsolationUnavailable."""
        ...

    async def list_tools(self, connection: MCPConnection) -> list[Offer]:
        """Return what a server offers. Raises MCPConnectionFailed, MCPTimeout."""
        ...

    async def authorize(self, actor: Actor, connection: MCPConnection, ask: Ask) -> list[Offer]:
        """Have a person authorize a server; return what it offers then. Raises as `list_tools`, AuthorizationNeeded."""
        ...

    async def call_tool(
        self, connection: MCPConnection, name: str, arguments: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[bool, str]:
        """Call a tool; return whether it succeeded, and its text. Raises MCPConnectionFailed, MCPTimeout."""
        ...

    async def end(self, organization_id: str, server_id: str) -> None:
        """End what runs of a server."""
        ...

    async def close(self) -> None:
        """End everything that runs."""
        ...


class MCPServers:
    """Operations on MCP servers."""

    def __init__(
        self, store: MCPServerStore, tools: ToolStore, client: MCPClient, sealer: Sealer, clock: Clock
    ) -> None:
        self._store = store
        self._tools = tools
        self._client = client
        self._sealer = sealer
        self._clock = clock

    async def create(self, actor: Actor, name: str, connection: MCPConnection) -> SealedMCPServer:
        """Add a server with its tools.

        Raises:
            AlreadyExists: the organization has a server of this name.
            InvalidArgument: the server may not be connected to.
            MCPConnectionFailed: the server cannot be reached.
            MCPTimeout: the server does not answer in time.
        """
        try:
            # Asked before it is kept, so that a server which cannot be reached is not added.
            offers = await self.try_out(actor, connection)
        except AuthorizationNeeded:
            offers = []  # its tools come once somebody has authorized it
        now = self._clock.now()
        server = self._sealed(
            actor,
            SealedMCPServer(new_id("mcp_server"), name, connection.server_type, "", b"", actor.user_id, created_at=now),
            connection,
        )
        if not await self._store.create(actor, server):
            raise _taken(name)
        await self._sync(actor, server, offers)
        return server

    async def get(self, actor: Actor, server_id: str) -> SealedMCPServer:
        """Return one server. Raises MCPServerNotFound."""
        server = await self._store.find(actor, server_id)
        if server is None:
            raise MCPServerNotFound(f"there is no MCP server {server_id} here", mcp_server_id=server_id)
        return server

    async def named(self, actor: Actor, name: str) -> SealedMCPServer:
        """Return one server by name. Raises MCPServerNotFound."""
        server = await self._store.find_named(actor, name)
        if server is None:
            raise MCPServerNotFound(f"there is no MCP server `{name}` here", server_name=name)
        return server

    async def try_out(self, actor: Actor, connection: MCPConnection) -> list[Offer]:
        """Return what a server offers that is not kept. Raises as `create`, and AuthorizationNeeded."""
        check_complete(connection)
        connection = replace(connection, organization_id=actor.organization_id)
        await self._client.check(connection)
        return await self._client.list_tools(connection.filled({}))

    async def update(self, actor: Actor, server_id: str, given: MCPServer, paths: Sequence[str]) -> SealedMCPServer:
        """Change what the paths name. Raises MCPServerNotFound, AlreadyExists, InvalidArgument."""
        known = await self.get(actor, server_id)
        connection = self.connection(actor, known).changed(given.config, paths)
        check_complete(connection)
        await self._client.check(connection)
        # Without a name a server keeps its own.
        name = given.server_name if "server_name" in paths else ""
        renamed = replace(known, server_name=name or known.server_name, version=known.version + 1)
        server = self._sealed(actor, renamed, connection)
        if not await self._store.update(actor, server):
            raise _taken(server.server_name)
        await self._forget(actor, server_id)
        return server

    async def put(self, actor: Actor, given: MCPServer, paths: Sequence[str]) -> SealedMCPServer:
        """Add a server, or change the one of this name. Raises as `create` and `update`."""
        known = await self._store.find_named(actor, given.server_name)
        if known is None:
            return await self.create(actor, given.server_name, connection_of(given.config))
        return await self.update(actor, known.id, given, paths)

    async def delete(self, actor: Actor, server_id: str) -> None:
        """Remove a server and its tools. Raises MCPServerNotFound."""
        await self.get(actor, server_id)
        await self._store.delete(actor, server_id)
        await self._forget(actor, server_id)

    async def refresh(self, actor: Actor, server_id: str, variables: Mapping[str, str]) -> RefreshMCPServerResponse:
        """Bring the tools of a server up to date. Raises MCPServerNotFound, MCPConnectionFailed, MCPTimeout."""
        server = await self.get(actor, server_id)
        offers = await self._client.list_tools(self.connection(actor, server).filled(variables))
        return await self._sync(actor, server, offers)

    async def offers(self, actor: Actor, server: SealedMCPServer, variables: Mapping[str, str]) -> list[Offer]:
        """Ask a server for its tools. Raises as `refresh`, and AuthorizationNeeded."""
        return await self._client.list_tools(self.connection(actor, server).filled(variables))

    async def list_offers(self, actor: Actor, server_id: str, variables: Mapping[str, str]) -> list[RegisteredTool]:
        """Ask a server for its tools, keep them, and return them. Raises as `refresh`, and AuthorizationNeeded."""
        await self.refresh(actor, server_id, variables)
        return await self._tools_of(actor, server_id)

    async def authorize(
        self, actor: Actor, server_id: str, variables: Mapping[str, str], ask: Ask
    ) -> list[RegisteredTool]:
        """Have a person authorize a server; keep and return its tools. Raises as `refresh`, and AuthorizationNeeded."""
        server = await self.get(actor, server_id)
        offers = await self._client.authorize(actor, self.connection(actor, server).filled(variables), ask)
        await self._sync(actor, server, offers)
        return await self._tools_of(actor, server_id)

    async def tools(self, actor: Actor, server_id: str) -> list[RegisteredTool]:
        """Return the tools of a server, by name. Raises MCPServerNotFound."""
        await self.get(actor, server_id)
        return await self._tools_of(actor, server_id)

    async def call(
        self,
        actor: Actor,
        tool: RegisteredTool,
        arguments: Mapping[str, Any],
        variables: Mapping[str, str],
        seconds: float,
    ) -> tuple[bool, str]:
        """Call a tool. Raises MCPServerNotFound, MCPConnectionFailed, MCPTimeout."""
        connection = self.connection(actor, await self.get(actor, tool.mcp_server_id or ""))
        return await self._client.call_tool(
            connection.filled(variables), tool.mcp_name or tool.name, arguments, seconds
        )

    def connection(self, actor: Actor, server: SealedMCPServer) -> MCPConnection:
        """Return how a server is reached, secrets included."""
        config = json.loads(server.config)
        secrets = json.loads(self._sealer.open(_place(actor, server.id), server.secrets))
        known = MCPConnection(server.server_type, **{**config, "args": tuple(config.get("args", ()))}, **secrets)
        return replace(known, organization_id=actor.organization_id, server_id=server.id)

    async def close(self) -> None:
        """End every server that runs here."""
        await self._client.close()

    async def _forget(self, actor: Actor, server_id: str) -> None:
        await self._client.end(actor.organization_id, server_id)

    def _sealed(self, actor: Actor, server: SealedMCPServer, connection: MCPConnection) -> SealedMCPServer:
        # Sealed as a whole: headers and variables carry tokens as often as the token itself does.
        secrets = {
            "auth_token": connection.auth_token,
            "custom_headers": dict(connection.custom_headers),
            "env": dict(connection.env),
        }
        config = {
            "command": connection.command,
            "args": list(connection.args),
            "server_url": connection.server_url,
            "auth_header": connection.auth_header,
        }
        return replace(
            server,
            config=json.dumps({key: value for key, value in config.items() if value}),
            secrets=self._sealer.seal(_place(actor, server.id), json.dumps(secrets).encode()),
            last_updated_by_id=actor.user_id,
            updated_at=self._clock.now(),
        )

    async def _tools_of(self, actor: Actor, server_id: str) -> list[RegisteredTool]:
        # As many as a server may offer.
        found = await self._tools.list_tools(actor, ToolFilter(mcp_server_id=server_id), Page(limit=1000))
        return sorted(found, key=lambda tool: tool.name)

    async def _sync(self, actor: Actor, server: SealedMCPServer, offers: Sequence[Offer]) -> RefreshMCPServerResponse:
        """Write the tools that are new or changed in one statement, and remove those that are gone."""
        known = {tool.mcp_name: tool for tool in await self._tools_of(actor, server.id)}
        names = await self._names(actor, server, [offer for offer in offers if offer.name not in known])
        now = self._clock.now()
        wanted = {
            offer.name: tool_of(actor, (server.id, server.server_name), offer, name, now)
            for offer in offers
            if (name := known[offer.name].name if offer.name in known else names.get(offer.name))
        }
        fresh = [tool for key, tool in wanted.items() if key not in known]
        # A tool that is as it was gets no new version.
        changed = [tool for key, tool in wanted.items() if key in known and _differs(known[key], tool)]
        if fresh or changed:
            await self._tools.upsert(actor, [*fresh, *changed])
        gone = [tool for key, tool in known.items() if key not in wanted]
        for tool in gone:
            await self._tools.delete(actor, tool.id)
        groups = [sorted(tool.name for tool in group) for group in (fresh, changed, gone)]
        return RefreshMCPServerResponse(added=groups[0], updated=groups[1], deleted=groups[2])

    async def _names(self, actor: Actor, server: SealedMCPServer, offers: Sequence[Offer]) -> dict[str, str]:
        """Choose names that providers accept and that are free; a taken one gets the server's name in front."""
        choices = {offer.name: (_plain(offer.name), _plain(f"{server.server_name}_{offer.name}")) for offer in offers}
        asked = [name for pair in choices.values() for name in pair]
        taken = {tool.name for tool in await self._tools.resolve(actor, (), asked)} if asked else set()
        names: dict[str, str] = {}
        for key, pair in choices.items():
            free = next((name for name in pair if name and name not in taken), None)
            if free is not None:
                names[key] = free
                taken.add(free)
        return names


def _differs(known: RegisteredTool, tool: RegisteredTool) -> bool:
    kept, offered = ((each.json_schema, each.description, each.idempotent) for each in (known, tool))
    return kept != offered


def _plain(name: str) -> str:
    # Vendors of models refuse other letters, and a digit at the beginning.
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:LONGEST_NAME]
    return plain if re.match(r"[a-zA-Z_]", plain) else f"_{plain}"[:LONGEST_NAME]


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"there is an MCP server `{name}` already", server_name=name)


def _place(actor: Actor, server_id: str) -> SealedAt:
    return SealedAt(SERVERS, actor.organization_id, server_id)
