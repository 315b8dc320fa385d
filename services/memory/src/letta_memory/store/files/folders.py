"""Folders in PostgreSQL. A folder's chunks are passages of an archive that has its id and that callers do not see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta.memory.v1.file_pb2 import FileStatus
from letta.memory.v1.folder_pb2 import Folder
from letta.memory.v1.folder_service_pb2 import FileStatistics, FolderStatistics, GetFolderStatisticsResponse
from letta_common.actor import Actor
from letta_common.errors import AlreadyExists, FolderNotFound
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same
from letta_common.values.times import time_of
from letta_memory.domain.embeddings import embedding_config
from letta_memory.store.tables import archives, files, folder_agents, folders, keyset
from letta_postgres.connections import Connection
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page

_NAMES = (
    "id",
    "name",
    "description",
    "instructions",
    "metadata",
    "created_by_id",
    "last_updated_by_id",
    "created_at",
    "updated_at",
)
_COLUMNS = [*(folders.c[name] for name in _NAMES), folders.c.chunk_size, archives.c.embedder, archives.c.dimensions]
_DETAILED_FOLDERS, _DETAILED_FILES = 1_000, 10_000
# The archive stays until its passages are removed, which is done in the background, some at a time.
_DELETE = sa.text(
    "with gone as (update memory.folders set deleted_at = now() "
    "where organization_id = :org and id = :id and deleted_at is null returning organization_id, id, created_at), "
    "links as (delete from memory.folder_agents l using gone "
    "where l.organization_id = gone.organization_id and l.folder_id = gone.id) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)


class SqlFolderStore:
    """Folders in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, folder: Folder, *, chunk_size: int, request_hash: bytes = b"") -> Folder:
        """Store a new folder with its archive; return the one that has the id already, if one has."""
        try:
            async with self._db.begin() as tx:
                for statement in _made(actor, folder, chunk_size, request_hash):
                    await tx.execute(statement)
                return folder
        except UniqueViolation as error:
            query = folder_query(actor).add_columns(folders.c.request_hash).where(folders.c.id == folder.id)
            async with self._db.connect() as conn:
                row = (await conn.execute(query)).one_or_none()
            if row is None:
                raise _taken(folder.name) from error
        require_same(row[-1], request_hash)
        return folder_of(actor, row[:-1])

    async def get(self, actor: Actor, folder_id: str) -> Folder:
        """Return one folder."""
        async with self._db.connect() as conn:
            return await _fetch(conn, actor, folder_id)

    async def list_folders(self, actor: Actor, page: Page, *, name: str) -> list[Folder]:
        """Return a page of folders."""
        query = folder_query(actor)
        if name:
            query = query.where(folders.c.name == name)
        keys = keyset(folders, "created_at", actor.organization_id, _mine(actor))
        async with self._db.connect() as conn:
            return [folder_of(actor, row) for row in await fetch_page(conn, query, page, keys)]

    async def count(self, actor: Actor) -> int:
        """Return how many folders there are."""
        query = sa.select(sa.func.count()).select_from(folders).where(_mine(actor))
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def get_id(self, actor: Actor, name: str) -> str:
        """Return the id of the folder of this name."""
        query = sa.select(folders.c.id).where(_mine(actor), folders.c.name == name)
        async with self._db.connect() as conn:
            found = (await conn.execute(query)).scalar_one_or_none()
        if found is None:
            raise FolderNotFound(f"there is no folder of the name {name}", name=name)
        return str(found)

    async def get_statistics(self, actor: Actor, *, detailed: bool) -> GetFolderStatisticsResponse:
        """Return how many folders and files there are, and how large they are."""
        sums = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(files.c.size_bytes), 0))
        total = sums.select_from(files.join(folders, _IN_FOLDER)).where(_mine(actor), *VISIBLE)
        async with self._db.connect() as conn:
            folder_count = (await conn.execute(sa.select(sa.func.count()).where(_mine(actor)))).scalar_one()
            file_count, size = (await conn.execute(total)).one()
            found = await _details(conn, actor) if detailed else []
        return GetFolderStatisticsResponse(
            folder_count=folder_count, file_count=file_count, size_bytes=int(size), folders=found
        )

    async def update(self, actor: Actor, folder_id: str, changes: Mapping[str, Any]) -> Folder:
        """Change some fields."""
        change = sa.update(folders).where(_mine(actor), folders.c.id == folder_id).values(**changes)
        try:
            async with self._db.begin() as tx:
                await tx.execute(change)
                return await _fetch(tx, actor, folder_id)
        except UniqueViolation as error:
            raise _taken(str(changes.get("name"))) from error

    async def delete(self, actor: Actor, folder_id: str) -> None:
        """Take a folder away from everybody; what it holds is removed later."""
        async with self._db.begin() as tx:
            if (await tx.execute(_DELETE, {"org": actor.organization_id, "id": folder_id})).rowcount == 0:
                raise unknown_folder(folder_id)

    async def list_agent_ids(self, actor: Actor, folder_id: str, page: Page) -> list[str]:
        """Return a page of the ids of the agents that have a folder."""
        links = folder_agents.c
        scope = sa.and_(links.organization_id == actor.organization_id, links.folder_id == folder_id)
        # An agent that lost the folder is no place of the list any more, so tombstones of agents are none either.
        keys = Keyset(at=links.attached_at, id=links.agent_id, scope=scope)
        async with self._db.connect() as conn:
            await require_folder(conn, actor, folder_id)
            rows = await fetch_page(conn, sa.select(links.agent_id).where(scope), page, keys)
        return [row[0] for row in rows]


_IN_FOLDER = sa.and_(files.c.organization_id == folders.c.organization_id, files.c.folder_id == folders.c.id)
VISIBLE = (files.c.deleted_at.is_(None), files.c.status > FileStatus.FILE_STATUS_UNSPECIFIED)
"""Conditions of files that came in whole and were not deleted."""


async def require_folder(conn: Connection, actor: Actor, folder_id: str) -> None:
    """Raise FolderNotFound when the organization has no such folder."""
    query = sa.select(folders.c.id).where(_mine(actor), folders.c.id == folder_id)
    if (await conn.execute(query)).one_or_none() is None:
        raise unknown_folder(folder_id)


def unknown_folder(folder_id: str) -> FolderNotFound:
    """Return the error for a folder that the organization has not."""
    return FolderNotFound(f"there is no folder {folder_id}", folder_id=folder_id)


async def _fetch(conn: Connection, actor: Actor, folder_id: str) -> Folder:
    row = (await conn.execute(folder_query(actor).where(folders.c.id == folder_id))).one_or_none()
    if row is None:
        raise unknown_folder(folder_id)
    return folder_of(actor, row)


async def _details(conn: Connection, actor: Actor) -> list[FolderStatistics]:
    query = sa.select(folders.c.id, folders.c.name).where(_mine(actor)).order_by(folders.c.created_at, folders.c.id)
    rows = await conn.execute(query.limit(_DETAILED_FOLDERS))
    found = {row[0]: FolderStatistics(folder_id=row[0], folder_name=row[1]) for row in rows}
    query = (
        sa.select(files.c.folder_id, files.c.id, files.c.name, files.c.size_bytes)
        .where(files.c.organization_id == actor.organization_id, files.c.folder_id.in_(found), *VISIBLE)
        .order_by(files.c.folder_id, files.c.created_at, files.c.id)
    )
    for row in await conn.execute(query.limit(_DETAILED_FILES)):
        folder = found[row[0]]
        folder.file_count += 1
        folder.size_bytes += row[3]
        folder.files.append(FileStatistics(file_id=row[1], file_name=row[2], file_size=row[3]))
    return list(found.values())


def _made(actor: Actor, folder: Folder, chunk_size: int, request_hash: bytes) -> list[sa.Insert]:
    """Return the statements that make a folder and its archive."""
    common = {
        "organization_id": actor.organization_id,
        "id": folder.id,
        "name": folder.name,
        "created_by_id": folder.created_by_id,
        "last_updated_by_id": folder.last_updated_by_id,
        "created_at": time_of(folder.created_at),
        "updated_at": time_of(folder.updated_at),
    }
    config = folder.embedding_config
    return [
        insert(folders).values(
            **common,
            description=folder.description if folder.HasField("description") else None,
            instructions=folder.instructions if folder.HasField("instructions") else None,
            metadata=folder.metadata,
            chunk_size=chunk_size,
            request_hash=request_hash or None,
        ),
        insert(archives).values(
            **common,
            of_folder=True,
            embedder=config.handle,
            dimensions=config.embedding_dim or None,
        ),
    ]


def folder_of(actor: Actor, row: Sequence[Any]) -> Folder:
    """Build a folder from a row of `folder_query`."""
    *plain, chunk_size, embedder, dimensions = row
    return Folder(
        organization_id=actor.organization_id,
        embedding_config=embedding_config(embedder, dimensions, chunk_size),
        **dict(zip(_NAMES, plain, strict=True)),
    )


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return sa.and_(folders.c.organization_id == actor.organization_id, folders.c.deleted_at.is_(None))


def folder_query(actor: Actor) -> sa.Select[Any]:
    """Return the query of an organization's folders."""
    own = sa.and_(archives.c.organization_id == folders.c.organization_id, archives.c.id == folders.c.id)
    return sa.select(*_COLUMNS).select_from(folders.join(archives, own)).where(_mine(actor))


def _taken(name: str) -> AlreadyExists:
    return AlreadyExists(f"there is a folder of the name {name} already; use it, or choose another name", name=name)
