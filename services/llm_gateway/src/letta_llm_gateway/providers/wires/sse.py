"""Server-sent events as vendors write them, as bytes: fast and bounded."""

from __future__ import annotations

from collections.abc import AsyncIterator

from letta_common.errors import LLMInvalidResponse

MAX_EVENT_BYTES = 16 << 20


async def events(chunks: AsyncIterator[bytes], *, vendor: str, limit: int = MAX_EVENT_BYTES) -> AsyncIterator[bytes]:
    """Yield the data of each event. Raises LLMInvalidResponse for one that is larger than the limit."""
    pending: list[bytes] = []  # a line that has not ended; joined once, or 10 MB would be copied a thousand times
    data: list[bytes] = []
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if b"\n" in chunk:
            *lines, rest = b"".join([*pending, chunk]).split(b"\n")
            pending = [rest]
            for line in lines:
                if line.startswith(b"data:"):
                    data.append(line[5:].strip())
                elif data and not line.strip():
                    yield b"\n".join(data)
                    data = []
            size = sum(map(len, data)) + len(rest)
        else:
            pending.append(chunk)
        if size > limit:
            raise LLMInvalidResponse(f"{vendor} sent an event of more than {limit} bytes", provider=vendor)
    rest = b"".join(pending)
    if rest.startswith(b"data:"):
        data.append(rest[5:].strip())
    if data:
        yield b"\n".join(data)
