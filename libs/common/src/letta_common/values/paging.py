"""Lists: reading `before / after / limit / order`, and what a page of a list is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from uuid import UUID

from google.protobuf.descriptor import Descriptor

from letta.common.v1 import sort_order_pb2
from letta.jsonmap.v1 import annotations_pb2
from letta_common.errors import CursorNotFound, InvalidArgument

MAX_LIMIT = 1000  # a page is held in memory as a whole, at each service that it passes
_FALLBACK_LIMIT = 50
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
                raise unknown_cursor(cursor)

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
                    raise unknown_cursor(cursor)
                place = places.get(cursor) or (time_of(cursor), cursor)
                kept = [item for item in kept if key(item) != place and (key(item) > place) is later]
        kept.sort(key=key, reverse=not self.ascending)
        return kept[-self.limit :] if self.backwards else kept[: self.limit]


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
        raise unknown_cursor(cursor)
    return made


def unknown_cursor(cursor: str) -> CursorNotFound:
    """Return the refusal of a cursor that never was in a list."""
    return CursorNotFound(f"no item {cursor} in this list", cursor=cursor)


@functools.cache
def _mapping(request: Descriptor) -> annotations_pb2.MethodMapping:
    """Return what the contract says of the list method that takes this request."""
    for service in request.file.services_by_name.values():
        for method in service.methods:
            if method.input_type is request:
                return method.GetOptions().Extensions[annotations_pb2.method]
    return annotations_pb2.MethodMapping()
