"""Who reads a file holds it for a while; what one leaves half done another does anew, and nothing is there twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1.file_pb2 import (
    FILE_STATUS_COMPLETED,
    FILE_STATUS_EMBEDDING,
    FILE_STATUS_FAILED,
    FILE_STATUS_PENDING,
)
from letta.memory.v1.file_service_pb2 import UploadFileRequest
from letta.memory.v1.folder_service_pb2 import CreateFolderRequest
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import FileNotFound
from letta_common.process.periodic import Next
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_documents.chunks import chunks
from letta_documents.extractor import Extractor
from letta_memory.clients.embeddings import NoEmbedder
from letta_memory.domain.files import PartKeeper
from letta_memory.domain.folders import Folders
from letta_memory.domain.ingestion import MOST_ATTEMPTS, FileReader, text_pieces
from letta_memory.domain.pruning import PruneOptions, Pruner
from letta_memory.domain.uploads import PART_BYTES, Uploads
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.files.files import SqlFileStore
from letta_memory.store.files.folders import SqlFolderStore
from letta_memory.store.files.ingestion import SqlReadingStore
from letta_memory.store.files.parts import RowParts
from letta_memory.store.files.uploads import SqlUploadStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pruning import SqlPruneStore
from letta_postgres.db import Database

TEXT = "".join(f"Line {number} of a text that is cut.\n" for number in range(30_000))
LATER = datetime.now(UTC) + timedelta(days=400)


class Shelf:
    """Stores of files, and what tests do with them."""

    def __init__(self, db: Database, most_bytes: int = 0, parts: PartKeeper | None = None) -> None:
        clock = SystemClock()
        self.db = db
        self.folders, self.files = SqlFolderStore(db), SqlFileStore(db)
        self.reading, self.passages = SqlReadingStore(db, clock, parts or RowParts()), SqlPassageStore(db)
        self.uploading = SqlUploadStore(db, self.files, clock, parts or RowParts(), most_bytes=most_bytes)
        self.pruning = SqlPruneStore(db)
        self.pruner = Pruner(self.pruning, clock, PruneOptions())
        self._making = Folders(self.folders, SqlArchiveStore(db), NoEmbedder(), clock)
        self.uploads = Uploads(self.uploading, self.files, Digests(b"secret"), most_bytes=50 << 20, taken=lambda: None)

    async def folder(self, actor: Actor) -> str:
        return (await self._making.create(actor, CreateFolderRequest(name=new_id("docs")), b"")).id

    async def upload(self, actor: Actor, folder_id: str, text: str, name: str = "a.txt") -> Any:
        content = text.encode()

        async def sent() -> Any:
            for start in range(0, len(content) or 1, PART_BYTES):
                part = content[start : start + PART_BYTES]
                file = UploadedFile(file_name=name, content=part, size=len(content))
                yield UploadFileRequest(folder_id=folder_id, file=file)

        return await self.uploads.take(actor, sent())

    async def texts(self, actor: Actor, folder_id: str) -> list[str]:
        found: list[Any] = []
        while page := await self.passages.list_of_folder(
            actor, folder_id, Page(limit=1000, ascending=True, after=found[-1].id if found else "")
        ):
            found += page
        return [passage.text for passage in found]

    async def rows(self, statement: str, *values: Any) -> list[Any]:
        return await self.db.hot(statement, values)

    async def count(self, folder_id: str) -> int:
        """Return what the archive of a folder says of itself."""
        rows = await self.rows("select a.passage_count from memory.archives a where a.id = %b", folder_id)
        return int(rows[0][0])

    async def end_leases(self) -> None:
        """Let the time pass that a reader may be silent."""
        await self.db.hot(
            "update memory.files set lease_until = now() - interval '1 second' where lease_until is not null"
        )


@pytest.fixture
async def shelf(databases: Any) -> Any:
    url = databases.clone(["memory"])
    db = await Database.open(url, schema="memory")
    yield Shelf(db)
    await db.close()
    databases.drop(url)


def somebody() -> Actor:
    return Actor(new_id("org"), "user-ann")


async def test_a_file_is_claimed_once_until_its_reader_is_silent(shelf: Shelf) -> None:
    ann = somebody()
    made = await shelf.upload(ann, await shelf.folder(ann), "x")
    first = await shelf.reading.claim("one", 60)

    assert first is not None
    assert (first.file.id, first.attempts) == (made.id, 1)
    assert await shelf.reading.claim("two", 60) is None
    assert await shelf.reading.renew(first, 0)
    await shelf.end_leases()
    second = await shelf.reading.claim("two", 60)
    assert second is not None
    assert (second.file.id, second.attempts) == (made.id, 2)
    assert not await shelf.reading.renew(first, 60)


async def test_readers_take_different_files_at_once(shelf: Shelf) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = {(await shelf.upload(ann, place, "x")).id for _ in range(5)}
    claimed = await asyncio.gather(*(shelf.reading.claim(f"lease-{number}", 60) for number in range(6)))

    assert {reading.file.id for reading in claimed if reading} == made


async def test_many_files_of_one_organization_hold_up_no_other(shelf: Shelf) -> None:
    ann, bob = somebody(), somebody()
    place = await shelf.folder(ann)
    for _ in range(40):
        await shelf.upload(ann, place, "x")
    await shelf.upload(bob, await shelf.folder(bob), "x")
    claimed = [await shelf.reading.claim(f"lease-{number}", 60) for number in range(20)]

    # Each claim takes one of two organizations by chance: none of 20 for Bob comes once in a million times.
    assert bob.organization_id in {reading.file.organization_id for reading in claimed if reading}


async def test_what_a_dead_reader_left_is_there_once(shelf: Shelf, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, TEXT)
    first = await shelf.reading.claim("dead", 60)
    assert first is not None
    document = await extractor.extract(await shelf.reading.get_bytes(first), media_type="text/plain", name="a.txt")
    some = chunks(document, 700)[:150]  # as a release before cut them
    assert await shelf.reading.append_texts(first, list(text_pieces("another text"))[:1])
    assert await shelf.reading.append_chunks(first, 0, [new_id("passage") for _ in some], some)
    await shelf.end_leases()

    assert await FileReader(shelf.reading, extractor).turn() is Next.AT_ONCE
    assert not await shelf.reading.append_chunks(first, 150, [new_id("passage")], some[:1])
    assert not await shelf.reading.append_texts(first, list(text_pieces("late")))
    await shelf.reading.fail(first, "late")

    done = await shelf.files.get(ann, place, made.id)
    found = await shelf.texts(ann, place)
    assert (done.status, done.chunk_count) == (FILE_STATUS_EMBEDDING, len(found))
    assert "".join(text + "\n" for text in found) == TEXT
    assert await shelf.count(place) == len(found)
    assert await shelf.files.find_text(ann, made.id, 4_000_000) == TEXT


async def test_a_file_that_ends_its_readers_is_given_up(shelf: Shelf, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, "x")
    for number in range(MOST_ATTEMPTS):
        assert await shelf.reading.claim(f"lease-{number}", 60)
        await shelf.end_leases()
    await FileReader(shelf.reading, extractor).turn()
    done = await shelf.files.get(ann, place, made.id)

    assert done.status == FILE_STATUS_FAILED
    assert "3 times" in done.error
    assert await shelf.reading.claim("again", 60) is None


async def test_a_reader_that_is_stopped_gives_its_file_back(shelf: Shelf, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, TEXT)
    turn = asyncio.ensure_future(FileReader(shelf.reading, extractor).turn())
    while not await shelf.rows("select from memory.files f where f.status = 2"):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)

    assert (await shelf.files.get(ann, place, made.id)).status == FILE_STATUS_PENDING
    again = await shelf.reading.claim("again", 60)
    assert again is not None
    assert again.attempts == 1


async def test_a_reader_that_is_stopped_while_it_claims_gives_its_file_back(
    shelf: Shelf, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, claim, claimed = somebody(), shelf.reading.claim, asyncio.Event()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, TEXT)

    async def slow(*how: Any) -> Any:
        reading = await claim(*how)
        claimed.set()
        await asyncio.sleep(0.05)  # the answer is still on its way
        return reading

    monkeypatch.setattr(shelf.reading, "claim", slow)
    turn = asyncio.ensure_future(FileReader(shelf.reading, extractor).turn())
    await claimed.wait()
    turn.cancel()
    await asyncio.gather(turn, return_exceptions=True)

    assert (await shelf.files.get(ann, place, made.id)).status == FILE_STATUS_PENDING
    again = await claim("again", 60)
    assert again is not None
    assert (again.file.id, again.attempts) == (made.id, 1)


async def test_a_file_that_is_deleted_meanwhile_keeps_nothing(shelf: Shelf, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, TEXT)
    reading = await shelf.reading.claim("one", 60)
    assert reading is not None
    await shelf.files.delete(ann, place, made.id)

    assert not await shelf.reading.renew(reading, 60)
    assert not await shelf.reading.append_texts(reading, list(text_pieces("late")))
    while await shelf.pruning.purge_some():
        pass
    assert await shelf.rows("select from memory.files") == []
    assert await shelf.rows("select from memory.file_parts") == []
    with pytest.raises(FileNotFound):
        await shelf.files.get(ann, place, made.id)


async def test_a_deleted_folder_leaves_nothing(shelf: Shelf, extractor: Extractor) -> None:
    ann, bob = somebody(), somebody()
    place, other = await shelf.folder(ann), await shelf.folder(bob)
    for text in (TEXT, "short"):
        await shelf.upload(ann, place, text)
    kept = await shelf.upload(bob, other, "short")
    while await FileReader(shelf.reading, extractor).turn() is Next.AT_ONCE:
        pass
    await shelf.folders.delete(ann, place)
    steps = 0
    while await shelf.pruner.purge() is Next.AT_ONCE:
        steps += 1

    assert steps > 6
    for table in ("folders", "archives", "files", "file_parts", "file_texts", "passages"):
        owners = await shelf.rows(f"select distinct t.organization_id from memory.{table} t")
        assert owners == [(bob.organization_id,)], table
    assert (await shelf.files.get(bob, other, kept.id)).id == kept.id


async def test_an_upload_that_nobody_goes_on_with_expires(shelf: Shelf) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    done = await shelf.upload(ann, place, "x")

    async def broken() -> Any:
        file = UploadedFile(file_name="b.txt", content=b"y" * PART_BYTES, size=2 * PART_BYTES)
        yield UploadFileRequest(folder_id=place, file=file, request_id="key")
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await shelf.uploads.take(ann, broken())
    assert len(await shelf.rows("select from memory.file_parts")) == 2
    assert await shelf.pruning.expire_uploads(datetime.now(UTC) - timedelta(hours=1), 10) == 0
    assert await shelf.pruning.expire_uploads(LATER, 10) == 1
    while await shelf.pruning.purge_some():
        pass

    assert await shelf.rows("select f.id from memory.files f") == [(done.id,)]
    assert len(await shelf.rows("select from memory.file_parts")) == 1


@pytest.mark.parametrize("text", ["", "a", "a\nb\n", "x" * 200_000, "line\n" * 50_000, "é\n" * 70_000, "\n" * 70_000])
def test_pieces_are_the_whole_text(text: str) -> None:
    pieces = list(text_pieces(text))

    assert "".join(piece.text for piece in pieces) == text
    assert [piece.number for piece in pieces] == list(range(len(pieces)))
    assert all(0 < len(piece.text) <= 65_536 for piece in pieces)
    before = ""
    for piece in pieces:
        assert piece.first_line == before.count("\n")
        before += piece.text


async def test_a_file_whose_chunks_have_vectors_is_complete_at_once(shelf: Shelf, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, "\n\n")
    await FileReader(shelf.reading, extractor).turn()
    done = await shelf.files.get(ann, place, made.id)

    assert (done.status, done.chunk_count) == (FILE_STATUS_COMPLETED, 0)
