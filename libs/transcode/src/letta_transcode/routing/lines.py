"""Bodies of JSON lines: the items of a stream of requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from letta_transcode.http.errors import HttpError, unprocessable
from letta_transcode.http.requests import parse_json

if TYPE_CHECKING:
    from letta_transcode.http.requests import HttpRequest
    from letta_transcode.routing.bindings import Binding, RequestParts

_ITEMS, _BYTES = 200, 512 << 10  # of one message; a single item may be larger


class JsonLines:
    """The requests of a stream, made of the lines of a body as they come: each holds the next items."""

    def __init__(self, request: HttpRequest, binding: Binding, parts: RequestParts, limit: int) -> None:
        self._lines = request.lines(limit)
        self._binding = binding
        self._parts = parts

    async def requests(self) -> AsyncGenerator[bytes, None]:
        """Yield the serialized requests, first one without items. Raises HttpError and ClientGone."""
        first, size = 0, 0
        items: list[Any] = []
        # So that the server refuses what it can before a line came.
        yield self._request([], 0)
        async with aclosing(self._lines) as lines:
            async for line in lines:
                items.append(_item(line, first + len(items)))
                size += len(line)
                if len(items) >= _ITEMS or size >= _BYTES:
                    yield self._request(items, first)
                    first, size, items = first + len(items), 0, []
        if items:
            yield self._request(items, first)

    def _request(self, items: list[Any], first: int) -> bytes:
        message = self._binding.read(replace(self._parts, body=items, first_item=first))
        return message.SerializeToString()


def _item(line: bytes, number: int) -> Any:
    try:
        return parse_json(line)
    except HttpError as error:
        problem = {"type": "json_invalid", "loc": ("body", number), "msg": "JSON decode error", "input": {}}
        raise unprocessable([problem]) from error
