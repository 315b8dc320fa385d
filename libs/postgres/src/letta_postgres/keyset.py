"""Paging by key in one query."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from letta_common.values.paging import Page, time_of, unknown_cursor, uuid7_time
from letta_postgres.connections import Connection

_MAX_ROW_BYTES = 8_000_000  # twice what a page may hold, since what a client sees can be smaller than what is stored


@dataclass(frozen=True, slots=True)
class Keyset:
    """What orders a list and finds a cursor's row in it: `(at, id)` among the rows of `scope`.

    `large` names the columns (text or bytes) of which a thousand may be too much for the memory of the process.
    """

    at: sa.ColumnElement[Any]
    id: sa.ColumnElement[str]
    scope: sa.ColumnElement[bool]
    large: tuple[sa.ColumnElement[Any], ...] = ()

    def narrow(self, query: sa.Select[Any], page: Page) -> sa.Select[Any]:
        """Confine a query to the page."""
        for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending)):
            if cursor:
                key, place = sa.tuple_(self.at, self.id), sa.tuple_(self._at(cursor), sa.literal(cursor, sa.Text))
                query = query.where(key > place if later else key < place)
        query = query.order_by(*_order(page, self.at, self.id)).limit(page.limit)
        return self._within_bytes(query, page) if self.large else query

    def find(self, cursor: str) -> sa.Select[Any]:
        """Return the query of a cursor's position."""
        return sa.select(self.at).where(self.scope, self.id == cursor)

    @property
    def by_time(self) -> bool:
        """Say whether the uuid7 of a deleted row gives its position."""
        return isinstance(self.at.type, sa.DateTime)

    def _within_bytes(self, query: sa.Select[Any], page: Page) -> sa.Select[Any]:
        """End a page where the rows before it hold `_MAX_ROW_BYTES` in their large columns.

        `octet_length` reads the size of a value that is stored apart without reading the value.
        """
        wanted = len(query.selected_columns)
        size = functools.reduce(operator.add, (sa.func.coalesce(sa.func.octet_length(c), 0) for c in self.large))
        rows = query.add_columns(size.label("page_size"), self.at.label("page_at"), self.id.label("page_id")).subquery()
        order = _order(page, rows.c.page_at, rows.c.page_id)
        before = sa.func.sum(rows.c.page_size).over(order_by=order, rows=(None, -1)).label("page_before")
        sized = sa.select(*rows.c, before).subquery()
        kept = sa.func.coalesce(sized.c.page_before, 0) < _MAX_ROW_BYTES
        order = _order(page, sized.c.page_at, sized.c.page_id)
        return sa.select(*list(sized.c)[:wanted]).where(kept).order_by(*order)

    def _at(self, cursor: str) -> sa.ColumnElement[Any]:
        # Uncorrelated: it looks for the cursor in the whole list and not in the row at hand.
        found = self.find(cursor).correlate(None).scalar_subquery()
        if not self.by_time or uuid7_time(cursor) is None:
            return found
        return sa.func.coalesce(found, sa.literal(uuid7_time(cursor), self.at.type))


async def fetch_page(conn: Connection, query: sa.Select[Any], page: Page, keyset: Keyset) -> list[sa.Row[Any]]:
    """Run a query for one page of rows, in one statement unless nothing is found.

    The page ends earlier where its rows hold more than `_MAX_ROW_BYTES` in the keyset's large columns.

    The cursor of a row deleted meanwhile works when its id is a uuid7 and the list is ordered by time of creation.

    Raises:
        CursorNotFound: `before` or `after` never was in this list.
    """
    rows = list(await conn.execute(keyset.narrow(query, page)))
    if rows:
        if page.before or page.after:
            page.check_kind(rows[0]._mapping.get(keyset.id.key) or await _any_id(conn, keyset))
        return rows[::-1] if page.backwards else rows
    for cursor in filter(None, (page.before, page.after)):
        if (await conn.execute(keyset.find(cursor))).first() is None:
            if not keyset.by_time:
                raise unknown_cursor(cursor)
            time_of(cursor)
            page.check_kind(await _any_id(conn, keyset))
    return rows


async def _any_id(conn: Connection, keyset: Keyset) -> str:
    """Return the id of an item of the list, or an empty string when there is none."""
    found = (await conn.execute(sa.select(keyset.id).where(keyset.scope).limit(1))).first()
    return "" if found is None else str(found[0])


def _order(page: Page, *keys: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[Any], ...]:
    """Return the order in which a page is read."""
    forward = page.ascending != page.backwards
    return tuple(key.asc() if forward else key.desc() for key in keys)
