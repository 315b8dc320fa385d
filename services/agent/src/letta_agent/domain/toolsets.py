"""The tools of an agent as its runs use them: resolved once, refreshed behind the back of the runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from letta.agent.v1 import run_pb2
from letta_agent.domain.peers import Tool, ToolPeer, ToolSchema
from letta_common.actor import Actor
from letta_common.clock import Clock

FRESH_SECONDS = 5.0
STALE_SECONDS = 300.0
_MAX_SETS = 2_000
_Key = tuple[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Toolset:
    """Tools by name, and as a model sees them."""

    tools: dict[str, Tool]
    schemas: tuple[ToolSchema, ...]
    client_names: frozenset[str] = frozenset()
    """Names of tools that the client executes."""

    @property
    def size(self) -> int:
        """Return the bytes of the schemas."""
        return sum(len(schema.description) + len(schema.parameters) + len(schema.name) for schema in self.schemas)

    def with_client_tools(self, offered: Sequence[run_pb2.ClientTool]) -> Toolset:
        """Add tools of the client; they hide those of the same name."""
        if not offered:
            return self
        names = frozenset(tool.name for tool in offered)
        kept = tuple(schema for schema in self.schemas if schema.name not in names)
        added = tuple(ToolSchema(tool.name, tool.description, tool.parameters or _NO_PARAMETERS) for tool in offered)
        tools = {name: tool for name, tool in self.tools.items() if name not in names}
        return Toolset(tools, kept + added, names)


class Toolsets:
    """Toolsets by the tools that agents are attached to.

    A set is used as it is for some seconds; after that it is used once more while it is resolved anew, so that a change
    of a tool reaches its agents soon and no run waits for it.
    """

    def __init__(self, peer: ToolPeer, clock: Clock) -> None:
        self._peer = peer
        self._clock = clock
        self._known: dict[_Key, tuple[Toolset, int]] = {}
        self._refreshing: dict[_Key, asyncio.Task[None]] = {}

    async def of(self, actor: Actor, tool_ids: Sequence[str]) -> Toolset:
        """Return the set of these tools. Raises ToolNotFound."""
        if not tool_ids:
            return Toolset({}, ())
        key = (actor.organization_id, tuple(tool_ids))
        known = self._known.get(key)
        age = float("inf") if known is None else (self._clock.monotonic_ns() - known[1]) / 1e9
        if known is None or age > STALE_SECONDS:
            return await self._resolve(key)
        if age > FRESH_SECONDS and key not in self._refreshing:
            task = asyncio.create_task(self._refresh(key))
            self._refreshing[key] = task
            task.add_done_callback(lambda _: self._refreshing.pop(key, None))
        return known[0]

    async def _refresh(self, key: _Key) -> None:
        try:
            await self._resolve(key)
        except Exception:  # the known set serves on until it is stale; then the run sees the error
            return

    async def _resolve(self, key: _Key) -> Toolset:
        found = toolset(await self._peer.resolve(key[1]))
        if len(self._known) >= _MAX_SETS:
            del self._known[next(iter(self._known))]
        self._known[key] = (found, self._clock.monotonic_ns())
        return found


_NO_PARAMETERS = '{"type":"object","properties":{}}'


def toolset(tools: Iterable[Tool]) -> Toolset:
    """Return the set of these tools."""
    by_name = {tool.name: tool for tool in tools}
    return Toolset(by_name, tuple(map(_schema, by_name.values())))


def _schema(tool: Tool) -> ToolSchema:
    try:
        schema = json.loads(tool.json_schema or "{}")
    except ValueError:
        schema = {}
    description = schema.get("description") or tool.description
    parameters = schema.get("parameters")
    return ToolSchema(tool.name, description, json.dumps(parameters) if parameters else _NO_PARAMETERS)
