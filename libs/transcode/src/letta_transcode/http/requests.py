"""Reads HTTP requests as ASGI hands them over, within limits."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, quote

import orjson

from letta_transcode.http.errors import HttpError, detail, unprocessable

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# orjson reads integers of more than 64 bits as floats; those have 19 digits at least.
_LONG_NUMBER = re.compile(rb"\d{19}")
# Each costs a look-up before anybody knows who asks.
_MAX_PARAMETERS = 2_000
_JSON = "application/json"
_LINES = frozenset({"application/x-ndjson", "application/jsonl", "application/json-lines"})


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What one request may cost: bytes of a body and of an uploaded form, seconds of a call and of a stream.

    The fields of a form whose file goes on as it comes may have as many bytes as a body.
    """

    body: int = 8 * 2**20
    form: int = 64 * 2**20
    call: float = 600.0
    stream: float = 3_600.0


class ClientGone(Exception):
    """The client closed the connection before it had its answer."""


class HttpRequest:
    """One HTTP request."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        self.broken_off = False
        """Whether the body was begun to be read in chunks, and not to its end: the connection is of no more use."""
        self._scope = scope
        self._receive = receive

    @cached_property
    def path(self) -> str:
        """The path, still percent-encoded."""
        raw: bytes | None = self._scope.get("raw_path")
        return raw.split(b"?", 1)[0].decode("latin-1") if raw else quote(self._scope["path"])

    @cached_property
    def headers(self) -> Mapping[str, str]:
        """The headers under lower-case names; of repeated ones the last."""
        return {key.decode("latin-1"): value.decode("latin-1") for key, value in self._scope["headers"]}

    @cached_property
    def query(self) -> dict[str, list[str]]:
        """The query parameters. Raises HttpError 422 when there are too many or they are no UTF-8."""
        text: bytes = self._scope.get("query_string", b"")
        if not text:
            return {}
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(
                text.decode("latin-1"), keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS
            )
        except ValueError as error:
            message = "Query parameters are too many or no UTF-8"
            raise unprocessable([{"type": "query", "loc": ("query",), "msg": message, "input": None}]) from error
        for key, value in pairs:
            found.setdefault(key, []).append(value)
        return found

    @property
    def content_type(self) -> str:
        """The media type of the body with its parameters."""
        return self.headers.get("content-type", "")

    @property
    def _announced(self) -> int:
        """Bytes that the body will have, as far as its sender says."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else 0

    async def json_body(self, limit: int) -> bytes:
        """Read the whole body, which should be JSON. Raises HttpError 413, and 415 when its type says otherwise.

        A body without a type counts as JSON, as it always did; one of another type is what a page in a browser may send
        anywhere without asking.
        """
        body = await self.body(limit)
        kind = self.content_type.partition(";")[0].strip().lower()
        if body and kind and kind != _JSON and not kind.endswith("+json"):
            raise detail(415, f"The body should be {_JSON}, not {kind[:80]}")
        return body

    async def body(self, limit: int) -> bytes:
        """Read the whole body. Raises HttpError 413 when it is larger than the limit, and ClientGone."""
        # Read on even so, up to eight times the limit: a client that is cut off sees a reset and not the refusal.
        too_large = self._announced > limit
        chunks: list[bytes] = []
        size = 0
        while True:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = event.get("body", b"")
            size += len(chunk)
            too_large = too_large or size > limit
            if not too_large:
                chunks.append(chunk)
            if not event.get("more_body", False) or size > 8 * limit:
                break
        if too_large:
            raise detail(413, f"The body is larger than {limit} bytes", [("connection", "close")])
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def require_lines(self) -> None:
        """Raise HttpError 415 when the type of the body says that it is not JSON lines."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind and kind != _JSON and kind not in _LINES:
            raise detail(415, f"The body should be application/x-ndjson, not {kind[:80]}")

    async def lines(self, limit: int) -> AsyncGenerator[bytes, None]:
        """Yield the lines of the body as they come, those that are not blank.

        Raises HttpError 413 at a line that is larger than the limit, and ClientGone.
        """
        rest = bytearray()
        async for chunk in self.chunks(sys.maxsize):
            seen = len(rest)
            rest += chunk
            while (end := rest.find(b"\n", seen)) >= 0:
                line, seen = bytes(rest[:end]), 0
                del rest[: end + 1]
                if line.strip():
                    yield line
            if len(rest) > limit:
                raise detail(413, f"A line is larger than {limit} bytes")
        if rest.strip():
            yield bytes(rest)

    async def chunks(self, limit: int) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes.

        Raises HttpError 413 as soon as it is known to be larger than the limit, and ClientGone.
        """
        self.broken_off, size = True, 0
        while self.broken_off:
            if max(size, self._announced) > limit:
                raise detail(413, f"The body is larger than {limit} bytes")
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise ClientGone
            chunk: bytes = event.get("body", b"")
            size += len(chunk)
            self.broken_off = size > limit or event.get("more_body", False)
            if chunk and size <= limit:
                yield chunk

    async def gone(self) -> None:
        """Return when the client has closed the connection."""
        event = await self._receive()
        while event["type"] != "http.disconnect":
            event = await self._receive()


def parse_json(body: bytes) -> Any:
    """Parse a JSON document; integers keep every digit. Raises HttpError 422."""
    try:
        value = orjson.loads(body)
        if _LONG_NUMBER.search(body):
            value = json.loads(body)
    except orjson.JSONDecodeError as error:
        raise _bad_json(body, error) from error
    except (ValueError, RecursionError) as error:
        raise _invalid(0, "a number has too many digits or the nesting is too deep") from error
    return value


def _bad_json(body: bytes, error: orjson.JSONDecodeError) -> HttpError:
    """Say what is wrong as the standard library does, whose texts callers know."""
    try:
        json.loads(body, parse_constant=_refuse_constant)
    except json.JSONDecodeError as known:
        return _invalid(known.pos, known.msg)
    except (ValueError, RecursionError):
        pass
    return _invalid(error.pos, error.msg)


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _invalid(position: int, text: str) -> HttpError:
    return unprocessable(
        [
            {
                "type": "json_invalid",
                "loc": ("body", position),
                "msg": "JSON decode error",
                "input": {},
                "ctx": {"error": text},
            }
        ]
    )
