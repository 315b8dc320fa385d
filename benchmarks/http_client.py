"""A small HTTP/1.1 client that costs little next to what it measures."""

from __future__ import annotations

import asyncio
import json
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit


class HttpError(Exception):
    """The server answered with a status of 400 or more."""


class HttpClient:
    """One keep-alive connection; a call at a time."""

    def __init__(self, base_url: str, api_key: str = "") -> None:
        parts, self._api_key = urlsplit(base_url), api_key
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._headers = f"Host: {self._host}\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
        if api_key:
            self._headers += f"Authorization: Bearer {api_key}\r\n"
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> HttpClient:
        self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._writer.close()

    def another(self) -> HttpClient:
        """Return a further client of the same server."""
        return HttpClient(f"http://{self._host}:{self._port}", self._api_key)

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Send a request and return the decoded JSON of the answer. Raises HttpError."""
        content = await self.read(method, path, body)
        return json.loads(content) if content else None

    async def read(self, method: str, path: str, body: Any = None) -> bytes:
        """Send a request and return the body of the answer, once all of it is there. Raises HttpError."""
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(payload)}\r\n\r\n"
        self._writer.write(head.encode() + payload)
        status, content = await self._answer()
        if status >= 400:
            raise HttpError(f"{method} {path}: {status} {content[:500]!r}")
        return content

    async def _answer(self) -> tuple[int, bytes]:
        status = int((await self._reader.readline()).split(b" ", 2)[1])
        length, chunked = 0, False
        while (line := await self._reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            chunked |= name.lower() == "transfer-encoding" and "chunked" in value.lower()
        return status, await self._chunks() if chunked else await self._reader.readexactly(length)

    async def _chunks(self) -> bytes:
        content = b""
        while size := int(await self._reader.readline(), 16):
            content += await self._reader.readexactly(size)
            await self._reader.readline()
        await self._reader.readline()
        return content
