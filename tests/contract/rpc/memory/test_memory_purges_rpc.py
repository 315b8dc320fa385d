"""Where passages came from, and removing all of one origin."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from letta.memory.v1 import archive_service_pb2, file_service_pb2, folder_service_pb2
from letta.memory.v1 import passage_service_pb2 as pb
from letta.memory.v1.passage_pb2 import PassageOrigin
from letta_common.errors import ArchiveNotFound, IdempotencyConflict, InvalidArgument, ValidationFailed
from letta_common.values.ids import new_id

ORIGIN = {
    "agent_id": "agent-1",
    "conversation_id": "conv-1",
    "run_id": "run-1",
    "message_id": "message-1",
    "tool_call_id": "call-1",
    "tool_name": "archival_memory_insert",
    "file_id": "file-1",
}


def day(number: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2020, 1, number, tzinfo=UTC))
    return stamp


async def archive(memory: Any) -> str:
    request = archive_service_pb2.CreateArchiveRequest(name="facts")
    made: str = (await memory.archives.CreateArchive(request, timeout=10)).archive.id
    return made


async def write(memory: Any, archive_id: str, *texts: str, origin: Any = None, **more: Any) -> list[Any]:
    said = PassageOrigin(**origin) if origin else None
    new = [pb.NewPassage(text=text, origin=said, **more) for text in texts]
    request = pb.CreatePassagesRequest(archive_id=archive_id, passages=new)
    return list((await memory.passages.CreatePassages(request, timeout=10)).passages)


async def purge(memory: Any, *, archive_id: str = "", key: str = "", force: bool = True, **filter: Any) -> Any:
    origin = {name: filter.pop(name) for name in ORIGIN if name in filter}
    found = pb.PassageFilter(origin=PassageOrigin(**origin), **filter)
    request = pb.PurgePassagesRequest(archive_id=archive_id, filter=found, force=force, request_id=key)
    return await memory.passages.PurgePassages(request, timeout=30)


async def texts(memory: Any, archive_id: str, query: str = "") -> list[str]:
    request = pb.SearchPassagesRequest(archive_id=archive_id, query=query, limit=1000)
    found = await memory.passages.SearchPassages(request, timeout=10)
    return sorted(result.passage.text for result in found.results)


async def test_a_passage_says_where_it_came_from(memory: Any) -> None:
    place = await archive(memory)
    [passage] = await write(memory, place, "a fact", origin=ORIGIN)
    [plain] = await write(memory, place, "another")

    assert passage.origin == PassageOrigin(**ORIGIN)
    assert not plain.HasField("origin")
    request = pb.SearchPassagesRequest(archive_id=place, query="fact")
    [hit, *_] = (await memory.passages.SearchPassages(request, timeout=10)).results
    assert hit.passage.origin == PassageOrigin(**ORIGIN)


async def test_a_memory_of_an_agent_says_so_where_memories_are_listed(memory: Any) -> None:
    agent = await memory.agent()
    origin = PassageOrigin(agent_id=agent, run_id="run-9")
    request = pb.CreateArchivalMemoryRequest(agent_id=agent, text="x", origin=origin)
    await memory.passages.CreateArchivalMemory(request, timeout=10)

    listed = await memory.passages.ListArchivalMemory(pb.ListArchivalMemoryRequest(agent_id=agent), timeout=10)
    assert [passage.origin for passage in listed.passages] == [origin]


@pytest.mark.parametrize("name", sorted(ORIGIN))
async def test_all_of_one_origin_go_and_nothing_else(memory: Any, name: str) -> None:
    place = await archive(memory)
    one, other = {name: new_id("one")}, {name: new_id("other")}
    await write(memory, place, "the red car", "the red boat", origin=one)
    await write(memory, place, "the red bike", origin=other)
    await write(memory, place, "the red train")

    counted = await purge(memory, archive_id=place, force=False, **one)
    assert (counted.purge_count, len(set(counted.purge_sample))) == (2, 2)
    assert len(await texts(memory, place)) == 4, "nothing goes without force"

    assert (await purge(memory, archive_id=place, **one)).purge_count == 2
    assert await texts(memory, place, "red") == await texts(memory, place) == ["the red bike", "the red train"]
    assert (await purge(memory, archive_id=place, **one)).purge_count == 0


async def test_an_origin_goes_from_every_archive(memory: Any, stranger: Any) -> None:
    with stranger:
        places = [await archive(memory) for _ in range(3)]
        for place in places:
            await write(memory, place, "kept")
            await write(memory, place, "of the run", origin={"run_id": "run-1"})
        assert (await purge(memory, run_id="run-1")).purge_count == 3
        assert [await texts(memory, place) for place in places] == [["kept"]] * 3


@pytest.mark.parametrize(
    ("more", "left"),
    [
        ({"created_before": day(2)}, ["b", "c"]),
        ({"created_after": day(2)}, ["a"]),
        ({"created_after": day(2), "created_before": day(3)}, ["a", "c"]),
        ({"tags": ["odd", "third"]}, ["b"]),
        ({"tags": ["odd", "third"], "tag_match_mode": pb.TAG_MATCH_MODE_ALL}, ["a", "b"]),
        ({}, []),
    ],
)
async def test_what_is_said_besides_narrows(memory: Any, more: Any, left: list[str]) -> None:
    place = await archive(memory)
    await write(memory, place, "a", created_at=day(1), tags=["odd"])
    await write(memory, place, "b", created_at=day(2))
    await write(memory, place, "c", created_at=day(3), tags=["odd", "third"])

    assert (await purge(memory, archive_id=place, **more)).purge_count == 3 - len(left)
    assert await texts(memory, place) == left


async def test_chunks_go_by_their_file_alone(memory: Any, stranger: Any) -> None:
    with stranger:
        request = folder_service_pb2.CreateFolderRequest(name="docs")
        folder = (await memory.folders.CreateFolder(request, timeout=10)).folder.id
        sent = file_service_pb2.UploadFileRequest(folder_id=folder)
        sent.file.file_name, sent.file.content, sent.file.size = "a.txt", b"the red car", 11

        async def stream() -> Any:
            yield sent

        file = (await memory.files.UploadFile(stream(), timeout=10)).file.id
        query = pb.SearchPassagesRequest(folder_ids=[folder], query="red")
        async with asyncio.timeout(30):
            while not (await memory.passages.SearchPassages(query, timeout=10)).results:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        place = await archive(memory)
        await write(memory, place, "told of the file", origin={"file_id": file, "agent_id": "agent-1"})

        assert (await purge(memory, agent_id="agent-1", force=False)).purge_count == 1
        assert (await purge(memory, file_id=file)).purge_count == 2
        assert not (await memory.passages.SearchPassages(query, timeout=10)).results
        assert await texts(memory, place) == []


async def test_more_than_a_batch_goes_and_is_counted(memory: Any) -> None:
    place = await archive(memory)
    for start in (0, 1000):
        await write(memory, place, *(f"number {start + n}" for n in range(1000)), origin={"run_id": "run-2"})
    await write(memory, place, "number kept")

    assert (await purge(memory, archive_id=place, run_id="run-2")).purge_count == 2000
    assert await texts(memory, place, "number") == ["number kept"]


async def test_a_repeat_says_the_same_and_leaves_what_came_since(memory: Any) -> None:
    place, key = await archive(memory), new_id("key")
    await write(memory, place, "a", "b")
    assert (await purge(memory, archive_id=place, key=key)).purge_count == 2
    await write(memory, place, "c")

    assert (await purge(memory, archive_id=place, key=key)).purge_count == 2
    assert await texts(memory, place) == ["c"]
    with pytest.raises(IdempotencyConflict):
        await purge(memory, archive_id=place, key=key, tags=["x"])


async def test_another_tenant_loses_and_sees_nothing(memory: Any) -> None:
    place, run = await archive(memory), new_id("run")
    await write(memory, place, "a", origin={"run_id": run})
    with memory.actor(memory.BOB):
        assert (await purge(memory, run_id=run)).purge_count == 0
        with pytest.raises(ArchiveNotFound):
            await purge(memory, archive_id=place)
    assert await texts(memory, place) == ["a"]


async def test_a_purge_of_everything_is_refused(memory: Any) -> None:
    for more in ({}, {"tags": ["x"]}, {"created_before": day(1)}, {"tool_name": "archival_memory_insert"}):
        with pytest.raises(InvalidArgument):
            await purge(memory, **more)
    with pytest.raises(ValidationFailed):
        await purge(memory, run_id="r" * 65)
