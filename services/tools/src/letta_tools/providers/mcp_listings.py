"""Listings of tools as the SDK takes them: it validates a listing as a whole, so each tool is looked at before.

A tool that is described wrongly keeps its name and tells why; what nobody needs of it is left out. So no tool of a
server loses the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import structlog
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCResponse

# It travels in `_meta`, which the SDK hands on as it is.
FAULT = "letta:fault"
_LONGEST_NAME = 256
_HINTS = ("readOnlyHint", "idempotentHint", "destructiveHint", "openWorldHint")
_log = structlog.get_logger("letta.tools.mcp")


class Listings:
    """A stream of what a server says, with the listings put right."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    @property
    def last_context(self) -> Any:
        """The context of the sender of the last message, as the SDK looks for it."""
        return getattr(self._inner, "last_context", None)

    async def receive(self) -> SessionMessage | Exception:
        """Return the next message."""
        return _righted(await self._inner.receive())

    async def aclose(self) -> None:
        """Close the stream."""
        await self._inner.aclose()

    def __aiter__(self) -> Listings:
        return self

    async def __anext__(self) -> SessionMessage | Exception:
        return _righted(await self._inner.__anext__())

    async def __aenter__(self) -> Listings:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        done: bool | None = await self._inner.__aexit__(kind, error, trace)
        return done


def _righted(item: SessionMessage | Exception) -> SessionMessage | Exception:
    if isinstance(item, Exception) or not isinstance(item.message, JSONRPCResponse):
        return item
    result = item.message.result
    if isinstance(result, dict) and isinstance(result.get("tools"), list):
        result["tools"] = [tool for given in result["tools"] if (tool := _tool(given)) is not None]
        # The SDK would refuse the whole page for it.
        if not isinstance(result.get("nextCursor", ""), str):
            del result["nextCursor"]
    return item


def _tool(given: Any) -> dict[str, Any] | None:
    """Return what is needed of a tool; None for one that cannot even be called."""
    name = given.get("name") if isinstance(given, dict) else None
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME or "\0" in name:
        _log.info("an MCP server offers a tool without a usable name; it is left out", name=str(name)[:100])
        return None
    description = given.get("description")
    schema, fault = _schema(given.get("inputSchema"))
    tool: dict[str, Any] = {
        "name": name,
        "description": description if isinstance(description, str) else "",
        "inputSchema": schema,
        "annotations": _hints(given.get("annotations")),
    }
    return {**tool, "_meta": {FAULT: fault}} if fault else tool


def _schema(given: Any) -> tuple[dict[str, Any], str]:
    """Return the schema of a tool's arguments as an object, or an empty one and why it cannot be had."""
    empty = {"type": "object", "properties": {}}
    if given is None:
        return empty, "the tool has no inputSchema"
    if not isinstance(given, dict):
        return empty, "the inputSchema is no object"
    schema = _followed(given)
    if schema.get("type", "object") not in ("object", ["object"]):
        return empty, f"the inputSchema is of type {str(schema['type'])[:60]}, not object"
    if fault := _fault(schema):
        return empty, fault
    # Some servers write null for what they leave out.
    return {key: value for key, value in schema.items() if value is not None} | {"type": "object"}, ""


def _fault(schema: dict[str, Any]) -> str:
    """Return what of a schema the SDK does not take."""
    properties, required = schema.get("properties") or {}, schema.get("required") or []
    if not isinstance(properties, dict):
        return "the properties of the inputSchema are no object"
    for name, inner in properties.items():
        # `true` and `false` are schemas too.
        if not isinstance(inner, dict | bool):
            return f"the property {str(name)[:60]} of the inputSchema is no schema"
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        return "required of the inputSchema is no list of names"
    return "" if isinstance(schema.get("$schema") or "", str) else "$schema of the inputSchema is no text"


def _followed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that is nothing but a reference into itself as what it refers to."""
    reference = schema.get("$ref")
    for place in ("$defs", "definitions"):
        known = schema.get(place)
        if isinstance(reference, str) and isinstance(known, dict) and reference.startswith(f"#/{place}/"):
            target = known.get(reference.removeprefix(f"#/{place}/"))
            if isinstance(target, dict):
                return {**target, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _hints(given: Any) -> dict[str, bool]:
    known: Mapping[str, Any] = given if isinstance(given, dict) else {}
    return {name: known[name] for name in _HINTS if isinstance(known.get(name), bool)}
