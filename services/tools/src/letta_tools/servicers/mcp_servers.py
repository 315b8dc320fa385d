"""MCPServerService: MCP servers over gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.tools.v1 import mcp_server_pb2, mcp_server_service_pb2_grpc
from letta.tools.v1 import mcp_server_service_pb2 as pb
from letta_common.actor import Actor, current_actor
from letta_common.errors import ToolNotFound
from letta_common.values.paging import Page
from letta_sandbox.calls import CallEnding, Limits
from letta_tools.domain.executions.executions import Execution, Executions
from letta_tools.domain.executions.outcomes import error_text
from letta_tools.domain.executions.sandbox_configs import SandboxConfigs
from letta_tools.domain.mcp.connects import ConnectStep, MCPConnects
from letta_tools.domain.mcp.oauth import OAuthAnswer, OAuthGrants
from letta_tools.domain.mcp.servers import MCPServer, MCPServers, MCPServerStore
from letta_tools.domain.registry.records import RegisteredTool
from letta_tools.servicers.limits import within_deadline
from letta_tools.servicers.mcp_configs import pack_config, read_config
from letta_tools.servicers.tool_messages import pack_tool

_Context = grpc.aio.ServicerContext[Any, Any]


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
        server = await self._servers.create(actor, request.server_name, read_config(request.config))
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
        name = request.server_name if request.HasField("server_name") else None
        server = await self._servers.update(actor, request.mcp_server_id, name, read_config(request.config))
        return pb.UpdateMCPServerResponse(mcp_server=self._pack(actor, server))

    async def DeleteMCPServer(
        self, request: pb.DeleteMCPServerRequest, context: _Context
    ) -> pb.DeleteMCPServerResponse:
        await self._servers.delete(current_actor(), request.mcp_server_id)
        return pb.DeleteMCPServerResponse()

    async def RefreshMCPServer(
        self, request: pb.RefreshMCPServerRequest, context: _Context
    ) -> pb.RefreshMCPServerResponse:
        actor = current_actor()
        variables = await self._environment.variables(actor)
        done = await self._servers.refresh(actor, request.mcp_server_id, variables)
        return pb.RefreshMCPServerResponse(added=done.added, updated=done.updated, deleted=done.deleted)

    async def ConnectMCPServer(
        self, request: pb.ConnectMCPServerRequest, context: _Context
    ) -> AsyncIterator[pb.ConnectMCPServerResponse]:
        actor = current_actor()
        variables = await self._environment.variables(actor)
        async with aclosing(self._connects.connect(actor, request.mcp_server_id, variables)) as steps:
            async for step in steps:
                yield pack_step(step)

    async def CompleteMCPOAuth(
        self, request: pb.CompleteMCPOAuthRequest, context: _Context
    ) -> pb.CompleteMCPOAuthResponse:
        error = ": ".join(part for part in (request.error, request.error_description) if part)
        answer = OAuthAnswer(request.code, request.state, request.iss or None, error)
        await self._grants.complete(current_actor(), answer)
        if error or not request.code:
            return pb.CompleteMCPOAuthResponse(status="error", message=error or "no code came back")
        return pb.CompleteMCPOAuthResponse(status="success", message="The MCP server is authorized.")

    async def ListMCPServerTools(
        self, request: pb.ListMCPServerToolsRequest, context: _Context
    ) -> pb.ListMCPServerToolsResponse:
        tools = await self._servers.tools(current_actor(), request.mcp_server_id)
        return pb.ListMCPServerToolsResponse(tools=map(pack_tool, tools))

    async def GetMCPServerTool(
        self, request: pb.GetMCPServerToolRequest, context: _Context
    ) -> pb.GetMCPServerToolResponse:
        tool = await self._tool(current_actor(), request.mcp_server_id, request.tool_id)
        return pb.GetMCPServerToolResponse(tool=pack_tool(tool))

    async def RunMCPServerTool(
        self, request: pb.RunMCPServerToolRequest, context: _Context
    ) -> pb.RunMCPServerToolResponse:
        actor = current_actor()
        tool = await self._tool(actor, request.mcp_server_id, request.tool_id)
        execution = Execution(
            arguments=request.args, tool_id=tool.id, limits=within_deadline(Limits(0, 0, 0, 0, 0, 0, 0))
        )
        result = (await self._executions.execute(actor, execution)).result
        if result.status is CallEnding.SUCCESS:
            return pb.RunMCPServerToolResponse(status="success", func_return=result.result)
        text = error_text(result)
        return pb.RunMCPServerToolResponse(status="error", func_return=json.dumps(text), stderr=[text])

    async def _tool(self, actor: Actor, server_id: str, tool_id: str) -> RegisteredTool:
        for tool in await self._servers.tools(actor, server_id):
            if tool.id == tool_id:
                return tool
        raise ToolNotFound(f"the server has no tool {tool_id}", tool_id=tool_id)

    def _pack(self, actor: Actor, server: MCPServer) -> mcp_server_pb2.MCPServer:
        connection = self._servers.connection(actor, server)
        packed = mcp_server_pb2.MCPServer(id=server.id, server_name=server.server_name, version=server.version)
        pack_config(connection, packed.config)
        packed.created_at.FromDatetime(server.created_at)
        packed.updated_at.FromDatetime(server.updated_at)
        return packed


def pack_step(step: ConnectStep) -> pb.ConnectMCPServerResponse:
    """Return the message of a step."""
    packed = pb.ConnectMCPServerResponse(
        event=step.event, message=step.message, server_name=step.server_name, url=step.url, session_id=step.session_id
    )
    if step.tools is not None:
        packed.tools = json.dumps([_offered(tool) for tool in step.tools])
    elif step.offers is not None:
        packed.tools = json.dumps([{"name": offer.name, "description": offer.description} for offer in step.offers])
    return packed


def _offered(tool: RegisteredTool) -> dict[str, Any]:
    schema = json.loads(tool.json_schema)
    return {"id": tool.id, "name": tool.name, "description": tool.description, "inputSchema": schema["parameters"]}
