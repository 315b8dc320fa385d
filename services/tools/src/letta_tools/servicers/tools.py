"""ToolService: the registry over gRPC."""

from __future__ import annotations

from typing import Any

import grpc.aio
from letta.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.errors import InvalidArgument
from letta_common.paging import Page

from letta_tools.domain.schemas import schema_of_source
from letta_tools.domain.tool_records import LETTA_TYPES, Requirement, Tool, ToolFilter, ToolType
from letta_tools.domain.tools import WRITABLE, Tools

_Context = grpc.aio.ServicerContext[Any, Any]
_READ_ONLY = frozenset(
    {"id", "tool_type", "name", "created_by_id", "last_updated_by_id", "version", "etag", "created_at", "updated_at"}
)
_OPTIONAL = ("description", "source_type", "source_code", "default_requires_approval", "project_id")
_MODES = {
    tool_service_pb2.TOOL_SEARCH_MODE_VECTOR: "vector",
    tool_service_pb2.TOOL_SEARCH_MODE_FTS: "fts",
}


class ToolServicer(tool_service_pb2_grpc.ToolServiceServicer):
    """Answers for the registry."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools

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
        results = (
            tool_service_pb2.ToolSearchResult(
                tool=pack_tool(item.tool),
                embedded_text=item.text,
                fts_rank=item.fts_rank,
                vector_rank=item.vector_rank,
                combined_score=item.score,
            )
            for item in found
        )
        return tool_service_pb2.SearchToolsResponse(results=results)

    async def UpdateTool(
        self, request: tool_service_pb2.UpdateToolRequest, context: _Context
    ) -> tool_service_pb2.UpdateToolResponse:
        changes = masked_values(request.tool, request.update_mask.paths)
        tool = await self._tools.update(current_actor(), request.tool_id, changes, etag=request.tool.etag)
        return tool_service_pb2.UpdateToolResponse(tool=pack_tool(tool))

    async def DeleteTool(
        self, request: tool_service_pb2.DeleteToolRequest, context: _Context
    ) -> tool_service_pb2.DeleteToolResponse:
        await self._tools.delete(current_actor(), request.tool_id)
        return tool_service_pb2.DeleteToolResponse()

    async def AddBaseTools(
        self, request: tool_service_pb2.AddBaseToolsRequest, context: _Context
    ) -> tool_service_pb2.AddBaseToolsResponse:
        tools = await self._tools.add_base_tools(current_actor())
        return tool_service_pb2.AddBaseToolsResponse(tools=map(pack_tool, tools))

    async def GenerateSchema(
        self, request: tool_service_pb2.GenerateSchemaRequest, context: _Context
    ) -> tool_service_pb2.GenerateSchemaResponse:
        schema = await schema_of_source(request.code, request.source_type)
        return tool_service_pb2.GenerateSchemaResponse(json_schema=schema.to_json())

    async def ResolveTools(
        self, request: tool_service_pb2.ResolveToolsRequest, context: _Context
    ) -> tool_service_pb2.ResolveToolsResponse:
        resolved = await self._tools.resolve(
            current_actor(), request.tool_ids, request.names, skip_missing=request.skip_missing, etag=request.etag
        )
        return tool_service_pb2.ResolveToolsResponse(
            tools=map(pack_tool, resolved.tools), etag=resolved.etag, unchanged=resolved.unchanged
        )

    async def GetBaseTools(
        self, request: tool_service_pb2.GetBaseToolsRequest, context: _Context
    ) -> tool_service_pb2.GetBaseToolsResponse:
        tools = await self._tools.base_tools(current_actor(), _types(request.tool_types) or LETTA_TYPES)
        return tool_service_pb2.GetBaseToolsResponse(tools=map(pack_tool, tools))


def given_values(tool: tool_pb2.Tool) -> dict[str, Any]:
    """Return what a request to create says of a tool; what it leaves out is not in it."""
    present = {name for name in _OPTIONAL if tool.HasField(name)}
    present |= {name for name in ("enable_parallel_execution", "idempotent") if tool.HasField(name)}
    present |= {
        name for name in WRITABLE - {*_OPTIONAL, "enable_parallel_execution", "idempotent"} if getattr(tool, name)
    }
    return {name: _value(tool, name) for name in present}


def masked_values(tool: tool_pb2.Tool, paths: Any) -> dict[str, Any]:
    """Return the values that a mask names; None where the tool has none. Raises InvalidArgument for an unknown path."""
    unknown = [path for path in paths if path not in WRITABLE and path not in _READ_ONLY]
    if unknown:
        raise InvalidArgument(f"a tool has no field `{unknown[0]}`", field="update_mask")
    return {path: _value(tool, path) for path in paths if path in WRITABLE}


def _value(tool: tool_pb2.Tool, name: str) -> Any:
    value = getattr(tool, name)
    if name == "tags":
        return tuple(dict.fromkeys(value))
    if name in {"pip_requirements", "npm_requirements"}:
        return tuple(Requirement(item.name, item.version) for item in value)
    if tool.DESCRIPTOR.fields_by_name[name].has_presence:
        return value if tool.HasField(name) else None
    return value or None


def pack_tool(tool: Tool) -> tool_pb2.Tool:
    """Return a tool as the contract has it."""
    packed = tool_pb2.Tool(
        id=tool.id,
        tool_type=_type_number(tool.tool_type),
        description=tool.description,
        source_type=tool.source_type,
        name=tool.name,
        tags=tool.tags,
        source_code=tool.source_code,
        json_schema=tool.json_schema,
        args_json_schema=tool.args_json_schema or ("{}" if tool.tool_type is ToolType.CUSTOM else ""),
        return_char_limit=tool.return_char_limit,
        pip_requirements=(_pack_pip(item) for item in tool.pip_requirements),
        npm_requirements=(_pack_npm(item) for item in tool.npm_requirements),
        default_requires_approval=tool.default_requires_approval,
        enable_parallel_execution=tool.enable_parallel_execution,
        created_by_id=tool.created_by_id or None,
        last_updated_by_id=tool.last_updated_by_id or None,
        metadata=tool.metadata,
        project_id=tool.project_id,
        idempotent=tool.idempotent or None,
        version=tool.version,
        etag=tool.etag,
    )
    packed.created_at.FromDatetime(tool.created_at)
    packed.updated_at.FromDatetime(tool.updated_at)
    return packed


def _pack_pip(item: Requirement) -> tool_pb2.PipRequirement:
    return tool_pb2.PipRequirement(name=item.name, version=item.version or None)


def _pack_npm(item: Requirement) -> tool_pb2.NpmRequirement:
    return tool_pb2.NpmRequirement(name=item.name, version=item.version or None)


def _type_number(kind: ToolType) -> tool_pb2.ToolType:
    return tool_pb2.ToolType.Value(f"TOOL_TYPE_{kind.name}")


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
