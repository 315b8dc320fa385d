"""Tools between the contract and the domain."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import tool_pb2, tool_service_pb2
from letta_rpc.masks import changed_paths
from letta_tool_schemas.schemas import FunctionSchema, dump, load_object
from letta_tools.domain.registry.records import RegisteredTool, Requirement, ToolType, source_type_of
from letta_tools.domain.registry.source_errors import source_errors

_ALL = FieldMask()


def given_values(tool: tool_pb2.Tool, mask: FieldMask = _ALL) -> dict[str, Any]:
    """Return what a request says of a tool; None where a mask names what the tool lacks. Raises InvalidArgument."""
    return {path: _value(tool, path) for path in changed_paths(tool, mask)}


def _value(tool: tool_pb2.Tool, name: str) -> Any:
    value = getattr(tool, name)
    if name == "tags":
        return tuple(dict.fromkeys(value))
    if name in {"pip_requirements", "npm_requirements"}:
        return tuple(Requirement(item.name, item.version) for item in value)
    if name == "json_schema":
        return _schema_text(value) if tool.HasField("json_schema") else None
    if name == "source_type":
        return source_type_of(value) if value else None
    if _is_optional(name):
        return value if tool.HasField(name) else None  # type: ignore[arg-type]
    return value or None


def _is_optional(name: str) -> bool:
    return tool_pb2.Tool.DESCRIPTOR.fields_by_name[name].has_presence


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


@source_errors()
def _schema_text(schema: tool_pb2.FunctionSchema) -> str:
    parameters = load_object(schema.parameters_schema or "{}", "the `parameters` of json_schema")
    return FunctionSchema(schema.name, schema.description, parameters).to_json()


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
