"""Embedders of agents and archives: chosen, changed, away, of another dimension than before."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta.memory.v1 import archive_pb2, archive_service_pb2, context_service_pb2, passage_service_pb2
from letta_common.errors import ArchiveNotFound, ModelNotFound
from letta_common.values.ids import new_id

ALONE = True
"""The embedder goes down here, or changes."""

State = archive_pb2.ArchiveEmbeddingState


async def agent_with(memory: Any, embedding: str) -> str:
    agent_id = new_id("agent")
    request = context_service_pb2.ProvisionAgentRequest(agent_id=agent_id, agent_name="Ada", embedding=embedding)
    await memory.contexts.ProvisionAgent(request, timeout=10)
    return agent_id


async def remember(memory: Any, agent_id: str, text: str) -> Any:
    request = passage_service_pb2.CreateArchivalMemoryRequest(agent_id=agent_id, text=text)
    return (await memory.passages.CreateArchivalMemory(request, timeout=10)).passages[0]


async def archive_of(memory: Any, agent_id: str) -> Any:
    request = archive_service_pb2.ListArchivesRequest(agent_id=agent_id)
    [archive] = (await memory.archives.ListArchives(request, timeout=10)).archives
    return archive


async def write(memory: Any, archive_id: str, text: str) -> Any:
    request = passage_service_pb2.CreatePassageRequest(
        archive_id=archive_id, passage=passage_service_pb2.NewPassage(text=text)
    )
    return (await memory.passages.CreatePassage(request, timeout=10)).passage


async def hits(memory: Any, archive_id: str, query: str) -> list[Any]:
    request = passage_service_pb2.SearchPassagesRequest(archive_id=archive_id, query=query)
    return list((await memory.passages.SearchPassages(request, timeout=10)).results)


async def embedding(memory: Any, archive_id: str) -> Any:
    request = archive_service_pb2.GetArchiveEmbeddingRequest(archive_id=archive_id)
    return (await memory.archives.GetArchiveEmbedding(request, timeout=10)).embedding


async def reembed(memory: Any, archive_id: str, handle: str = "") -> Any:
    request = archive_service_pb2.ReembedArchiveRequest(archive_id=archive_id, embedding=handle)
    return (await memory.archives.ReembedArchive(request, timeout=10)).embedding


async def until(memory: Any, archive_id: str, state: int) -> Any:
    async with asyncio.timeout(20):
        while (found := await embedding(memory, archive_id)).state != state:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


async def test_the_archive_of_an_agent_has_the_embedder_of_the_agent(memory):
    agent_id = await agent_with(memory, "test/small")
    passage = await remember(memory, agent_id, "the cat sleeps")

    archive = await archive_of(memory, agent_id)
    assert (archive.embedding_config.handle, archive.embedding_config.embedding_dim) == ("test/small", 64)
    assert len(passage.embedding) == 64, "embedded at once, by the agent's embedder"


async def test_an_agent_that_gets_another_embedder_takes_its_archive_along(memory):
    agent_id = await agent_with(memory, "test/words")
    await remember(memory, agent_id, "an old automobile")
    archive = await archive_of(memory, agent_id)
    request = context_service_pb2.SetAgentEmbeddingRequest(agent_id=agent_id, embedding="test/small")
    await memory.contexts.SetAgentEmbedding(request, timeout=10)

    assert (await archive_of(memory, agent_id)).embedding_config.handle == "test/small"
    done = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE)
    assert (done.embedding, done.embedding_dim, done.embedded_count) == ("test/small", 64, 1)
    [hit] = await hits(memory, archive.id, "car")
    assert len(hit.passage.embedding) == 64


async def test_an_agent_that_has_no_archive_yet_gets_it_with_the_embedder_set_last(memory):
    agent_id = await agent_with(memory, "")
    request = context_service_pb2.SetAgentEmbeddingRequest(agent_id=agent_id, embedding="test/small")
    await memory.contexts.SetAgentEmbedding(request, timeout=10)
    await remember(memory, agent_id, "x")

    assert (await archive_of(memory, agent_id)).embedding_config.handle == "test/small"


async def test_former_vectors_serve_until_there_are_new_ones(memory):
    made = archive_service_pb2.CreateArchiveRequest(name="a", embedding="test/words")
    archive = (await memory.archives.CreateArchive(made, timeout=10)).archive
    await write(memory, archive.id, "an old automobile")
    memory.embedder.failing = {"test/small"}
    await reembed(memory, archive.id, "test/small")
    waiting = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_FAILING)
    assert (waiting.error_reason, waiting.embedding, waiting.embedded_count) == ("LLM_UNAVAILABLE", "test/small", 0)
    [hit] = await hits(memory, archive.id, "car")
    assert (hit.passage.text, len(hit.passage.embedding)) == ("an old automobile", 512), "by its former vector"

    memory.embedder.failing = set()
    await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE)
    [hit] = await hits(memory, archive.id, "car")
    assert len(hit.passage.embedding) == 64
    request = archive_service_pb2.GetArchiveRequest(archive_id=archive.id)
    async with asyncio.timeout(20):
        while (await memory.archives.GetArchive(request, timeout=10)).archive.former_embeddings:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_an_archive_survives_an_embedder_that_changes_its_dimension(memory):
    made = archive_service_pb2.CreateArchiveRequest(name="a", embedding="test/words")
    archive = (await memory.archives.CreateArchive(made, timeout=10)).archive
    await write(memory, archive.id, "the first automobile")
    memory.embedder.sizes["test/words"] = 32
    passage = await write(memory, archive.id, "the second automobile")
    assert not passage.embedding, "kept, without a vector that nothing can be compared with"

    assert {hit.passage.text for hit in await hits(memory, archive.id, "automobile")} == {
        "the first automobile",
        "the second automobile",
    }, "by their words"
    failing = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_FAILING)
    assert failing.error_reason == "EMBEDDING_DIMENSION_CHANGED"
    assert "ReembedArchive" in failing.error
    assert (failing.passage_count, failing.embedded_count) == (2, 1)

    begun = await reembed(memory, archive.id)
    assert (begun.embedding, begun.embedding_dim, begun.error_reason) == ("test/words", 32, "")
    assert len(await hits(memory, archive.id, "automobile")) == 2, "meanwhile by their words"
    done = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE)
    assert (done.embedded_count, done.embedding_dim) == (2, 32)
    found = await hits(memory, archive.id, "car")
    assert {len(hit.passage.embedding) for hit in found} == {32}
    assert len(found) == 2


async def test_many_passages_are_embedded_anew_in_batches(memory):
    made = archive_service_pb2.CreateArchiveRequest(name="a", embedding="test/words")
    archive = (await memory.archives.CreateArchive(made, timeout=10)).archive
    new = [passage_service_pb2.NewPassage(text=f"passage {number}") for number in range(150)]
    request = passage_service_pb2.CreatePassagesRequest(archive_id=archive.id, passages=new)
    await memory.passages.CreatePassages(request, timeout=10)

    await reembed(memory, archive.id, "test/small")
    await write(memory, archive.id, "written meanwhile")
    done = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE)
    assert (done.passage_count, done.embedded_count, done.embedding) == (151, 151, "test/small")
    assert memory.embedder.organizations == {memory.ANN.organization_id}, "the work of nobody, for the organization"


async def test_what_was_written_while_the_embedder_was_away_is_found_by_words_and_embedded_later(memory):
    memory.embedder.down = True
    agent_id = await agent_with(memory, "test/small")
    await remember(memory, agent_id, "a red automobile")
    archive = await archive_of(memory, agent_id)

    assert archive.embedding_config.handle == "test/small"
    assert len(await hits(memory, archive.id, "red")) == 1
    failing = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_FAILING)
    assert failing.error_reason == "LLM_UNAVAILABLE"
    memory.embedder.down = False
    done = await until(memory, archive.id, State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE)
    assert (done.embedded_count, done.error_reason) == (1, "")


async def test_an_embedder_that_nobody_offers_is_refused_and_changes_nothing(memory):
    archive = (await memory.archives.CreateArchive(archive_service_pb2.CreateArchiveRequest(name="a"))).archive
    with pytest.raises(ModelNotFound):
        await reembed(memory, archive.id, "no/model")
    assert (await embedding(memory, archive.id)).embedding == "test/words"
    with memory.actor(memory.BOB):
        with pytest.raises(ArchiveNotFound):
            await reembed(memory, archive.id)
        with pytest.raises(ArchiveNotFound):
            await embedding(memory, archive.id)
