"""MCP servers: their configuration, their tools in the registry, and calls to them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from letta.tools.v1.mcp_server_service_pb2 import RefreshMCPServerResponse
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.egress import origin_of
from letta_common.errors import AlreadyExists, InvalidArgument, MCPServerNotFound, SecretRequired
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_tools.domain.mcp.oauth import Ask, AuthorizationNeeded
from letta_tools.domain.mcp.tools import Offer, tool_of
from letta_tools.domain.registry.records import EPOCH, LONGEST_NAME, RegisteredTool, ToolFilter
from letta_tools.domain.registry.tools import ToolStore

STDIO, SSE, STREAMABLE_HTTP = "stdio", "sse", "streamable_http"
MASK = "********"
# What RFC 9110 calls a token.
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# A line break would begin another header.
_HEADER_VALUE = re.compile(r"[\t -~]*")
_TEMPLATE = re.compile(r"\{\{\s*([A-Za-z_]\w*)\s*(?:\|([^}]*))?\}\}")

SERVERS = "tools.mcp_servers.secrets"


@dataclass(frozen=True, slots=True)
class MCPConnection:
    """How a server is reached, by whom, secrets included. None and empty parts of a change leave what is there.

    `server_id` is empty for a server that is not kept.
    """

    server_type: str
    command: str | None = None
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    server_url: str | None = None
    auth_header: str | None = None
    auth_token: str | None = None
    custom_headers: Mapping[str, str] = field(default_factory=dict)
    organization_id: str = ""
    server_id: str = ""

    def headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        headers = dict(self.custom_headers)
        if self.auth_token:
            headers[self.auth_header or "Authorization"] = self.auth_token
        return headers

    def filled(self, variables: Mapping[str, str]) -> MCPConnection:
        """Return the connection with `{{ NAME | default }}` replaced."""
        return replace(
            self,
            # Neither address nor program: a variable must not choose where the secrets go.
            auth_token=_fill(self.auth_token, variables) if self.auth_token else self.auth_token,
            custom_headers={name: _fill(value, variables) for name, value in self.custom_headers.items()},
            env={name: _fill(value, variables) for name, value in self.env.items()},
        )

    def merged(self, change: MCPConnection) -> MCPConnection:
        """Return the connection after a change; masked values stay as they were.

        Raises:
            InvalidArgument: the change is for another type of server.
            SecretRequired: a secret that is kept would go elsewhere than it was given for.
        """
        if change.server_type != self.server_type:
            raise InvalidArgument(f"the server is of type {self.server_type}, which stays", field="config")
        token = self.auth_token if change.auth_token in {None, MASK} else change.auth_token
        after = replace(
            self,
            command=change.command or self.command,
            args=change.args or self.args,
            env=_unmasked(self.env, change.env),
            server_url=change.server_url or self.server_url,
            auth_header=change.auth_header if change.auth_header is not None else self.auth_header,
            auth_token=token,
            custom_headers=_unmasked(self.custom_headers, change.custom_headers),
        )
        kept = self._kept(change)
        if kept and self._place() != after._place():
            raise SecretRequired(
                f"the server would be another than its secrets were given for: send {', '.join(kept)} with the change, "
                "or empty values to remove them",
                field=f"config.{kept[0]}",
            )
        return after

    def _place(self) -> tuple[str, ...]:
        """Return where the secrets go: the origin of a server, or the program that is started."""
        return (origin_of(self.server_url or ""),) if self.server_type != STDIO else (self.command or "", *self.args)

    def _kept(self, change: MCPConnection) -> list[str]:
        """Return the names of the secrets that a change does not give anew."""
        tokens = ["auth_token"] if self.auth_token and change.auth_token in {None, MASK} else []
        headers = _untouched("custom_headers", self.custom_headers, change.custom_headers)
        return [*tokens, *headers, *_untouched("env", self.env, change.env)]


@dataclass(frozen=True, slots=True)
class MCPServer:
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

    async def find(self, actor: Actor, server_id: str) -> MCPServer | None:
        """Return one server."""
        ...

    async def find_named(self, actor: Actor, name: str) -> MCPServer | None:
        """Return one server by name."""
        ...

    async def list_servers(self, actor: Actor, page: Page) -> list[MCPServer]:
        """Return a page of servers. Raises CursorNotFound."""
        ...

    async def create(self, actor: Actor, server: MCPServer) -> bool:
        """Add a server; say whether its name was free."""
        ...

    async def update(self, actor: Actor, server: MCPServer) -> bool:
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

    async def create(self, actor: Actor, name: str, connection: MCPConnection) -> MCPServer:
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
            MCPServer(new_id("mcp_server"), name, connection.server_type, "", b"", actor.user_id, created_at=now),
            connection,
        )
        if not await self._store.create(actor, server):
            raise _taken(name)
        await self._sync(actor, server, offers)
        return server

    async def get(self, actor: Actor, server_id: str) -> MCPServer:
        """Return one server. Raises MCPServerNotFound."""
        server = await self._store.find(actor, server_id)
        if server is None:
            raise MCPServerNotFound(f"there is no MCP server {server_id} here", mcp_server_id=server_id)
        return server

    async def named(self, actor: Actor, name: str) -> MCPServer:
        """Return one server by name. Raises MCPServerNotFound."""
        server = await self._store.find_named(actor, name)
        if server is None:
            raise MCPServerNotFound(f"there is no MCP server `{name}` here", server_name=name)
        return server

    async def try_out(self, actor: Actor, connection: MCPConnection) -> list[Offer]:
        """Return what a server offers that is not kept. Raises as `create`, and AuthorizationNeeded."""
        _check_complete(connection)
        connection = replace(connection, organization_id=actor.organization_id)
        await self._client.check(connection)
        return await self._client.list_tools(connection.filled({}))

    async def update(self, actor: Actor, server_id: str, name: str | None, change: MCPConnection) -> MCPServer:
        """Change a server. Raises MCPServerNotFound, AlreadyExists, InvalidArgument."""
        known = await self.get(actor, server_id)
        connection = self.connection(actor, known).merged(change)
        _check_complete(connection)
        await self._client.check(connection)
        renamed = replace(known, server_name=name or known.server_name, version=known.version + 1)
        server = self._sealed(actor, renamed, connection)
        if not await self._store.update(actor, server):
            raise _taken(server.server_name)
        await self._forget(actor, server_id)
        return server

    async def put(self, actor: Actor, name: str, connection: MCPConnection) -> MCPServer:
        """Add a server, or change the one of this name. Raises as `create` and `update`."""
        known = await self._store.find_named(actor, name)
        if known is None:
            return await self.create(actor, name, connection)
        return await self.update(actor, known.id, None, connection)

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

    async def offers(self, actor: Actor, server: MCPServer, variables: Mapping[str, str]) -> list[Offer]:
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

    def connection(self, actor: Actor, server: MCPServer) -> MCPConnection:
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

    def _sealed(self, actor: Actor, server: MCPServer, connection: MCPConnection) -> MCPServer:
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

    async def _sync(self, actor: Actor, server: MCPServer, offers: Sequence[Offer]) -> RefreshMCPServerResponse:
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

    async def _names(self, actor: Actor, server: MCPServer, offers: Sequence[Offer]) -> dict[str, str]:
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
    return (known.json_schema, known.description) != (tool.json_schema, tool.description)


def _plain(name: str) -> str:
    # Vendors of models refuse other letters, and a digit at the beginning.
    plain = re.sub(r"[^a-zA-Z0-9_-]", "_", name)[:LONGEST_NAME]
    return plain if re.match(r"[a-zA-Z_]", plain) else f"_{plain}"[:LONGEST_NAME]


def _fill(text: str, variables: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        fallback = match[2].strip() if match[2] is not None else match[0]
        return variables.get(match[1], fallback)

    return _TEMPLATE.sub(value, text)


def _unmasked(before: Mapping[str, str], after: Mapping[str, str]) -> Mapping[str, str]:
    if not after:
        return before
    return {name: before.get(name, value) if value == MASK else value for name, value in after.items()}


def _untouched(name: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Return which secrets of a map stay as they are: all of them when nothing is sent, else those sent masked."""
    kept = before if not after else [key for key, value in after.items() if value == MASK and key in before]
    return [f"{name}.{key}" for key in kept if before[key]]


def _check_complete(connection: MCPConnection) -> None:
    if connection.server_type == STDIO and not connection.command:
        raise InvalidArgument("a stdio server needs a command", field="config.command")
    if connection.server_type != STDIO and not connection.server_url:
        raise InvalidArgument(f"a {connection.server_type} server needs a server_url", field="config.server_url")
    _check_texts(connection)


def _check_texts(connection: MCPConnection) -> None:
    """Refuse what could be read as more than one argument, variable or header."""
    for text in (connection.command or "", *connection.args, *connection.env.values()):
        if "\0" in text:
            raise InvalidArgument("a program cannot be given NUL characters", field="config")
    for name in connection.env:
        if not name or not name.isprintable() or "=" in name:
            raise InvalidArgument(f"{name[:100]!r} is no name of an environment variable", field="config.env")
    for name, value in connection.headers().items():
        if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
            text = f"the header {name[:100]!r} cannot be sent; use letters, digits and signs of ASCII"
            raise InvalidArgument(text, field="config.custom_headers")


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"there is an MCP server `{name}` already", server_name=name)


def _place(actor: Actor, server_id: str) -> SealedAt:
    return SealedAt(SERVERS, actor.organization_id, server_id)
