"""Server-sent events as vendors write them, as bytes: fast and bounded; and what a stream of them says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol

from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import Event
from letta_llm_gateway.providers.wires import wire_json

MAX_EVENT_BYTES = 16 << 20
_END_MARK = b"[DONE]"


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
                # Some vendors end lines with CR and LF, so a line of CR alone is a blank one.
                elif data and not line.strip():
                    yield b"\n".join(data)
                    data = []
            size = sum(map(len, data)) + len(rest)
        else:
            pending.append(chunk)
        if size > limit:
            raise LLMInvalidResponse(f"{vendor} sent an event of more than {limit} bytes", provider=vendor)
    # Some servers close the stream without the blank line behind the last event.
    rest = b"".join(pending)
    if rest.startswith(b"data:"):
        data.append(rest[5:].strip())
    if data:
        yield b"\n".join(data)


class StreamReader(Protocol):
    """Reads the events of one stream, in order."""

    def feed(self, chunk: Any) -> Iterator[Event]:
        """Yield what an event says. Raises the error that the vendor put into the stream."""
        ...

    def end(self) -> Iterator[Event]:
        """Yield the end. Raises LLMInvalidResponse when the stream was cut before the model stopped."""
        ...


async def spoken(
    chunks: AsyncIterator[bytes], reader: StreamReader, *, vendor: str, at_mark: Callable[[], None] | None = None
) -> AsyncIterator[Event]:
    """Yield what a stream says; `at_mark` is told of OpenAI's end mark, behind which nothing is read.

    Raises:
        LLMInvalidResponse: the stream cannot be read, or was cut.
    """
    async for data in events(chunks, vendor=vendor):
        if data == _END_MARK:
            if at_mark is not None:
                at_mark()
            break
        for event in reader.feed(wire_json.read(data, vendor)):
            yield event
    for event in reader.end():
        yield event
