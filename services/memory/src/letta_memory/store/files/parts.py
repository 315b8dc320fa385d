"""Bytes of the parts of files: in rows, or in objects whose keys are in rows."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from letta_common.actor import Actor
from letta_common.errors import LostObject, ServiceUnavailable
from letta_common.values.ids import uuid7
from letta_memory.domain.files import Bucket, KeptPart
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

# Far longer than writing an object may take, so that none is removed while it is being written.
_WRITTEN_WITHIN = "1 hour"
_NOTE = (
    "insert into memory.loose_objects (organization_id, object, due_at) "
    f"values (%b, %b, now() + interval '{_WRITTEN_WITHIN}')"
)
_CLAIM = f"select c.organization_id, c.object from {call('memory.claim_loose_objects', 'most')} c"
_FORGET = (
    "delete from memory.loose_objects l using unnest(%(owners)s::text[], %(keys)s::text[]) g (owner, key) "
    "where l.organization_id = g.owner and l.object = g.key and l.claimed"
)


class RowParts:
    """Keeps bytes in the rows of parts."""

    async def keep(self, actor: Actor, name: str, data: bytes) -> KeptPart:  # noqa: ARG002
        """Leave the bytes to the row."""
        return KeptPart(len(data), data)

    async def read(self, part: KeptPart) -> bytes:
        """Return the bytes of a part."""
        if part.data is None:
            raise ServiceUnavailable("the bytes of this file are in a bucket, and this deployment has none set")
        return part.data


class BucketParts:
    """Keeps bytes in a bucket; what stands in rows is read from there."""

    def __init__(self, db: Database, bucket: Bucket) -> None:
        self._db = db
        self._bucket = bucket

    async def keep(self, actor: Actor, name: str, data: bytes) -> KeptPart:
        """Note an object of a new key, then write it: who dies between leaves a note by which it is removed."""
        # A key of its own for each attempt: of two streams of one upload neither writes over what the other kept.
        key = f"{actor.organization_id}/{name}-{uuid7()}"
        await self._db.hot(_NOTE, (actor.organization_id, key))
        await self._bucket.put(key, data)
        return KeptPart(len(data), None, key, hashlib.sha256(data).digest())

    async def read(self, part: KeptPart) -> bytes:
        """Return the bytes of a part."""
        if part.key is None:
            return part.data or b""
        data = await self._bucket.get(part.key)
        if hashlib.sha256(data).digest() != part.sha256:
            raise LostObject("the bytes of this file are not those that were stored; upload it again")
        return data


class SqlLooseObjectStore:
    """Objects that belong to no file, in PostgreSQL. These are system statements: they span organizations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def claim(self, most: int) -> list[tuple[str, str]]:
        """Claim some objects that are to be removed: the organization and the key of each."""
        return [(row[0], row[1]) for row in await retry(lambda: self._db.hot(_CLAIM, {"most": most}))]

    async def forget(self, objects: Sequence[tuple[str, str]]) -> None:
        """Forget objects that were removed."""
        values = {"owners": [owner for owner, _ in objects], "keys": [key for _, key in objects]}
        await retry(lambda: self._db.hot(_FORGET, values))
