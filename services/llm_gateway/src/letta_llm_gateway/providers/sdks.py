"""Requests through vendors' SDKs as bytes, both ways: keys, patience, refusals and connections are the SDK's.

What an SDK does to a request beside that, it does to each message at each step: it walks through all of them by its
types. So it gets the body as it goes out, and gives the answer as it came.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx2


class Client(Protocol):
    """The client of an SDK that is made as OpenAI's and Anthropic's are."""

    def post(self, path: str, *, cast_to: Any, content: Any, stream: Any = False) -> Awaitable[Any]:
        """Send a request."""
        ...


async def ask(client: Client, path: str, data: bytes) -> bytes:
    """Send a request and return the body of its answer. Raises the SDK's errors."""
    response: httpx2.Response = await client.post(path, cast_to=httpx2.Response, content=data)
    return response.content


@asynccontextmanager
async def listen(client: Client, path: str, data: bytes) -> AsyncIterator[AsyncIterator[bytes]]:
    """Send a request and give what its answer streams; leaving ends the call at the vendor. Raises the SDK's errors."""
    response: httpx2.Response = await client.post(path, cast_to=httpx2.Response, content=data, stream=True)
    try:
        yield response.aiter_bytes()
    finally:
        await response.aclose()
