"""Purges of passages in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from letta.memory.v1.passage_pb2 import PassageOrigin
from letta.memory.v1.passage_service_pb2 import PassageFilter, TagMatchMode
from letta_common.actor import Actor
from letta_common.values.repeats import require_same
from letta_common.values.times import optional_time
from letta_memory.domain.purges import Purge
from letta_postgres.db import Database, retry
from letta_postgres.statements import call

_ORIGIN = tuple(field.name for field in PassageOrigin.DESCRIPTOR.fields)
_FILTER = "({}, %(tags)b, %(all)b, %(since)b, %(before)b)::memory.passage_filter".format(
    ", ".join(f"%({name})b" for name in _ORIGIN)
)
_COUNT = (
    "select count(*), (array_agg(f.id))[1:%(sample)b::integer] from "
    f"memory.fitting_passages(%(org)b, %(archive)b, {_FILTER}, %(until)b, null) f"
)
_BEGIN = (
    "with begun as (insert into memory.passage_purges "
    "(organization_id, id, archive_id, filter, request_hash, started_at) "
    f"values (%(org)b, %(id)b, %(archive)b, {_FILTER}, %(hash)b, %(until)b) on conflict do nothing) "
    "select x.request_hash from memory.passage_purges x where x.organization_id = %(org)b and x.id = %(id)b"
)
_GO_ON = f"select g.removed, g.ended from {call('memory.purge_passages', 'org', 'id', 'most')} g"


class SqlPurgeStore:
    """Purges of passages in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def count(self, actor: Actor, purge: Purge, sample: int) -> tuple[int, Sequence[str]]:
        """Return how many passages a purge would remove, and some of their ids."""
        [(number, ids)] = await self._db.hot(_COUNT, _values(actor, purge) | {"sample": sample})
        return number, ids or []

    async def begin(self, actor: Actor, purge: Purge, request_hash: bytes) -> None:
        """Note a purge, once for its id."""
        rows = await self._db.hot(_BEGIN, _values(actor, purge) | {"id": purge.id, "hash": request_hash})
        for (stored,) in rows:
            require_same(stored, request_hash)

    async def go_on(self, actor: Actor, purge_id: str, limit: int) -> tuple[int, bool]:
        """Remove some of its passages; return how many went in all, and whether none is left."""
        values = {"org": actor.organization_id, "id": purge_id, "most": limit}
        [(removed, ended)] = await retry(lambda: self._db.hot(_GO_ON, values))
        return removed, ended


def _values(actor: Actor, purge: Purge) -> dict[str, Any]:
    found: PassageFilter = purge.filter
    return {
        "org": actor.organization_id,
        "archive": purge.archive_id or None,
        **{name: getattr(found.origin, name) or None for name in _ORIGIN},
        "tags": list(found.tags) or None,
        "all": found.tag_match_mode == TagMatchMode.TAG_MATCH_MODE_ALL,
        "since": optional_time(found, "created_after"),
        "before": optional_time(found, "created_before"),
        "until": purge.until,
    }
