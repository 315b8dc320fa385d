"""The stores in memory, for tests: the same answers as PostgreSQL gives, without it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_tools.domain.executions.executions import CallLease, Intent, Standing
from letta_tools.domain.registry.records import Match, RegisteredTool, ToolFilter, ToolType
from letta_tools.domain.registry.search import search_text
from letta_tools.domain.registry.tools import NameTaken

_KEPT_VERSIONS = 100


class FakeToolStore:
    """Tools by organization and id."""

    def __init__(self) -> None:
        self._tools: dict[str, dict[str, RegisteredTool]] = {}
        self._versions: dict[tuple[str, str], dict[int, RegisteredTool]] = {}

    def _mine(self, actor: Actor) -> dict[str, RegisteredTool]:
        return self._tools.setdefault(actor.organization_id, {})

    def _write(self, actor: Actor, tool: RegisteredTool) -> None:
        self._mine(actor)[tool.id] = tool
        kept = self._versions.setdefault((actor.organization_id, tool.id), {})
        kept.setdefault(tool.version, tool)
        kept.pop(tool.version - _KEPT_VERSIONS, None)

    async def find(self, actor: Actor, tool_id: str) -> RegisteredTool | None:
        """Return one tool."""
        return self._mine(actor).get(tool_id)

    async def resolve(self, actor: Actor, ids: Sequence[str], names: Sequence[str]) -> list[RegisteredTool]:
        """Return the tools that have one of these ids or names."""
        return [tool for tool in self._mine(actor).values() if tool.id in ids or tool.name in names]

    async def list_tools(self, actor: Actor, wanted: ToolFilter, page: Page) -> list[RegisteredTool]:
        """Return a page of tools by time of creation."""
        return page.slice(self._wanted(actor, wanted), key=lambda tool: (tool.created_at, tool.id))

    async def count(self, actor: Actor, wanted: ToolFilter) -> int:
        """Count tools."""
        return len(self._wanted(actor, wanted))

    async def search(self, actor: Actor, query: str, wanted: ToolFilter, limit: int) -> list[Match]:
        """Return tools that share words with the query."""
        words = set(_words(query))
        scored = [(tool, len(words & set(_words(search_text(tool))))) for tool in self._wanted(actor, wanted)]
        best = sorted((pair for pair in scored if pair[1]), key=lambda pair: (-pair[1], pair[0].name))[:limit]
        return [Match(tool, search_text(tool), float(score), score / len(words)) for tool, score in best]

    async def create(self, actor: Actor, tool: RegisteredTool) -> None:
        """Add a tool. Raises NameTaken."""
        self._check_name(actor, tool)
        self._write(actor, tool)

    async def upsert(self, actor: Actor, tools: Sequence[RegisteredTool]) -> None:
        """Add tools; of those that exist under id and name, bring up to date what is derived."""
        taken = {tool.name: tool for tool in self._mine(actor).values()}
        for tool in tools:
            known = taken.get(tool.name)
            if known is None:
                self._write(actor, tool)
            elif known.id == tool.id and _derived(known) != _derived(tool):
                changed = replace(
                    known,
                    json_schema=tool.json_schema,
                    description=tool.description,
                    idempotent=tool.idempotent,
                    metadata=tool.metadata if tool.tool_type is ToolType.EXTERNAL_MCP else known.metadata,
                    version=known.version + 1,
                    updated_at=tool.updated_at,
                )
                self._write(actor, changed)

    async def update(self, actor: Actor, tool: RegisteredTool, *, expected: int) -> bool:
        """Write if the stored version is still `expected`; say whether it was. Raises NameTaken."""
        known = self._mine(actor).get(tool.id)
        if known is None or known.version != expected:
            return False
        self._check_name(actor, tool)
        self._write(actor, tool)
        return True

    async def list_versions(self, actor: Actor, tool_id: str, page: Page) -> list[RegisteredTool]:
        """Return what a tool was after each write, by number; cursors are numbers."""
        kept = list(self._versions.get((actor.organization_id, tool_id), {}).values())
        for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending)):
            if cursor:
                kept = [tool for tool in kept if tool.version != int(cursor) and (tool.version > int(cursor)) is later]
        ordered = sorted(kept, key=lambda tool: tool.version, reverse=not page.ascending)
        return ordered[-page.limit :] if page.backwards else ordered[: page.limit]

    async def find_version(self, actor: Actor, tool_id: str, number: int) -> RegisteredTool | None:
        """Return what a tool was after one write."""
        return self._versions.get((actor.organization_id, tool_id), {}).get(number)

    async def delete(self, actor: Actor, tool_id: str) -> bool:
        """Remove a tool; say whether there was one."""
        self._versions.pop((actor.organization_id, tool_id), None)
        return self._mine(actor).pop(tool_id, None) is not None

    def _check_name(self, actor: Actor, tool: RegisteredTool) -> None:
        if any(other.name == tool.name and other.id != tool.id for other in self._mine(actor).values()):
            raise NameTaken

    def _wanted(self, actor: Actor, wanted: ToolFilter) -> list[RegisteredTool]:
        return [tool for tool in self._mine(actor).values() if _fits(tool, wanted)]


def _fits(tool: RegisteredTool, wanted: ToolFilter) -> bool:
    return (
        (not wanted.names or tool.name in wanted.names)
        and (not wanted.ids or tool.id in wanted.ids)
        and wanted.search.lower() in tool.name.lower()
        and (not wanted.types or tool.tool_type in wanted.types)
        and tool.tool_type not in wanted.excluded_types
        and (not wanted.tags or bool(set(wanted.tags) & set(tool.tags)))
        and (not wanted.mcp_server_id or tool.mcp_server_id == wanted.mcp_server_id)
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class FakeExecutionStore:
    """Calls by organization and key; a lease never ends by itself."""

    def __init__(self) -> None:
        self._calls: dict[tuple[str, str], Standing] = {}

    async def begin(self, actor: Actor, intent: Intent) -> Standing:
        """Note the intent, or say where the earlier call stands."""
        place = (actor.organization_id, intent.key)
        known = self._calls.get(place)
        lost = known is not None and known.outcome is None and not known.is_running
        if known is None or (lost and intent.again and known.fingerprint == intent.fingerprint):
            self._calls[place] = Standing(False, intent.fingerprint, is_running=intent.lease_seconds > 0)
            return Standing(True, intent.fingerprint)
        return known

    async def renew(self, leases: Sequence[CallLease]) -> None:
        """Have the leases of calls that run begin anew."""
        for lease in leases:
            place = lease.organization_id, lease.key
            known = self._calls.get(place)
            if known is not None and known.outcome is None:
                self._calls[place] = replace(known, is_running=lease.seconds > 0)

    def finish(self, actor: Actor, key: str, outcome: bytes) -> None:
        """Keep the outcome."""
        place = (actor.organization_id, key)
        self._calls[place] = Standing(False, self._calls[place].fingerprint, outcome)

    async def abandon(self, actor: Actor, key: str) -> None:
        """Forget an intent whose call was not begun."""
        self._calls.pop((actor.organization_id, key), None)


def _derived(tool: RegisteredTool) -> tuple[object, ...]:
    return tool.json_schema, tool.description, tool.idempotent
