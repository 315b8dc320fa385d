"""Tools in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page
from letta_tools.domain.registry.records import Match, RegisteredTool, Requirement, ToolFilter, ToolSourceType, ToolType
from letta_tools.domain.registry.search import search_text
from letta_tools.domain.registry.tools import NameTaken

_LEAST_LIKENESS = 0.15

_metadata = sa.MetaData(schema="tools")
_tools = sa.Table(
    "tools",
    _metadata,
    sa.Column("id", sa.Text),
    sa.Column("name", sa.Text),
    sa.Column("tool_type", sa.Text),
    sa.Column("description", sa.Text),
    sa.Column("source_type", sa.Text),
    sa.Column("source_code", sa.Text),
    sa.Column("json_schema", sa.Text),
    sa.Column("args_json_schema", sa.Text),
    sa.Column("tags", pg.ARRAY(sa.Text)),
    sa.Column("return_char_limit", sa.Integer),
    sa.Column("pip_requirements", pg.JSONB),
    sa.Column("npm_requirements", pg.JSONB),
    sa.Column("default_requires_approval", sa.Boolean),
    sa.Column("enable_parallel_execution", sa.Boolean),
    sa.Column("idempotent", sa.Boolean),
    sa.Column("metadata", sa.Text),
    sa.Column("project_id", sa.Text),
    sa.Column("mcp_server_id", sa.Text),
    sa.Column("mcp_name", sa.Text),
    sa.Column("created_by_id", sa.Text),
    sa.Column("last_updated_by_id", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
    sa.Column("organization_id", sa.Text),
    sa.Column("search_text", sa.Text),
    sa.Column("search", pg.TSVECTOR),
)
# Without the organization, which statements name themselves, and without what is derived for searches.
_COLUMNS = list(_tools.c)[:-3]
_versions = sa.Table(
    "tool_versions", _metadata, *(sa.Column(column.name, column.type) for column in list(_tools.c)[:-2])
)
_VERSION_COLUMNS = [_versions.c[column.name] for column in _COLUMNS]
_NAMES = ", ".join(column.name for column in _COLUMNS)
_RESOLVE = (
    # A union lets each half use the index of its own key.
    f"select {_NAMES} from tools.tools where organization_id = %s and id = any(%s::text[]) "
    f"union select {_NAMES} from tools.tools where organization_id = %s and name = any(%s::text[])"
)
_UPSERTED = ("description", "json_schema", "idempotent", "tool_type", "search_text")


class SqlToolStore:
    """Tools of an organization."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, actor: Actor, tool_id: str) -> RegisteredTool | None:
        """Return one tool."""
        return next(iter(await self.resolve(actor, (tool_id,), ())), None)

    async def resolve(self, actor: Actor, ids: Sequence[str], names: Sequence[str]) -> list[RegisteredTool]:
        """Return the tools that have one of these ids or names, in one statement."""
        mine = actor.organization_id
        return [_tool(row) for row in await self._db.hot(_RESOLVE, (mine, list(ids), mine, list(names)))]

    async def list_tools(self, actor: Actor, wanted: ToolFilter, page: Page) -> list[RegisteredTool]:
        """Return a page of tools by time of creation."""
        large = (_tools.c.source_code, _tools.c.json_schema)
        keyset = Keyset(at=_tools.c.created_at, id=_tools.c.id, scope=_mine(actor), large=large)
        query = sa.select(*_COLUMNS).where(_mine(actor), *_conditions(wanted))
        async with self._db.connect() as conn:
            return [_tool(row) for row in await fetch_page(conn, query, page, keyset)]

    async def count(self, actor: Actor, wanted: ToolFilter) -> int:
        """Count tools."""
        query = sa.select(sa.func.count()).select_from(_tools).where(_mine(actor), *_conditions(wanted))
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def search(self, actor: Actor, query: str, wanted: ToolFilter, limit: int) -> list[Match]:
        """Return tools that share words with the query or look like it, at most `limit` of each."""
        # PostgreSQL makes no query for any of some words out of plain text, so each `&` becomes a `|`.
        any_word = sa.cast(
            sa.func.replace(sa.cast(sa.func.plainto_tsquery("english", query), sa.Text), "&", "|"), pg.TSQUERY
        )
        # 1 divides by the logarithm of the length, or long descriptions would win for being long.
        words = sa.case((_tools.c.search.op("@@")(any_word), sa.func.ts_rank_cd(_tools.c.search, any_word, 1)))
        likeness = sa.func.extensions.strict_word_similarity(query, _tools.c.search_text)
        scored = (
            sa.select(*_COLUMNS, _tools.c.search_text, words.label("words"), likeness.label("likeness"))
            .where(_mine(actor), *_conditions(wanted))
            .subquery()
        )
        by_words = sa.func.row_number().over(order_by=scored.c.words.desc().nulls_last())
        by_likeness = sa.func.row_number().over(order_by=scored.c.likeness.desc())
        ranked = sa.select(scored, by_words.label("place"), by_likeness.label("other_place")).subquery()
        fits = sa.or_(
            sa.and_(ranked.c.words.is_not(None), ranked.c.place <= limit),
            sa.and_(ranked.c.likeness >= _LEAST_LIKENESS, ranked.c.other_place <= limit),
        )
        width = len(_COLUMNS)
        async with self._db.connect() as conn:
            rows = await conn.execute(sa.select(ranked).where(fits))
            return [_match(_tool(row), *row[width : width + 3]) for row in rows]

    async def create(self, actor: Actor, tool: RegisteredTool) -> None:
        """Add a tool. Raises NameTaken."""
        try:
            async with self._db.connect() as conn:
                await conn.execute(sa.insert(_tools).values(**_row(actor, tool)))
        except UniqueViolation as error:
            raise NameTaken from error

    async def upsert(self, actor: Actor, tools: Sequence[RegisteredTool]) -> None:
        """Add tools in one statement; of those with a known id and name, bring up to date what is derived."""
        added = pg.insert(_tools).values([_row(actor, tool) for tool in tools])
        changed = sa.or_(*(_tools.c[name].is_distinct_from(added.excluded[name]) for name in _UPSERTED))
        upsert = added.on_conflict_do_update(
            index_elements=[_tools.c.organization_id, _tools.c.name],
            set_={
                **{name: added.excluded[name] for name in _UPSERTED},
                "metadata": sa.case(
                    (added.excluded.tool_type == ToolType.EXTERNAL_MCP.value, added.excluded.metadata),
                    else_=_tools.c.metadata,
                ),
                "version": _tools.c.version + 1,
                "updated_at": added.excluded.updated_at,
            },
            # A tool of this name that the organization made itself has another id, and stays as it is.
            where=sa.and_(_tools.c.id == added.excluded.id, changed),
        )
        async with self._db.connect() as conn:
            await conn.execute(upsert)

    async def update(self, actor: Actor, tool: RegisteredTool, *, expected: int) -> bool:
        """Write if the stored version is still `expected`; say whether it was. Raises NameTaken."""
        try:
            async with self._db.connect() as conn:
                done = await conn.execute(
                    sa.update(_tools)
                    .where(_tools.c.id == tool.id, _mine(actor), _tools.c.version == expected)
                    .values(**_row(actor, tool))
                )
                return done.rowcount == 1
        except UniqueViolation as error:
            raise NameTaken from error

    async def list_versions(self, actor: Actor, tool_id: str, page: Page) -> list[RegisteredTool]:
        """Return what a tool was after each write, by number; cursors are numbers."""
        number = _versions.c.version
        places = [
            number > int(cursor) if later else number < int(cursor)
            for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending))
            if cursor
        ]
        up = page.ascending is not page.backwards
        query = sa.select(*_VERSION_COLUMNS).where(_of_tool(actor, tool_id), *places)
        async with self._db.connect() as conn:
            rows = await conn.execute(query.order_by(number.asc() if up else number.desc()).limit(page.limit))
            found = [_tool(row) for row in rows]
        # Read from the cursor on, told in the order that was asked for.
        return found[::-1] if page.backwards else found

    async def find_version(self, actor: Actor, tool_id: str, number: int) -> RegisteredTool | None:
        """Return what a tool was after one write."""
        query = sa.select(*_VERSION_COLUMNS).where(_of_tool(actor, tool_id), _versions.c.version == number)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _tool(row) if row else None

    async def delete(self, actor: Actor, tool_id: str) -> bool:
        """Remove a tool; say whether there was one."""
        async with self._db.connect() as conn:
            return (await conn.execute(sa.delete(_tools).where(_tools.c.id == tool_id, _mine(actor)))).rowcount == 1


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return _tools.c.organization_id == actor.organization_id


def _of_tool(actor: Actor, tool_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_versions.c.organization_id == actor.organization_id, _versions.c.id == tool_id)


def _conditions(wanted: ToolFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.names:
        conditions.append(_tools.c.name == sa.any_(sa.literal(list(wanted.names), pg.ARRAY(sa.Text))))
    if wanted.ids:
        conditions.append(_tools.c.id == sa.any_(sa.literal(list(wanted.ids), pg.ARRAY(sa.Text))))
    if wanted.search:
        # Signs of patterns that a caller writes are letters here.
        conditions.append(_tools.c.name.icontains(wanted.search, autoescape=True))
    if wanted.types:
        conditions.append(_tools.c.tool_type.in_(sorted(wanted.types)))
    if wanted.excluded_types:
        conditions.append(_tools.c.tool_type.not_in(sorted(wanted.excluded_types)))
    if wanted.tags:
        conditions.append(_tools.c.tags.overlap(sa.cast(list(wanted.tags), pg.ARRAY(sa.Text))))
    if wanted.mcp_server_id:
        conditions.append(_tools.c.mcp_server_id == wanted.mcp_server_id)
    return conditions


def _row(actor: Actor, tool: RegisteredTool) -> dict[str, Any]:
    values = {column.name: getattr(tool, column.name) for column in _COLUMNS}
    return {
        **values,
        "organization_id": actor.organization_id,
        "tool_type": tool.tool_type.value,
        "source_type": tool.source_type.value,
        "tags": list(tool.tags),
        "pip_requirements": [{"name": item.name, "version": item.version} for item in tool.pip_requirements],
        "npm_requirements": [{"name": item.name, "version": item.version} for item in tool.npm_requirements],
        "search_text": search_text(tool),
    }


def _tool(row: Sequence[Any]) -> RegisteredTool:
    values = dict(zip((column.name for column in _COLUMNS), row, strict=False))
    values["tool_type"] = ToolType(values["tool_type"])
    values["source_type"] = ToolSourceType(values["source_type"])
    values["tags"] = tuple(values["tags"])
    for name in ("pip_requirements", "npm_requirements"):
        values[name] = tuple(Requirement(item["name"], item["version"]) for item in values[name])
    return RegisteredTool(**values)


def _match(tool: RegisteredTool, text: str, words: float | None, likeness: float) -> Match:
    return Match(tool, text, words, likeness if likeness >= _LEAST_LIKENESS else None)
