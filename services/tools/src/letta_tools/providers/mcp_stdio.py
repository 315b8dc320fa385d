"""MCP servers that are programs: an environment of their own, bounded lines, and an end for the whole process group."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from mcp.shared.message import SessionMessage
from mcp.types import jsonrpc_message_adapter

from letta_tools.domain.mcp_servers import Connection

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE_SECONDS = 1.0


@asynccontextmanager
async def stdio_transport(connection: Connection, most_bytes: int) -> AsyncIterator[Any]:
    """Start the program of a connection and yield the streams of messages from and to it."""
    with tempfile.TemporaryDirectory(prefix="letta-mcp-", ignore_cleanup_errors=True) as scratch:
        process = await asyncio.create_subprocess_exec(
            connection.command or "",
            *connection.args,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={"PATH": _PATH, "HOME": scratch, "LANG": "C.UTF-8", **connection.env},
            cwd=scratch,
            start_new_session=True,
            limit=most_bytes,
        )
        try:
            async with _messages(process) as streams:
                yield streams
        finally:
            await asyncio.shield(_end(process))


@asynccontextmanager
async def _messages(process: asyncio.subprocess.Process) -> AsyncIterator[Any]:
    from_server, received = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    sent, to_server = anyio.create_memory_object_stream[SessionMessage](0)

    async def read() -> None:
        stdout = process.stdout
        if stdout is None:
            return
        async with from_server:
            with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                while line := await _line(stdout):
                    await from_server.send(_message(line))

    async def write() -> None:
        stdin = process.stdin
        if stdin is None:
            return
        async with to_server:
            with suppress(ConnectionError, anyio.ClosedResourceError):
                async for message in to_server:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
        group.start_soon(write)
        try:
            yield received, sent
        finally:
            group.cancel_scope.cancel()
            received.close()
            sent.close()


async def _line(stdout: asyncio.StreamReader) -> bytes:
    """Return the next line; nothing at the end, and when a line is longer than the limit."""
    try:
        return await stdout.readline()
    except ValueError:
        return b""


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(jsonrpc_message_adapter.validate_json(line))
    except ValueError as error:
        return error


async def _end(process: asyncio.subprocess.Process) -> None:
    """Close the input, wait a moment, then kill the process with everything it started."""
    if process.stdin is not None:
        with suppress(ConnectionError, OSError):
            process.stdin.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await _drain(process)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_GRACE_SECONDS):
            await _drain(process)


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process; it is noticed only once its output has been read."""
    while process.stdout is not None and await process.stdout.read(1 << 16):
        pass
    await process.wait()
