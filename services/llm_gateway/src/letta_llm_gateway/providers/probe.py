"""Looks for Ollama on this machine, without an SDK."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from letta_llm_gateway.domain.catalogue.providers import Account

# The first one who asks for a model waits for this.
_SECONDS = 0.2


async def ollama(host: str = "127.0.0.1", port: int = 11434) -> Account | None:
    """Return Ollama's account when it answers `GET /api/tags` within 200 ms."""
    with suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        async with asyncio.timeout(_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /api/tags HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                answer = await reader.read(1 << 20)
            finally:
                writer.close()
        if answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            return Account("ollama", "ollama", base_url=f"http://{host}:{port}/v1")
    return None


async def nothing() -> Account | None:
    """Find nothing."""
    return None
