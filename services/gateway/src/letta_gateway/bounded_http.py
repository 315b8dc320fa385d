"""Bounds what a connection may cost before anybody knows who calls: headers, time, body, and how many there are.

The parser takes headers without end and the server waits for them without end, so the bounds of front-line servers are
kept here, in the callbacks that both have.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from letta_gateway.joined_writes import JoinedHttp

_SLOWEST = 500
"""Bytes of a body that must come in a second, in the mean."""
_LINGER_SECONDS, _LINGER_BYTES = 2.0, 4 << 20
"""How long, and how much, a client that is refused here may go on sending, so that it reads why instead of a reset."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost, and how many there may be."""

    header_bytes: int = 32 << 10
    headers: int = 100
    header_seconds: float = 10.0
    body_bytes: int = 96 << 20
    body_seconds: float = 20.0
    connections: int = 2000


class BoundedHttp(JoinedHttp):
    """HTTP/1.1 whose clients must be brief. Refuses with 408, 413 and 431, and with 503 when all are busy."""

    bounds: ClassVar[Bounds] = Bounds()

    def connection_made(self, transport: Any) -> None:
        """Begin to serve a connection; the longest idle one makes room for it."""
        super().connection_made(transport)
        self._timer: asyncio.TimerHandle | None = None
        self._head: int | None = 0  # bytes of the head that were read; None within a body
        self._size = self._count = self._sent = self._lingering = 0
        self._begun = self._last = self.since = self.loop.time()
        self._refused = self._too_long = False
        self._arm(self._begun + self.bounds.header_seconds)
        if len(self.connections) > self.bounds.connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read what came, within bounds."""
        if self._refused:
            self._lingering -= len(data)
            if self._lingering < 0:
                self.transport.abort()
            return
        if self._head is not None:
            self._head += len(data)
            # Not for each packet: a head that trickles in must end within one span.
            if self._timer is None:
                self._arm(self.loop.time() + self.bounds.header_seconds)
        super().data_received(data)
        if self._head is not None and self._head > self.bounds.header_bytes and not self.transport.is_closing():
            self._refuse(431, "the headers are too large")

    def eof_received(self) -> None:
        """Close when a refused client has read why."""
        if self._refused:
            self.transport.close()

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._size = self._count = 0

    def on_url(self, url: bytes) -> None:
        """Count the path and the query with the headers."""
        super().on_url(url)
        self._size += len(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header. Raises ValueError, which ends the parser, when there are too many or they are too large."""
        super().on_header(name, value)
        # 4 for the colon, the space and the end of the line.
        self._size += len(name) + len(value) + 4
        self._count += 1
        if self._size > self.bounds.header_bytes or self._count > self.bounds.headers:
            self._too_long = True
            raise ValueError("too many headers")

    def on_headers_complete(self) -> None:
        """Turn to the body."""
        self._head, self._sent = None, 0
        self._begun = self._last = self.loop.time()
        self._arm(self._begun + self.bounds.body_seconds)
        super().on_headers_complete()
        self.cycle.transport = _LastWrites(self.transport, self._close_behind_answer)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Take a part of the body; one that nobody reads any more has an end too."""
        self._sent += len(body)
        self._last = self.loop.time()
        if self._sent <= self.bounds.body_bytes:
            super().on_body(body)
        else:
            self._refuse(413, "the body is too large")

    def on_message_complete(self) -> None:
        """Turn to the next request."""
        self._disarm()
        self._head = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note since when the connection is idle."""
        self.since = self.loop.time()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what the parser did not take."""
        if self._too_long:
            self._refuse(
                431, f"more than {self.bounds.headers} headers, or of more than {self.bounds.header_bytes} bytes"
            )
        else:
            self._refuse(400, msg)

    @property
    def idle(self) -> bool:
        """Say whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        others = [other for other in self.connections if isinstance(other, BoundedHttp) and other is not self]
        longest = min((other for other in others if other.idle), key=lambda other: other.since, default=None)
        if longest is None:
            self._refuse(503, "all connections are busy; try again")
        else:
            # `connection_lost` comes a turn later; until then it must not be chosen again.
            longest.transport.abort()
            self.connections.discard(longest)

    def _arm(self, at: float) -> None:
        self._disarm()
        self._timer = self.loop.call_at(at, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        """Refuse a head that took too long, and a body that stands still or trickles."""
        self._timer = None
        if self._refused:
            self.transport.close()
        elif self._head == 0:
            self.transport.close()  # of which nothing came
        elif self._head is not None:
            self._refuse(408, f"the headers did not come within {self.bounds.header_seconds:g} s")
        elif self.flow.read_paused:  # it is this server that does not read
            self._begun = self._last = self.loop.time()
            self._arm(self._begun + self.bounds.body_seconds)
        else:
            # Late is a body that stands still, and one that has come more slowly in the mean than it must.
            until = min(self._last, self._begun + self._sent / _SLOWEST) + self.bounds.body_seconds
            if until <= self.loop.time():
                self._refuse(408, "the body came too slowly")
            else:
                self._arm(until)

    def _refuse(self, status: int, text: str) -> None:
        """Answer, when nothing was answered yet, and close once the client had time to read it."""
        self._disarm()
        self._unset_keepalive_if_required()
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            if self.cycle.response_started:
                self.transport.close()
                return
        body = f'{{"detail":"{text}"}}'.encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        self._linger(_LINGER_SECONDS, _LINGER_BYTES)

    def _close_behind_answer(self) -> None:
        """Close behind the last answer; one that came before the whole body leaves time to read it."""
        if self._head is None and not self._refused and not self.transport.is_closing():
            self._refused = True
            self._linger(self.bounds.body_seconds, self.bounds.body_bytes - self._sent)
        else:
            self.transport.close()

    def _linger(self, seconds: float, most_bytes: int) -> None:
        """Half close: the client may go on sending for a while, since unread bytes would turn the end into a reset."""
        self._disarm()
        self._lingering = most_bytes
        self.transport.flush()  # type: ignore[attr-defined]
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        self._timer = self.loop.call_later(seconds, self._late)


class _LastWrites:
    """What an answer is written to; with its end, the connection decides how it is closed."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self.close = close

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def bounded(bounds: Bounds) -> type[BoundedHttp]:
    """Return the protocol with these bounds."""
    return type("BoundedHttp", (BoundedHttp,), {"bounds": bounds})
