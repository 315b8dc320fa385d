"""Writes HTTP responses: documents, errors and server-sent events."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from letta_transcode.http.errors import HttpError
    from letta_transcode.http.requests import Send

JSON = "application/json"
LINES = "application/x-ndjson"
EVENT_STREAM = "text/event-stream; charset=utf-8"
# Clients of OpenAI's streams, and so those of Letta, wait for this.
DONE = b"data: [DONE]\n\n"
_NEWLINES = bytes.maketrans(b"\r\n", b"  ")


class Response:
    """One HTTP response. Knows whether it has begun, since then no other can be sent."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def document(self, status: int, body: bytes, content_type: str, headers: Headers = ()) -> None:
        """Send a whole body."""
        await self.start(status, content_type, [("content-length", str(len(body))), *headers])
        await self._send({"type": "http.response.body", "body": body})

    async def nothing(self, status: int, headers: Headers = ()) -> None:
        """Send a status without a body."""
        await self.start(status, "", headers)
        await self._send({"type": "http.response.body", "body": b""})

    async def error(self, error: HttpError, *, last: bool = False) -> None:
        """Send an error; the last answer of a connection says so."""
        headers = [*error.headers, ("connection", "close")] if last else error.headers
        await self.document(error.status, dump(error.body), JSON, headers)

    async def start(self, status: int, content_type: str, headers: Headers = ()) -> None:
        """Send the head of a response."""
        # Headers are latin-1 on the wire; a name that is not must not lose its file.
        raw = [(b"content-type", content_type.encode("latin-1", "replace"))] if content_type else []
        raw += [(key.encode("latin-1"), value.encode("latin-1", "replace")) for key, value in headers]
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def chunk(self, body: bytes) -> None:
        """Send a part of the body."""
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self) -> None:
        """End the body."""
        await self._send({"type": "http.response.body", "body": b""})


Headers = Iterable[tuple[str, str]]


def dump(value: Any) -> bytes:
    """Return a value as JSON text."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def frame(data: bytes, event: str = "") -> bytes:
    """Return a server-sent event. Line breaks between the tokens of spliced JSON become spaces."""
    # JSON that was spliced in may be written over several lines, and each would begin a field of the event.
    if b"\n" in data or b"\r" in data:
        data = data.translate(_NEWLINES)
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data) if event else b"data: %b\n\n" % data


def lines(items: Iterable[Any]) -> bytes:
    """Return items as JSON lines. Line breaks between the tokens of spliced JSON become spaces."""
    return b"".join(dump(item).translate(_NEWLINES) + b"\n" for item in items)
