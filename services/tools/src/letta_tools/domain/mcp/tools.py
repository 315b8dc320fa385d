"""Tools that MCP servers offer, as the registry keeps them. What a server says of itself is not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from letta.tools.v1.mcp_server_pb2 import MCPOfferHealth, SchemaHealth
from letta_common.actor import Actor
from letta_common.values.ids import derived_id
from letta_tool_schemas.schemas import FunctionSchema, dump
from letta_tools.domain.registry.records import RegisteredTool, ToolSourceType, ToolType
from letta_tools.domain.registry.source_errors import source_errors

# A server writes its schemas and descriptions, and each step of an agent pays for them in tokens.
_LONGEST_SCHEMA = 65_536
_LONGEST_DESCRIPTION = 8_192
_MAX_DEPTH = 32
_MOST_REASONS = 20
_EMPTY: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool as its server describes it."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    idempotent: bool = False
    fault: str = ""
    """Why the tool cannot be used as it is described."""

    def health(self) -> MCPOfferHealth:
        """Judge the tool."""
        return _invalid(self.fault) if self.fault else health_of(self.parameters)


@source_errors()
def tool_of(actor: Actor, server: tuple[str, str], offer: Offer, name: str, now: datetime) -> RegisteredTool:
    """Return the tool of an offer of a server, which is given by id and name."""
    server_id, server_name = server
    health = offer.health()
    unusable = health.status == SchemaHealth.SCHEMA_HEALTH_INVALID
    # Vendors of models refuse parameters that have no type or no properties.
    parameters = _EMPTY if unusable else {"properties": {}, **offer.parameters, "type": "object"}
    # PostgreSQL's text holds no NUL.
    description = offer.description.replace("\0", "")[:_LONGEST_DESCRIPTION]
    metadata = {
        "mcp": {"server_id": server_id, "server_name": server_name},
        # The keys that clients of V1 read.
        "mcp:SCHEMA_STATUS": SchemaHealth.Name(health.status).removeprefix("SCHEMA_HEALTH_"),
        "mcp:SCHEMA_WARNINGS": list(health.reasons),
    }
    return RegisteredTool(
        # The same offer has the same id after every synchronization, so agents keep the tool.
        id=derived_id("tool", actor.organization_id, server_id, offer.name),
        name=name,
        tool_type=ToolType.EXTERNAL_MCP,
        description=description,
        source_type=ToolSourceType.JSON,
        json_schema=FunctionSchema(name, description, parameters).to_json(),
        tags=(f"mcp:{server_name}",),
        idempotent=offer.idempotent,
        metadata=dump(metadata),
        mcp_server_id=server_id,
        mcp_name=offer.name,
        created_by_id=actor.user_id,
        last_updated_by_id=actor.user_id,
        created_at=now,
        updated_at=now,
    )


def health_of(parameters: Mapping[str, Any]) -> MCPOfferHealth:
    """Judge a schema."""
    try:
        size = len(dump(parameters))
    except (ValueError, TypeError, RecursionError) as error:
        return _invalid(f"the schema is not JSON: {type(error).__name__}")
    if size > _LONGEST_SCHEMA:
        return _invalid(f"the schema has {size} characters; {_LONGEST_SCHEMA} are allowed")
    faults: list[str] = []
    laxities: list[str] = []
    if parameters.get("type", "object") != "object":
        faults.append("the schema is not of type object")
    _look(parameters, "arguments", faults, laxities, 0)
    _follow(parameters, parameters, faults, laxities)
    if faults:
        return _invalid(*faults)
    if laxities:
        return _judged(SchemaHealth.SCHEMA_HEALTH_NON_STRICT_ONLY, *laxities)
    return _judged(SchemaHealth.SCHEMA_HEALTH_STRICT_COMPLIANT)


def _invalid(*reasons: str) -> MCPOfferHealth:
    return _judged(SchemaHealth.SCHEMA_HEALTH_INVALID, *reasons)


def _judged(status: SchemaHealth.ValueType, *reasons: str) -> MCPOfferHealth:
    """Return a judgement; names that no UTF-8 can hold come with question marks, since a server chooses them."""
    told = [reason.encode("utf-8", "replace").decode() for reason in reasons[:_MOST_REASONS]]
    return MCPOfferHealth(status=status, reasons=told)


def _look(schema: Any, path: str, faults: list[str], laxities: list[str], depth: int) -> None:
    if isinstance(schema, bool):  # JSON Schema's words for anything and for nothing
        laxities.append(f"{path}: {'anything' if schema else 'nothing'} fits")
        return
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        faults.append(f"{path}: {'nested too deeply' if depth > _MAX_DEPTH else 'no schema'}")
        return
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        faults.append(f"{path}: properties is no object")
        return
    if schema.get("type") == "object" or properties or depth == 0:
        required = schema.get("required") or []
        if schema.get("additionalProperties") is not False:
            laxities.append(f"{path}: additionalProperties is not false")
        laxities.extend(f"{path}.{name}: not required" for name in properties if name not in required)
    for name, inner in properties.items():
        _look(inner, f"{path}.{name}", faults, laxities, depth + 1)
    if schema.get("type") == "array":
        if "items" not in schema:
            laxities.append(f"{path}: an array without items")
        else:
            _look(schema["items"], f"{path}[]", faults, laxities, depth + 1)


def _follow(schema: Any, root: Mapping[str, Any], faults: list[str], laxities: list[str]) -> None:
    """Judge references: they must lead to something inside of the schema, and not in a circle."""
    waiting = [(schema, 0)]
    while waiting:
        inner, depth = waiting.pop()
        if depth > 4 * _MAX_DEPTH:
            faults.append("nested too deeply")
            return
        if isinstance(inner, list):
            waiting += [(each, depth + 1) for each in inner]
        elif isinstance(inner, dict):
            if isinstance(inner.get("$ref"), str):
                _judge_reference(inner["$ref"], root, faults, laxities)
            waiting += [(each, depth + 1) for each in inner.values()]


def _judge_reference(reference: str, root: Mapping[str, Any], faults: list[str], laxities: list[str]) -> None:
    first, seen = reference, set[str]()
    while reference not in seen:
        seen.add(reference)
        target = _target(reference, root)
        if target is None:
            faults.append(f"{first[:100]}: leads to nothing in the schema")
            return
        if not isinstance(target.get("$ref"), str):
            laxities.append(f"{first[:100]}: a reference, which not every provider follows")
            return
        reference = target["$ref"]
    faults.append(f"{first[:100]}: leads to itself")


def _target(reference: str, root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    if not reference.startswith("#"):
        return None
    place: Any = root
    for part in reference.lstrip("#").split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, dict) else None
    return place if isinstance(place, dict) else None
