"""The tools of an agent as its runs use them: kept, and used when nothing has changed since."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from cachetools import LRUCache

from letta.agent.v1 import run_pb2
from letta.llm.v1.generation_service_pb2 import ToolDefinition
from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_service_pb2 import ResolveToolsResponse
from letta_agent.domain.peers.tools import Tool, ToolPeer
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import ServiceUnavailable
from letta_common.values.json_texts import json_object

BUILTIN_SECONDS = 5.0
"""How long a set of built-in tools is taken as it is."""
_MAX_SETS = 2_000  # of agents in use; one that is forgotten is asked for again
# Types of tools that people change; all others change with a release alone.
_CHANGING = frozenset(
    {
        tool_pb2.TOOL_TYPE_UNSPECIFIED,
        tool_pb2.TOOL_TYPE_CUSTOM,
        tool_pb2.TOOL_TYPE_EXTERNAL_LANGCHAIN,
        tool_pb2.TOOL_TYPE_EXTERNAL_COMPOSIO,
        tool_pb2.TOOL_TYPE_EXTERNAL_MCP,
    }
)
_Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True)
class Toolset:
    """Tools by name, and as a model sees them. Many runs share one, so nothing in it is changed."""

    tools: dict[str, Tool]
    schemas: tuple[ToolDefinition, ...]
    client_names: frozenset[str] = frozenset()
    """Names of tools that the client executes."""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names as the model sees them."""
        return tuple(schema.name for schema in self.schemas)

    @cached_property
    def size(self) -> int:
        """Return the bytes of the schemas."""
        texts = (text for each in self.schemas for text in (each.description, each.parameters, each.name))
        return sum(len(text.encode()) for text in texts)

    def with_client_tools(self, offered: Sequence[run_pb2.ClientTool]) -> Toolset:
        """Add tools of the client; they hide those of the same name."""
        if not offered:
            return self
        names = frozenset(tool.name for tool in offered)
        kept = tuple(schema for schema in self.schemas if schema.name not in names)
        added = tuple(_definition(tool.name, tool.description, tool.parameters) for tool in offered)
        tools = {name: tool for name, tool in self.tools.items() if name not in names}
        return Toolset(tools, kept + added, names)


@dataclass(frozen=True, slots=True)
class _Known:
    """A set, the etag that it came with, when that was last so, and whether only a release changes its schemas."""

    toolset: Toolset
    etag: str
    checked_ns: int
    lasts: bool


class Toolsets:
    """Toolsets by the tools that agents are attached to.

    Before a run uses a set, it asks whether the set is still so: what was changed last is what the run has. Sets of
    built-in tools alone are taken as they are for some seconds, because what models see of them changes with a release.
    """

    def __init__(self, peer: ToolPeer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._known: LRUCache[_Key, _Known] = LRUCache(_MAX_SETS)

    async def of(self, actor: Actor, tool_ids: Sequence[str]) -> Toolset:
        """Return the set of those of these tools that exist. Raises ServiceUnavailable when nobody knows them."""
        if not tool_ids:
            return Toolset({}, ())
        key = (actor.organization_id, tuple(tool_ids))
        known = self._known.get(key)
        if known is None:
            return self._keep(key, await self._peer.attached(tool_ids))
        now = self._clock.monotonic_ns()
        if known.lasts and now - known.checked_ns < BUILTIN_SECONDS * 1e9:
            return known.toolset
        try:
            found = await self._peer.attached(tool_ids, known.etag)
        except ServiceUnavailable:  # nobody can run a tool then, but the agent can answer
            return known.toolset
        if found.unchanged:
            self._known[key] = replace(known, checked_ns=now)
            return known.toolset
        return self._keep(key, found)

    def _keep(self, key: _Key, found: ResolveToolsResponse) -> Toolset:
        made = toolset(found.tools)
        # A tool that is missing may come back, so such a set is asked about each time.
        lasts = len(found.tools) == len(set(key[1])) and all(tool.tool_type not in _CHANGING for tool in found.tools)
        self._known[key] = _Known(made, found.etag, self._clock.monotonic_ns(), lasts)
        return made


_NO_PARAMETERS = '{"type":"object","properties":{}}'


def toolset(tools: Iterable[Tool]) -> Toolset:
    """Return the set of these tools."""
    by_name = {tool.name: tool for tool in tools}
    return Toolset(by_name, tuple(map(_schema, by_name.values())))


def _definition(name: str, description: str, parameters: str) -> ToolDefinition:
    return ToolDefinition(name=name, description=description, parameters=parameters or _NO_PARAMETERS)


def _schema(tool: Tool) -> ToolDefinition:
    description = tool.json_schema.description or tool.description
    parameters = json_object(tool.json_schema.parameters_schema)
    return _definition(tool.name, description, json.dumps(parameters) if parameters else "")
