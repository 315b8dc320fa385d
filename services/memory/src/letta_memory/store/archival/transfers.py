"""Passages that go out of archives and come into them, in PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pgvector import HalfVector

from letta.memory.v1.passage_pb2 import PassageRecord
from letta_common.actor import Actor
from letta_common.errors import ArchiveNotFound, InvalidArgument, StaleEtag
from letta_common.values.times import time_of
from letta_memory.domain.archival.transfers import PassageImport
from letta_memory.store.passages import ORIGINS, VECTOR, components_of, origin_of, origin_text
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

_MOST, _BYTES = 500, 1 << 20  # of one message; a single passage may be larger
_NAMES = ("id", "text", "metadata", "tags", "created_at", "embedder", "place")
_FIELDS = ", ".join(f"(r.passage).{name}" for name in (*_NAMES, *ORIGINS))
_LAST = (
    "select a.id, coalesce(s.next_place - 1, 0) from memory.archives a "
    "left join memory.search_scopes s on s.organization_id = a.organization_id and s.owner_id = a.id "
    "where a.organization_id = %b and a.id = %b and not a.of_folder"
)
_READ = (
    f"select {_FIELDS}, {VECTOR} from "
    + call("memory.export_passages", "org", "archive", "after", "until", "most", "bytes", "vectors", "now")
    + " r"
)
_GET = (
    "select m.received, m.written from memory.archives a left join memory.passage_imports m "
    "on m.organization_id = a.organization_id and m.archive_id = a.id and m.id = %b "
    "where a.organization_id = %b and a.id = %b and not a.of_folder"
)
_ROWS = ("keys", "ids", "texts", "metadata", "tags", "times", "vectors", "embedders", "origins")
_WRITE = (
    "select r.status, r.written, r.entry from "
    + call("memory.import_passages", "org", "user", "archive", "now", "import", "received", *_ROWS)
    + " r"
)
_NO_ARCHIVE, _MOVED, _WRONG_VECTOR = 1, 2, 3


class SqlTransferStore:
    """Passages that go out and come in, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_last_place(self, actor: Actor, archive_id: str) -> int:
        """Return where the newest passage of an archive stands; 0 when there is none."""
        for _, place in await self._db.hot(_LAST, (actor.organization_id, archive_id)):
            return int(place)
        raise _unknown(archive_id)

    async def list_records(
        self, actor: Actor, archive_id: str, places: tuple[int, int], *, embeddings: bool, now: datetime
    ) -> list[PassageRecord]:
        """Return the next passages behind the first place, up to the last one; none when all came."""
        values = {
            "org": actor.organization_id,
            "archive": archive_id,
            "after": places[0],
            "until": places[1],
            "most": _MOST,
            "bytes": _BYTES,
            "vectors": embeddings,
            "now": now,
        }
        return [_record(row) for row in await self._db.hot(_READ, values)]

    async def get_import(self, actor: Actor, archive_id: str, import_id: str) -> PassageImport:
        """Return how far an import is."""
        for received, written in await self._db.hot(_GET, (import_id, actor.organization_id, archive_id)):
            return PassageImport(archive_id, import_id, received or 0, written or 0)
        raise _unknown(archive_id)

    async def create_records(
        self, actor: Actor, so_far: PassageImport, ids: Sequence[str], records: Sequence[PassageRecord], now: datetime
    ) -> int:
        """Write entries, all or none; return how many did not stand already."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "archive": so_far.archive_id,
            "now": now,
            "import": so_far.import_id,
            "received": so_far.received,
            "keys": [record.key for record in records],
            "ids": list(ids),
            "texts": [record.text for record in records],
            "metadata": [record.metadata or "{}" for record in records],
            "tags": [json.dumps(list(record.tags)) for record in records],
            "times": [time_of(record.created_at) if record.HasField("created_at") else now for record in records],
            "vectors": [HalfVector(list(record.embedding)) if record.embedding else None for record in records],
            "embedders": [record.embedder for record in records],
            "origins": [origin_text(record) for record in records],
        }
        [(status, written, number)] = await retry(lambda: self._db.hot(_WRITE, values))
        if status == _NO_ARCHIVE:
            raise _unknown(so_far.archive_id)
        if status == _MOVED:
            raise StaleEtag("another stream goes on with the import; ask GetPassageImport", field="offset")
        if status == _WRONG_VECTOR:
            path, size = so_far.path_of(number - 1, "embedding"), len(records[number - 1].embedding)
            text = f"{path} has {size} components, those of the archive have {written}"
            raise InvalidArgument(f"{text}; leave it out, and the text is embedded", field=path)
        return int(written)


def _record(row: Sequence[Any]) -> PassageRecord:
    values = dict(zip(("key", *_NAMES[1:]), row, strict=False))
    origin, vector = row[len(_NAMES) : -1], row[-1]
    if not vector:
        del values["embedder"]
    else:
        values["embedding"] = components_of(vector)
    return PassageRecord(**values, origin=origin_of(origin))


def _unknown(archive_id: str) -> ArchiveNotFound:
    return ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
