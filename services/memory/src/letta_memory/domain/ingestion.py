"""Reading files in the background: their text, and its chunks as passages of the folder's archive."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from letta.memory.v1.file_pb2 import File
from letta_common.errors import AppError, DatabaseUnavailable, RateLimited, ServiceUnavailable
from letta_common.process.periodic import Next
from letta_common.values.ids import derived_id, new_id
from letta_documents.chunks import Chunk, chunks
from letta_documents.documents import Document
from letta_documents.extractor import Extractor

_log = structlog.get_logger("letta.memory.reading")

MOST_ATTEMPTS = 3
_LEASE_SECONDS, _RENEW_SECONDS = 30.0, 10.0
_PAUSE_SECONDS = 5.0  # before a file comes again that could not be read for a reason that is not its own
_CHUNKS_AT_ONCE, _PIECES_AT_ONCE = 200, 16
_TEXT_CHARACTERS = 65_536  # of one row
_CHARACTERS_PER_TOKEN, _SMALLEST_CHUNK = 4, 32
# What says nothing of the file: it is tried again, however often that takes.
_LATER = (DatabaseUnavailable, RateLimited, ServiceUnavailable)


@dataclass(frozen=True, slots=True)
class Reading:
    """A file that is being read, by whoever holds the lease."""

    file: File
    chunk_size: int
    """Most tokens of a chunk."""
    attempts: int
    """How often it was begun to be read, with this time."""
    lease_id: str


@dataclass(frozen=True, slots=True)
class TextPiece:
    """A piece of a text: pieces in order are the whole."""

    number: int
    first_line: int
    """Lines before it, from 0."""
    text: str


class ReadingStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def claim(self, lease_id: str, seconds: float) -> Reading | None:
        """Take a file that waits to be read, of organizations in turn, for so long; None when there is none."""
        ...

    async def renew(self, reading: Reading, seconds: float) -> bool:
        """Keep a file for so long from now on; say whether it still is ours."""
        ...

    async def get_bytes(self, reading: Reading) -> bytes:
        """Return the bytes of a file."""
        ...

    async def forget(self, reading: Reading) -> None:
        """Remove what an attempt before left."""
        ...

    async def append_texts(self, reading: Reading, pieces: Sequence[TextPiece]) -> bool:
        """Keep some pieces of the text; say whether the file still is ours."""
        ...

    async def append_chunks(self, reading: Reading, first: int, ids: Sequence[str], made: Sequence[Chunk]) -> bool:
        """Keep some chunks, of which `first` is the place of the first; say whether the file still is ours."""
        ...

    async def finish(self, reading: Reading, document: Document, chunk_count: int) -> None:
        """Say that all of a file was read, when it still is ours."""
        ...

    async def fail(self, reading: Reading, why: str) -> None:
        """Say that a file cannot be read, when it still is ours."""
        ...

    async def postpone(self, reading: Reading, seconds: float, *, counted: bool) -> None:
        """Leave a file for later; the attempt counts or not."""
        ...


class FileReader:
    """Reads files one after the other. Whatever becomes of the process, another one begins anew what it had begun."""

    def __init__(self, store: ReadingStore, extractor: Extractor) -> None:
        self._store = store
        self._extractor = extractor

    async def turn(self) -> Next:
        """Read one file; when there was one, there may be more."""
        reading = await self._claimed()
        if reading is None:
            return Next.AFTER_A_PAUSE
        work = asyncio.ensure_future(self._settle(reading))
        keeping = asyncio.ensure_future(self._keep(reading, work))
        try:
            await asyncio.wait([work])
        finally:
            keeping.cancel()
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
        return Next.AT_ONCE

    async def _claimed(self) -> Reading | None:
        """Claim a file; one that is claimed while this ends is given back at once."""
        claiming = asyncio.ensure_future(self._store.claim(new_id("lease"), _LEASE_SECONDS))
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            reading = await claiming
            if reading is not None:
                await self._store.postpone(reading, 0, counted=False)
            raise

    async def _keep(self, reading: Reading, work: asyncio.Future[None]) -> None:
        """Renew the lease; end the work when another one has the file, or it is gone."""
        ours = True
        while ours:
            await asyncio.sleep(_RENEW_SECONDS)
            with suppress(AppError):  # the database may be back before the lease ends
                ours = await self._store.renew(reading, _LEASE_SECONDS)
        work.cancel()

    async def _settle(self, reading: Reading) -> None:
        try:
            await self._read(reading)
        except asyncio.CancelledError:
            # The process ends, or somebody else has the file, of whom this takes nothing.
            await asyncio.shield(self._store.postpone(reading, 0, counted=False))
            raise
        except _LATER as error:
            _log.warning("a file waits to be read", file_id=reading.file.id, message=error.message)
            await self._store.postpone(reading, _PAUSE_SECONDS, counted=False)
        except AppError as error:
            await self._store.fail(reading, error.message)
        except Exception:
            _log.exception("reading a file failed", file_id=reading.file.id)
            await self._store.postpone(reading, _PAUSE_SECONDS, counted=True)

    async def _read(self, reading: Reading) -> None:
        if reading.attempts > 1:
            await self._store.forget(reading)
        if reading.attempts > MOST_ATTEMPTS:
            text = f"reading the file was begun {MOST_ATTEMPTS} times and never came to an end"
            await self._store.fail(reading, text)
            return
        document = await self._extractor.extract(
            await self._store.get_bytes(reading),
            media_type=reading.file.media_type,
            name=reading.file.name,
            organization_id=reading.file.organization_id,
        )
        size = max(reading.chunk_size * _CHARACTERS_PER_TOKEN, _SMALLEST_CHUNK)
        made = await asyncio.to_thread(chunks, document, size)
        pieces = list(text_pieces(document.text))
        for first in range(0, len(pieces), _PIECES_AT_ONCE):
            if not await self._store.append_texts(reading, pieces[first : first + _PIECES_AT_ONCE]):
                return
        for first in range(0, len(made), _CHUNKS_AT_ONCE):
            some = made[first : first + _CHUNKS_AT_ONCE]
            places = range(first, first + len(some))
            ids = [derived_id("passage", reading.file.organization_id, reading.file.id, str(place)) for place in places]
            if not await self._store.append_chunks(reading, first, ids, some):
                return
        await self._store.finish(reading, document, len(made))


def text_pieces(text: str) -> Iterator[TextPiece]:
    """Yield a text in pieces that end at the end of a line, unless one is longer than a piece may be."""
    start = line = number = 0
    while start < len(text):
        most = start + _TEXT_CHARACTERS
        end = len(text) if most >= len(text) else text.rfind("\n", start, most) + 1 or most
        yield TextPiece(number, line, text[start:end])
        line += text.count("\n", start, end)
        start, number = end, number + 1


def chunk_metadata(chunk: Chunk) -> str:
    """Return what callers read of a chunk's place in its file, as JSON."""
    told: dict[str, object] = {"first_line": chunk.first_line, "last_line": chunk.last_line}
    if chunk.titles:
        told["titles"] = list(chunk.titles)
    if chunk.first_page:
        told |= {"first_page": chunk.first_page, "last_page": chunk.last_page}
    return json.dumps(told)
