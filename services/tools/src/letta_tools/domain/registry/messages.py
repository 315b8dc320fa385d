"""Tools as the contract has them."""

from __future__ import annotations

import json

from letta.tools.v1 import tool_pb2, tool_service_pb2
from letta_tool_schemas.schemas import dump
from letta_tools.domain.registry.records import RegisteredTool, Requirement, ToolType


def pack_tool(tool: RegisteredTool) -> tool_pb2.Tool:
    """Return a tool as the contract has it."""
    packed = tool_pb2.Tool(
        id=tool.id,
        tool_type=_type_number(tool.tool_type),
        description=tool.description,
        source_type=tool_pb2.ToolSourceType.Value(f"TOOL_SOURCE_TYPE_{tool.source_type.name}"),
        name=tool.name,
        tags=tool.tags,
        source_code=tool.source_code,
        json_schema=pack_schema(tool.json_schema),
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


def pack_schema(text: str) -> tool_pb2.FunctionSchema | None:
    """Return a schema that the registry wrote as the contract has it."""
    if not text:
        return None
    written = json.loads(text)
    parameters = dump(written.get("parameters", {}))
    return tool_pb2.FunctionSchema(
        name=written.get("name"), description=written.get("description"), parameters_schema=parameters
    )


def pack_version(tool: RegisteredTool) -> tool_service_pb2.ToolVersion:
    """Return what a tool was after one write."""
    packed = tool_service_pb2.ToolVersion(
        version=tool.version, tool=pack_tool(tool), created_by_id=tool.last_updated_by_id or None
    )
    packed.created_at.FromDatetime(tool.updated_at)
    return packed


def _pack_pip(item: Requirement) -> tool_pb2.PipRequirement:
    return tool_pb2.PipRequirement(name=item.name, version=item.version or None)


def _pack_npm(item: Requirement) -> tool_pb2.NpmRequirement:
    return tool_pb2.NpmRequirement(name=item.name, version=item.version or None)


def _type_number(kind: ToolType) -> tool_pb2.ToolType.ValueType:
    return tool_pb2.ToolType.Value(f"TOOL_TYPE_{kind.name}")
