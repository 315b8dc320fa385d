"""Files whose bytes are in a bucket: no row without its object, no object for ever without its row."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest

from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1.file_pb2 import FILE_STATUS_FAILED, FILE_STATUS_PENDING
from letta.memory.v1.file_service_pb2 import UploadFileRequest
from letta_common.errors import LostObject, ServiceUnavailable, StaleEtag
from letta_common.process.periodic import Next
from letta_documents.extractor import Extractor
from letta_memory.clients.buckets import S3Bucket
from letta_memory.domain.files import ObjectRemover
from letta_memory.domain.ingestion import FileReader
from letta_memory.domain.uploads import PART_BYTES
from letta_memory.store.files.parts import BucketParts, SqlLooseObjectStore
from letta_postgres.db import Database
from tests.contract.stores.memory.test_memory_file_readers import Shelf, somebody
from tests.support.buckets import BUCKET, Storage, storage

TEXT = "One line of a text that is long.\n" * 20_000


@pytest.fixture(scope="module")
def bucket() -> Iterator[Storage]:
    with storage() as running:
        yield running


class Stocked(Shelf):
    """A shelf whose bytes are in a bucket."""

    def __init__(self, db: Database, running: Storage, kind: type[BucketParts] = BucketParts, **changed: Any) -> None:
        self.storage = running
        client = S3Bucket(replace(running.options, **changed))
        self.parts = kind(db, client)
        self.remover = ObjectRemover(SqlLooseObjectStore(db), client)
        super().__init__(db, parts=self.parts)

    async def objects(self, actor: Any) -> dict[str, int]:
        found = await asyncio.to_thread(self.storage.objects)
        return {key: size for key, size in found.items() if key.startswith(f"{actor.organization_id}/")}

    async def remove(self) -> None:
        while await self.remover.turn() is Next.AT_ONCE:
            pass

    async def whole(self, actor: Any, place: str, file_id: str) -> bytes:
        return b"".join([part async for part in self.uploads.parts_of(actor, place, file_id)])

    async def age(self) -> None:
        """Let the time pass within which an object may be written."""
        await self.rows("update memory.loose_objects set due_at = due_at - interval '2 hours'")


@pytest.fixture
async def shelf(databases: Any, bucket: Storage) -> AsyncIterator[Stocked]:
    url = databases.clone(["memory"])
    db = await Database.open(url, schema="memory")
    yield Stocked(db, bucket)
    await db.close()
    databases.drop(url)


async def test_bytes_are_in_the_bucket_under_their_organization(shelf: Stocked, extractor: Extractor) -> None:
    ann, bob = somebody(), somebody()
    place, other = await shelf.folder(ann), await shelf.folder(bob)
    made, short = await shelf.upload(ann, place, TEXT), await shelf.upload(bob, other, "short")
    await shelf.upload(ann, place, "", "empty.txt")

    assert sorted((await shelf.objects(ann)).values()) == sorted([PART_BYTES, PART_BYTES, len(TEXT) - 2 * PART_BYTES])
    assert list((await shelf.objects(bob)).values()) == [5]
    assert await shelf.rows("select from memory.file_parts t where t.bytes is not null") == []
    assert await shelf.rows("select from memory.loose_objects") == []
    assert await shelf.whole(ann, place, made.id) == TEXT.encode()
    assert await shelf.whole(bob, other, short.id) == b"short"
    assert (await shelf.uploading.get_storage(ann)).size_bytes == len(TEXT)
    while await FileReader(shelf.reading, extractor).turn() is Next.AT_ONCE:
        pass
    assert await shelf.files.find_text(ann, made.id, 1 << 20) == TEXT


async def test_what_is_deleted_leaves_the_bucket(shelf: Stocked) -> None:
    ann, bob = somebody(), somebody()
    place, other = await shelf.folder(ann), await shelf.folder(bob)
    first, kept = await shelf.upload(ann, place, TEXT), await shelf.upload(bob, other, "kept")
    await shelf.upload(ann, place, TEXT, "b.txt")
    await shelf.files.delete(ann, place, first.id)
    while await shelf.files.purge(ann.organization_id, first.id):
        pass
    await shelf.remove()
    assert len(await shelf.objects(ann)) == 3
    await shelf.folders.delete(ann, place)
    while await shelf.pruner.purge() is Next.AT_ONCE:
        pass
    await shelf.remove()

    assert await shelf.objects(ann) == {}
    assert await shelf.whole(bob, other, kept.id) == b"kept"
    assert await shelf.rows("select from memory.loose_objects") == []


async def test_an_object_whose_writer_died_before_its_row_is_removed(shelf: Stocked) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, "kept")
    await shelf.parts.keep(ann, f"{made.id}/1", b"of somebody who died here")
    await shelf.remove()
    assert len(await shelf.objects(ann)) == 2  # its writer may still live
    await shelf.age()
    await shelf.remove()

    assert list((await shelf.objects(ann)).values()) == [4]
    assert await shelf.whole(ann, place, made.id) == b"kept"


async def test_an_object_that_is_being_removed_becomes_no_part(shelf: Stocked) -> None:
    ann = somebody()
    place = await shelf.folder(ann)

    async def sent() -> Any:
        file = UploadedFile(file_name="a.txt", content=b"y" * PART_BYTES, size=PART_BYTES + 1)
        yield UploadFileRequest(folder_id=place, file=file)
        yield UploadFileRequest(folder_id=place, file=UploadedFile(content=b"z"))

    class Slow(BucketParts):
        async def keep(self, *given: Any) -> Any:
            kept = await super().keep(*given)
            await shelf.age()
            await shelf.remover.turn()
            return kept

    with pytest.raises(StaleEtag):
        await Stocked(shelf.db, shelf.storage, Slow).uploads.take(ann, sent())
    assert await shelf.rows("select from memory.file_parts") == []
    assert await shelf.objects(ann) == {}
    assert await shelf.rows("select from memory.stored_files s where s.size_bytes <> 0") == []


async def test_a_bucket_that_is_away_is_said_so(shelf: Stocked, extractor: Extractor) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, TEXT)
    away = Stocked(shelf.db, shelf.storage, endpoint="http://127.0.0.1:1")
    with pytest.raises(ServiceUnavailable):
        await away.upload(ann, place, TEXT, "b.txt")
    with pytest.raises(ServiceUnavailable):
        await away.upload(ann, place, "short", "c.txt")
    with pytest.raises(ServiceUnavailable):
        await away.whole(ann, place, made.id)
    await FileReader(away.reading, extractor).turn()

    assert (await shelf.files.get(ann, place, made.id)).status == FILE_STATUS_PENDING
    assert await shelf.rows("select from memory.files f where f.status > 0 and f.id <> %b", made.id) == []
    await shelf.files.delete(ann, place, made.id)
    while await shelf.files.purge(ann.organization_id, made.id):
        pass
    with pytest.raises(ServiceUnavailable):
        await away.remover.turn()
    assert len(await shelf.objects(ann)) == 3
    await shelf.remove()
    assert await shelf.objects(ann) == {}


@pytest.mark.parametrize("other", [b"other", b"SHORT", None])
async def test_bytes_that_are_not_those_kept_are_no_answer(
    shelf: Stocked, extractor: Extractor, other: bytes | None
) -> None:
    ann = somebody()
    place = await shelf.folder(ann)
    made = await shelf.upload(ann, place, "short")
    [key] = await shelf.objects(ann)
    if other is None:
        shelf.storage.client.delete_object(Bucket=BUCKET, Key=key)
    else:
        shelf.storage.client.put_object(Bucket=BUCKET, Key=key, Body=other)
    with pytest.raises(LostObject):
        await shelf.whole(ann, place, made.id)
    await FileReader(shelf.reading, extractor).turn()

    assert (await shelf.files.get(ann, place, made.id)).status == FILE_STATUS_FAILED


async def test_files_stay_where_they_are_when_the_setting_changes(shelf: Stocked) -> None:
    ann, rows = somebody(), Shelf(shelf.db)
    place = await shelf.folder(ann)
    old, new = await rows.upload(ann, place, "old"), await shelf.upload(ann, place, "new", "b.txt")

    assert await shelf.whole(ann, place, old.id) == b"old"
    assert await shelf.whole(ann, place, new.id) == b"new"
    assert b"".join([part async for part in rows.uploads.parts_of(ann, place, old.id)]) == b"old"
    with pytest.raises(ServiceUnavailable, match="bucket"):
        _ = [part async for part in rows.uploads.parts_of(ann, place, new.id)]
