"""Connecting to an MCP server, step by step, with a person's authorization where the server asks for one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from letta.tools.v1.mcp_server_service_pb2 import (
    MCP_CONNECT_EVENT_AUTHORIZATION_URL,
    MCP_CONNECT_EVENT_CONNECTION_ATTEMPT,
    MCP_CONNECT_EVENT_ERROR,
    MCP_CONNECT_EVENT_OAUTH_REQUIRED,
    MCP_CONNECT_EVENT_SUCCESS,
    MCP_CONNECT_EVENT_WAITING_FOR_AUTH,
    ConnectedMCPTool,
    ConnectedMCPTools,
    ConnectMCPServerResponse,
)
from letta_common.actor import Actor
from letta_common.errors import AppError, MCPServerNotFound
from letta_tool_schemas.schemas import dump
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import Ask, AuthorizationNeeded
from letta_tools.domain.mcp.servers import MCPServers
from letta_tools.domain.registry.records import RegisteredTool

_MOST_STEPS = 16


Steps = AsyncGenerator[ConnectMCPServerResponse, None]
_ENDS = frozenset({MCP_CONNECT_EVENT_SUCCESS, MCP_CONNECT_EVENT_ERROR})


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Where authorization servers send people back to, and how long they are waited for."""

    redirect_url: str = "http://localhost:8283/v1/tools/mcp/oauth/callback"
    wait_seconds: float = 300.0


class MCPConnects:
    """Connects to servers."""

    def __init__(self, servers: MCPServers, options: ConnectOptions) -> None:
        self._servers = servers
        self._options = options

    async def connect(self, actor: Actor, server_id: str, variables: Mapping[str, str]) -> Steps:
        """Tell each step; the last one is `success` or `error`. Raises MCPServerNotFound."""
        server = await self._servers.get(actor, server_id)
        yield ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_CONNECTION_ATTEMPT, server_name=server.server_name)
        try:
            tools = await self._servers.list_offers(actor, server_id, variables)
        except AuthorizationNeeded:
            async with aclosing(self._authorize(actor, server_id, variables)) as steps:
                async for step in steps:
                    yield step
        except AppError as error:
            yield ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_ERROR, message=error.message)
        else:
            yield _success(map(_connected, tools))

    async def connect_named(
        self, actor: Actor, name: str, connection: MCPConnection, variables: Mapping[str, str]
    ) -> Steps:
        """Tell each step to the server of this name; one that is not kept is only asked for its tools."""
        try:
            server = await self._servers.named(actor, name)
        except MCPServerNotFound:
            async with aclosing(self._try_out(actor, name, connection)) as steps:
                async for step in steps:
                    yield step
            return
        async with aclosing(self.connect(actor, server.id, variables)) as steps:
            async for step in steps:
                yield step

    async def _try_out(self, actor: Actor, name: str, connection: MCPConnection) -> Steps:
        yield ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_CONNECTION_ATTEMPT, server_name=name)
        try:
            offers = await self._servers.try_out(actor, connection)
        except AuthorizationNeeded:
            yield ConnectMCPServerResponse(
                event=MCP_CONNECT_EVENT_OAUTH_REQUIRED, message="the server asks for authorization"
            )
            yield ConnectMCPServerResponse(
                event=MCP_CONNECT_EVENT_ERROR,
                message="add the server, then connect to it: what is authorized must be kept",
            )
        except AppError as error:
            yield ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_ERROR, message=error.message)
        else:
            yield _success(ConnectedMCPTool(name=offer.name, description=offer.description) for offer in offers)

    async def _authorize(self, actor: Actor, server_id: str, variables: Mapping[str, str]) -> Steps:
        steps: asyncio.Queue[ConnectMCPServerResponse] = asyncio.Queue(_MOST_STEPS)

        async def tell(url: str, session_id: str) -> None:
            await steps.put(
                ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_AUTHORIZATION_URL, url=url, session_id=session_id)
            )
            await steps.put(
                ConnectMCPServerResponse(
                    event=MCP_CONNECT_EVENT_WAITING_FOR_AUTH, message="waiting until somebody has authorized the server"
                )
            )

        async def work() -> None:
            ask = Ask(self._options.redirect_url, self._options.wait_seconds, tell)
            try:
                tools = await self._servers.authorize(actor, server_id, variables, ask)
                await steps.put(_success(map(_connected, tools)))
            except AppError as error:
                await steps.put(ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_ERROR, message=error.message))

        yield ConnectMCPServerResponse(
            event=MCP_CONNECT_EVENT_OAUTH_REQUIRED, message="the server asks for authorization"
        )
        task = asyncio.create_task(work())
        try:
            while True:
                getting = asyncio.create_task(steps.get())
                try:
                    await asyncio.wait({getting, task}, return_when=asyncio.FIRST_COMPLETED)
                    # The task may have put its last step and ended before this looks.
                    if not getting.done() and steps.empty():
                        getting.cancel()
                        await task  # raises what was not foreseen
                    step = await getting
                finally:
                    getting.cancel()  # who asked may have gone away
                yield step
                if step.event in _ENDS:
                    return
        finally:
            task.cancel()


def _success(tools: Iterable[ConnectedMCPTool]) -> ConnectMCPServerResponse:
    return ConnectMCPServerResponse(event=MCP_CONNECT_EVENT_SUCCESS, tools=ConnectedMCPTools(tools=tools))


def _connected(tool: RegisteredTool) -> ConnectedMCPTool:
    schema = dump(json.loads(tool.json_schema)["parameters"])
    return ConnectedMCPTool(id=tool.id, name=tool.name, description=tool.description, input_schema=schema)
