"""Pages end where a client with gRPC's default limits would refuse them."""

from __future__ import annotations

from typing import Any

import pytest

from letta.common.v1 import letta_message_pb2, sort_order_pb2
from letta.memory.v1 import message_service_pb2 as pb
from letta_rpc.page_bytes import MAX_PAGE_BYTES, cut_page, is_list

ASC, DESC = sort_order_pb2.SORT_ORDER_ASC, sort_order_pb2.SORT_ORDER_DESC


def answer(*items: tuple[str, int]) -> pb.ListAgentMessagesResponse:
    """Return a page of messages: their ids and how many characters each has."""
    shown = [
        letta_message_pb2.LettaMessage(id=id, user_message=letta_message_pb2.UserMessage(text="x" * size))
        for id, size in items
    ]
    return pb.ListAgentMessagesResponse(messages=shown)


def cut(response: Any, **fields: Any) -> list[str]:
    cut_page(pb.ListAgentMessagesRequest(**fields), response)
    return [shown.id for shown in response.messages]


SMALL, LARGE = 10, MAX_PAGE_BYTES // 2


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"order": ASC}, ["a", "b"]),
        ({"order": ASC, "after": "x"}, ["a", "b"]),
        ({"order": ASC, "before": "x"}, ["b", "c", "d"]),
        ({"order": DESC}, ["b", "c", "d"]),
        ({"order": DESC, "after": "x"}, ["a", "b"]),
    ],
)
def test_what_is_nearest_to_the_cursor_stays(fields: dict[str, Any], kept: list[str]) -> None:
    page = answer(("a", LARGE), ("b", SMALL), ("c", LARGE), ("d", SMALL))
    assert cut(page, **fields) == kept


def test_a_page_that_fits_is_whole() -> None:
    assert cut(answer(("a", LARGE), ("b", LARGE - 1000)), order=ASC) == ["a", "b"]


def test_parts_of_one_item_are_never_parted() -> None:
    page = answer(("a", LARGE), ("b", SMALL), ("b", LARGE), ("c", SMALL))
    assert cut(page, order=ASC) == ["a"]
    page = answer(("a", SMALL), ("b", LARGE), ("b", SMALL), ("c", LARGE))
    assert cut(page, order=DESC) == ["c"]


def test_one_item_stays_however_large_it_is() -> None:
    assert cut(answer(("a", 3 * LARGE), ("b", SMALL)), order=ASC) == ["a"]


def test_what_fits_best_stays_of_a_search() -> None:
    result = pb.MessageSearchResult(message_id="m", user_message=letta_message_pb2.UserMessage(text="x" * LARGE))
    response = pb.SearchMessagesResponse(results=[result] * 3)
    cut_page(pb.SearchMessagesRequest(), response)
    assert len(response.results) == 1


def test_only_lists_are_cut() -> None:
    assert is_list(pb.ListAgentMessagesRequest.DESCRIPTOR, pb.ListAgentMessagesResponse.DESCRIPTOR)
    assert is_list(pb.SearchMessagesRequest.DESCRIPTOR, pb.SearchMessagesResponse.DESCRIPTOR)
    assert not is_list(pb.GetMessageRequest.DESCRIPTOR, pb.GetMessageResponse.DESCRIPTOR)
