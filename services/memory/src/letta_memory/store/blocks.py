"""Blocks in PostgreSQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.block_service_pb2 import CountBlocksRequest, ListBlocksRequest
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, BlockLabelTaken, BlockNotFound, StaleEtag
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same
from letta_common.values.times import time_of
from letta_memory.domain.blocks import Written
from letta_memory.store.identities import with_keys
from letta_memory.store.provisions import insert_block
from letta_memory.store.rows import BLOCK_COLUMNS, block_of, block_values
from letta_memory.store.tables import agent_blocks, agents, blocks, identity_blocks, keyset
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import fetch_page

_COLUMNS = [blocks.c[name] for name in BLOCK_COLUMNS.split(", ")]
_HISTORY = sa.text(
    "insert into memory.block_history "
    "(organization_id, block_id, version, label, value, description, written_by_id, created_at, kind, "
    "restored_version) values (:org, :id, :version, :label, :value, :description, :user, :now, :kind, :restored)"
)
_RELABEL = (
    "update memory.agent_blocks set label = :label where organization_id = :org and block_id = :id and label <> :label",
    "update memory.conversation_blocks set label = :label "
    "where organization_id = :org and block_id = :id and label <> :label",
)
_DELETE = sa.text(
    "with gone as (delete from memory.blocks where organization_id = :org and id = :id "
    "and (:etag = '' or version::text = :etag) "
    "returning organization_id, id, created_at), history as (delete from memory.block_history h using gone "
    "where h.organization_id = gone.organization_id and h.block_id = gone.id) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)


class SqlBlockStore:
    """Blocks in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, block: Block, *, request_hash: bytes = b"") -> Block:
        """Store a new block; return the one that has the id already, if one has."""
        async with self._db.begin() as tx:
            if await insert_block(tx, actor.organization_id, block, request_hash):
                return block
        query = sa.select(*_COLUMNS, blocks.c.request_hash).where(_mine(actor), blocks.c.id == block.id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise _unknown(block.id)
        require_same(row[-1], request_hash)
        return block_of(row[:-1])

    async def get(self, actor: Actor, block_id: str) -> Block:
        """Return one block."""
        async with self._db.connect() as conn:
            query = sa.select(*_COLUMNS).where(_mine(actor), blocks.c.id == block_id)
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise _unknown(block_id)
        return block_of(row)

    async def get_of_agent(self, actor: Actor, agent_id: str, label: str) -> Block:
        """Return an agent's block of this label."""
        query = sa.select(*_COLUMNS).where(_mine(actor), _attached(actor, agent_id), blocks.c.label == label)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            await self._require_agent(actor, agent_id)
            text = f"No block with label '{label}' found for agent '{agent_id}'"
            raise BlockNotFound(text, label=label, agent_id=agent_id)
        return block_of(row)

    async def list_blocks(self, actor: Actor, wanted: ListBlocksRequest, page: Page) -> list[Block]:
        """Return a page of blocks."""
        conditions = (*_conditions(wanted), *_contents(wanted), *_counts(wanted), *_owners(actor, wanted))
        query = sa.select(*_COLUMNS).where(_mine(actor), *conditions)
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, query, page, _keys(actor))
        return [block_of(row) for row in rows]

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page) -> list[Block]:
        """Return a page of an agent's blocks."""
        query = sa.select(*_COLUMNS).where(_mine(actor), _attached(actor, agent_id))
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, query, page, _keys(actor))
        # Only an empty page asks whether the agent exists, so that all others are one statement.
        if not rows:
            await self._require_agent(actor, agent_id)
        return [block_of(row) for row in rows]

    async def count(self, actor: Actor, wanted: CountBlocksRequest) -> int:
        """Return how many blocks there are."""
        query = sa.select(sa.func.count()).select_from(blocks).where(_mine(actor), *_conditions(wanted))
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def update(self, actor: Actor, block: Block, *, expected: int, written: Written) -> bool:
        """Write if the stored version is still `expected`; say whether it was."""
        change = (
            sa.update(blocks)
            .where(_mine(actor), blocks.c.id == block.id, blocks.c.version == expected)
            .values(**{name: value for name, value in block_values(block).items() if name not in {"id", "created_at"}})
        )
        try:
            async with self._db.begin() as tx:
                if (await tx.execute(change)).rowcount == 0:
                    return False
                await tx.execute(_HISTORY, _history(actor, block, written))
                # Links repeat the label, because a unique index on them keeps an agent from having it twice.
                for statement in _RELABEL:
                    place = {"org": actor.organization_id, "id": block.id, "label": block.label}
                    await tx.execute(sa.text(statement), place)
        except UniqueViolation as error:
            text = f"an agent of block {block.id} has another block '{block.label}'"
            raise BlockLabelTaken(text, label=block.label) from error
        return True

    async def delete(self, actor: Actor, block_id: str, etag: str = "") -> None:
        """Remove a block and detach it, if its etag is this one or none is given."""
        async with self._db.begin() as tx:
            done = await tx.execute(_DELETE, {"org": actor.organization_id, "id": block_id, "etag": etag})
            if done.rowcount == 0:
                query = sa.select(blocks.c.id).where(_mine(actor), blocks.c.id == block_id)
                if etag and (await tx.execute(query)).one_or_none() is not None:
                    raise StaleEtag(f"block {block_id} changed; read it again", block_id=block_id)
                raise _unknown(block_id)

    async def list_agent_ids(self, actor: Actor, block_id: str) -> list[str]:
        """Return the ids of the agents that have a block."""
        await self.get(actor, block_id)
        query = (
            sa.select(agent_blocks.c.agent_id)
            .where(agent_blocks.c.organization_id == actor.organization_id, agent_blocks.c.block_id == block_id)
            .order_by(agent_blocks.c.agent_id)
        )
        async with self._db.connect() as conn:
            return [row[0] for row in await conn.execute(query)]

    async def _require_agent(self, actor: Actor, agent_id: str) -> None:
        query = sa.select(agents.c.id).where(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)
        async with self._db.connect() as conn:
            if (await conn.execute(query)).one_or_none() is None:
                raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return blocks.c.organization_id == actor.organization_id


def _keys(actor: Actor) -> Any:
    return keyset(blocks, "created_at", actor.organization_id, _mine(actor), blocks.c.value)


def _attached(actor: Actor, agent_id: str) -> sa.ColumnElement[bool]:
    linked = sa.select(agent_blocks.c.block_id).where(
        agent_blocks.c.organization_id == actor.organization_id, agent_blocks.c.agent_id == agent_id
    )
    return blocks.c.id.in_(linked)


def _conditions(wanted: ListBlocksRequest | CountBlocksRequest) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter; hidden blocks never match."""
    conditions: list[sa.ColumnElement[bool]] = [blocks.c.hidden.is_not(True)]
    for column, value in (
        (blocks.c.label, wanted.label),
        (blocks.c.template_name, wanted.name),
        (blocks.c.project_id, wanted.project_id),
    ):
        if value:
            conditions.append(column == value)
    if wanted.tags:
        tags = list(wanted.tags)
        conditions.append(blocks.c.tags.contains(tags) if wanted.match_all_tags else blocks.c.tags.overlap(tags))
    if wanted.templates_only:
        conditions.append(blocks.c.is_template)
    return conditions


def _owners(actor: Actor, wanted: ListBlocksRequest) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of the identities that blocks are asked for."""
    mine = sa.select(identity_blocks.c.block_id).where(identity_blocks.c.organization_id == actor.organization_id)
    owners = []
    if wanted.identity_id:
        owners.append(identity_blocks.c.identity_id == wanted.identity_id)
    if wanted.identifier_keys:
        owners.append(identity_blocks.c.identity_id.in_(with_keys(actor, wanted.identifier_keys)))
    return [blocks.c.id.in_(mine.where(owner)) for owner in owners]


def _contents(wanted: ListBlocksRequest) -> list[sa.ColumnElement[bool]]:
    pairs = (
        (blocks.c.label, wanted.label_search),
        (blocks.c.description, wanted.description_search),
        (blocks.c.value, wanted.value_search),
    )
    return [column.icontains(text, autoescape=True) for column, text in pairs if text]


def _counts(wanted: ListBlocksRequest) -> list[sa.ColumnElement[bool]]:
    number = (
        sa.select(sa.func.count())
        .where(agent_blocks.c.organization_id == blocks.c.organization_id, agent_blocks.c.block_id == blocks.c.id)
        .scalar_subquery()
    )
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.HasField("connected_to_agents_count_gt"):
        conditions.append(number > wanted.connected_to_agents_count_gt)
    if wanted.HasField("connected_to_agents_count_lt"):
        conditions.append(number < wanted.connected_to_agents_count_lt)
    if wanted.connected_to_agents_count_eq:
        conditions.append(number.in_(list(wanted.connected_to_agents_count_eq)))
    return conditions


def _history(actor: Actor, block: Block, written: Written) -> dict[str, Any]:
    return {
        "org": actor.organization_id,
        "id": block.id,
        "version": block.version,
        "label": block.label,
        "value": block.value,
        "description": block.description if block.HasField("description") else None,
        "user": actor.user_id,
        "now": time_of(block.updated_at),
        "kind": written.kind,
        "restored": written.restored_version,
    }


def _unknown(block_id: str) -> BlockNotFound:
    return BlockNotFound(f"Block with id '{block_id}' not found", block_id=block_id)
