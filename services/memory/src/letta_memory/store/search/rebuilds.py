"""Which texts are to be indexed anew, in PostgreSQL. These are system statements: they span organizations."""

from __future__ import annotations

from letta_memory.domain.search.scopes import SearchScope
from letta_postgres.db import Database

# All at once, so that a crash leaves all noted or none; in order, as two may do so together.
_BEGIN = """
with begun as (select exists (select from memory.search_scopes s where s.rebuild_below is not null) as resumed),
listed as (
  select s.organization_id, s.scope from memory.search_scopes s
  where not (select resumed from begun) and not s.gone order by s.scope for no key update),
noted as (
  update memory.search_scopes s set rebuild_below = s.next_place from listed l
  where s.organization_id = l.organization_id and s.scope = l.scope)
select resumed from begun
"""
_COUNT = """
select count(*) from memory.search_scopes s
join memory.search_texts t on t.organization_id = s.organization_id and t.scope = s.scope and t.place < s.rebuild_below
where s.rebuild_below is not null and not s.gone
"""
_BEGUN = """
select s.organization_id, s.scope from memory.search_scopes s
where s.rebuild_below is not null and not s.gone and s.scope > %b::integer order by s.scope limit %b::integer
"""


class SqlSearchRebuildStore:
    """Which texts are to be indexed anew, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self) -> tuple[bool, int]:
        """Note that every text is to be indexed anew, unless some still are: whether some were, and how many."""
        [(resumed,)] = await self._db.hot(_BEGIN)
        [(count,)] = await self._db.hot(_COUNT)
        return bool(resumed), int(count)

    async def list_begun(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes whose texts are not all indexed anew, by number."""
        place = after.number if after else 0
        return [SearchScope(*row) for row in await self._db.hot(_BEGUN, (place, limit))]
