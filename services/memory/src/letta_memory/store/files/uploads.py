"""Uploads in PostgreSQL: files whose bytes still come."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from letta.memory.v1.file_pb2 import File
from letta.memory.v1.file_service_pb2 import GetFileStorageResponse, GetUploadResponse
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AlreadyExists, StaleEtag, StorageExhausted
from letta_common.values.repeats import another_request
from letta_common.values.times import stamp_of
from letta_memory.domain.files import KeptPart, PartKeeper
from letta_memory.domain.uploads import PART_BYTES, Begun, NewUpload
from letta_memory.store.files.files import SqlFileStore, unknown_file
from letta_memory.store.files.folders import require_folder, unknown_folder
from letta_memory.store.tables import files
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

_BEGIN = "select * from " + call(
    "memory.begin_upload",
    *("org", "user", "folder", "id", "name", "original", "media_type", "token", "anew", "request_hash", "now"),
)
_APPEND = "select " + call(
    "memory.append_part",
    *("org", "id", "token", "offset", "number", "part", "part_size", "object", "part_sha256", "most", "now"),
)
_PART = (
    "select t.size_bytes, t.bytes, t.object, t.sha256 from memory.file_parts t "
    "where t.organization_id = %b and t.file_id = %b and t.number = %b"
)
_FINISH = "select * from " + call(
    "memory.finish_upload",
    *("org", "folder", "id", "token", "name", "duplicates", "number", "part", "part_size", "object", "part_sha256"),
    *("size", "sha256", "most", "now"),
)
_CANCEL = (
    "update memory.files f set deleted_at = now() where f.organization_id = %b and f.id = %b and f.lease_id = %b "
    "and f.status = 0 and f.deleted_at is null"
)
_NO_FOLDER, _OTHER_REQUEST, _GOING, _DONE = 1, 2, 3, 4
_LOST, _TAKEN, _FULL = 2, 3, 4
_PART_LOST, _PART_FULL = 1, 2
_STORED = "select s.size_bytes from memory.stored_files s where s.organization_id = %b"


class SqlUploadStore:
    """Uploads in PostgreSQL."""

    def __init__(
        self, db: Database, files: SqlFileStore, clock: Clock, parts: PartKeeper, *, most_bytes: int = 0
    ) -> None:
        """Store with a connection; an organization may store so many bytes, with 0 any number."""
        self._db = db
        self._parts = parts
        self._most = most_bytes
        self._files = files
        self._clock = clock

    async def begin(self, actor: Actor, new: NewUpload, *, anew: bool) -> Begun:
        """Begin an upload or take it over from another stream, without what came before if it begins anew."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "folder": new.file.folder_id,
            "id": new.file.id,
            "name": new.file.name,
            "original": new.file.original_name,
            "media_type": new.file.media_type,
            "token": new.token,
            "anew": anew,
            "request_hash": new.request_hash or None,
            "now": self._clock.now(),
        }
        status, received = (await self._db.hot(_BEGIN, values))[0]
        while status == _GOING:
            await self._files.purge(actor.organization_id, new.file.id)
            status, received = (await self._db.hot(_BEGIN, values))[0]
        if status == _NO_FOLDER:
            raise unknown_folder(new.file.folder_id)
        if status == _OTHER_REQUEST:
            raise another_request()
        file = await self._files.get(actor, new.file.folder_id, new.file.id) if status == _DONE else None
        return Begun(received, file)

    async def append_part(self, actor: Actor, new: NewUpload, offset: int, part: bytes) -> None:
        """Keep a part."""
        kept = await self._parts.keep(actor, f"{new.file.id}/{offset // PART_BYTES}", part)
        values = {
            "org": actor.organization_id,
            "id": new.file.id,
            "token": new.token,
            "offset": offset,
            "number": offset // PART_BYTES,
            **_values(kept),
            "most": self._most,
            "now": self._clock.now(),
        }
        status = (await self._db.hot(_APPEND, values))[0][0]
        if status == _PART_LOST:
            raise _lost()
        if status == _PART_FULL:
            raise self._full()

    async def get_part(self, actor: Actor, file_id: str, number: int) -> bytes:
        """Return a part that came, from 0."""
        rows = await self._db.hot(_PART, (actor.organization_id, file_id, number))
        if not rows:
            raise unknown_file(file_id)
        return await self._parts.read(KeptPart(*rows[0]))

    async def finish(self, actor: Actor, new: NewUpload, size: int, rest: bytes, sha256: bytes) -> tuple[File, str]:
        """Make a file of what came; return it, and the id of the file whose place it took."""
        now, number = self._clock.now(), (size - len(rest)) // PART_BYTES
        kept = await self._parts.keep(actor, f"{new.file.id}/{number}", rest) if rest else KeptPart(0, b"")
        values = {
            "org": actor.organization_id,
            "folder": new.file.folder_id,
            "id": new.file.id,
            "token": new.token,
            "name": new.file.name,
            "duplicates": new.duplicates,
            "number": number,
            **_values(kept),
            "size": size,
            "sha256": sha256,
            "most": self._most,
            "now": now,
        }
        status, file_id, name, replaced_id = (await self._db.hot(_FINISH, values))[0]
        if status == _NO_FOLDER:
            raise unknown_folder(new.file.folder_id)
        if status == _LOST:
            raise _lost()
        if status == _FULL:
            raise self._full()
        if status == _TAKEN:
            text = (
                f"the folder has a file {new.file.name} already; choose another name, or another `duplicate_handling`"
            )
            raise AlreadyExists(text, file_id=file_id)
        if file_id != new.file.id:
            return await self._files.get(actor, new.file.folder_id, file_id), ""
        # Not read again: another upload may have taken its place already.
        file = File(name=name, size_bytes=size, sha256=sha256.hex(), created_at=stamp_of(now), updated_at=stamp_of(now))
        made = File()
        made.CopyFrom(new.file)
        made.MergeFrom(file)
        return made, replaced_id

    async def cancel(self, actor: Actor, new: NewUpload) -> None:
        """Forget an upload, unless another stream goes on with it."""
        await retry(lambda: self._db.hot(_CANCEL, (actor.organization_id, new.file.id, new.token)))

    async def get_upload(self, actor: Actor, folder_id: str, file_id: str) -> GetUploadResponse:
        """Return how much of an upload came."""
        query = sa.select(files.c.size_bytes, files.c.status).where(
            files.c.organization_id == actor.organization_id,
            files.c.folder_id == folder_id,
            files.c.id == file_id,
            files.c.deleted_at.is_(None),
        )
        async with self._db.connect() as conn:
            await require_folder(conn, actor, folder_id)
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            return GetUploadResponse()
        return GetUploadResponse(received_bytes=row[0], file_id=file_id if row[1] else "")

    async def get_storage(self, actor: Actor) -> GetFileStorageResponse:
        """Return how many bytes of files the organization stores, and how many it may."""
        rows = await self._db.hot(_STORED, (actor.organization_id,))
        return GetFileStorageResponse(size_bytes=rows[0][0] if rows else 0, limit_bytes=self._most or None)

    def _full(self) -> StorageExhausted:
        text = f"the organization may store {self._most} bytes of files, and this one goes beyond; delete some first"
        return StorageExhausted(text, limit=str(self._most))


def _values(kept: KeptPart) -> dict[str, Any]:
    return {"part": kept.data, "part_size": kept.size, "object": kept.key, "part_sha256": kept.sha256}


def _lost() -> StaleEtag:
    return StaleEtag("another stream goes on with this upload; ask GetUpload, and begin again if it breaks off")
