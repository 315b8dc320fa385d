"""The Model Context Protocol through its SDK. Servers that hang, lie or send garbage cost a bounded time and amount."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import httpx2
import structlog
from mcp import Client, MCPError
from mcp.client.auth import OAuthFlowError
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import (
    CONNECTION_CLOSED,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    TextContent,
)
from pydantic import ValidationError

from letta_common.actor import Actor
from letta_common.egress import AddressGuard, ForbiddenAddress, guarded_client
from letta_common.errors import AppError, InvalidArgument, MCPConnectionFailed, MCPTimeout, ValidationFailed
from letta_sandbox.local.programs import Programs
from letta_tools.domain.mcp.connections import SSE, STDIO, MCPConnection
from letta_tools.domain.mcp.oauth import Ask, AuthorizationNeeded, OAuthGrants
from letta_tools.domain.mcp.tools import Offer
from letta_tools.providers.error_groups import unwrapped
from letta_tools.providers.mcp import MCPOptions
from letta_tools.providers.mcp_listings import FAULT, Listings
from letta_tools.providers.mcp_oauth import authorization
from letta_tools.providers.mcp_sessions import CLIENT_INFO, Sessions, Waits

_TIMED_OUT = {408, -32001}
# The code of a closed connection is also any server's own error, so the SDK's words must tell them apart.
_CLOSED = {"Connection closed", "connection closed"}
# A server chooses how much it offers, and may hand out cursors without end.
_MOST_TOOLS = 1000
_MOST_PAGES = 100
_T = TypeVar("_T")
_log = structlog.get_logger("letta.tools.mcp")


class SDKClient:
    """Connects for one question at a time."""

    def __init__(self, guard: AddressGuard, options: MCPOptions, programs: Programs, grants: OAuthGrants) -> None:
        self._guard = guard
        self._options = options
        self._grants = grants
        waits = Waits(options.connect_seconds, options.stdio.idle_seconds)
        self._sessions = Sessions(programs, options.stdio, options.most_bytes, waits)

    async def check(self, connection: MCPConnection) -> None:
        """Refuse what may not be connected to. Raises InvalidArgument, ValidationFailed, IsolationUnavailable."""
        if connection.server_type == STDIO:
            await self._sessions.check(connection)
            return
        try:
            await self._guard.check_url(connection.server_url or "")
        except InvalidArgument as error:
            path = f"config.{connection.server_type}.server_url"
            raise ValidationFailed(f"{path}: {error.message}", **{path: error.message}) from error

    async def list_tools(self, connection: MCPConnection) -> list[Offer]:
        """Return what a server offers. Raises MCPConnectionFailed, MCPTimeout."""
        return await self._ask(connection, self._options.list_seconds, _list)

    async def authorize(self, actor: Actor, connection: MCPConnection, ask: Ask) -> list[Offer]:
        """Have a person authorize a server; return what it offers then.

        Raises MCPConnectionFailed, MCPTimeout, AuthorizationNeeded.
        """
        seconds = self._options.list_seconds + ask.wait_seconds
        return await self._ask(connection, seconds, _list, await authorization(self._grants, connection, ask, actor))

    async def call_tool(
        self, connection: MCPConnection, name: str, arguments: Mapping[str, Any], timeout_seconds: float
    ) -> tuple[bool, str]:
        """Call a tool; return whether it succeeded, and its text. Raises MCPConnectionFailed, MCPTimeout."""

        async def call(client: Client) -> tuple[bool, str]:
            request = CallToolRequest(params=CallToolRequestParams(name=name, arguments=dict(arguments)))
            try:
                # Not `call_tool`: it asks for all tools again and runs the server's own patterns over the result.
                result = await client.session.send_request(request, CallToolResult)
            except MCPError as error:
                if error.code in _TIMED_OUT or (error.code == CONNECTION_CLOSED and error.message in _CLOSED):
                    raise
                return False, error.message
            return not result.is_error, _text(result)

        return await self._ask(connection, timeout_seconds, call)

    async def _ask(
        self,
        connection: MCPConnection,
        seconds: float,
        question: Callable[[Client], Awaitable[_T]],
        auth: httpx2.Auth | None = None,
    ) -> _T:
        scope = asyncio.timeout(seconds)
        try:
            async with scope:
                if connection.server_type == STDIO:
                    return await self._sessions.ask(connection, seconds, question)
                return await self._asked(connection, seconds, question, auth)
        except TimeoutError as error:
            # A timeout that is not of this scope is one of the connection.
            if scope.expired() or connection.server_type == STDIO:
                raise _late(seconds) from error
            raise _broken(connection, error) from error
        except Exception as error:
            raise _mapped(connection, error, seconds) from error

    async def end(self, organization_id: str, server_id: str) -> None:
        """End what runs of a server."""
        await self._sessions.end(organization_id, server_id)

    async def close(self) -> None:
        """End everything that runs."""
        await self._sessions.close()

    async def _asked(
        self,
        connection: MCPConnection,
        seconds: float,
        question: Callable[[Client], Awaitable[_T]],
        auth: httpx2.Auth | None,
    ) -> _T:
        # A token that was given is not replaced by what a person granted.
        if auth is None and not _has_credential(connection):
            auth = await authorization(self._grants, connection, None)
        transport = _Transport(lambda: self._transport(connection, auth))
        async with Client(transport, read_timeout_seconds=seconds, client_info=CLIENT_INFO, cache=None) as client:
            return await question(client)

    def _transport(self, connection: MCPConnection, auth: httpx2.Auth | None) -> AbstractAsyncContextManager[Any]:
        url = connection.server_url or ""
        if connection.server_type == SSE:
            return sse_client(
                url,
                headers=connection.headers(),
                timeout=self._options.connect_seconds,
                httpx_client_factory=self._client,
                auth=auth,
            )
        return self._streamable(url, connection.headers(), auth)

    @asynccontextmanager
    async def _streamable(self, url: str, headers: dict[str, str], auth: httpx2.Auth | None) -> AsyncIterator[Any]:
        async with (
            self._client(headers, auth=auth) as http,
            streamable_http_client(url, http_client=http, max_sse_event_size=self._options.most_bytes) as streams,
        ):
            yield streams

    def _client(
        self,
        headers: dict[str, str] | None = None,
        timeout: httpx2.Timeout | None = None,
        auth: httpx2.Auth | None = None,
    ) -> httpx2.AsyncClient:
        # The SDK's factory is called with it; the limits of the guarded client hold in its place.
        del timeout
        client = guarded_client(
            self._guard,
            timeout=self._options.connect_seconds,
            # A tool may be silent while it works; `_ask` holds the limit of the whole question.
            read_timeout=300.0,
            most_bytes=self._options.most_bytes,
            headers=headers,
        )
        if auth is not None:
            client.auth = auth
        return client


class _Transport:
    """A transport that is made when it is entered."""

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._make = make
        self._made: AbstractAsyncContextManager[Any] | None = None

    async def __aenter__(self) -> Any:
        self._made = self._make()
        read, *others = await self._made.__aenter__()
        return (Listings(read), *others)

    async def __aexit__(self, *error: Any) -> bool | None:
        return await self._made.__aexit__(*error) if self._made else None


async def _list(client: Client) -> list[Offer]:
    offers: dict[str, Offer] = {}
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page: ListToolsResult = await client.list_tools(cursor=cursor)
        for tool in page.tools:
            hints = tool.annotations
            idempotent = bool(hints and (hints.read_only_hint or hints.idempotent_hint))
            fault = str((tool.meta or {}).get(FAULT, ""))
            offer = Offer(tool.name, tool.description or "", tool.input_schema, idempotent, fault)
            offers.setdefault(tool.name, offer)
        cursor = page.next_cursor
        if not cursor or len(offers) >= _MOST_TOOLS:
            break
    return list(offers.values())[:_MOST_TOOLS]


def _text(result: CallToolResult) -> str:
    """Join the texts of a result; what is no text is named."""
    parts = []
    for part in result.content:
        if isinstance(part, TextContent):
            parts.append(part.text)
        else:
            resource = getattr(part, "resource", None)
            text = getattr(resource, "text", None)
            parts.append(text if isinstance(text, str) else f"[{part.type}]")
    # The protocol asks servers to send the text of structured content too, and not all do.
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _has_credential(connection: MCPConnection) -> bool:
    return any(name.lower() == "authorization" for name in connection.headers())


def _mapped(connection: MCPConnection, error: Exception, seconds: float) -> AppError:
    inner = unwrapped(error)
    if isinstance(inner, ForbiddenAddress):
        return inner
    if isinstance(inner, AppError):
        return inner
    if isinstance(inner, OAuthFlowError):
        return AuthorizationNeeded(f"the MCP server cannot be authorized: {str(inner)[:300]}")
    if isinstance(inner, MCPError) and inner.code in _TIMED_OUT:
        return _late(seconds)
    if isinstance(inner, httpx2.TimeoutException):
        return _late(seconds)
    return _broken(connection, inner)


def _broken(connection: MCPConnection, error: BaseException) -> MCPConnectionFailed:
    """Say what a caller may know: of errors that the server sent, its words; of others, their kind."""
    where = connection.server_url or connection.command or "the server"
    if isinstance(error, MCPError):
        why = error.message[:300]
    elif isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        why = f"{'.'.join(map(str, first['loc']))[:200]}: {first['msg'][:200]}"
    elif isinstance(error, httpx2.HTTPStatusError):
        why = f"status {error.response.status_code}"
    else:
        why = type(error).__name__
    _log.info("an MCP server failed", server=where, error=str(error)[:500], kind=type(error).__name__)
    return MCPConnectionFailed(f"{where} cannot be reached or answers garbage: {why}")


def _late(seconds: float) -> MCPTimeout:
    return MCPTimeout(f"the MCP server did not answer within {seconds:g} s")
