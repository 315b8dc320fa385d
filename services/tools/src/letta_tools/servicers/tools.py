"""ToolService: the registry over gRPC."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from letta.common.v1 import letta_message_pb2, message_pb2
from letta.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from letta.tools.v1.tool_execution_service_pb2 import ToolSource
from letta_common.actor import current_actor
from letta_common.clock import Clock
from letta_common.errors import OperationUnimplemented
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_sandbox.calls import CallEnding, Limits
from letta_tools.domain.executions.executions import Execution, Executions
from letta_tools.domain.executions.outcomes import Outcome, return_text
from letta_tools.domain.registry.messages import pack_schema, pack_tool, pack_version
from letta_tools.domain.registry.records import (
    LETTA_TYPES,
    Requirement,
    ToolFilter,
    ToolSourceType,
    ToolType,
    source_type_of,
)
from letta_tools.domain.registry.tools import Tools
from letta_tools.servicers.limits import within_deadline
from letta_tools.servicers.tool_messages import given_values, parameters_text

_Context = grpc.aio.ServicerContext[Any, Any]
_NO_MODELS = "the tools service calls no models; ask a model or an agent for the source and POST it to /v1/tools/"
_MODES = {
    tool_service_pb2.TOOL_SEARCH_MODE_VECTOR: "vector",
    tool_service_pb2.TOOL_SEARCH_MODE_FTS: "fts",
}


class ToolServicer(tool_service_pb2_grpc.ToolServiceServicer):
    """Answers for the registry."""

    def __init__(self, tools: Tools, executions: Executions, clock: Clock) -> None:
        self._tools = tools
        self._executions = executions
        self._clock = clock

    async def CreateTool(
        self, request: tool_service_pb2.CreateToolRequest, context: _Context
    ) -> tool_service_pb2.CreateToolResponse:
        tool = await self._tools.put(current_actor(), given_values(request.tool))
        return tool_service_pb2.CreateToolResponse(tool=pack_tool(tool))

    async def UpsertTool(
        self, request: tool_service_pb2.UpsertToolRequest, context: _Context
    ) -> tool_service_pb2.UpsertToolResponse:
        tool = await self._tools.put(current_actor(), given_values(request.tool))
        return tool_service_pb2.UpsertToolResponse(tool=pack_tool(tool))

    async def GetTool(
        self, request: tool_service_pb2.GetToolRequest, context: _Context
    ) -> tool_service_pb2.GetToolResponse:
        tool = await self._tools.get(current_actor(), request.tool_id)
        return tool_service_pb2.GetToolResponse(tool=pack_tool(tool))

    async def ListTools(
        self, request: tool_service_pb2.ListToolsRequest, context: _Context
    ) -> tool_service_pb2.ListToolsResponse:
        tools = await self._tools.find(current_actor(), _filter(request), Page.of(request))
        return tool_service_pb2.ListToolsResponse(tools=map(pack_tool, tools))

    async def CountTools(
        self, request: tool_service_pb2.CountToolsRequest, context: _Context
    ) -> tool_service_pb2.CountToolsResponse:
        excluded = LETTA_TYPES if request.exclude_letta_tools else frozenset()
        count = await self._tools.count(current_actor(), _filter(request, excluded))
        return tool_service_pb2.CountToolsResponse(count=count)

    async def SearchTools(
        self, request: tool_service_pb2.SearchToolsRequest, context: _Context
    ) -> tool_service_pb2.SearchToolsResponse:
        wanted = ToolFilter(types=_types(request.tool_types), tags=tuple(request.tags))
        mode = _MODES.get(request.search_mode, "hybrid")
        found = await self._tools.search(current_actor(), request.query, wanted, request.limit or 50, mode)
        return tool_service_pb2.SearchToolsResponse(results=found)

    async def UpdateTool(
        self, request: tool_service_pb2.UpdateToolRequest, context: _Context
    ) -> tool_service_pb2.UpdateToolResponse:
        changes = given_values(request.tool, request.update_mask)
        tool = await self._tools.update(current_actor(), request.tool_id, changes, etag=request.tool.etag)
        return tool_service_pb2.UpdateToolResponse(tool=pack_tool(tool))

    async def DeleteTool(
        self, request: tool_service_pb2.DeleteToolRequest, context: _Context
    ) -> tool_service_pb2.DeleteToolResponse:
        await self._tools.delete(current_actor(), request.tool_id)
        return tool_service_pb2.DeleteToolResponse()

    async def ListToolVersions(
        self, request: tool_service_pb2.ListToolVersionsRequest, context: _Context
    ) -> tool_service_pb2.ListToolVersionsResponse:
        tools = await self._tools.versions(current_actor(), request.tool_id, Page.of(request))
        return tool_service_pb2.ListToolVersionsResponse(versions=map(pack_version, tools))

    async def GetToolVersion(
        self, request: tool_service_pb2.GetToolVersionRequest, context: _Context
    ) -> tool_service_pb2.GetToolVersionResponse:
        tool = await self._tools.version(current_actor(), request.tool_id, request.version)
        return tool_service_pb2.GetToolVersionResponse(version=pack_version(tool))

    async def AddBaseTools(
        self, request: tool_service_pb2.AddBaseToolsRequest, context: _Context
    ) -> tool_service_pb2.AddBaseToolsResponse:
        tools = await self._tools.add_base_tools(current_actor())
        return tool_service_pb2.AddBaseToolsResponse(tools=map(pack_tool, tools))

    async def RunTool(
        self, request: tool_service_pb2.RunToolRequest, context: _Context
    ) -> tool_service_pb2.RunToolResponse:
        kind = source_type_of(request.source_type)
        name = request.name or request.json_schema.name
        of_node = request.npm_requirements if kind is ToolSourceType.TYPESCRIPT else ()
        packages = (*request.pip_requirements, *of_node)
        source = ToolSource(
            source_code=request.source_code,
            source_type=request.source_type,
            function=name,
            requirements=[Requirement(item.name, item.version).specifier() for item in packages],
            parameters_schema=await asyncio.to_thread(parameters_text, request),
        )
        execution = Execution(
            arguments=request.args,
            source=source,
            environment_variables=dict(request.env_vars),
            limits=within_deadline(Limits(*([0] * 7))),
        )
        outcome = await self._executions.execute(current_actor(), execution)
        name = name or await self._tools.name_of(request.source_code, kind)
        return tool_service_pb2.RunToolResponse(message=self._return_message(name, outcome))

    def _return_message(self, name: str, outcome: Outcome) -> letta_message_pb2.LettaMessage:
        result = outcome.result
        good = result.status is CallEnding.SUCCESS
        status = message_pb2.TOOL_RETURN_STATUS_SUCCESS if good else message_pb2.TOOL_RETURN_STATUS_ERROR
        text, call_id = return_text(outcome, name or "tool"), new_id("call")
        out, err = result.stdout.splitlines(), result.stderr.splitlines()
        only = message_pb2.ToolReturn(text=text, status=status, tool_call_id=call_id, stdout=out, stderr=err)
        returned = letta_message_pb2.ToolReturnMessage(
            tool_return=text, status=status, tool_call_id=call_id, tool_returns=[only], stdout=out, stderr=err
        )
        message = letta_message_pb2.LettaMessage(id=new_id("message"), name=name or None, tool_return_message=returned)
        message.date.FromDatetime(self._clock.now().replace(microsecond=0))
        return message

    async def GenerateSchema(
        self, request: tool_service_pb2.GenerateSchemaRequest, context: _Context
    ) -> tool_service_pb2.GenerateSchemaResponse:
        schema = await self._tools.schema_of(request.code, source_type_of(request.source_type))
        return tool_service_pb2.GenerateSchemaResponse(json_schema=pack_schema(schema))

    async def GenerateTool(
        self, request: tool_service_pb2.GenerateToolRequest, context: _Context
    ) -> tool_service_pb2.GenerateToolResponse:
        raise OperationUnimplemented(_NO_MODELS)

    async def ResolveTools(
        self, request: tool_service_pb2.ResolveToolsRequest, context: _Context
    ) -> tool_service_pb2.ResolveToolsResponse:
        tools, etag = await self._tools.resolve(
            current_actor(), request.tool_ids, request.names, skip_missing=request.skip_missing, etag=request.etag
        )
        return tool_service_pb2.ResolveToolsResponse(
            tools=map(pack_tool, tools or ()), etag=etag, unchanged=tools is None
        )

    async def GetBaseTools(
        self, request: tool_service_pb2.GetBaseToolsRequest, context: _Context
    ) -> tool_service_pb2.GetBaseToolsResponse:
        tools = await self._tools.base_tools(current_actor(), _types(request.tool_types) or LETTA_TYPES)
        return tool_service_pb2.GetBaseToolsResponse(tools=map(pack_tool, tools))


def _types(numbers: Any) -> frozenset[ToolType]:
    names = (tool_pb2.ToolType.Name(number).removeprefix("TOOL_TYPE_") for number in numbers)
    return frozenset(ToolType[name] if name != "UNSPECIFIED" else ToolType.CUSTOM for name in names)


def _filter(
    request: tool_service_pb2.ListToolsRequest | tool_service_pb2.CountToolsRequest,
    excluded: frozenset[ToolType] = frozenset(),
) -> ToolFilter:
    types = _types(request.tool_types)
    if request.return_only_letta_tools:
        types = (types & LETTA_TYPES) if types else LETTA_TYPES
    return ToolFilter(
        names=(*filter(None, (request.name,)), *request.names),
        ids=tuple(request.tool_ids),
        search=request.search,
        types=types,
        excluded_types=_types(request.exclude_tool_types) | excluded,
    )
