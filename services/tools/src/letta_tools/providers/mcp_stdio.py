"""MCP over the standard streams of a program: bounded lines, and a bounded amount for each message sent to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from letta_sandbox.local.programs import Program

# Programs print banners and warnings to standard output; so many between two requests are forgiven.
_MOST_GARBAGE = 100
# What a pipe of Linux holds.
_PART = 1 << 16


class Lines:
    """Reads lines of a program, and ends when it says too much of nothing.

    Each message that goes to the program lets it say `most_bytes` more. Lines that are no messages are left out.
    """

    def __init__(self, program: Program, most_bytes: int) -> None:
        self.fault = ""
        self._program = program
        self._most = most_bytes
        self._left = most_bytes
        self._garbage = 0
        self._rest = bytearray()

    def asked(self) -> None:
        """Note that the program was sent a message."""
        self._left = self._most
        self._garbage = 0

    async def next(self) -> SessionMessage | None:
        """Return the next message; nothing at the end, and when a limit is passed, which `fault` tells."""
        while not self.fault:
            end = self._rest.find(b"\n")
            if end >= 0:
                line = bytes(self._rest[:end])
                del self._rest[: end + 1]
                if (message := self._read(line)) is not None:
                    return message
                continue
            part = await self._program.stdout.read(_PART)
            if not part:
                return None
            self._left -= len(part)
            self._rest += part
            if self._left < 0:
                self.fault = f"it sent more than {self._most} bytes that were not asked for"
        return None

    def _read(self, line: bytes) -> SessionMessage | None:
        if not line.strip():
            return None
        try:
            return SessionMessage(jsonrpc_message_adapter.validate_json(line))
        except ValueError:
            self._garbage += 1
            if self._garbage > _MOST_GARBAGE:
                self.fault = "it prints what is no protocol to its standard output"
            return None


@asynccontextmanager
async def stdio_transport(program: Program, lines: Lines, ended: Callable[[], None]) -> AsyncIterator[Any]:
    """Yield the streams of messages from and to a program; `ended` is called when no more will come."""
    from_server, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, to_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        try:
            async with from_server:
                with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                    while (message := await lines.next()) is not None:
                        await from_server.send(message)
        finally:
            ended()

    async def write() -> None:
        async with to_server:
            with suppress(ConnectionError, anyio.ClosedResourceError):
                async for message in to_server:
                    lines.asked()
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    await program.write(text.encode() + b"\n")

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        try:
            yield received, sent
        finally:
            group.cancel_scope.cancel()
            received.close()
            sent.close()
