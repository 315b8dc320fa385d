"""What requests say of tools."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import tool_pb2, tool_service_pb2
from letta_rpc.masks import changed_paths
from letta_tool_schemas.schemas import FunctionSchema, dump, load_object, parameters_of_model
from letta_tools.domain.registry.records import Requirement, source_type_of
from letta_tools.domain.registry.source_errors import source_errors

_ALL = FieldMask()
_PARAMETERS = "the `parameters` of json_schema"


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


@source_errors()
def _schema_text(schema: tool_pb2.FunctionSchema) -> str:
    parameters = load_object(schema.parameters_schema or "{}", _PARAMETERS)
    return FunctionSchema(schema.name, schema.description, parameters).to_json()


@source_errors()
def parameters_text(request: tool_service_pb2.RunToolRequest) -> str:
    """Return the schema of the arguments of a call, or nothing. Blocking. Raises ToolSourceInvalid."""
    if request.json_schema.parameters_schema:
        return dump(load_object(request.json_schema.parameters_schema, _PARAMETERS))
    model = load_object(request.args_json_schema or "{}", "args_json_schema")
    return "" if model.get("properties") is None else dump(parameters_of_model(model))
