"""How lists are cut into pages, without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta.jsonmap.v1 import annotations_pb2
from letta_common.errors import CursorNotFound, InvalidArgument
from letta_common.values.ids import new_id
from letta_common.values.paging import Page, uuid7_time

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Ask:
    """The paging fields of a list request."""

    DESCRIPTOR: Any = None
    before: str = ""
    after: str = ""
    limit: int = 0
    order: int = 0


@pytest.fixture(autouse=True)
def defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    mapping = annotations_pb2.MethodMapping(default_limit=10, default_ascending=True)
    monkeypatch.setattr("letta_common.values.paging._mapping", lambda _: mapping)


@pytest.mark.parametrize(("limit", "read"), [(0, 10), (1, 1), (1000, 1000), (5000, 1000)])
def test_limit_is_read(limit: int, read: int) -> None:
    assert Page.of(Ask(limit=limit)).limit == read


def test_negative_limit_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        Page.of(Ask(limit=-1))


@pytest.mark.parametrize(("order", "ascending"), [(0, True), (1, True), (2, False)])
def test_order_is_read(order: int, ascending: bool) -> None:
    assert Page.of(Ask(order=order)).ascending is ascending


def item(number: int) -> tuple[datetime, str]:
    return START + timedelta(seconds=number // 2), f"block-{number:03}"


def whole(item: tuple[datetime, str]) -> tuple[datetime, str]:
    return item


@given(count=st.integers(0, 30), limit=st.integers(1, 7), ascending=st.booleans())
def test_pages_forwards_make_the_whole_list(count: int, limit: int, ascending: bool) -> None:
    items = [item(number) for number in range(count)]
    read: list[Any] = []
    while page := Page(limit, ascending, after=read[-1][1] if read else "").slice(items, whole):
        read += page

    assert read == (items if ascending else items[::-1])


@given(count=st.integers(1, 30), limit=st.integers(1, 7), ascending=st.booleans())
def test_pages_backwards_make_the_whole_list(count: int, limit: int, ascending: bool) -> None:
    items = [item(number) for number in range(count)]
    expected = items if ascending else items[::-1]
    read = expected[-1:]
    while page := Page(limit, ascending, before=read[0][1]).slice(items, whole):
        read = page + read

    assert read == expected


def test_both_cursors_confine_the_page() -> None:
    items = [item(number) for number in range(9)]

    assert Page(50, True, before="block-006", after="block-002").slice(items, whole) == items[3:6]


def test_cursor_that_never_was_is_refused() -> None:
    for cursor in ("block-999", "nonsense", "block-00000000-0000-4000-8000-000000000000"):
        with pytest.raises(CursorNotFound):
            Page(after=cursor).slice([item(0)], whole)


def test_cursor_of_another_kind_is_refused() -> None:
    items = [(uuid7_time(id), id) for id in (new_id("block") for _ in range(2))]

    for page in (Page(after=new_id("agent")), Page(before=new_id("agent"))):
        with pytest.raises(CursorNotFound):
            page.slice(items, whole)


def test_cursor_of_an_item_that_left_a_ranked_list_is_refused() -> None:
    with pytest.raises(CursorNotFound):
        Page(after=new_id("tool")).slice([(0, "tool-a"), (-1, "tool-b")], whole, by_time=False)


def test_cursor_of_a_deleted_item_keeps_its_place() -> None:
    items = [(uuid7_time(id), id) for id in (new_id("block") for _ in range(1))]
    gone = new_id("block")

    assert Page(ascending=False, after=gone).slice(items, lambda pair: (pair[0], pair[1])) == items


def test_time_is_read_from_a_new_id_alone() -> None:
    made = uuid7_time(new_id("mcp_server"))

    assert made is not None
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=1)
    assert uuid7_time("block-ffffffff-ffff-7fff-8000-000000000000") is None
