"""Archives in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf.duration_pb2 import Duration
from sqlalchemy.dialects.postgresql import insert

from letta.memory.v1.archive_pb2 import Archive, ArchiveEmbedding, EmbeddingConfig
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ArchiveNotFound, ArchiveTaken, FolderNotFound
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same
from letta_common.values.times import time_of
from letta_memory.domain.archives import with_state
from letta_memory.domain.embeddings import embedding_config
from letta_memory.store.tables import agents, archive_agents, archives, folders, keyset
from letta_postgres.connections import Connection
from letta_postgres.db import Database, ForeignKeyViolation
from letta_postgres.keyset import fetch_page

_NAMES = (
    "id",
    "name",
    "description",
    "metadata",
    "created_by_id",
    "last_updated_by_id",
    "created_at",
    "updated_at",
    "max_age",
    "max_passages",
    "deduplication",
    "unused_after",
)
_EMBEDDERS = (archives.c.former_embedders, archives.c.embedder, archives.c.dimensions)
_COLUMNS = [*(archives.c[name] for name in _NAMES), *_EMBEDDERS]
_DELETE = sa.text(
    "with gone as (delete from memory.archives where organization_id = :org and id = :id and not of_folder "
    "returning organization_id, id, created_at) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)


_EMBEDDER = sa.text(
    "select coalesce((select a.embedder from memory.archives a where a.organization_id = :org and a.id = coalesce("
    "nullif(:archive, ''), (select l.archive_id from memory.archive_agents l where l.organization_id = :org "
    "and l.agent_id = :agent))), (select g.embedder from memory.agents g where g.organization_id = :org "
    "and g.id = :agent), '')"
)
_EMBEDDING = sa.text(
    "select a.id, a.embedder, a.dimensions, a.passage_count, (select count(*) from memory.passages p "
    "where p.organization_id = a.organization_id and p.archive_id = a.id and p.generation = a.generation "
    "and not p.pending), a.failure_reason, a.failure "
    "from memory.archives a where a.organization_id = :org and a.id = :archive and (not a.of_folder or exists ("
    "select from memory.folders d where d.organization_id = a.organization_id and d.id = a.id "
    "and d.deleted_at is null))"
)
# Two bytes a component; of an archive that is embedded anew, as if it were done.
_VECTOR_BYTES = sa.text(
    "select coalesce(sum(2 * passage_count * dimensions), 0) from memory.archives where organization_id = :org"
)
_REEMBED = sa.text(
    "update memory.archives a set former_embedders = array_remove(array_append("
    "array_remove(a.former_embedders, a.embedder), nullif(a.embedder, '')), :embedder), "
    "embedder = :embedder, dimensions = :dimensions, generation = a.generation + 1, "
    "waiting_since = clock_timestamp(), tried_at = null, failure_reason = '', failure = '', "
    "last_updated_by_id = :user, updated_at = :now where a.organization_id = :org and a.id = :archive"
)


class SqlArchiveStore:
    """Archives in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, archive: Archive, *, request_hash: bytes = b"") -> Archive:
        """Store a new archive; return the one that has the id already, if one has."""
        values = {
            "organization_id": actor.organization_id,
            "id": archive.id,
            "name": archive.name,
            "description": archive.description if archive.HasField("description") else None,
            "embedder": archive.embedding_config.handle,
            "dimensions": archive.embedding_config.embedding_dim or None,
            "metadata": archive.metadata,
            "created_by_id": archive.created_by_id,
            "last_updated_by_id": archive.last_updated_by_id,
            "created_at": time_of(archive.created_at),
            "updated_at": time_of(archive.updated_at),
            "max_age": archive.max_age.ToTimedelta() if archive.HasField("max_age") else None,
            "max_passages": archive.max_passages if archive.HasField("max_passages") else None,
            "deduplication": archive.deduplication if archive.HasField("deduplication") else None,
            "unused_after": archive.unused_after.ToTimedelta() if archive.HasField("unused_after") else None,
            "uses_since": time_of(archive.created_at),
            "request_hash": request_hash or None,
        }
        made = insert(archives).values(**values).on_conflict_do_nothing()
        async with self._db.begin() as tx:
            if (await tx.execute(made)).rowcount == 1:
                return archive
        query = _query(actor).add_columns(archives.c.request_hash).where(archives.c.id == archive.id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise _unknown(archive.id)
        require_same(row[-1], request_hash)
        return _archive(actor, row[:-1])

    async def get(self, actor: Actor, archive_id: str) -> Archive:
        """Return one archive."""
        async with self._db.connect() as conn:
            row = (await conn.execute(_query(actor).where(archives.c.id == archive_id))).one_or_none()
        if row is None:
            raise _unknown(archive_id)
        return _archive(actor, row)

    async def get_several(
        self, actor: Actor, archive_ids: Sequence[str], folder_ids: Sequence[str] = ()
    ) -> list[Archive]:
        """Return these archives, and those of these folders."""
        columns = archives.c
        living = sa.select(folders.c.id).where(
            folders.c.organization_id == actor.organization_id,
            folders.c.id.in_(folder_ids),
            folders.c.deleted_at.is_(None),
        )
        named = sa.case((columns.of_folder, columns.id.in_(living)), else_=columns.id.in_(archive_ids))
        query = sa.select(*_COLUMNS).where(columns.organization_id == actor.organization_id, named)
        query = query.where(columns.id.in_([*archive_ids, *folder_ids]))
        async with self._db.connect() as conn:
            found = [_archive(actor, row) for row in await conn.execute(query)]
        present = {archive.id for archive in found}
        for archive_id in sorted(set(archive_ids) - present):
            raise _unknown(archive_id)
        for folder_id in sorted(set(folder_ids) - present):
            raise FolderNotFound(f"there is no folder {folder_id}", folder_id=folder_id)
        return found

    async def find_of_agent(self, actor: Actor, agent_id: str) -> Archive | None:
        """Return an agent's archive, if it has one."""
        async with self._db.connect() as conn:
            row = (await conn.execute(_query(actor).where(_attached(actor, agent_id)))).one_or_none()
            if row is None:
                await _require_agent(conn, actor, agent_id)
        return _archive(actor, row) if row else None

    async def list_archives(self, actor: Actor, page: Page, *, name: str, agent_id: str) -> list[Archive]:
        """Return a page of archives."""
        query = _query(actor)
        if name:
            query = query.where(archives.c.name == name)
        if agent_id:
            query = query.where(_attached(actor, agent_id))
        keys = keyset(archives, "created_at", actor.organization_id, _mine(actor))
        async with self._db.connect() as conn:
            return [_archive(actor, row) for row in await fetch_page(conn, query, page, keys)]

    async def update(self, actor: Actor, archive_id: str, changes: Mapping[str, Any]) -> Archive:
        """Change some fields."""
        plain = {name: value.ToTimedelta() if isinstance(value, Duration) else value for name, value in changes.items()}
        if plain.get("unused_after") is not None:
            counted = archives.c.unused_after.is_not(None)
            plain["uses_since"] = sa.case((counted, archives.c.uses_since), else_=plain["updated_at"])
        change = (
            sa.update(archives).where(_mine(actor), archives.c.id == archive_id).values(**plain).returning(*_COLUMNS)
        )
        async with self._db.begin() as tx:
            row = (await tx.execute(change)).one_or_none()
        if row is None:
            raise _unknown(archive_id)
        return _archive(actor, row)

    async def delete(self, actor: Actor, archive_id: str) -> None:
        """Remove an archive and its passages."""
        async with self._db.begin() as tx:
            if (await tx.execute(_DELETE, {"org": actor.organization_id, "id": archive_id})).rowcount == 0:
                raise _unknown(archive_id)

    async def attach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Let an agent use an archive."""
        link = {"organization_id": actor.organization_id, "agent_id": agent_id, "archive_id": archive_id}
        try:
            async with self._db.begin() as tx:
                await _require_agent(tx, actor, agent_id)
                if (await tx.execute(insert(archive_agents).values(**link).on_conflict_do_nothing())).rowcount == 1:
                    return
        except ForeignKeyViolation as error:
            raise _unknown(archive_id) from error
        await self.get(actor, archive_id)
        present = await self.find_of_agent(actor, agent_id)
        if present is None or present.id != archive_id:
            text = f"agent {agent_id} has an archive already; detach it first"
            raise ArchiveTaken(text, agent_id=agent_id, archive_id=present.id if present else "")

    async def detach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Take an archive from an agent."""
        async with self._db.begin() as tx:
            await _require_agent(tx, actor, agent_id)
            await tx.execute(
                sa.delete(archive_agents).where(
                    archive_agents.c.organization_id == actor.organization_id,
                    archive_agents.c.agent_id == agent_id,
                    archive_agents.c.archive_id == archive_id,
                )
            )
        await self.get(actor, archive_id)

    async def list_agent_ids(self, actor: Actor, archive_id: str) -> list[str]:
        """Return the ids of the agents that use an archive."""
        await self.get(actor, archive_id)
        query = (
            sa.select(archive_agents.c.agent_id)
            .where(archive_agents.c.organization_id == actor.organization_id, archive_agents.c.archive_id == archive_id)
            .order_by(archive_agents.c.agent_id)
        )
        async with self._db.connect() as conn:
            return [row[0] for row in await conn.execute(query)]

    async def get_embedder(self, actor: Actor, *, archive_id: str = "", agent_id: str = "") -> str:
        """Return what embeds an archive, or the archive that an agent has or will have; empty when none is known."""
        values = {"org": actor.organization_id, "archive": archive_id, "agent": agent_id}
        async with self._db.connect() as conn:
            return str((await conn.execute(_EMBEDDER, values)).scalar_one())

    async def get_embedding(self, actor: Actor, archive_id: str) -> ArchiveEmbedding:
        """Return how far an archive is embedded."""
        values = {"org": actor.organization_id, "archive": archive_id}
        async with self._db.connect() as conn:
            row = (await conn.execute(_EMBEDDING, values)).one_or_none()
        if row is None:
            raise _unknown(archive_id)
        names = [field.name for field in ArchiveEmbedding.DESCRIPTOR.fields if field.name != "state"]
        return with_state(ArchiveEmbedding(**dict(zip(names, row, strict=True))))

    async def get_vector_bytes(self, actor: Actor) -> int:
        """Return how many bytes the vectors of all archives and folders take."""
        async with self._db.connect() as conn:
            return int((await conn.execute(_VECTOR_BYTES, {"org": actor.organization_id})).scalar_one())

    async def reembed(self, actor: Actor, archive_id: str, config: EmbeddingConfig | None, now: datetime) -> None:
        """Let all passages wait for vectors of this embedder."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "archive": archive_id,
            "embedder": config.handle if config else "",
            "dimensions": (config.embedding_dim or None) if config else None,
            "now": now,
        }
        async with self._db.begin() as tx:
            if (await tx.execute(_REEMBED, values)).rowcount == 0:
                raise _unknown(archive_id)


def _archive(actor: Actor, row: Sequence[Any]) -> Archive:
    *plain, former, embedder, dimensions = row
    return Archive(
        organization_id=actor.organization_id,
        embedding_config=embedding_config(embedder, dimensions),
        former_embeddings=former,
        **dict(zip(_NAMES, plain, strict=True)),
    )


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    """Return the condition of what callers know as archives."""
    return sa.and_(archives.c.organization_id == actor.organization_id, sa.not_(archives.c.of_folder))


def _query(actor: Actor) -> sa.Select[Any]:
    return sa.select(*_COLUMNS).where(_mine(actor))


def _attached(actor: Actor, agent_id: str) -> sa.ColumnElement[bool]:
    linked = sa.select(archive_agents.c.archive_id).where(
        archive_agents.c.organization_id == actor.organization_id, archive_agents.c.agent_id == agent_id
    )
    return archives.c.id.in_(linked)


async def _require_agent(conn: Connection, actor: Actor, agent_id: str) -> None:
    query = sa.select(agents.c.id).where(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)
    if (await conn.execute(query)).one_or_none() is None:
        raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _unknown(archive_id: str) -> ArchiveNotFound:
    return ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
