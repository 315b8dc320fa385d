"""Lists: reading `before / after / limit / order` and paging by key in one query."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from google.protobuf.descriptor import Descriptor

from letta.common.v1 import sort_order_pb2
from letta.jsonmap.v1 import annotations_pb2
from letta_common.connections import Connection
from letta_common.errors import CursorNotFound, InvalidArgument

MAX_LIMIT = 1000
_FALLBACK_LIMIT = 50
_MAX_ROW_BYTES = 8_000_000  # twice what a page may hold, since what a client sees can be smaller than what is stored
_SKEW = timedelta(minutes=1)  # by which clocks may differ
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: items after one and before another in the list's order, at most `limit`.

    `from_end` asks for the last items of the list where no cursor says where to begin.
    """

    limit: int = _FALLBACK_LIMIT
    ascending: bool = False
    before: str = ""
    after: str = ""
    from_end: bool = False

    @classmethod
    def of(cls, request: Any) -> Page:
        """Read the paging fields of a list request, with its method's defaults. Raises InvalidArgument."""
        mapping = _mapping(request.DESCRIPTOR)
        limit = getattr(request, "limit", 0)
        if limit < 0:
            raise InvalidArgument("limit must not be negative", field="limit")
        order = getattr(request, "order", sort_order_pb2.SORT_ORDER_UNSPECIFIED)
        ascending = mapping.default_ascending if not order else order == sort_order_pb2.SORT_ORDER_ASC
        return cls(
            limit=min(limit or mapping.default_limit or _FALLBACK_LIMIT, MAX_LIMIT),
            ascending=ascending or mapping.chronological,
            before=request.before,
            after=request.after,
            from_end=mapping.chronological and not ascending,
        )

    @property
    def backwards(self) -> bool:
        """Say whether the page is read from its end: from `before`, or from the end of the list, and turned round."""
        return not self.after and (bool(self.before) or self.from_end)

    def beyond(self, first: str, last: str) -> Page:
        """Return the page that follows one with these first and last items, in the direction of reading."""
        return replace(self, before=first) if self.backwards else replace(self, after=last)

    def check_kind(self, id: str) -> None:
        """Refuse cursors of another kind than an item of the list. Raises CursorNotFound."""
        for cursor in filter(None, (self.before, self.after)):
            if id and cursor.partition("-")[0] != id.partition("-")[0]:
                raise _unknown(cursor)

    def slice(
        self, items: Iterable[Item], key: Callable[[Item], tuple[Any, str]], *, by_time: bool = True
    ) -> list[Item]:
        """Return the page of items in memory as `fetch_page` would; `key(item)` is the position and the id.

        Raises:
            CursorNotFound: no item has this id, nor had one whose id tells its place, where that is `by_time`.
        """
        kept = list(items)
        places = {found[1]: found for found in map(key, kept)}
        self.check_kind(next(iter(places), ""))
        for cursor, later in ((self.after, self.ascending), (self.before, not self.ascending)):
            if cursor:
                if cursor not in places and not by_time:
                    raise _unknown(cursor)
                place = places.get(cursor) or (time_of(cursor), cursor)
                kept = [item for item in kept if key(item) != place and (key(item) > place) is later]
        kept.sort(key=key, reverse=not self.ascending)
        return kept[-self.limit :] if self.backwards else kept[: self.limit]


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
        """Say whether a uuid7 tells the position of a row that is gone."""
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
                raise _unknown(cursor)
            time_of(cursor)
            page.check_kind(await _any_id(conn, keyset))
    return rows


async def _any_id(conn: Connection, keyset: Keyset) -> str:
    """Return the id of an item of the list, or an empty string when there is none."""
    found = (await conn.execute(sa.select(keyset.id).where(keyset.scope).limit(1))).first()
    return "" if found is None else str(found[0])


def uuid7_time(id: str) -> datetime | None:
    """Return when an id was made, or None when it is no uuid7 of the past."""
    try:
        value = UUID(id.partition("-")[2])
        made = datetime.fromtimestamp((value.int >> 80) / 1000, UTC)
    except (ValueError, OverflowError):
        return None
    return made if value.version == 7 and made < datetime.now(UTC) + _SKEW else None


def time_of(cursor: str) -> datetime:
    """Return when the cursor's item was made. Raises CursorNotFound when the id does not tell."""
    made = uuid7_time(cursor)
    if made is None:
        raise _unknown(cursor)
    return made


def _unknown(cursor: str) -> CursorNotFound:
    return CursorNotFound(f"no item {cursor} in this list", cursor=cursor)


def _order(page: Page, *keys: sa.ColumnElement[Any]) -> tuple[sa.ColumnElement[Any], ...]:
    """Return the order in which a page is read."""
    forward = page.ascending != page.backwards
    return tuple(key.asc() if forward else key.desc() for key in keys)


@functools.cache
def _mapping(request: Descriptor) -> annotations_pb2.MethodMapping:
    """Return what the contract says of the list method that takes this request."""
    for service in request.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request:
                return method.GetOptions().Extensions[annotations_pb2.method]
    return annotations_pb2.MethodMapping()
