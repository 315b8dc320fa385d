"""Pages that a client with gRPC's default limits can take."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from letta_common.values.paging import Page

MAX_PAGE_BYTES = 4_000_000
"""Most bytes of a page. gRPC clients refuse messages above 4 MiB (4,194,304 bytes) unless their limit is raised."""

_TAG_BYTES = 6  # most that the tag and the length of an item add to it


def cut_page(request: Any, response: Any) -> None:
    """End a list's page earlier where it would be larger than `MAX_PAGE_BYTES`; the next page goes on from there.

    The items nearest to the cursor stay, at least one of them. Neighbours with one id are parts of one item.
    """
    field = list_field(response.DESCRIPTOR)
    if field is None or response.ByteSize() <= MAX_PAGE_BYTES:
        return
    items = getattr(response, field.name)
    if "before" in request.DESCRIPTOR.fields_by_name and Page.of(request).backwards:
        del items[: len(items) - _fitting(list(reversed(items)))]
    else:
        del items[_fitting(items) :]


@cache
def is_list(request: Descriptor, response: Descriptor) -> bool:
    """Say whether a method answers with as many items as it is asked for: it has a limit and one repeated message."""
    return "limit" in request.fields_by_name and list_field(response) is not None


@cache
def list_field(response: Descriptor) -> FieldDescriptor | None:
    """Return the one repeated message field of a list's response."""
    found = [field for field in response.fields if field.is_repeated and field.message_type is not None]
    return found[0] if len(found) == 1 else None


def _fitting(items: Sequence[Any]) -> int:
    """Count the items from the front that fit together, whole ids only."""
    size = fitting = 0
    for index, item in enumerate(items):
        size += item.ByteSize() + _TAG_BYTES
        if size > MAX_PAGE_BYTES and fitting:
            return fitting
        if index + 1 == len(items) or not _id(item) or _id(items[index + 1]) != _id(item):
            fitting = index + 1
    return fitting


def _id(item: Any) -> str:
    return getattr(item, "id", "")
