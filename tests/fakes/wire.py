"""A small HTTP/1.1 server on loopback that answers as vendors of models do, and fails as they do.

It is a server of its own, so that tests see what really goes over the wire: bytes, chunks, resets, silence.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

Json = dict[str, Any]
_TLS = b"\x16"
"""The first byte of a client that wants TLS."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


@dataclass(frozen=True, slots=True)
class Say:
    """What the fake model says. `calls` are (name, arguments); arguments given as str go out as they are."""

    text: str = ""
    calls: Sequence[tuple[str, Any]] = ()
    ids: Sequence[str] = ()
    """Ids of the calls, where they are not the fake's own; an empty one is left out."""
    reasoning: str = ""
    signature: str = ""
    redacted: str = ""
    """Reasoning that the vendor encrypted, where its wire has that."""
    finish: str | None = None
    usage: Json | None = None
    piece: int = 8
    """Characters a streamed piece has."""
    pause: float = 0.0
    """Seconds between two pieces."""
    interleaved: bool = False
    """Parallel calls come in turns, one piece each."""
    pieces_before_fault: int = 0
    fault: Fault | None = None
    """What happens after so many pieces of the stream, or instead of the answer when it is 0."""


@dataclass(frozen=True, slots=True)
class Fault:
    """How the vendor fails: a `status` with `body`, or a `kind`.

    Kinds: reset, hang, headers (and then a hang), garbage, truncated JSON, short (less than announced), empty, huge,
    raw (the `pieces`, as long as somebody reads them); within a stream also cut and error.
    """

    kind: str = ""
    status: int = 500
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterable[bytes] = ()


Step = Say | Fault


class Vendor:
    """Base of the fake vendors. Steps of the script come first, then `respond` answers each request."""

    def __init__(self, *, record: bool = True) -> None:
        self.requests: list[Request] = []
        self.script: deque[Step] = deque()
        self.respond: Callable[[Json], Step] = self.default
        self.models: list[Json] = []
        self.keys: set[str] = set()
        """Keys that are accepted; empty: any."""
        self.gone = asyncio.Event()
        """Set when a client leaves before its answer is complete."""
        self.asked = asyncio.Event()
        """Set when a request has come."""
        self._record = record
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Address of the server, without a path."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    @property
    def base_url(self) -> str:
        """What a client is configured with."""
        return self.url

    async def start(self, port: int = 0) -> Self:
        """Listen on loopback."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", port, limit=64 << 20, backlog=2048)
        return self

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def say(self, *steps: Step | str) -> Self:
        """Add steps to the script; a string is a text."""
        self.script.extend(Say(step) if isinstance(step, str) else step for step in steps)
        return self

    def next_step(self, body: Json) -> Step:
        """Return what to do with a generation."""
        return self.script.popleft() if self.script else self.respond(body)

    def default(self, body: Json) -> Step:
        """Answer without a script: `CALL tool {json}` calls it, its result is answered `Done.`, the rest is echoed."""
        role, text = self.last_said(body)
        if role == "tool":
            return Say("Done.")
        if text.startswith("CALL "):
            _, name, arguments = (*text.split(" ", 2), "{}")[:3]
            return Say(calls=[(name, json.loads(arguments))])
        return Say(f"You said: {text}")

    def last_said(self, body: Json) -> tuple[str, str]:
        """Return role and text of the newest message."""
        raise NotImplementedError

    async def handle(self, request: Request, out: Reply) -> None:
        """Answer one request."""
        raise NotImplementedError

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while True:
                request = await _read(reader)
                if request is None:
                    break
                if self._record:
                    self.requests.append(request)
                self.asked.set()
                out = Reply(reader, writer, self.gone)
                await self.handle(request, out)
                if out.closed:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.gone.set()
        finally:
            with suppress(ConnectionError):
                writer.close()


class Reply:
    """The way back to a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, gone: asyncio.Event) -> None:
        self._reader, self._writer, self._gone = reader, writer, gone
        self.closed = False

    async def json(self, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer with JSON."""
        await self.send(json.dumps(body).encode(), status, headers)

    async def send(self, data: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        """Answer with a body."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n{lines}\r\n"
        self._writer.write(head.encode() + data)
        await self._writer.drain()

    async def stream(
        self,
        frames: AsyncIterator[bytes],
        kind: str = "text/event-stream",
        headers: dict[str, str] | None = None,
        *,
        status: int = 200,
    ) -> None:
        """Answer with events, server-sent ones by default; a client that leaves is noticed between two of them."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ntransfer-encoding: chunked\r\n{lines}\r\n"
        self._writer.write(head.encode())
        async for frame in frames:
            if self._left():
                self._gone.set()
                self.closed = True
                return
            self._writer.write(b"%x\r\n%s\r\n" % (len(frame), frame))
            await self._writer.drain()
        if not self.closed:
            self._writer.write(b"0\r\n\r\n")
            await self._writer.drain()

    async def fail(self, fault: Fault, body: Any) -> None:
        """Fail before the answer begins."""
        if fault.kind == "reset":
            self.reset()
        elif fault.kind == "hang":
            await self.hang()
        elif fault.kind == "headers":
            self._writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n")
            await self.hang()
        elif fault.kind == "short":
            self._writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
            self.closed = True
        elif fault.kind == "truncated":
            await self.send(b'{"id": "x", "choices": [{"message": {"content": "half a')
        elif fault.kind == "garbage":
            await self.send(b"<html>\xff\xfe not what you want</html>")
        elif fault.kind == "raw":
            kind = fault.headers.get("content-type", "application/json")
            await self.stream(_each(fault.pieces), kind, status=fault.status)
        elif fault.kind == "huge":
            await self.send(b'{"junk": "' + b"x" * (10 << 20) + b'"}')
        else:
            await self.json(fault.body if fault.body is not None else body, fault.status, fault.headers)

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
        self.closed = True

    async def hang(self) -> None:
        """Say nothing until the client leaves."""
        with suppress(ConnectionError):
            while await self._reader.read(1):
                pass
        self._gone.set()
        self.closed = True

    def _left(self) -> bool:
        return self._reader.at_eof() or self._writer.transport.is_closing()


async def frames(reply: Reply, said: Say, pieces: Sequence[bytes], error: bytes) -> AsyncIterator[bytes]:
    """Yield the frames of a stream, with the fault of the script in its place."""
    fault = said.fault
    for at, piece in enumerate(pieces):
        if fault is not None and at == said.pieces_before_fault:
            if fault.kind == "reset":
                await asyncio.sleep(0.01)
                reply.reset()
                return
            if fault.kind == "hang":
                await reply.hang()
                return
            if fault.kind == "cut":
                return
            if fault.kind == "garbage":
                yield b"data: {this is \xff\xfe no json\n\n"
            elif fault.kind == "huge":
                yield b"data: " + b"x" * (10 << 20) + b"\n\n"
            else:
                yield error
                return
        if said.pause:
            await asyncio.sleep(said.pause)
        yield piece


async def _each(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    for piece in filter(None, pieces):
        yield piece
        await asyncio.sleep(0)  # so that a client that leaves is noticed


def cut(text: str, size: int) -> list[str]:
    """Cut a text into pieces."""
    return [text[at : at + size] for at in range(0, len(text), size)]


def id_of(said: Say, at: int, own: str) -> Json:
    """Return the id of a call as a field, or nothing."""
    id = said.ids[at] if at < len(said.ids) else f"{own}_{at}"
    return {"id": id} if id else {}


def arguments_of(call: tuple[str, Any]) -> str:
    """Return the arguments of a call as they go out."""
    return call[1] if isinstance(call[1], str) else json.dumps(call[1])


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        first = await reader.readexactly(1)
        if first == _TLS:  # as servers without TLS do: they leave
            return None
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    line, *lines = head.split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    data = await reader.readexactly(int(headers.get("content-length", 0)))
    form = headers.get("content-type", "").startswith("application/x-www-form-urlencoded")
    return Request(method, path, headers, json.loads(data) if data and not form else None, data)
