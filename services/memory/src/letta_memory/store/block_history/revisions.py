"""Reads revisions of blocks, and the order of all their writes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from letta.memory.v1.block_revision_pb2 import BLOCK_WRITE_REDO, BLOCK_WRITE_UNDO, BlockRevision
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, BlockNotFound, BlockRevisionNotFound
from letta_common.values.paging import Page
from letta_memory.domain.block_history.revisions import Look, Moves, Position
from letta_memory.store.tables import agents, block_history, blocks
from letta_postgres.connections import Connection
from letta_postgres.db import Database
from letta_postgres.keyset import Keyset, fetch_page

_NAMES = (
    *("block_id", "version", "label", "value", "description", "kind", "written_by_id", "agent_id", "conversation_id"),
    *("edit_key", "restored_version", "created_at", "suggestion_id"),
)
_COLUMNS = [block_history.c[name] for name in _NAMES]
_CALL = re.compile(r"(run-[^:]+):(\d{1,9}):(\d{1,9})", re.ASCII)
_OF_AGENT = (
    "and (exists (select from memory.agent_blocks l "
    "where l.organization_id = h.organization_id and l.agent_id = :agent and l.block_id = h.block_id) "
    "or exists (select from memory.conversation_blocks l join memory.conversations c "
    "on c.organization_id = l.organization_id and c.id = l.conversation_id "
    "where l.organization_id = h.organization_id and l.block_id = h.block_id and c.agent_id = :agent)) "
)
# A transaction below the first one that is under way is over, and so are all before it: what is read up to there is
# all that there will ever be, whatever the order in which transactions end.
_WRITES = (
    "select h.transaction, h.block_id, h.version, pg_snapshot_xmin(s.now)::text, pg_snapshot_xmax(s.now)::text "
    "from (select pg_current_snapshot() as now) s left join lateral ("
    "select h.written_in::text as transaction, h.block_id, h.version from memory.block_history h "
    "where h.organization_id = :org and h.written_in < pg_snapshot_xmin(s.now) "
    'and (h.written_in, h.block_id collate "C", h.version) '
    "> (cast(cast(:transaction as text) as xid8), :block, :version) "
    '{of}order by h.written_in, h.block_id collate "C", h.version limit :limit) h on true'
)
_RENEW = (
    "insert into memory.block_watches (organization_id, until) values (%b, %b) "
    "on conflict (organization_id) do update set until = greatest(block_watches.until, excluded.until)"
)
_PRESENT_OF_AGENT = sa.text(
    "select b.id, b.version from memory.blocks b where b.organization_id = :org and b.id in ("
    "select l.block_id from memory.agent_blocks l where l.organization_id = :org and l.agent_id = :agent union "
    "select l.block_id from memory.conversation_blocks l join memory.conversations c "
    "on c.organization_id = l.organization_id and c.id = l.conversation_id "
    "where l.organization_id = :org and c.agent_id = :agent) order by b.id limit :limit"
)
_PRESENT = sa.text("select id, version from memory.blocks where organization_id = :org order by id limit :limit")


class SqlBlockHistoryStore:
    """Reads revisions of blocks, and the order of all their writes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list_revisions(self, actor: Actor, block_id: str, page: Page) -> list[BlockRevision]:
        """Return a page of a block's revisions."""
        mine = _mine(actor, block_id)
        keys = Keyset(
            at=block_history.c.version,
            id=block_history.c.block_id + "/" + sa.cast(block_history.c.version, sa.Text),
            scope=mine,
            large=(block_history.c.value,),
        )
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, sa.select(*_COLUMNS).where(mine), page, keys)
            if not rows:
                await _require_block(conn, actor, block_id)
        return [_revision(row) for row in rows]

    async def get_revision(self, actor: Actor, block_id: str, version: int) -> BlockRevision:
        """Return a revision, for 0 the present one."""
        query = sa.select(*_COLUMNS).where(_mine(actor, block_id))
        if version:
            query = query.where(block_history.c.version == version)
        async with self._db.connect() as conn:
            row = (await conn.execute(query.order_by(block_history.c.version.desc()).limit(1))).one_or_none()
            if row is None:
                await _require_block(conn, actor, block_id)
                text = f"block {block_id} has no version {version}"
                raise BlockRevisionNotFound(text, block_id=block_id, version=str(version))
        return _revision(row)

    async def renew_watch(self, actor: Actor, until: datetime) -> None:
        """Have writes of the organization told to those who wait, up to a time."""
        await self._db.hot(_RENEW, (actor.organization_id, until))

    async def list_moves(self, actor: Actor, block_id: str) -> Moves:
        """Return the versions of a block that undid or did again."""
        kinds = (BLOCK_WRITE_UNDO, BLOCK_WRITE_REDO)
        query = sa.select(block_history.c.version, block_history.c.restored_version).where(
            _mine(actor, block_id), block_history.c.kind.in_(kinds)
        )
        async with self._db.connect() as conn:
            return {row[0]: row[1] for row in await conn.execute(query)}

    async def list_writes(self, actor: Actor, agent_id: str, after: Position, limit: int) -> Look:
        """Return writes after a position, in order, of transactions before which all are over."""
        values = {
            "org": actor.organization_id,
            "transaction": str(after.transaction),
            "block": after.block,
            "version": after.version,
            "limit": limit,
            **({"agent": agent_id} if agent_id else {}),
        }
        statement = sa.text(_WRITES.format(of=_OF_AGENT if agent_id else ""))
        async with self._db.connect() as conn:
            rows = list(await conn.execute(statement, values))
        writes = [Position(int(row[0]), row[1], row[2]) for row in rows if row[0] is not None]
        return Look(writes, unsettled=int(rows[0][3]), newest=int(rows[0][4]))

    async def list_present(self, actor: Actor, agent_id: str, limit: int) -> dict[str, int]:
        """Return which blocks there are, of an agent or all, with their versions."""
        values = {"org": actor.organization_id, "limit": limit}
        async with self._db.connect() as conn:
            if not agent_id:
                return {row[0]: row[1] for row in await conn.execute(_PRESENT, values)}
            found = {row[0]: row[1] for row in await conn.execute(_PRESENT_OF_AGENT, {**values, "agent": agent_id})}
            if not found:
                await _require_agent(conn, actor, agent_id)
            return found


async def _require_block(conn: Connection, actor: Actor, block_id: str) -> None:
    query = sa.select(blocks.c.id).where(blocks.c.organization_id == actor.organization_id, blocks.c.id == block_id)
    if (await conn.execute(query)).one_or_none() is None:
        raise BlockNotFound(f"Block with id '{block_id}' not found", block_id=block_id)


async def _require_agent(conn: Connection, actor: Actor, agent_id: str) -> None:
    query = sa.select(agents.c.id).where(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)
    if (await conn.execute(query)).one_or_none() is None:
        raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _mine(actor: Actor, block_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(block_history.c.organization_id == actor.organization_id, block_history.c.block_id == block_id)


def _revision(row: Sequence[Any]) -> BlockRevision:
    values = dict(zip(_NAMES, row, strict=True))
    call = _CALL.fullmatch(values.pop("edit_key") or "")
    if call:
        values |= {"run_id": call[1], "step_index": int(call[2]), "call_index": int(call[3])}
    digest = hashlib.sha256(values["value"].encode()).hexdigest()
    kind, user = values.pop("kind"), values.pop("written_by_id")
    values["id"] = f"{values['block_id']}/{values['version']}"
    return BlockRevision(**values, written_by=kind, user_id=user, value_sha256=digest)
