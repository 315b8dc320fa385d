"""Passages that leave archives and come into them in streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from letta.memory.v1 import archive_service_pb2 as pb
from letta.memory.v1.passage_pb2 import PassageOrigin, PassageRecord
from letta.memory.v1.passage_service_pb2 import CreatePassagesRequest, NewPassage, SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.errors import ArchiveNotFound, InvalidArgument, StaleEtag, ValidationFailed
from letta_common.values.ids import new_id

MOMENT = Timestamp(seconds=1_700_000_000, nanos=123_456_000)
ORIGIN = PassageOrigin(agent_id="agent-1", run_id="run-1", tool_name="archival_memory_insert", file_id="file-1")


async def archive(memory: Any, **more: Any) -> str:
    request = pb.CreateArchiveRequest(name="notes", embedding="test/words", **more)
    return str((await memory.archives.CreateArchive(request, timeout=10)).archive.id)


async def export(memory: Any, archive_id: str, **more: Any) -> list[list[PassageRecord]]:
    """Return the messages of an export."""
    request = pb.ExportPassagesRequest(archive_id=archive_id, **more)
    return [list(answer.passages) async for answer in memory.archives.ExportPassages(request, timeout=60)]


async def texts(memory: Any, archive_id: str) -> list[str]:
    return [record.text for records in await export(memory, archive_id) for record in records]


async def take(memory: Any, archive_id: str, *messages: Iterable[Any], **first: Any) -> pb.ImportPassagesResponse:
    """Import the passages of some messages, records or their texts."""

    async def requests() -> AsyncIterator[pb.ImportPassagesRequest]:
        for records in messages:
            made = [PassageRecord(text=each) if isinstance(each, str) else each for each in records]
            yield pb.ImportPassagesRequest(archive_id=archive_id, passages=made, **first)

    answer: pb.ImportPassagesResponse = await memory.archives.ImportPassages(requests(), timeout=60)
    return answer


async def progress(memory: Any, archive_id: str, import_id: str) -> tuple[int, int]:
    request = pb.GetPassageImportRequest(archive_id=archive_id, import_id=import_id)
    answer = await memory.archives.GetPassageImport(request, timeout=10)
    return answer.received_count, answer.written_count


async def until(memory: Any, archive_id: str, import_id: str, come: tuple[int, int]) -> None:
    """Wait until an import has come as far."""
    while await progress(memory, archive_id, import_id) != come:  # noqa: ASYNC110
        await asyncio.sleep(0.02)


def counts(answer: pb.ImportPassagesResponse) -> tuple[int, int]:
    return answer.received_count, answer.written_count


async def test_all_of_a_passage_travels_and_no_vector_is_made_anew(memory: Any) -> None:
    actor = Actor(new_id("org"), "user-x")
    with memory.actor(actor):
        await _all_travels(memory)

    assert actor.organization_id not in memory.embedder.organizations


async def _all_travels(memory: Any) -> None:
    source, target = await archive(memory), await archive(memory)
    told = {"text": "Sam likes tea.", "metadata": '{"a": 9007199254740993}', "tags": ["b", "a"]}
    new = [NewPassage(**told, created_at=MOMENT, origin=ORIGIN), NewPassage(text="plain")]
    await memory.passages.CreatePassages(CreatePassagesRequest(archive_id=source, passages=new), timeout=10)
    [sent] = await export(memory, source, include_embeddings=True)

    answer = await take(memory, target, sent)
    [got] = await export(memory, target, include_embeddings=True)

    assert counts(answer) == (2, 2)
    assert (got[0].text, got[0].metadata, got[0].tags, got[0].created_at, got[0].origin) == (
        *(told["text"], told["metadata"], told["tags"]),
        *(MOMENT, ORIGIN),
    )
    assert [len(record.embedding) for record in got] == [512, 512]
    assert [record.embedding for record in got] == [record.embedding for record in sent]
    assert [record.key for record in got] != [record.key for record in sent]
    found = await memory.passages.SearchPassages(SearchPassagesRequest(archive_id=target, query="tea"), timeout=10)
    assert found.results[0].passage.id == got[0].key


async def test_vectors_are_left_out_unless_asked_for(memory: Any) -> None:
    archive_id = await archive(memory)
    await take(memory, archive_id, [PassageRecord(text="a", embedding=[1.0] * 512)])

    [[plain]], [[full]] = await export(memory, archive_id), await export(memory, archive_id, include_embeddings=True)

    assert (list(plain.embedding), plain.embedder) == ([], "")
    assert (list(full.embedding), full.embedder) == ([1.0] * 512, "test/words")


async def test_what_comes_twice_stands_once(memory: Any) -> None:
    source, target = await archive(memory), await archive(memory)
    await take(memory, source, ["a", "b", "c"])
    [sent] = await export(memory, source)

    first, again = await take(memory, target, sent, import_id="x"), await take(memory, target, sent[1:], sent)
    home = await take(memory, source, sent)

    assert [counts(each) for each in (first, again, home)] == [(3, 3), (5, 0), (3, 0)]
    assert await texts(memory, target) == await texts(memory, source) == ["a", "b", "c"]
    [back] = await export(memory, target)
    assert counts(await take(memory, target, back)) == (3, 0)


async def test_a_text_that_an_archive_skips_is_not_written_again(memory: Any) -> None:
    archive_id = await archive(memory, deduplication="DEDUPLICATION_SKIP")

    assert counts(await take(memory, archive_id, ["a", "b", "a"], ["b", "c"])) == (5, 3)
    assert await texts(memory, archive_id) == ["a", "b", "c"]


async def test_a_stream_that_broke_off_goes_on_where_it_was(memory: Any) -> None:
    archive_id, came = await archive(memory), asyncio.Event()

    async def requests() -> AsyncIterator[pb.ImportPassagesRequest]:
        for text in "ab":
            yield pb.ImportPassagesRequest(archive_id=archive_id, passages=[PassageRecord(text=text)], import_id="i")
        await until(memory, archive_id, "i", (2, 2))
        came.set()
        await asyncio.Event().wait()

    broken = memory.archives.ImportPassages(requests(), timeout=60)
    task = asyncio.ensure_future(broken) if asyncio.iscoroutine(broken) else broken
    await came.wait()
    task.cancel()

    with pytest.raises(InvalidArgument, match="2 entries came before"):
        await take(memory, archive_id, ["d"], import_id="i", offset=3)
    assert counts(await take(memory, archive_id, ["c"], ["d"], import_id="i", offset=2)) == (4, 4)
    assert await progress(memory, archive_id, "i") == (4, 4)
    assert counts(await take(memory, archive_id, list("abcd"), import_id="i")) == (4, 0), "from its beginning"
    assert await texts(memory, archive_id) == list("abcd")


async def test_an_offset_needs_an_import(memory: Any) -> None:
    with pytest.raises(InvalidArgument, match="0 entries came before"):
        await take(memory, await archive(memory), ["a"], offset=1)


async def test_of_two_streams_of_an_import_the_one_behind_ends(memory: Any) -> None:
    archive_id = await archive(memory)

    async def requests() -> AsyncIterator[pb.ImportPassagesRequest]:
        made = pb.ImportPassagesRequest(archive_id=archive_id, passages=[PassageRecord(text="a")], import_id="i")
        yield made
        await until(memory, archive_id, "i", (1, 1))
        await take(memory, archive_id, ["b"], import_id="i", offset=1)
        made.passages[0].text = "c"
        yield made

    with pytest.raises(StaleEtag):
        await memory.archives.ImportPassages(requests(), timeout=60)
    assert await texts(memory, archive_id) == ["a", "b"]


@pytest.mark.parametrize(
    ("record", "field"),
    [
        (PassageRecord(text="x", embedding=[1.0] * 64), "embedding"),
        (PassageRecord(text="x", embedding=[1.0] * 511 + [1e6]), "embedding"),
        (PassageRecord(text="x", embedding=[0.0] * 512), "embedding"),
        (PassageRecord(text="x", embedding=[float("nan")] * 512), "embedding"),
        (PassageRecord(text=""), "text"),
        (PassageRecord(text="x", tags=["a", ""]), "tags[1]"),
    ],
)
async def test_an_entry_that_cannot_be_kept_is_named_and_its_message_is_not_kept(
    memory: Any, record: PassageRecord, field: str
) -> None:
    archive_id = await archive(memory)
    assert counts(await take(memory, archive_id, ["before"], import_id="i")) == (1, 1)

    with pytest.raises((InvalidArgument, ValidationFailed), match=re.escape(f"passages[3].{field}")):
        await take(memory, archive_id, ["a", "b"], ["c", record, "d"], import_id="i", offset=1)

    assert await texts(memory, archive_id) == ["before", "a", "b"]
    assert await progress(memory, archive_id, "i") == (3, 3)


async def test_the_first_message_is_named_too(memory: Any) -> None:
    with pytest.raises(ValidationFailed, match=re.escape("passages[1].text")):
        await take(memory, await archive(memory), ["a", ""])


async def test_a_vector_of_another_embedder_is_made_anew(memory: Any) -> None:
    archive_id = await archive(memory)
    await take(memory, archive_id, [PassageRecord(text="a b", embedding=[1.0] * 64, embedder="test/small")])

    while not (record := (await export(memory, archive_id, include_embeddings=True))[0][0]).embedding:  # noqa: ASYNC110
        await asyncio.sleep(0.05)

    assert (len(record.embedding), record.embedder) == (512, "test/words")


async def test_an_archive_is_of_its_organization_and_a_stream_of_one_archive(memory: Any) -> None:
    mine, other = await archive(memory), await archive(memory)
    await take(memory, mine, ["a"], import_id="i")
    with memory.actor(memory.BOB):
        for call in (export(memory, mine), take(memory, mine, ["b"]), progress(memory, mine, "i")):
            with pytest.raises(ArchiveNotFound):
                await call

    async def requests() -> AsyncIterator[pb.ImportPassagesRequest]:
        for archive_id in (mine, other):
            yield pb.ImportPassagesRequest(archive_id=archive_id, passages=[PassageRecord(text="c")])

    with pytest.raises(InvalidArgument, match="one archive"):
        await memory.archives.ImportPassages(requests(), timeout=10)
    assert (await texts(memory, mine), await texts(memory, other)) == (["a", "c"], [])


async def test_a_stream_without_a_message_is_refused(memory: Any) -> None:
    with pytest.raises(InvalidArgument, match="holds no message"):
        await take(memory, await archive(memory))


async def test_an_export_comes_in_parts_and_goes_on_behind_a_place(memory: Any) -> None:
    archive_id = await archive(memory)
    await take(memory, archive_id, map(str, range(700)), map(str, range(700, 1100)))

    messages = await export(memory, archive_id)
    records = [record for message in messages for record in message]
    rest = await export(memory, archive_id, after_place=records[599].place)

    assert [len(message) for message in messages] == [500, 500, 100]
    assert [record.text for record in records] == list(map(str, range(1100)))
    assert [record.text for message in rest for record in message] == list(map(str, range(600, 1100)))
    assert await export(memory, archive_id, after_place=records[-1].place) == []


async def test_long_texts_travel_alone(memory: Any) -> None:
    archive_id = await archive(memory)
    await take(memory, archive_id, *([letter * 900_000] for letter in "abc"), ["d", "e"])

    sizes = [len(message) for message in await export(memory, archive_id)]

    assert (sizes[0], sum(sizes), len(sizes) >= 2) == (2, 5, True)


async def test_what_an_archive_keeps_no_more_does_not_travel(memory: Any) -> None:
    archive_id = await archive(memory, max_age=Duration(seconds=86_400))
    old = Timestamp()
    old.FromDatetime(datetime.now(UTC) - timedelta(days=2))

    await take(memory, archive_id, [PassageRecord(text="old", created_at=old), "new"])

    assert await texts(memory, archive_id) == ["new"]


async def test_an_unknown_import_has_come_to_nothing(memory: Any) -> None:
    archive_id = await archive(memory)

    assert await progress(memory, archive_id, new_id("import")) == (0, 0)
    with pytest.raises(ArchiveNotFound):
        await progress(memory, new_id("archive"), "i")


async def test_a_message_of_another_kind_is_refused(memory: Any) -> None:
    with pytest.raises((ValidationFailed, grpc.RpcError)):
        await take(memory, "source-1", ["a"])
