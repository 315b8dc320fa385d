"""Files that are being read, in PostgreSQL. These are system statements: each row carries its organization."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letta.memory.v1.file_pb2 import File, FileStatus
from letta_common.clock import Clock
from letta_documents.chunks import Chunk
from letta_documents.documents import Document
from letta_memory.domain.files import KeptPart, PartKeeper
from letta_memory.domain.ingestion import Reading, TextPiece, chunk_metadata
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

_PARTS_AT_ONCE = 16  # 4 MiB, so that no answer of the database is large
_CLAIM = "select r.organization_id, r.id, r.folder_id, r.name, r.media_type, r.chunk_size, r.attempts, r.lease_id from "
_CLAIM += f"{call('memory.claim_file', 'lease', 'seconds')} r"
_OURS = "where f.organization_id = %(org)s and f.id = %(file)s and f.lease_id = %(lease)s and f.deleted_at is null"
_RENEW = (
    "update memory.files f set lease_until = clock_timestamp() + %(seconds)s::float8 * interval '1 second' "
    f"{_OURS} returning 1"
)
_PARTS = (
    "select t.size_bytes, t.bytes, t.object, t.sha256 from memory.file_parts t "
    "where t.organization_id = %b and t.file_id = %b and t.number >= %b and t.number < %b order by t.number"
)
_TEXTS = (
    "insert into memory.file_texts (organization_id, file_id, number, first_line, text) "
    "select f.organization_id, f.id, i.number, i.first_line, i.text from memory.files f, "
    f"unnest(%(numbers)s::integer[], %(lines)s::integer[], %(texts)s::text[]) i (number, first_line, text) {_OURS} "
    "on conflict do nothing returning 1"
)
_CHUNKS = f"select {call('memory.write_chunks', 'org', 'file', 'lease', 'first', 'ids', 'texts', 'metadata')}"
_FINISH = f"select {call('memory.finish_reading', 'org', 'file', 'lease', 'media_type', 'chunks', 'text_bytes', 'now')}"
_FAIL = (
    "update memory.files f set status = %(status)s::smallint, error = %(why)s, attempts = 0, lease_id = '', "
    f"lease_until = null, updated_at = %(now)s {_OURS}"
)
_POSTPONE = (
    "update memory.files f set status = %(status)s::smallint, attempts = f.attempts - %(taken_back)s::smallint, "
    "lease_id = '', lease_until = clock_timestamp() + %(seconds)s::float8 * interval '1 second', "
    f"updated_at = %(now)s {_OURS}"
)
_FORGET = f"select {call('memory.purge_reading', 'org', 'file')}"


class SqlReadingStore:
    """Files that are being read, in PostgreSQL."""

    def __init__(self, db: Database, clock: Clock, parts: PartKeeper) -> None:
        self._db = db
        self._parts = parts
        self._clock = clock

    async def claim(self, lease_id: str, seconds: float) -> Reading | None:
        """Take a file that waits to be read, of organizations in turn, for so long; None when there is none."""
        rows = await self._db.hot(_CLAIM, {"lease": lease_id, "seconds": seconds})
        if not rows:
            return None
        organization_id, file_id, folder_id, name, media_type, *rest = rows[0]
        file = File(organization_id=organization_id, id=file_id, folder_id=folder_id, name=name, media_type=media_type)
        return Reading(file, *rest)

    async def renew(self, reading: Reading, seconds: float) -> bool:
        """Keep a file for so long from now on; say whether it still is ours."""
        return bool(await self._db.hot(_RENEW, {**_key(reading), "seconds": seconds}))

    async def get_bytes(self, reading: Reading) -> bytes:
        """Return the bytes of a file."""
        found: list[bytes] = []
        org, file_id = reading.file.organization_id, reading.file.id
        while len(found) % _PARTS_AT_ONCE == 0:
            rows = await self._db.hot(_PARTS, (org, file_id, len(found), len(found) + _PARTS_AT_ONCE))
            if not rows:
                break
            found += await asyncio.gather(*(self._parts.read(KeptPart(*row)) for row in rows))
        return b"".join(found)

    async def forget(self, reading: Reading) -> None:
        """Remove what an attempt before left."""
        values = {"org": reading.file.organization_id, "file": reading.file.id}
        while (await retry(lambda: self._db.hot(_FORGET, values)))[0][0]:
            pass

    async def append_texts(self, reading: Reading, pieces: Sequence[TextPiece]) -> bool:
        """Keep some pieces of the text; say whether the file still is ours."""
        values = {
            **_key(reading),
            "numbers": [piece.number for piece in pieces],
            "lines": [piece.first_line for piece in pieces],
            "texts": [piece.text for piece in pieces],
        }
        return bool(await self._db.hot(_TEXTS, values))

    async def append_chunks(self, reading: Reading, first: int, ids: Sequence[str], made: Sequence[Chunk]) -> bool:
        """Keep some chunks, of which `first` is the place of the first; say whether the file still is ours."""
        values = {
            **_key(reading),
            "first": first,
            "ids": list(ids),
            "texts": [chunk.text for chunk in made],
            "metadata": [chunk_metadata(chunk) for chunk in made],
        }
        rows = await retry(lambda: self._db.hot(_CHUNKS, values))
        return bool(rows[0][0])

    async def finish(self, reading: Reading, document: Document, chunk_count: int) -> None:
        """Say that all of a file was read, when it still is ours."""
        values = {
            **_key(reading),
            "media_type": document.media_type,
            "chunks": chunk_count,
            "text_bytes": len(document.text.encode()),
            "now": self._clock.now(),
        }
        await retry(lambda: self._db.hot(_FINISH, values))

    async def fail(self, reading: Reading, why: str) -> None:
        """Say that a file cannot be read, when it still is ours."""
        values = {
            **_key(reading),
            "status": int(FileStatus.FILE_STATUS_FAILED),
            "why": why.replace("\0", ""),
            "now": self._clock.now(),
        }
        await retry(lambda: self._db.hot(_FAIL, values))

    async def postpone(self, reading: Reading, seconds: float, *, counted: bool) -> None:
        """Leave a file for later; the attempt counts or not."""
        values = {
            **_key(reading),
            "status": int(FileStatus.FILE_STATUS_PENDING),
            "taken_back": int(not counted),
            "seconds": seconds,
            "now": self._clock.now(),
        }
        await retry(lambda: self._db.hot(_POSTPONE, values))


def _key(reading: Reading) -> dict[str, object]:
    return {"org": reading.file.organization_id, "file": reading.file.id, "lease": reading.lease_id}
