"""How many bytes of files an organization may store: never more, whoever writes, and free again when they are gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1.file_service_pb2 import DuplicateHandling, UploadFileRequest
from letta_common.errors import StorageExhausted
from letta_memory.domain.uploads import PART_BYTES
from letta_postgres.db import Database
from tests.contract.stores.memory.test_memory_file_readers import LATER, Shelf, somebody

MOST = 10 * PART_BYTES + 5
PARTS = "select coalesce(sum(length(t.bytes)), 0)::bigint from memory.file_parts t where t.organization_id = %b"


@pytest.fixture
async def shelves(databases: Any) -> AsyncIterator[list[Shelf]]:
    """Two replicas on one database."""
    url = databases.clone(["memory"])
    opened = [await Database.open(url, schema="memory") for _ in range(2)]
    yield [Shelf(db, MOST) for db in opened]
    for db in opened:
        await db.close()
    databases.drop(url)


async def stored(shelf: Shelf, actor: Any) -> int:
    """Return what is counted, which is what there is."""
    counted = await shelf.uploading.get_storage(actor)
    assert counted.limit_bytes == MOST
    return int(counted.size_bytes)


async def really(shelf: Shelf, actor: Any) -> int:
    return int((await shelf.rows(PARTS, actor.organization_id))[0][0])


async def test_many_writers_never_store_more(shelves: list[Shelf]) -> None:
    ann, bob = somebody(), somebody()
    place, other = await shelves[0].folder(ann), await shelves[0].folder(bob)
    text, most, done = "a" * (3 * PART_BYTES - 7), 0, asyncio.Event()

    async def watch() -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, await really(shelves[0], ann))

    watching = asyncio.ensure_future(watch())
    writers = (shelves[n % 2].upload(ann, place, text, f"{n}.txt") for n in range(16))
    ends = await asyncio.gather(*writers, return_exceptions=True)
    done.set()
    await watching
    made = [end for end in ends if not isinstance(end, BaseException)]

    assert {type(end) for end in ends if isinstance(end, BaseException)} == {StorageExhausted}
    assert len(made) <= 3
    assert 0 < most <= MOST
    assert await stored(shelves[0], ann) == await really(shelves[0], ann) == len(made) * len(text)
    while len(made) < 3:  # what gave way to others may come now
        made.append(await shelves[0].upload(ann, place, text))
    with pytest.raises(StorageExhausted):
        await shelves[1].upload(ann, place, text)
    await shelves[1].upload(bob, other, text)  # of another organization


async def test_the_last_byte_counts(shelves: list[Shelf]) -> None:
    ann, shelf = somebody(), shelves[0]
    place = await shelf.folder(ann)
    await shelf.upload(ann, place, "a" * (MOST - 3))
    with pytest.raises(StorageExhausted):
        await shelf.upload(ann, place, "abcd")
    await shelf.upload(ann, place, "abc")
    await shelf.upload(ann, place, "")

    assert await stored(shelf, ann) == await really(shelf, ann) == MOST


async def test_what_does_not_fit_takes_no_place_of_another(shelves: list[Shelf]) -> None:
    ann, shelf = somebody(), shelves[0]
    place = await shelf.folder(ann)
    old = await shelf.upload(ann, place, "a" * (MOST - 3))

    async def sent(handling: Any) -> Any:
        file = UploadedFile(file_name="a.txt", content=b"abcd", size=4)
        yield UploadFileRequest(folder_id=place, file=file, duplicate_handling=handling)

    with pytest.raises(StorageExhausted):
        await shelf.uploads.take(ann, sent(DuplicateHandling.DUPLICATE_HANDLING_REPLACE))
    same = await shelf.uploads.take(ann, sent(DuplicateHandling.DUPLICATE_HANDLING_SKIP))

    assert same.id == old.id
    assert (await shelf.files.get(ann, place, old.id)).size_bytes == MOST - 3


async def test_what_is_gone_is_free_again(shelves: list[Shelf]) -> None:
    ann, shelf = somebody(), shelves[0]
    place = await shelf.folder(ann)
    text = "a" * (2 * PART_BYTES + 9)
    made = await shelf.upload(ann, place, text)

    async def broken(key: str) -> Any:
        for _ in range(2):
            file = UploadedFile(file_name="b.txt", content=b"y" * PART_BYTES, size=4 * PART_BYTES)
            yield UploadFileRequest(folder_id=place, file=file, request_id=key)
        raise ConnectionError

    for _ in range(2):  # the second time anew
        with pytest.raises(ConnectionError):
            await shelf.uploads.take(ann, broken("key"))
        assert await stored(shelf, ann) == await really(shelf, ann) == len(text) + 2 * PART_BYTES
    await shelf.files.delete(ann, place, made.id)
    while await shelf.files.purge(ann.organization_id, made.id):
        pass
    assert await stored(shelf, ann) == 2 * PART_BYTES
    assert await shelf.pruning.expire_uploads(datetime.now(UTC) - timedelta(hours=1), 10) == 0
    assert await shelf.pruning.expire_uploads(LATER, 10) == 1
    while await shelf.pruning.purge_some():
        pass
    assert await stored(shelf, ann) == 0
    await shelf.upload(ann, place, text)
    await shelf.folders.delete(ann, place)
    while (await shelf.pruner.purge()).name == "AT_ONCE":
        pass
    assert await stored(shelf, ann) == await really(shelf, ann) == 0
