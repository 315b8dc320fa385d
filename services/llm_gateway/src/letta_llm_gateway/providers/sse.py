"""Server-sent events as vendors write them, read from bytes: fast, tolerant of bad UTF-8, and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from letta_common.errors import LLMInvalidResponse

MAX_EVENT_BYTES = 16 << 20


async def events(chunks: AsyncIterator[bytes], *, vendor: str, limit: int = MAX_EVENT_BYTES) -> AsyncIterator[str]:
    """Yield the data of each event. Raises LLMInvalidResponse for one that is larger than the limit."""
    rest = b""
    data: list[bytes] = []
    size = 0
    async for chunk in chunks:
        *lines, rest = (rest + chunk if rest else chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:].strip())
                size += len(line)
            elif data and not line.strip():
                yield b"\n".join(data).decode("utf-8", "replace")
                data, size = [], 0
        if size + len(rest) > limit:
            raise LLMInvalidResponse(f"{vendor} sent an event of more than {limit} bytes", provider=vendor)
    if rest.startswith(b"data:"):
        data.append(rest[5:].strip())
    if data:
        yield b"\n".join(data).decode("utf-8", "replace")
