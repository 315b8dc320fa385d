"""Joins what is written to a connection in one turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST = 64 << 10
"""Bytes that are written without waiting for the end of the turn, so that the transport's limits keep counting them."""


class JoinedWrites:
    """A transport whose writes wait for the end of the turn and leave as one.

    The head and the body of a response, or the events that a stream has ready, are then one system call, and the client
    wakes once: a tenth of the time of a message was writing. Nothing waits for what is not there yet.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        """Write at the end of the turn."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= LARGEST:
            self.flush()

    def flush(self) -> None:
        """Write what is there now."""
        # Called again at the end of the turn, or after a close: then nothing is left to write.
        parts, self._parts, self._size = self._parts, [], 0
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Close the connection behind what was written."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class JoinedHttp(HttpToolsProtocol):
    """HTTP/1.1 with joined writes."""

    def connection_made(self, transport: Any) -> None:
        """Begin to serve a connection."""
        super().connection_made(JoinedWrites(transport))  # type: ignore[arg-type]
