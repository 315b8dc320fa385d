"""Identities in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.identity_pb2 import Identity, IdentityProperty
from letta.memory.v1.identity_service_pb2 import ListIdentitiesRequest
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, AlreadyExists, AppError, BlockNotFound, IdentityNotFound
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same
from letta_common.values.times import time_of
from letta_memory.domain.identities import Links, PropertyEdit
from letta_memory.store.rows import BLOCK_COLUMNS, block_of
from letta_memory.store.tables import agents, blocks, identities, identity_agents, identity_blocks, keyset
from letta_postgres.connections import Connection
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import fetch_page

_MOST_IDS = 100  # agents and blocks told with an identity, as the contract says
_NAMES = ("id", "identifier_key", "name", "identity_type", "project_id", "properties", "created_at", "updated_at")
_COLUMNS = [identities.c[name] for name in _NAMES]
_DELETE = sa.text(
    "with gone as (delete from memory.identities where organization_id = :org and id = :id "
    "returning organization_id, id, created_at) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)
# What is there is held until the end of the transaction, in one order, so that no link loses what it points to.
_LINK_AGENTS = sa.text(
    "insert into memory.identity_agents (organization_id, identity_id, agent_id) "
    "select :org, :id, a.id from (select a.id from memory.agents a where a.organization_id = :org "
    "and a.id = any(cast(:ids as text[])) order by a.id for key share) a on conflict do nothing"
)
_LINK_BLOCKS = sa.text(
    "insert into memory.identity_blocks (organization_id, identity_id, block_id) "
    "select :org, :id, b.id from (select b.id from memory.blocks b where b.organization_id = :org "
    "and b.id = any(cast(:ids as text[])) order by b.id for key share) b on conflict do nothing"
)
_LINK_IDENTITIES = sa.text(
    "insert into memory.identity_agents (organization_id, identity_id, agent_id) "
    "select :org, i.id, :agent from (select i.id from memory.identities i where i.organization_id = :org "
    "and i.id = any(cast(:ids as text[])) order by i.id for key share) i on conflict do nothing"
)


class SqlIdentityStore:
    """Identities in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, identity: Identity, links: Links, *, request_hash: bytes = b"") -> Identity:
        """Store a new identity; return the one that has the id already, if one has."""
        made = insert(identities).values(**_values(actor, identity), request_hash=request_hash or None)
        try:
            async with self._db.begin() as tx:
                await tx.execute(made)
                await _link(tx, actor, identity.id, links)
                return await _fetch(tx, actor, identities.c.id == identity.id, identity.id)
        except UniqueViolation as error:
            query = sa.select(identities.c.request_hash).where(_mine(actor), identities.c.id == identity.id)
            async with self._db.connect() as conn:
                row = (await conn.execute(query)).one_or_none()
            if row is None:
                raise _taken(identity.identifier_key) from error
        require_same(row[0], request_hash)
        return await self.get(actor, identity.id)

    async def upsert(self, actor: Actor, identity: Identity, links: Links) -> Identity:
        """Store a new identity, or give the one that has its key what it has."""
        values = _values(actor, identity)
        kept = {"id", "created_at", "created_by_id", *(() if identity.properties else ("properties",))}
        made = insert(identities).values(**values)
        keys = ("organization_id", "identifier_key", "project_id")
        changed = {name: made.excluded[name] for name in values if name not in {*kept, *keys}}
        put = made.on_conflict_do_update(index_elements=keys, set_=changed).returning(identities.c.id)
        async with self._db.begin() as tx:
            identity_id = str((await tx.execute(put)).scalar_one())
            for table, ids in ((identity_agents, links.agent_ids), (identity_blocks, links.block_ids)):
                if ids:
                    await tx.execute(sa.delete(table).where(_of(table, actor, identity_id)))
            await _link(tx, actor, identity_id, links)
            return await _fetch(tx, actor, identities.c.id == identity_id, identity_id)

    async def get(self, actor: Actor, identity_id: str) -> Identity:
        """Return one identity."""
        async with self._db.connect() as conn:
            return await _fetch(conn, actor, identities.c.id == identity_id, identity_id)

    async def list_identities(self, actor: Actor, wanted: ListIdentitiesRequest, page: Page) -> list[Identity]:
        """Return a page of identities."""
        query = _query(actor)
        for column, value in (
            (identities.c.project_id, wanted.project_id),
            (identities.c.identifier_key, wanted.identifier_key),
            (identities.c.identity_type, wanted.identity_type),
        ):
            if value:
                query = query.where(column == value)
        if wanted.name:
            query = query.where(identities.c.name.icontains(wanted.name, autoescape=True))
        keys = keyset(identities, "created_at", actor.organization_id, _mine(actor), identities.c.properties)
        async with self._db.connect() as conn:
            return [_identity(actor, row) for row in await fetch_page(conn, query, page, keys)]

    async def count(self, actor: Actor) -> int:
        """Return how many identities there are."""
        query = sa.select(sa.func.count()).select_from(identities).where(_mine(actor))
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def update(
        self, actor: Actor, identity_id: str, changes: Mapping[str, Any], edit: PropertyEdit, links: Links
    ) -> Identity:
        """Change some columns, edit the properties under the lock of the row, and add what belongs to an identity."""
        this = sa.and_(_mine(actor), identities.c.id == identity_id)
        held = sa.select(identities.c.properties).where(this).with_for_update()
        try:
            async with self._db.begin() as tx:
                row = (await tx.execute(held)).one_or_none()
                if row is None:
                    raise _unknown(identity_id)
                properties = _packed(edit(Identity.FromString(bytes(row[0])).properties))
                await tx.execute(sa.update(identities).where(this).values(**changes, properties=properties))
                await _link(tx, actor, identity_id, links)
                return await _fetch(tx, actor, identities.c.id == identity_id, identity_id)
        except UniqueViolation as error:
            raise _taken(str(changes.get("identifier_key"))) from error

    async def delete(self, actor: Actor, identity_id: str) -> None:
        """Remove an identity; what belongs to it stays."""
        async with self._db.begin() as tx:
            if (await tx.execute(_DELETE, {"org": actor.organization_id, "id": identity_id})).rowcount == 0:
                raise _unknown(identity_id)

    async def list_blocks(self, actor: Actor, identity_id: str, page: Page) -> list[Block]:
        """Return a page of the blocks of an identity."""
        mine = blocks.c.organization_id == actor.organization_id
        owned = sa.select(identity_blocks.c.block_id).where(_of(identity_blocks, actor, identity_id))
        query = sa.select(*(blocks.c[name] for name in BLOCK_COLUMNS.split(", "))).where(mine, blocks.c.id.in_(owned))
        async with self._db.connect() as conn:
            await _require(conn, actor, identity_id)
            keys = keyset(blocks, "created_at", actor.organization_id, mine, blocks.c.value)
            return [block_of(row) for row in await fetch_page(conn, query, page, keys)]

    async def list_agent_ids(self, actor: Actor, identity_id: str, keys: Sequence[str]) -> list[str]:
        """Return the agents of an identity, of those with some keys, or of both."""
        links = identity_agents.c
        query = sa.select(links.agent_id).where(links.organization_id == actor.organization_id).distinct()
        if keys:
            query = query.where(links.agent_id.in_(agents_of_keys(actor, keys)))
        async with self._db.connect() as conn:
            if identity_id:
                await _require(conn, actor, identity_id)
                query = query.where(links.identity_id == identity_id)
            return [row[0] for row in await conn.execute(query.order_by(links.agent_id))]

    async def attach(self, actor: Actor, identity_id: str, links: Links) -> None:
        """Say that something belongs to an identity."""
        async with self._db.begin() as tx:
            await _require(tx, actor, identity_id, hold=True)
            await _link(tx, actor, identity_id, links)

    async def detach(self, actor: Actor, identity_id: str, links: Links) -> None:
        """Say that something no longer belongs to an identity."""
        async with self._db.begin() as tx:
            await _require(tx, actor, identity_id)
            for table, mine, column, ids, unknown in _sides(links):
                await _require_all(tx, actor, mine, ids, unknown)
                await tx.execute(sa.delete(table).where(_of(table, actor, identity_id), column.in_(ids)))

    async def set_of_agent(self, actor: Actor, agent_id: str, identity_ids: Sequence[str]) -> None:
        """Set all the identities that an agent belongs to."""
        ids = list(identity_ids)
        mine = sa.and_(
            identity_agents.c.organization_id == actor.organization_id, identity_agents.c.agent_id == agent_id
        )
        async with self._db.begin() as tx:
            await _require_all(tx, actor, agents, [agent_id], _no_agent)
            await tx.execute(sa.delete(identity_agents).where(mine, identity_agents.c.identity_id.not_in(ids)))
            await tx.execute(_LINK_IDENTITIES, {"org": actor.organization_id, "agent": agent_id, "ids": ids})
            await _require_all(tx, actor, identities, ids, _unknown)


def identities_of_agents(actor: Actor, agent_ids: Sequence[str]) -> sa.Select[Any]:
    """Return the query of the identities of agents, by key; the agent stands last in its rows."""
    links = identity_agents.c
    linked = sa.and_(links.organization_id == identities.c.organization_id, links.identity_id == identities.c.id)
    return (
        sa.select(*_COLUMNS, links.agent_id)
        .join(identity_agents, linked)
        .where(_mine(actor), links.agent_id.in_(agent_ids))
        .order_by(identities.c.identifier_key, identities.c.id)
    )


def identity_of(actor: Actor, row: Sequence[Any]) -> Identity:
    """Build an identity, without what belongs to it, from its columns."""
    values = dict(zip(_NAMES, row, strict=True))
    found = Identity.FromString(bytes(values.pop("properties")))
    found.MergeFrom(
        Identity(organization_id=actor.organization_id, project_id=values.pop("project_id") or None, **values)
    )
    return found


def with_keys(actor: Actor, keys: Sequence[str]) -> sa.Select[Any]:
    """Return the query of the ids of identities with one of these keys."""
    return sa.select(identities.c.id).where(_mine(actor), identities.c.identifier_key.in_(keys))


def agents_of_keys(actor: Actor, keys: Sequence[str]) -> sa.Select[Any]:
    """Return the query of the ids of agents of identities with one of these keys."""
    links = identity_agents.c
    return sa.select(links.agent_id).where(
        links.organization_id == actor.organization_id, links.identity_id.in_(with_keys(actor, keys))
    )


def _query(actor: Actor) -> sa.Select[Any]:
    return sa.select(*_COLUMNS, _first(identity_agents, "agent_id"), _first(identity_blocks, "block_id")).where(
        _mine(actor)
    )


def _first(table: sa.Table, name: str) -> sa.ColumnElement[Any]:
    """Return the first ids of what belongs to an identity, as an array."""
    linked = sa.and_(table.c.organization_id == identities.c.organization_id, table.c.identity_id == identities.c.id)
    ids = sa.select(table.c[name]).where(linked).order_by(table.c[name]).limit(_MOST_IDS)
    return sa.func.array(ids.correlate(identities).scalar_subquery())


async def _fetch(conn: Connection, actor: Actor, which: sa.ColumnElement[bool], identity_id: str) -> Identity:
    row = (await conn.execute(_query(actor).where(which))).one_or_none()
    if row is None:
        raise _unknown(identity_id)
    return _identity(actor, row)


async def _require(conn: Connection, actor: Actor, identity_id: str, *, hold: bool = False) -> None:
    """Raise IdentityNotFound; what is held stays until the end of the transaction."""
    query = sa.select(identities.c.id).where(_mine(actor), identities.c.id == identity_id)
    if (await conn.execute(query.with_for_update(key_share=True, read=True) if hold else query)).one_or_none() is None:
        raise _unknown(identity_id)


async def _link(tx: Connection, actor: Actor, identity_id: str, links: Links) -> None:
    """Add what belongs to an identity. Raises AgentNotFound, BlockNotFound."""
    for statement, (_, mine, _, ids, unknown) in zip((_LINK_AGENTS, _LINK_BLOCKS), _sides(links), strict=True):
        if ids:
            await tx.execute(statement, {"org": actor.organization_id, "id": identity_id, "ids": ids})
            await _require_all(tx, actor, mine, ids, unknown)


def _sides(links: Links) -> Any:
    """Yield the table of links, that of what is linked, the column, the ids and the error of each kind."""
    yield identity_agents, agents, identity_agents.c.agent_id, list(links.agent_ids), _no_agent
    yield identity_blocks, blocks, identity_blocks.c.block_id, list(links.block_ids), _no_block


async def _require_all(tx: Connection, actor: Actor, table: sa.Table, ids: Sequence[str], unknown: Any) -> None:
    """Raise the error of the first id that the organization has not."""
    known = sa.select(table.c.id).where(table.c.organization_id == actor.organization_id, table.c.id.in_(ids))
    found = {row[0] for row in await tx.execute(known)} if ids else set()
    for each in ids:
        if each not in found:
            raise unknown(each)


def _values(actor: Actor, identity: Identity) -> dict[str, Any]:
    return {
        "organization_id": actor.organization_id,
        "id": identity.id,
        "identifier_key": identity.identifier_key,
        "name": identity.name,
        "identity_type": identity.identity_type,
        "project_id": identity.project_id,
        "properties": _packed(identity.properties),
        "created_by_id": actor.user_id,
        "last_updated_by_id": actor.user_id,
        "created_at": time_of(identity.created_at),
        "updated_at": time_of(identity.updated_at),
    }


def _packed(properties: Sequence[IdentityProperty]) -> bytes:
    return Identity(properties=properties).SerializeToString()


def _identity(actor: Actor, row: Sequence[Any]) -> Identity:
    *plain, agent_ids, block_ids = row
    found = identity_of(actor, plain)
    found.agent_ids.extend(agent_ids)
    found.block_ids.extend(block_ids)
    return found


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return identities.c.organization_id == actor.organization_id


def _of(table: sa.Table, actor: Actor, identity_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.organization_id == actor.organization_id, table.c.identity_id == identity_id)


def _taken(key: str) -> AlreadyExists:
    text = f"there is an identity of the key {key} already; use it, or choose another key"
    return AlreadyExists(text, identifier_key=key)


def _unknown(identity_id: str) -> IdentityNotFound:
    return IdentityNotFound(f"there is no identity {identity_id}", identity_id=identity_id)


def _no_agent(agent_id: str) -> AppError:
    return AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _no_block(block_id: str) -> AppError:
    return BlockNotFound(f"there is no block {block_id}", block_id=block_id)
