"""PassageService: writing, listing and searching."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from letta.memory.v1 import archive_service_pb2
from letta.memory.v1 import passage_service_pb2 as pb
from letta_common.errors import (
    AgentNotFound,
    ArchiveNotFound,
    CursorNotFound,
    InvalidArgument,
    PassageNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id

ALONE = True
"""The embedder goes down here, or changes."""


def day(number: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2020, 1, number, tzinfo=UTC))
    return stamp


async def remember(memory: Any, agent: str, text: str, *tags: str, **more: Any) -> Any:
    request = pb.CreateArchivalMemoryRequest(agent_id=agent, text=text, tags=tags, **more)
    return (await memory.passages.CreateArchivalMemory(request, timeout=10)).passages[0]


async def search(memory: Any, agent: str, query: str, **more: Any) -> list[str]:
    request = pb.SearchArchivalMemoryRequest(agent_id=agent, query=query, **more)
    answer = await memory.passages.SearchArchivalMemory(request, timeout=10)
    assert answer.count == len(answer.results)
    return [result.content for result in answer.results]


async def archive(memory: Any, **more: Any) -> str:
    request = archive_service_pb2.CreateArchiveRequest(name="facts", **more)
    made: str = (await memory.archives.CreateArchive(request, timeout=10)).archive.id
    return made


async def test_the_first_memory_makes_the_archive(memory: Any) -> None:
    agent = await memory.agent(name="Ada")
    passage = await remember(memory, agent, "Bob grew up in Lyon.", "bio")
    found = await memory.archives.ListArchives(archive_service_pb2.ListArchivesRequest(agent_id=agent), timeout=10)

    assert [made.name for made in found.archives] == ["Ada's Archive"]
    assert (found.archives[0].id, ["bio"], "{}") == (passage.archive_id, list(passage.tags), passage.metadata)
    assert (
        len(passage.embedding),
        passage.embedding_config.handle,
        passage.embedding_config.embedding_dim,
    ) == (512, "test/words", 512)
    assert passage.organization_id == "org-a"
    _, begun = await memory.begin(agent)
    assert begun.passage_count == 1


async def test_concurrent_first_memories_share_one_archive(memory: Any) -> None:
    agent = await memory.agent()
    made = await asyncio.gather(*(remember(memory, agent, f"fact {number}") for number in range(6)))
    assert len({passage.archive_id for passage in made}) == 1
    _, begun = await memory.begin(agent)
    assert begun.passage_count == 6


async def test_a_repeated_request_writes_once(memory: Any) -> None:
    agent = await memory.agent()
    first = await remember(memory, agent, "once", request_id="run-1:0:0")
    again = await remember(memory, agent, "once", request_id="run-1:0:0")
    assert first == again
    _, begun = await memory.begin(agent)
    assert begun.passage_count == 1


async def test_a_memory_may_be_dated_back(memory: Any) -> None:
    agent = await memory.agent()
    passage = await remember(memory, agent, "old", created_at=day(3))
    assert day(3) == passage.created_at


async def test_texts_too_long_or_empty_are_refused(memory: Any) -> None:
    agent = await memory.agent()
    with pytest.raises(InvalidArgument):
        await remember(memory, agent, "x" * (8192 * 4 + 1))
    with pytest.raises(ValidationFailed):
        await remember(memory, agent, "")


async def test_an_embedder_that_is_down_fails_nothing(memory: Any) -> None:
    agent = await memory.agent()
    memory.embedder.down = True
    passage = await remember(memory, agent, "The red car stands outside.")
    assert list(passage.embedding) == []
    assert await search(memory, agent, "cars") == ["The red car stands outside."]
    assert await search(memory, agent, "tands out") == ["The red car stands outside."]
    assert await search(memory, agent, "automobile") == []
    memory.embedder.down = False
    async with asyncio.timeout(20):
        while not await search(memory, agent, "automobile"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    request = pb.ListArchivalMemoryRequest(agent_id=agent)
    listed = await memory.passages.ListArchivalMemory(request, timeout=10)
    assert len(listed.passages[0].embedding) == 512


async def test_words_and_meaning_are_both_found_best_first(memory: Any) -> None:
    agent = await memory.agent()
    for text in ("A fast car drove by.", "Tea is brewed hot.", "The weather is fine.", "Cats sleep all day."):
        await remember(memory, agent, text)
    assert (await search(memory, agent, "automobile"))[0] == "A fast car drove by."
    assert (await search(memory, agent, "who brews tea in any weather?"))[0] == "Tea is brewed hot."
    assert len(await search(memory, agent, "tea", top_k=2)) == 2


async def test_any_word_is_enough_and_rare_ones_count_more(memory: Any) -> None:
    agent = await memory.agent()
    memory.embedder.down = True
    for number in range(8):
        await remember(memory, agent, f"common words about number {number}")
    await remember(memory, agent, "common zebra")
    assert (await search(memory, agent, "common words and a zebra", top_k=3))[0] == "common zebra"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"tags": ["a", "b"]}, {"one", "two", "three"}),
        ({"tags": ["a", "b"], "tag_match_mode": pb.TAG_MATCH_MODE_ALL}, {"three"}),
        ({"start_datetime": day(2)}, {"two", "three", "four"}),
        ({"end_datetime": day(2)}, {"one", "two"}),
        ({"start_datetime": day(2), "end_datetime": day(3)}, {"two", "three"}),
        ({"tags": ["none"]}, set()),
    ],
)
@pytest.mark.parametrize("query", ["fact", ""])
async def test_filters_apply_inside_the_search(
    memory: Any, query: str, fields: dict[str, Any], expected: set[str]
) -> None:
    agent = await memory.agent()
    for number, (text, tags) in enumerate(
        [("one fact", ["a"]), ("two fact", ["b"]), ("three fact", ["a", "b"]), ("four fact", [])], 1
    ):
        await remember(memory, agent, text, *tags, created_at=day(number))
    assert expected == {text.split()[0] for text in await search(memory, agent, query, **fields)}


async def test_without_a_query_the_newest_come_first(memory: Any) -> None:
    agent = await memory.agent()
    for number in range(3):
        await remember(memory, agent, f"fact {number}")
    answer = await memory.passages.SearchPassages(pb.SearchPassagesRequest(agent_id=agent, limit=2), timeout=10)
    assert [result.passage.text for result in answer.results] == ["fact 2", "fact 1"]
    assert answer.results[0].ranks == pb.PassageRanks()


async def test_search_says_how_a_passage_was_found(memory: Any) -> None:
    archive_id = await archive(memory)
    passages = [pb.NewPassage(text="one tea"), pb.NewPassage(text="two coffee")]
    await memory.passages.CreatePassages(pb.CreatePassagesRequest(archive_id=archive_id, passages=passages), timeout=10)
    request = pb.SearchPassagesRequest(archive_id=archive_id, query="tea")
    answer = await memory.passages.SearchPassages(request, timeout=10)
    assert (answer.results[0].passage.text, answer.results[0].score) == ("one tea", 1.0)
    assert answer.results[0].ranks == pb.PassageRanks(word_rank=1, meaning_rank=1, word_score=1, meaning_score=1)
    ranks = answer.results[1].ranks
    assert (ranks.HasField("word_rank"), ranks.meaning_rank, ranks.word_score) == (False, 2, 0)
    assert ranks.meaning_score < 0, "farther from the question than the mean of the archive"


async def test_several_archives_are_searched_as_one(memory: Any) -> None:
    """Each with the question as its own embedder reads it; none of another tenant."""
    archives = [await archive(memory, embedding=embedder) for embedder in ("test/words", "test/small", "test/words")]
    for archive_id, text in zip(archives, ("a fast car", "an old automobile", "tea"), strict=True):
        new = pb.CreatePassageRequest(archive_id=archive_id, passage=pb.NewPassage(text=text))
        await memory.passages.CreatePassage(new, timeout=10)

    async def found(query: str, *archive_ids: str, archive_id: str = "") -> list[str]:
        request = pb.SearchPassagesRequest(query=query, archive_ids=archive_ids, archive_id=archive_id, limit=2)
        results = (await memory.passages.SearchPassages(request, timeout=10)).results
        return [result.passage.text for result in results]

    assert set(await found("automobile", *archives)) == {"a fast car", "an old automobile"}
    assert await found("automobile", archives[2], archive_id=archives[0]) == ["a fast car", "tea"]
    with pytest.raises(ArchiveNotFound):
        await found("tea", archives[2], new_id("archive"))
    with memory.actor(memory.BOB), pytest.raises(ArchiveNotFound):
        await found("tea", *archives)


async def test_search_needs_a_place(memory: Any) -> None:
    with pytest.raises(InvalidArgument):
        await memory.passages.SearchPassages(pb.SearchPassagesRequest(query="x"), timeout=10)
    assert await search(memory, await memory.agent(), "x") == []


async def test_passages_of_an_archive(memory: Any) -> None:
    archive_id = await archive(memory)
    new = pb.NewPassage(text="a", metadata='{"k": 1}', tags=["t"], created_at=day(1))
    made = await memory.passages.CreatePassage(pb.CreatePassageRequest(archive_id=archive_id, passage=new), timeout=10)
    assert (made.passage.text, made.passage.metadata, list(made.passage.tags)) == ("a", '{"k": 1}', ["t"])
    batch = pb.CreatePassagesRequest(
        archive_id=archive_id, passages=[pb.NewPassage(text=f"p{n}") for n in range(3)], request_id=str(uuid4())
    )
    first = await memory.passages.CreatePassages(batch, timeout=10)
    assert [passage.text for passage in first.passages] == ["p0", "p1", "p2"]
    assert first == await memory.passages.CreatePassages(batch, timeout=10)

    gone = pb.DeletePassageRequest(archive_id=archive_id, passage_id=made.passage.id)
    await memory.passages.DeletePassage(gone, timeout=10)
    with pytest.raises(PassageNotFound):
        await memory.passages.DeletePassage(gone, timeout=10)


async def test_an_agents_memories_are_listed_and_deleted(memory: Any) -> None:
    agent = await memory.agent()
    made = [await remember(memory, agent, f"fact {number}") for number in range(4)]

    async def page(**fields: Any) -> list[str]:
        request = pb.ListArchivalMemoryRequest(agent_id=agent, **fields)
        return [found.text for found in (await memory.passages.ListArchivalMemory(request, timeout=10)).passages]

    assert await page() == ["fact 0", "fact 1", "fact 2", "fact 3"]
    assert await page(ascending=False, limit=2) == ["fact 3", "fact 2"]
    assert await page(after=made[1].id) == ["fact 2", "fact 3"]
    assert await page(search="CT 2") == ["fact 2"]
    answer = await memory.passages.DeleteArchivalMemory(
        pb.DeleteArchivalMemoryRequest(agent_id=agent, memory_id=made[1].id), timeout=10
    )
    assert f"Memory id={made[1].id} successfully deleted" == answer.message
    assert await page(after=made[1].id) == ["fact 2", "fact 3"]
    with pytest.raises(CursorNotFound):
        await page(after="passage-00000000-0000-4000-8000-000000000000")
    with pytest.raises(PassageNotFound):
        await memory.passages.DeleteArchivalMemory(
            pb.DeleteArchivalMemoryRequest(agent_id=agent, memory_id=made[1].id), timeout=10
        )


async def test_another_tenant_sees_nothing(memory: Any) -> None:
    agent = await memory.agent()
    passage = await remember(memory, agent, "secret")
    archive_id = passage.archive_id
    with memory.actor(memory.BOB):
        for call in (
            remember(memory, agent, "x"),
            search(memory, agent, "secret"),
            memory.passages.ListArchivalMemory(pb.ListArchivalMemoryRequest(agent_id=agent), timeout=10),
            memory.passages.DeleteArchivalMemory(
                pb.DeleteArchivalMemoryRequest(agent_id=agent, memory_id=passage.id), timeout=10
            ),
            memory.passages.SearchPassages(pb.SearchPassagesRequest(agent_id=agent, query="secret"), timeout=10),
        ):
            with pytest.raises(AgentNotFound):
                await call
        for call in (
            memory.passages.CreatePassage(
                pb.CreatePassageRequest(archive_id=archive_id, passage=pb.NewPassage(text="x")), timeout=10
            ),
            memory.passages.DeletePassage(
                pb.DeletePassageRequest(archive_id=archive_id, passage_id=passage.id), timeout=10
            ),
            memory.passages.SearchPassages(pb.SearchPassagesRequest(archive_id=archive_id, query="secret"), timeout=10),
        ):
            with pytest.raises(ArchiveNotFound):
                await call


async def test_an_unknown_archive(memory: Any) -> None:
    request = pb.CreatePassageRequest(archive_id=new_id("archive"), passage=pb.NewPassage(text="x"))
    with pytest.raises(ArchiveNotFound):
        await memory.passages.CreatePassage(request, timeout=10)
