"""MCPServerService: MCP servers over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import mcp_server_pb2, mcp_server_service_pb2_grpc
from letta.tools.v1 import mcp_server_service_pb2 as pb
from letta_common.actor import Actor, current_actor
from letta_common.errors import ToolNotFound
from letta_common.values.paging import Page
from letta_sandbox.calls import CallEnding, Limits
from letta_tool_schemas.schemas import dump
from letta_tools.domain.executions.executions import Execution, Executions
from letta_tools.domain.executions.outcomes import error_text
from letta_tools.domain.executions.sandbox_configs import SandboxConfigs
from letta_tools.domain.mcp.connections import config_of, connection_of
from letta_tools.domain.mcp.connects import MCPConnects
from letta_tools.domain.mcp.oauth import OAuthGrants
from letta_tools.domain.mcp.servers import MCPServers, MCPServerStore, SealedMCPServer
from letta_tools.domain.mcp.tools import Offer
from letta_tools.domain.registry.messages import pack_tool
from letta_tools.domain.registry.records import RegisteredTool
from letta_tools.servicers.limits import within_deadline
from letta_tools.servicers.mcp_configs import read_change, read_settings, require_whole

_Context = grpc.aio.ServicerContext[Any, Any]
_Named = pb.DeleteMCPServerRequest | pb.RefreshMCPServerRequest | pb.RunMCPServerToolRequest


class MCPServerServicer(mcp_server_service_pb2_grpc.MCPServerServiceServicer):
    """Answers for MCP servers."""

    def __init__(
        self,
        servers: MCPServers,
        executions: Executions,
        environment: SandboxConfigs,
        connects: MCPConnects,
        grants: OAuthGrants,
        *,
        store: MCPServerStore,
    ) -> None:
        self._store = store
        self._servers = servers
        self._executions = executions
        self._environment = environment
        self._connects = connects
        self._grants = grants

    async def CreateMCPServer(
        self, request: pb.CreateMCPServerRequest, context: _Context
    ) -> pb.CreateMCPServerResponse:
        actor = current_actor()
        server = await self._servers.create(actor, request.server_name, connection_of(request.config))
        return pb.CreateMCPServerResponse(mcp_server=self._pack(actor, server))

    async def ListMCPServers(self, request: pb.ListMCPServersRequest, context: _Context) -> pb.ListMCPServersResponse:
        actor = current_actor()
        servers = await self._store.list_servers(actor, Page.of(request))
        return pb.ListMCPServersResponse(mcp_servers=(self._pack(actor, server) for server in servers))

    async def GetMCPServer(self, request: pb.GetMCPServerRequest, context: _Context) -> pb.GetMCPServerResponse:
        actor = current_actor()
        server = await self._servers.get(actor, request.mcp_server_id)
        return pb.GetMCPServerResponse(mcp_server=self._pack(actor, server))

    async def UpdateMCPServer(
        self, request: pb.UpdateMCPServerRequest, context: _Context
    ) -> pb.UpdateMCPServerResponse:
        actor = current_actor()
        given, paths = read_change(request.mcp_server, request.update_mask)
        server = await self._servers.update(actor, request.mcp_server_id, given, paths)
        return pb.UpdateMCPServerResponse(mcp_server=self._pack(actor, server))

    async def ChangeMCPServer(
        self, request: pb.ChangeMCPServerRequest, context: _Context
    ) -> pb.ChangeMCPServerResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        given, paths = read_settings(server.server_type, request.settings, request.update_mask)
        changed = await self._servers.update(actor, server.id, given, paths)
        return pb.ChangeMCPServerResponse(mcp_server=self._pack(actor, changed))

    async def PutMCPServer(self, request: pb.PutMCPServerRequest, context: _Context) -> pb.PutMCPServerResponse:
        actor = current_actor()
        require_whole(request.mcp_server)
        await self._servers.put(actor, *read_change(request.mcp_server, FieldMask()))
        return pb.PutMCPServerResponse(mcp_servers=await self._all(actor))

    async def TestMCPServer(self, request: pb.TestMCPServerRequest, context: _Context) -> pb.TestMCPServerResponse:
        require_whole(request.mcp_server)
        offers = await self._servers.try_out(current_actor(), connection_of(request.mcp_server.config))
        return pb.TestMCPServerResponse(tools=map(_pack_offer, offers))

    async def DeleteMCPServer(
        self, request: pb.DeleteMCPServerRequest, context: _Context
    ) -> pb.DeleteMCPServerResponse:
        actor = current_actor()
        await self._servers.delete(actor, await self._id(actor, request))
        return pb.DeleteMCPServerResponse(mcp_servers=await self._all(actor))

    async def RefreshMCPServer(
        self, request: pb.RefreshMCPServerRequest, context: _Context
    ) -> pb.RefreshMCPServerResponse:
        actor = current_actor()
        variables = await self._environment.variables(actor)
        return await self._servers.refresh(actor, await self._id(actor, request), variables)

    async def ListMCPOffers(self, request: pb.ListMCPOffersRequest, context: _Context) -> pb.ListMCPOffersResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        offers = await self._servers.offers(actor, server, await self._environment.variables(actor))
        return pb.ListMCPOffersResponse(offers=map(_pack_offer, offers))

    async def ConnectMCPServer(
        self, request: pb.ConnectMCPServerRequest, context: _Context
    ) -> AsyncIterator[pb.ConnectMCPServerResponse]:
        actor = current_actor()
        variables = await self._environment.variables(actor)
        if request.HasField("mcp_server"):
            given = request.mcp_server
            require_whole(given)
            connecting = self._connects.connect_named(actor, given.server_name, connection_of(given.config), variables)
        else:
            connecting = self._connects.connect(actor, request.mcp_server_id, variables)
        async with aclosing(connecting) as steps:
            async for step in steps:
                yield step

    async def CompleteMCPOAuth(
        self, request: pb.CompleteMCPOAuthRequest, context: _Context
    ) -> pb.CompleteMCPOAuthResponse:
        refusal = await self._grants.complete(current_actor(), request)
        if refusal:
            return pb.CompleteMCPOAuthResponse(status=pb.MCP_AUTHORIZATION_STATUS_ERROR, message=refusal)
        return pb.CompleteMCPOAuthResponse(
            status=pb.MCP_AUTHORIZATION_STATUS_SUCCESS, message="The MCP server is authorized."
        )

    async def ListMCPServerTools(
        self, request: pb.ListMCPServerToolsRequest, context: _Context
    ) -> pb.ListMCPServerToolsResponse:
        tools = await self._servers.tools(current_actor(), request.mcp_server_id)
        return pb.ListMCPServerToolsResponse(tools=map(pack_tool, tools))

    async def GetMCPServerTool(
        self, request: pb.GetMCPServerToolRequest, context: _Context
    ) -> pb.GetMCPServerToolResponse:
        tools = await self._servers.tools(current_actor(), request.mcp_server_id)
        return pb.GetMCPServerToolResponse(tool=pack_tool(_find(tools, tool_id=request.tool_id)))

    async def AddMCPServerTool(
        self, request: pb.AddMCPServerToolRequest, context: _Context
    ) -> pb.AddMCPServerToolResponse:
        actor = current_actor()
        server = await self._servers.named(actor, request.mcp_server_name)
        tools = await self._servers.list_offers(actor, server.id, await self._environment.variables(actor))
        return pb.AddMCPServerToolResponse(tool=pack_tool(_find(tools, name=request.tool_name)))

    async def RunMCPServerTool(
        self, request: pb.RunMCPServerToolRequest, context: _Context
    ) -> pb.RunMCPServerToolResponse:
        actor = current_actor()
        tools = await self._servers.tools(actor, await self._id(actor, request))
        tool = _find(tools, tool_id=request.tool_id, name=request.tool_name)
        execution = Execution(
            arguments=request.args, tool_id=tool.id, limits=within_deadline(Limits(0, 0, 0, 0, 0, 0, 0))
        )
        result = (await self._executions.execute(actor, execution)).result
        if result.status is CallEnding.SUCCESS:
            return pb.RunMCPServerToolResponse(status=pb.MCP_TOOL_STATUS_SUCCESS, func_return=result.result)
        text = error_text(result)
        return pb.RunMCPServerToolResponse(status=pb.MCP_TOOL_STATUS_ERROR, func_return=json.dumps(text), stderr=[text])

    async def _id(self, actor: Actor, request: _Named) -> str:
        if request.HasField("mcp_server_name"):
            return (await self._servers.named(actor, request.mcp_server_name)).id
        return request.mcp_server_id

    async def _all(self, actor: Actor) -> list[mcp_server_pb2.MCPServer]:
        return [self._pack(actor, server) for server in await self._store.list_servers(actor, Page(limit=1000))]

    def _pack(self, actor: Actor, server: SealedMCPServer) -> mcp_server_pb2.MCPServer:
        connection = self._servers.connection(actor, server)
        packed = mcp_server_pb2.MCPServer(
            id=server.id,
            server_name=server.server_name,
            config=config_of(connection),
            version=server.version,
        )
        packed.created_at.FromDatetime(server.created_at)
        packed.updated_at.FromDatetime(server.updated_at)
        return packed


def _find(tools: list[RegisteredTool], *, tool_id: str = "", name: str = "") -> RegisteredTool:
    for tool in tools:
        if tool.id == tool_id or (name and name in {tool.mcp_name, tool.name}):
            return tool
    if tool_id:
        raise ToolNotFound(f"the server has no tool {tool_id}", tool_id=tool_id)
    raise ToolNotFound(f"the server has no tool `{name}`", name=name)


def _pack_offer(offer: Offer) -> mcp_server_pb2.MCPOffer:
    health = offer.health()
    schema = "{}" if health.status == mcp_server_pb2.SCHEMA_HEALTH_INVALID else dump(offer.parameters)
    return mcp_server_pb2.MCPOffer(name=offer.name, description=offer.description, input_schema=schema, health=health)
