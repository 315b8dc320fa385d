"""Lists: reading `before / after / limit / order` and paging by key in one query."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
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
_SKEW = timedelta(minutes=1)  # by which clocks may differ
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list: items after one and before another in the list's order, at most `limit`."""

    limit: int = _FALLBACK_LIMIT
    ascending: bool = False
    before: str = ""
    after: str = ""

    @classmethod
    def of(cls, request: Any) -> Page:
        """Read the paging fields of a list request, with its method's defaults. Raises InvalidArgument."""
        default_limit, default_ascending = _defaults(request.DESCRIPTOR)
        limit = getattr(request, "limit", 0)
        if limit < 0:
            raise InvalidArgument("limit must not be negative", field="limit")
        order = getattr(request, "order", sort_order_pb2.SORT_ORDER_UNSPECIFIED)
        return cls(
            limit=min(limit or default_limit, MAX_LIMIT),
            ascending=default_ascending if not order else order == sort_order_pb2.SORT_ORDER_ASC,
            before=request.before,
            after=request.after,
        )

    @property
    def backwards(self) -> bool:
        """Say whether the page ends at a cursor instead of beginning at one: it is read from there and turned round."""
        return bool(self.before) and not self.after

    def slice(self, items: Iterable[Item], key: Callable[[Item], tuple[Any, str]]) -> list[Item]:
        """Return the page of items in memory as `fetch_page` would; `key(item)` is the position and the id."""
        kept = list(items)
        places = {found[1]: found for found in map(key, kept)}
        for cursor, later in ((self.after, self.ascending), (self.before, not self.ascending)):
            if cursor:
                place = places.get(cursor) or (time_of(cursor), cursor)
                kept = [item for item in kept if key(item) != place and (key(item) > place) is later]
        kept.sort(key=key, reverse=not self.ascending)
        return kept[-self.limit :] if self.backwards else kept[: self.limit]


@dataclass(frozen=True, slots=True)
class Keyset:
    """What orders a list and finds a cursor's row in it: `(at, id)` among the rows of `scope`."""

    at: sa.ColumnElement[Any]
    id: sa.ColumnElement[str]
    scope: sa.ColumnElement[bool]

    def narrow(self, query: sa.Select[Any], page: Page) -> sa.Select[Any]:
        """Confine a query to the page."""
        forward = page.ascending != page.backwards
        for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending)):
            if cursor:
                key, place = sa.tuple_(self.at, self.id), sa.tuple_(self._at(cursor), sa.literal(cursor, sa.Text))
                query = query.where(key > place if later else key < place)
        order = (self.at.asc(), self.id.asc()) if forward else (self.at.desc(), self.id.desc())
        return query.order_by(*order).limit(page.limit)

    def find(self, cursor: str) -> sa.Select[Any]:
        """Return the query of a cursor's position."""
        return sa.select(self.at).where(self.scope, self.id == cursor)

    @property
    def by_time(self) -> bool:
        """Say whether a uuid7 tells the position of a row that is gone."""
        return isinstance(self.at.type, sa.DateTime)

    def _at(self, cursor: str) -> sa.ColumnElement[Any]:
        found = self.find(cursor).correlate(None).scalar_subquery()
        if not self.by_time or uuid7_time(cursor) is None:
            return found
        return sa.func.coalesce(found, sa.literal(uuid7_time(cursor), self.at.type))


async def fetch_page(conn: Connection, query: sa.Select[Any], page: Page, keyset: Keyset) -> list[sa.Row[Any]]:
    """Run a query for one page of rows, in one statement unless nothing is found.

    The cursor of a row deleted meanwhile works when its id is a uuid7 and the list is ordered by time of creation.

    Raises:
        CursorNotFound: `before` or `after` never was in this list.
    """
    rows = list(await conn.execute(keyset.narrow(query, page)))
    if rows:
        return rows[::-1] if page.backwards else rows
    for cursor in filter(None, (page.before, page.after)):
        if (await conn.execute(keyset.find(cursor))).first() is None:
            if not keyset.by_time:
                raise _unknown(cursor)
            time_of(cursor)
    return rows


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


@cache
def _defaults(request: Descriptor) -> tuple[int, bool]:
    for service in request.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request:
                options = method.GetOptions().Extensions[annotations_pb2.method]
                return options.default_limit or _FALLBACK_LIMIT, options.default_ascending
    return _FALLBACK_LIMIT, False
