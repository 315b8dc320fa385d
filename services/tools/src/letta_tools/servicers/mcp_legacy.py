"""LegacyMCPServerService: MCP servers by name, over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.tools.v1 import mcp_legacy_service_pb2 as pb
from letta.tools.v1 import mcp_legacy_service_pb2_grpc
from letta_common.actor import Actor, current_actor
from letta_common.errors import ToolNotFound
from letta_common.values.paging import Page
from letta_sandbox.calls import CallEnding, Limits
from letta_tool_schemas.schemas import dump
from letta_tools.domain.executions.executions import Execution, Executions
from letta_tools.domain.executions.outcomes import error_text
from letta_tools.domain.executions.sandbox_configs import SandboxConfigs
from letta_tools.domain.mcp.connects import MCPConnects
from letta_tools.domain.mcp.servers import MCPConnection, MCPServer, MCPServers, MCPServerStore
from letta_tools.domain.mcp.tools import Offer, health_of_offer
from letta_tools.domain.registry.records import RegisteredTool
from letta_tools.servicers.limits import within_deadline
from letta_tools.servicers.mcp_configs import pack_config, read_config, read_program
from letta_tools.servicers.mcp_servers import pack_step
from letta_tools.servicers.tool_messages import pack_tool

_Context = grpc.aio.ServicerContext[Any, Any]


class LegacyMCPServerServicer(mcp_legacy_service_pb2_grpc.LegacyMCPServerServiceServicer):
    """Answers for MCP servers by name."""

    def __init__(
        self,
        servers: MCPServers,
        executions: Executions,
        environment: SandboxConfigs,
        connects: MCPConnects,
        *,
        store: MCPServerStore,
    ) -> None:
        self._store = store
        self._servers = servers
        self._executions = executions
        self._environment = environment
        self._connects = connects

    async def ListLegacyMCPServers(
        self, request: pb.ListLegacyMCPServersRequest, context: _Context
    ) -> pb.ListLegacyMCPServersResponse:
        packed = await self._all(current_actor())
        return pb.ListLegacyMCPServersResponse(servers={server.server_name: server for server in packed})

    async def AddLegacyMCPServer(
        self, request: pb.AddLegacyMCPServerRequest, context: _Context
    ) -> pb.AddLegacyMCPServerResponse:
        actor = current_actor()
        await self._servers.put(actor, request.server.server_name, read_config(request.server.config))
        return pb.AddLegacyMCPServerResponse(servers=await self._all(actor))

    async def UpdateLegacyMCPServer(
        self, request: pb.UpdateLegacyMCPServerRequest, context: _Context
    ) -> pb.UpdateLegacyMCPServerResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        name = request.server_name if request.HasField("server_name") else None
        changed = await self._servers.update(actor, server.id, name, _change(server.server_type, request))
        return pb.UpdateLegacyMCPServerResponse(server=self._pack(actor, changed))

    async def DeleteLegacyMCPServer(
        self, request: pb.DeleteLegacyMCPServerRequest, context: _Context
    ) -> pb.DeleteLegacyMCPServerResponse:
        actor = current_actor()
        await self._servers.delete(actor, (await self._servers.named(actor, request.mcp_server_name)).id)
        return pb.DeleteLegacyMCPServerResponse(servers=await self._all(actor))

    async def ListLegacyMCPServerTools(
        self, request: pb.ListLegacyMCPServerToolsRequest, context: _Context
    ) -> pb.ListLegacyMCPServerToolsResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        offers = await self._servers.offers(actor, server, await self._environment.variables(actor))
        return pb.ListLegacyMCPServerToolsResponse(tools=map(_pack_offer, offers))

    async def ResyncLegacyMCPServer(
        self, request: pb.ResyncLegacyMCPServerRequest, context: _Context
    ) -> pb.ResyncLegacyMCPServerResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        done = await self._servers.refresh(actor, server.id, await self._environment.variables(actor))
        return pb.ResyncLegacyMCPServerResponse(added=done.added, updated=done.updated, deleted=done.deleted)

    async def AddLegacyMCPTool(
        self, request: pb.AddLegacyMCPToolRequest, context: _Context
    ) -> pb.AddLegacyMCPToolResponse:
        tools = await self._synced(current_actor(), request.mcp_server_name)
        return pb.AddLegacyMCPToolResponse(tool=pack_tool(_find(tools, request.mcp_tool_name)))

    async def TestLegacyMCPServer(
        self, request: pb.TestLegacyMCPServerRequest, context: _Context
    ) -> pb.TestLegacyMCPServerResponse:
        offers = await self._servers.try_out(current_actor(), read_config(request.server.config))
        return pb.TestLegacyMCPServerResponse(status="success", tools=map(_pack_offer, offers))

    async def ConnectLegacyMCPServer(
        self, request: pb.ConnectLegacyMCPServerRequest, context: _Context
    ) -> AsyncIterator[pb.ConnectLegacyMCPServerResponse]:
        actor, name = current_actor(), request.server.server_name
        variables = await self._environment.variables(actor)
        connecting = self._connects.connect_named(actor, name, read_config(request.server.config), variables)
        async with aclosing(connecting) as steps:
            async for step in steps:
                yield pb.ConnectLegacyMCPServerResponse(step=pack_step(step))

    async def ExecuteLegacyMCPTool(
        self, request: pb.ExecuteLegacyMCPToolRequest, context: _Context
    ) -> pb.ExecuteLegacyMCPToolResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        tool = _find(await self._servers.tools(actor, server.id), request.tool_name)
        limits = within_deadline(Limits(0, 0, 0, 0, 0, 0, 0))
        execution = Execution(arguments=request.args, tool_id=tool.id, limits=limits)
        result = (await self._executions.execute(actor, execution)).result
        if result.status is CallEnding.SUCCESS:
            return pb.ExecuteLegacyMCPToolResponse(result=result.result, success=True)
        return pb.ExecuteLegacyMCPToolResponse(result=json.dumps(error_text(result)))

    async def _synced(self, actor: Actor, name: str) -> list[RegisteredTool]:
        server = await self._servers.named(actor, name)
        return await self._servers.list_offers(actor, server.id, await self._environment.variables(actor))

    async def _all(self, actor: Actor) -> list[pb.LegacyMCPServer]:
        return [self._pack(actor, server) for server in await self._store.list_servers(actor, Page(limit=1000))]

    def _pack(self, actor: Actor, server: MCPServer) -> pb.LegacyMCPServer:
        packed = pb.LegacyMCPServer(server_name=server.server_name)
        pack_config(self._servers.connection(actor, server), packed.config)
        return packed


def _change(kind: str, request: pb.UpdateLegacyMCPServerRequest) -> MCPConnection:
    if request.HasField("stdio_config"):
        return read_program(request.stdio_config)
    token = request.auth_token if request.HasField("auth_token") else None
    if request.HasField("token"):
        token = request.token
    return MCPConnection(
        kind,
        server_url=request.server_url if request.HasField("server_url") else None,
        auth_header=request.auth_header if request.HasField("auth_header") else None,
        auth_token=token,
        custom_headers=dict(request.custom_headers),
    )


def _find(tools: list[RegisteredTool], name: str) -> RegisteredTool:
    for tool in tools:
        if name in {tool.mcp_name, tool.name}:
            return tool
    raise ToolNotFound(f"the server has no tool `{name}`", name=name)


def _pack_offer(offer: Offer) -> pb.LegacyMCPTool:
    judged = health_of_offer(offer)
    schema = "{}" if judged.status == "INVALID" else dump(offer.parameters)
    health = pb.LegacyMCPToolHealth(status=judged.status, reasons=judged.reasons)
    return pb.LegacyMCPTool(name=offer.name, description=offer.description, input_schema=schema, health=health)
