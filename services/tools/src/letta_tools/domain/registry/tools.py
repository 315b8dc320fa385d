"""The registry of tools: what may be written, and how names, schemas and versions follow from the source."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from datetime import datetime
from typing import Any, Protocol

from cachetools import LRUCache

from letta.tools.v1.tool_service_pb2 import ToolSearchResult
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument, StaleEtag, ToolNameTaken, ToolNotFound, ToolSourceInvalid
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.schemas import (
    FunctionSchema,
    agreed_schema,
    derive_schema,
    dump,
    function_name,
    given_schema,
    load_object,
    parameters_of_model,
)
from letta_tool_schemas.typescript.reader import read_schema, read_script
from letta_tools.domain.registry.messages import pack_tool
from letta_tools.domain.registry.records import (
    LETTA_TYPES,
    LONGEST_NAME,
    Match,
    RegisteredTool,
    ToolFilter,
    ToolSourceType,
    ToolType,
)
from letta_tools.domain.registry.requirements import check_npm, check_python
from letta_tools.domain.registry.search import fuse, search_text
from letta_tools.domain.registry.source_errors import source_errors

# One is lost only to somebody else's write of the same tool.
_ATTEMPTS = 3
# Each one that is forgotten costs one statement more.
_MOST_SEEDED = 100_000


_SOURCE_FIELDS = frozenset({"source_code", "source_type", "json_schema", "args_json_schema"})
# The rest of a built-in tool is the release's, which brings it up to date.
_BUILTIN_WRITABLE = frozenset(
    {"tags", "return_char_limit", "default_requires_approval", "enable_parallel_execution", "metadata"}
)
_DEFAULTS: dict[str, Any] = {item.name: item.default for item in fields(RegisteredTool)}


class NameTaken(Exception):
    """A tool of this name exists."""


class ToolStore(Protocol):
    """What the registry needs from storage. Every call sees only the actor's organization."""

    async def find(self, actor: Actor, tool_id: str) -> RegisteredTool | None:
        """Return one tool."""
        ...

    async def resolve(self, actor: Actor, ids: Sequence[str], names: Sequence[str]) -> list[RegisteredTool]:
        """Return the tools that have one of these ids or names, in one statement."""
        ...

    async def list_tools(self, actor: Actor, wanted: ToolFilter, page: Page) -> list[RegisteredTool]:
        """Return a page of tools by time of creation. Raises CursorNotFound."""
        ...

    async def count(self, actor: Actor, wanted: ToolFilter) -> int:
        """Count tools."""
        ...

    async def search(self, actor: Actor, query: str, wanted: ToolFilter, limit: int) -> list[Match]:
        """Return tools that share words with the query or look like it, at most `limit` of each."""
        ...

    async def create(self, actor: Actor, tool: RegisteredTool) -> None:
        """Add a tool. Raises NameTaken."""
        ...

    async def upsert(self, actor: Actor, tools: Sequence[RegisteredTool]) -> None:
        """Add tools in one statement; of those with a known id and name, bring up to date what is derived."""
        ...

    async def update(self, actor: Actor, tool: RegisteredTool, *, expected: int) -> bool:
        """Write if the stored version is still `expected`; say whether it was. Raises NameTaken."""
        ...

    async def list_versions(self, actor: Actor, tool_id: str, page: Page) -> list[RegisteredTool]:
        """Return what a tool was after each write, by number; cursors are numbers."""
        ...

    async def find_version(self, actor: Actor, tool_id: str, number: int) -> RegisteredTool | None:
        """Return what a tool was after one write."""
        ...

    async def delete(self, actor: Actor, tool_id: str) -> bool:
        """Remove a tool; say whether there was one."""
        ...


class Tools:
    """Operations on the registry."""

    def __init__(self, store: ToolStore, clock: Clock, builtin: Sequence[RegisteredTool] = ()) -> None:
        self._store = store
        self._clock = clock
        self._builtin = tuple(builtin)
        self._builtin_names = frozenset(tool.name for tool in builtin)
        self._seeded: LRUCache[str, bool] = LRUCache(_MOST_SEEDED)

    async def get(self, actor: Actor, tool_id: str) -> RegisteredTool:
        """Return one tool. Raises ToolNotFound."""
        await self._seed(actor)
        tool = await self._store.find(actor, tool_id)
        if tool is None:
            raise _missing(tool_id)
        return tool

    async def resolve(
        self,
        actor: Actor,
        ids: Sequence[str] = (),
        names: Sequence[str] = (),
        *,
        skip_missing: bool = False,
        etag: str = "",
    ) -> tuple[tuple[RegisteredTool, ...] | None, str]:
        """Return the tools of these ids and names, each once, in the order asked, and their etag.

        There are none when the etag is the one that the caller has.

        Raises:
            ToolNotFound: one does not exist, and missing ones are not to be skipped.
        """
        await self._seed(actor)
        found = await self._store.resolve(actor, ids, names) if ids or names else []
        by_key = {tool.id: tool for tool in found} | {tool.name: tool for tool in found}
        wanted: dict[str, RegisteredTool] = {}
        for key in (*ids, *names):
            tool = by_key.get(key)
            if tool is not None:
                wanted.setdefault(tool.id, tool)
            elif not skip_missing:
                raise _missing(key)
        tools = tuple(wanted.values())
        # A tool that is made anew under a derived id begins at version 1 again, so the time counts too.
        states = "\n".join(f"{tool.id}:{tool.version}:{tool.updated_at.timestamp()}" for tool in tools)
        stamp = hashlib.sha256(states.encode()).hexdigest()[:32]
        return None if etag == stamp else tools, stamp

    async def find(self, actor: Actor, wanted: ToolFilter, page: Page) -> list[RegisteredTool]:
        """Return a page of tools. Raises CursorNotFound."""
        await self._seed(actor)
        return await self._store.list_tools(actor, wanted, page)

    async def count(self, actor: Actor, wanted: ToolFilter) -> int:
        """Count tools."""
        await self._seed(actor)
        return await self._store.count(actor, wanted)

    async def base_tools(self, actor: Actor, types: frozenset[ToolType] = LETTA_TYPES) -> list[RegisteredTool]:
        """Return the built-in tools of these types, by name."""
        return await self._listed(actor, types & LETTA_TYPES)

    async def add_base_tools(self, actor: Actor) -> list[RegisteredTool]:
        """Make the built-in tools, or bring them up to date, and return them."""
        await self._seed(actor, again=True)
        return await self._listed(actor, LETTA_TYPES)

    async def search(
        self, actor: Actor, query: str, wanted: ToolFilter, limit: int, mode: str = "hybrid"
    ) -> list[ToolSearchResult]:
        """Return tools that fit a query, best first; without a query, the newest."""
        await self._seed(actor)
        if not query.strip():
            tools = await self._store.list_tools(actor, wanted, Page(limit=limit))
            return [
                ToolSearchResult(tool=pack_tool(tool), embedded_text=search_text(tool), combined_score=1.0)
                for tool in tools
            ]
        return fuse(await self._store.search(actor, query, wanted, limit), mode)[:limit]

    async def put(self, actor: Actor, given: Mapping[str, Any]) -> RegisteredTool:
        """Make a tool, or overwrite the custom one of its name with what is given.

        Raises:
            ToolSourceInvalid: no schema can be read from the source.
            ToolNameTaken: a tool of another type has the name.
        """
        await self._seed(actor)
        changes = _checked(given)
        # The parsing of long source would hold up every other call.
        made = await asyncio.to_thread(_derived, _blank(actor, self._clock.now()), changes)
        for _ in range(_ATTEMPTS):
            existing = next(iter(await self._store.resolve(actor, (), (made.name,))), None)
            try:
                if existing is None:
                    await self._store.create(actor, made)
                    return made
                written = self._overwritten(actor, existing, made, changes)
                if written == existing or await self._store.update(actor, written, expected=existing.version):
                    return written
            # Somebody made it between the look and the write; now it is there to be overwritten.
            except NameTaken:
                continue
        raise StaleEtag(f"tool `{made.name}` is being written by others; try again", name=made.name)

    async def update(self, actor: Actor, tool_id: str, given: Mapping[str, Any], *, etag: str = "") -> RegisteredTool:
        """Change a tool.

        Raises:
            ToolNotFound: the organization has no such tool.
            StaleEtag: someone else wrote since the etag was read.
            ToolSourceInvalid: no schema can be read from the new source.
            ToolNameTaken: the new source has the name of another tool.
        """
        for _ in range(_ATTEMPTS):
            tool = await self.get(actor, tool_id)
            if etag and etag != tool.etag:
                break
            written = await self._changed(actor, tool, _checked(given))
            if written == tool:
                return tool
            try:
                if await self._store.update(actor, written, expected=tool.version):
                    return written
            except NameTaken as error:
                raise ToolNameTaken(f"another tool is called `{written.name}`", name=written.name) from error
        raise StaleEtag(f"tool {tool_id} was written by somebody else", tool_id=tool_id)

    async def schema_of(self, source: str, source_type: ToolSourceType) -> str:
        """Derive the schema of source that is not kept, as JSON. Raises ToolSourceInvalid."""
        with source_errors():
            read = read_schema if source_type is ToolSourceType.TYPESCRIPT else derive_schema
            return (await asyncio.to_thread(read, source)).to_json()

    async def versions(self, actor: Actor, tool_id: str, page: Page) -> list[RegisteredTool]:
        """Return what a tool was after each write. Raises ToolNotFound."""
        await self.get(actor, tool_id)
        return await self._store.list_versions(actor, tool_id, page)

    async def version(self, actor: Actor, tool_id: str, number: int) -> RegisteredTool:
        """Return what a tool was after one write. Raises ToolNotFound, also for a version that is not kept any more."""
        await self.get(actor, tool_id)
        tool = await self._store.find_version(actor, tool_id, number)
        if tool is None:
            raise ToolNotFound(f"tool {tool_id} has no version {number}", tool_id=tool_id, version=str(number))
        return tool

    async def name_of(self, source: str, source_type: ToolSourceType) -> str:
        """Return the name of the function that source defines last, or nothing."""
        try:
            if source_type is ToolSourceType.TYPESCRIPT:
                return (await asyncio.to_thread(read_script, source)).name
            return await asyncio.to_thread(function_name, source)
        except SourceInvalid:
            return ""

    async def delete(self, actor: Actor, tool_id: str) -> None:
        """Remove a tool. Raises ToolNotFound, and InvalidArgument for a built-in one."""
        tool = await self.get(actor, tool_id)
        if tool.is_builtin:
            raise InvalidArgument(f"`{tool.name}` is built in; detach it from agents instead", tool_id=tool_id)
        if not await self._store.delete(actor, tool_id):
            raise _missing(tool_id)

    async def _seed(self, actor: Actor, *, again: bool = False) -> None:
        """See that the organization has the built-in tools: one statement, once in the life of the process."""
        if not self._builtin or (actor.organization_id in self._seeded and not again):
            return
        now = self._clock.now()
        tools = [
            replace(
                tool,
                id=derived_id("tool", actor.organization_id, tool.name),
                created_by_id=actor.user_id,
                last_updated_by_id=actor.user_id,
                created_at=now,
                updated_at=now,
            )
            for tool in self._builtin
        ]
        await self._store.upsert(actor, tools)
        self._seeded[actor.organization_id] = True

    async def _listed(self, actor: Actor, types: frozenset[ToolType]) -> list[RegisteredTool]:
        tools = await self.find(actor, ToolFilter(types=types), Page(limit=1000))
        return sorted(tools, key=lambda tool: tool.name)

    async def _changed(self, actor: Actor, tool: RegisteredTool, changes: Mapping[str, Any]) -> RegisteredTool:
        if tool.tool_type is not ToolType.CUSTOM and changes.keys() - _BUILTIN_WRITABLE:
            names = ", ".join(sorted(changes.keys() - _BUILTIN_WRITABLE))
            raise InvalidArgument(f"`{tool.name}` is no custom tool: {names} cannot be changed", tool_id=tool.id)
        written = await asyncio.to_thread(_derived, tool, changes)
        if written.name != tool.name and written.name in self._builtin_names:
            raise ToolNameTaken(f"`{written.name}` is the name of a built-in tool", name=written.name)
        return self._next(actor, tool, written)

    def _overwritten(
        self, actor: Actor, existing: RegisteredTool, made: RegisteredTool, changes: Mapping[str, Any]
    ) -> RegisteredTool:
        if existing.tool_type is not ToolType.CUSTOM:
            raise ToolNameTaken(f"`{made.name}` is the name of a {existing.tool_type} tool", name=made.name)
        derived = {
            name: getattr(made, name) for name in ("source_code", "json_schema", "args_json_schema", "source_type")
        }
        kept = {name: value for name, value in changes.items() if name not in _SOURCE_FIELDS}
        if "description" not in kept:
            kept["description"] = made.description
        return self._next(actor, existing, _hashed(replace(existing, **derived, **kept)))

    def _next(self, actor: Actor, before: RegisteredTool, written: RegisteredTool) -> RegisteredTool:
        if written == before:
            return before
        return replace(
            written, version=before.version + 1, last_updated_by_id=actor.user_id, updated_at=self._clock.now()
        )


def _missing(key: str) -> ToolNotFound:
    return ToolNotFound(f"there is no tool `{key}` in this organization", tool_id=key)


def _blank(actor: Actor, now: datetime) -> RegisteredTool:
    return RegisteredTool(
        id=new_id("tool"),
        name="",
        created_by_id=actor.user_id,
        last_updated_by_id=actor.user_id,
        created_at=now,
        updated_at=now,
    )


@source_errors()
def _checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what cannot be cleared, check texts and JSON. Raises ToolSourceInvalid, InvalidArgument."""
    for name, value in given.items():
        for text in value if name == "tags" and value else (value,):
            # PostgreSQL's text holds no NUL.
            if isinstance(text, str) and "\0" in text:
                raise InvalidArgument(f"{name} holds a NUL character", field=name)
    for requirement in given.get("pip_requirements") or ():
        check_python(requirement)
    for requirement in given.get("npm_requirements") or ():
        check_npm(requirement)
    changes: dict[str, Any] = {name: _DEFAULTS[name] if value is None else value for name, value in given.items()}
    for name in ("source_code", "json_schema"):
        if not changes.get(name, "x"):
            del changes[name]
    if changes.get("args_json_schema"):
        load_object(changes["args_json_schema"], "args_json_schema")
    if changes.get("metadata"):
        try:
            # JSON may spell halves of characters, which the database cannot encode.
            dump(load_object(changes["metadata"], "metadata_")).encode()
        except (SourceInvalid, ValueError, RecursionError) as error:
            raise InvalidArgument(f"metadata_ cannot be kept: {str(error)[:200]}", field="metadata") from error
    elif "metadata" in changes:
        changes["metadata"] = "{}"
    return changes


@source_errors()
def _derived(tool: RegisteredTool, changes: Mapping[str, Any]) -> RegisteredTool:
    """Apply changes and derive name, schema and description from the source. Blocking."""
    written = replace(tool, **changes)
    cleared = {name for name in ("args_json_schema",) if not changes.get(name, "x")}  # the schema stays as it is then
    if not tool.name or changes.keys() & _SOURCE_FIELDS - cleared:
        schema = _schema_of(written, changes)
        written = replace(written, name=schema.name, json_schema=schema.to_json())
        if "description" not in changes:
            written = replace(written, description=schema.description.replace("\0", "") or None)
    return _hashed(written)


def _schema_of(tool: RegisteredTool, changes: Mapping[str, Any]) -> FunctionSchema:
    given = load_object(changes["json_schema"], "json_schema") if changes.get("json_schema") else None
    if not tool.source_code:
        text = changes.get("json_schema") or tool.json_schema
        if not text:
            raise ToolSourceInvalid(f"a tool of source type {tool.source_type} needs a json_schema")
        return given_schema(load_object(text, "json_schema"), max_name=LONGEST_NAME)
    arguments = load_object(tool.args_json_schema, "args_json_schema") if tool.args_json_schema else None
    if tool.source_type is ToolSourceType.TYPESCRIPT:
        return _schema_of_script(tool, given, arguments)
    if given is None:
        return derive_schema(tool.source_code, description=tool.description or "", args_json_schema=arguments)
    return agreed_schema(tool.source_code, given)


def _schema_of_script(
    tool: RegisteredTool, given: Mapping[str, Any] | None, arguments: Mapping[str, Any] | None
) -> FunctionSchema:
    """Return the schema that is given, if it is about a function of the source; else derive one."""
    source = tool.source_code or ""
    if given is not None:
        schema = given_schema(given, max_name=LONGEST_NAME)
        read_script(source, schema.name)
        return schema
    if arguments is not None and arguments.get("properties") is not None:
        name = read_script(source).name
        return given_schema(
            {"name": name, "description": tool.description, "parameters": parameters_of_model(arguments)}
        )
    return read_schema(source, description=tool.description or "")


def _hashed(tool: RegisteredTool) -> RegisteredTool:
    """Note the hash of what is executed in the metadata."""
    metadata = json.loads(tool.metadata or "{}")
    text = f"{tool.source_code or ''}\x1f{tool.json_schema}"
    metadata["tool_hash"] = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
    return replace(tool, metadata=dump(metadata))
