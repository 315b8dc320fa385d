"""Files of folders in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from letta.memory.v1.file_pb2 import File, FileStatus
from letta_common.actor import Actor
from letta_common.errors import FileNotFound
from letta_common.values.paging import Page
from letta_memory.store.files.folders import VISIBLE, require_folder
from letta_memory.store.tables import archives, file_texts, files, keyset, passages
from letta_postgres.db import Database, retry
from letta_postgres.keyset import fetch_page
from letta_postgres.statements import call

_NAMES = (
    "id",
    "folder_id",
    "name",
    "original_name",
    "media_type",
    "size_bytes",
    "status",
    "chunk_count",
    "created_by_id",
    "created_at",
    "updated_at",
)
# Only while a file is being embedded is it asked how many of its chunks wait, and why.
_EMBEDDING = files.c.status == FileStatus.FILE_STATUS_EMBEDDING
_WAITING = (
    sa.select(sa.func.count())
    .where(
        passages.c.organization_id == files.c.organization_id,
        passages.c.file_id == files.c.id,
        passages.c.file_id.is_not(None),
        passages.c.pending,
    )
    .scalar_subquery()
)
_FAILURE = (
    sa.select(archives.c.failure)
    .where(archives.c.organization_id == files.c.organization_id, archives.c.id == files.c.folder_id)
    .scalar_subquery()
)
_COLUMNS = [
    *(files.c[name] for name in _NAMES),
    sa.case((_EMBEDDING, _FAILURE), else_=files.c.error).label("error"),
    sa.case((_EMBEDDING, _WAITING), else_=0).label("waiting"),
    sa.func.encode(files.c.sha256, "hex").label("sha256"),
]
_DELETE = sa.text(
    "with gone as (update memory.files set deleted_at = now() where organization_id = :org and folder_id = :folder "
    "and id = :id and deleted_at is null and status > 0 returning organization_id, id, created_at) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)
_PURGE = f"select {call('memory.purge_file', 'org', 'file')}"


class SqlFileStore:
    """Files in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, actor: Actor, folder_id: str, file_id: str) -> File:
        """Return one file."""
        query = sa.select(*_COLUMNS).where(_in_folder(actor, folder_id), files.c.id == file_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).one_or_none()
            await require_folder(conn, actor, folder_id)
        if row is None:
            raise unknown_file(file_id)
        return _file(actor, row)

    async def list_files(self, actor: Actor, folder_id: str, page: Page) -> list[File]:
        """Return a page of a folder's files."""
        scope = _in_folder(actor, folder_id)
        keys = keyset(files, "created_at", actor.organization_id, scope)
        async with self._db.connect() as conn:
            await require_folder(conn, actor, folder_id)
            rows = await fetch_page(conn, sa.select(*_COLUMNS).where(scope), page, keys)
        return [_file(actor, row) for row in rows]

    async def find_text(self, actor: Actor, file_id: str, most: int) -> str | None:
        """Return the text of a file, if it is known and has at most so many bytes."""
        whole = sa.select(sa.func.coalesce(sa.func.string_agg(file_texts.c.text, _by_number("")), "")).where(
            file_texts.c.organization_id == actor.organization_id, file_texts.c.file_id == file_id
        )
        query = sa.select(whole.scalar_subquery()).where(
            files.c.organization_id == actor.organization_id,
            files.c.id == file_id,
            files.c.chunk_count.is_not(None),
            files.c.text_bytes <= most,
        )
        async with self._db.connect() as conn:
            found: str | None = (await conn.execute(query)).scalar_one_or_none()
        return found

    async def delete(self, actor: Actor, folder_id: str, file_id: str) -> None:
        """Take a file away from everybody; `purge` removes it."""
        values = {"org": actor.organization_id, "folder": folder_id, "id": file_id}
        async with self._db.begin() as tx:
            await require_folder(tx, actor, folder_id)
            if (await tx.execute(_DELETE, values)).rowcount == 0:
                raise unknown_file(file_id)

    async def purge(self, organization_id: str, file_id: str) -> bool:
        """Remove some rows of a deleted file; say whether there may be more."""
        rows = await retry(lambda: self._db.hot(_PURGE, {"org": organization_id, "file": file_id}))
        return bool(rows[0][0])


def _by_number(separator: str) -> Any:
    return sa.dialects.postgresql.aggregate_order_by(sa.literal(separator), file_texts.c.number)


def _file(actor: Actor, row: Sequence[Any]) -> File:
    *plain, error, waiting, sha256 = row
    file = File(organization_id=actor.organization_id, error=error, **dict(zip(_NAMES, plain, strict=True)))
    file.sha256 = sha256 or ""
    if file.HasField("chunk_count"):
        file.embedded_chunk_count = file.chunk_count - waiting
    return file


def _in_folder(actor: Actor, folder_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(files.c.organization_id == actor.organization_id, files.c.folder_id == folder_id, *VISIBLE)


def unknown_file(file_id: str) -> FileNotFound:
    """Return the error for a file that a folder has not."""
    return FileNotFound(f"there is no file {file_id} in this folder", file_id=file_id)
