"""The cells of large scopes, in PostgreSQL. These system statements span organizations and carry each row's own."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from letta_memory.domain.search.scopes import SearchScope
from letta_postgres.db import Database

_SIZE = (
    "select s.text_count, s.cells from memory.search_scopes s where s.organization_id = %b and s.scope = %b::integer"
)
_SAMPLE = """
select extensions.halfvec_send(t.embedding) from memory.search_scopes s
join memory.search_texts t on t.organization_id = s.organization_id and t.scope = s.scope and t.model = s.model
where s.organization_id = %b and s.scope = %b::integer and s.model <> 0
  and t.place % greatest(1, s.text_count / %b::integer) = 0 limit %b::integer
"""
# Nothing looks at cells that are being made: the scope says that it has none.
_SET = (
    "update memory.search_scopes set cells = 0 where organization_id = :org and scope = :scope",
    "update memory.search_texts set cell = -2 where organization_id = :org and scope = :scope and cell > -2",
    "delete from memory.search_cells where organization_id = :org and scope = :scope",
    "insert into memory.search_cells (organization_id, scope, cell, centre) "
    "select :org, :scope, c.number - 1, c.centre::extensions.halfvec "
    "from unnest(cast(:centres as text[])) with ordinality c (centre, number)",
)
_CENTRES = """
select extensions.halfvec_send(c.centre) from memory.search_cells c
where c.organization_id = %b and c.scope = %b::integer order by c.cell
"""
_UNPLACED = """
select t.place, extensions.halfvec_send(t.embedding) from memory.search_scopes s
join memory.search_texts t on t.organization_id = s.organization_id and t.scope = s.scope and t.model = s.model
where s.organization_id = %b and s.scope = %b::integer and s.model <> 0 and t.place > %b::integer and t.cell < 0
order by t.place limit %b::integer
"""
_PLACE = """
update memory.search_texts t set cell = v.cell from unnest(%b::integer[], %b::smallint[]) v (place, cell)
where t.organization_id = %b and t.scope = %b::integer and t.place = v.place and t.cell < 0
"""
_OPEN = (
    # With the scope held nobody writes to it, so that no text is left in no cell that is looked at.
    "select from memory.search_scopes where organization_id = :org and scope = :scope for no key update",
    "update memory.search_texts set cell = -1 where organization_id = :org and scope = :scope and cell = -2",
    "update memory.search_scopes s set cells = (select count(*) from memory.search_cells c "
    "where c.organization_id = s.organization_id and c.scope = s.scope) "
    "where organization_id = :org and scope = :scope",
)


class SqlSearchCellStore:
    """The cells of large scopes, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get_size(self, scope: SearchScope) -> tuple[int, int]:
        """Return the number of a scope's texts, and of its cells."""
        rows = await self._db.hot(_SIZE, (scope.organization_id, scope.number))
        return (int(rows[0][0]), int(rows[0][1])) if rows else (0, 0)

    async def list_sample(self, scope: SearchScope, limit: int) -> list[bytes]:
        """Return some vectors of a scope."""
        return [
            bytes(row[0]) for row in await self._db.hot(_SAMPLE, (scope.organization_id, scope.number, limit, limit))
        ]

    async def set_centres(self, scope: SearchScope, centres: Sequence[Sequence[float]]) -> None:
        """Give a scope new cells, which are not looked at before `open_cells`."""
        texts = [str(list(centre)) for centre in centres]
        await self._each(_SET, scope, centres=texts)

    async def list_centres(self, scope: SearchScope) -> list[bytes]:
        """Return the centres of a scope's cells in order."""
        return [bytes(row[0]) for row in await self._db.hot(_CENTRES, (scope.organization_id, scope.number))]

    async def list_unplaced(self, scope: SearchScope, after: int, limit: int) -> list[tuple[int, bytes]]:
        """Return some texts of a scope that are in no cell, by place, with their vectors."""
        rows = await self._db.hot(_UNPLACED, (scope.organization_id, scope.number, after, limit))
        return [(int(place), bytes(vector)) for place, vector in rows]

    async def place(self, scope: SearchScope, places: Sequence[int], cells: Sequence[int]) -> None:
        """Put texts into cells."""
        await self._db.hot(_PLACE, (list(places), list(cells), scope.organization_id, scope.number))

    async def open_cells(self, scope: SearchScope) -> None:
        """Let searches look at the cells of a scope, and at what is in none."""
        await self._each(_OPEN, scope)

    async def _each(self, statements: Sequence[str], scope: SearchScope, **more: object) -> None:
        values = {"org": scope.organization_id, "scope": scope.number, **more}
        async with self._db.begin() as tx:
            for statement in statements:
                await tx.execute(
                    sa.text(statement), {name: value for name, value in values.items() if f":{name}" in statement}
                )
