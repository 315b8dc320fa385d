"""ArchiveService."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.memory.v1 import archive_pb2, context_service_pb2, passage_service_pb2
from letta.memory.v1 import archive_service_pb2 as pb
from letta_common.actor import Actor
from letta_common.errors import (
    AgentNotFound,
    ArchiveNotFound,
    ArchiveTaken,
    CursorNotFound,
    InvalidArgument,
    ModelNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id

ALONE = True
"""The embedder goes down here, or changes."""


async def make(memory: Any, name: str = "facts", **more: Any) -> Any:
    request = pb.CreateArchiveRequest(name=name, **more)
    return (await memory.archives.CreateArchive(request, timeout=10)).archive


async def attach(memory: Any, agent: str, archive_id: str) -> None:
    await memory.archives.AttachArchive(pb.AttachArchiveRequest(agent_id=agent, archive_id=archive_id), timeout=10)


async def detach(memory: Any, agent: str, archive_id: str) -> None:
    await memory.archives.DetachArchive(pb.DetachArchiveRequest(agent_id=agent, archive_id=archive_id), timeout=10)


async def test_an_archive_names_its_embedder(memory: Any) -> None:
    made = await make(memory, description="d", embedding="test/words", metadata='{"a": 1}')
    config = made.embedding_config
    assert (
        config.handle,
        config.embedding_endpoint_type,
        config.embedding_model,
        config.embedding_dim,
    ) == ("test/words", "test", "words", 512)
    assert (made.organization_id, made.metadata) == ("org-a", '{"a": 1}')
    got = await memory.archives.GetArchive(pb.GetArchiveRequest(archive_id=made.id), timeout=10)
    assert made == got.archive


async def test_an_unknown_embedder_is_refused_and_a_silent_one_is_not(memory: Any) -> None:
    with pytest.raises(ModelNotFound):
        await make(memory, embedding="test/nope")
    memory.embedder.down = True
    made = await make(memory)
    assert not made.HasField("embedding_config")
    memory.embedder.down = False
    request = passage_service_pb2.CreatePassageRequest(
        archive_id=made.id, passage=passage_service_pb2.NewPassage(text="x")
    )
    await memory.passages.CreatePassage(request, timeout=10)
    got = await memory.archives.GetArchive(pb.GetArchiveRequest(archive_id=made.id), timeout=10)
    assert (got.archive.embedding_config.handle, got.archive.embedding_config.embedding_dim) == ("test/words", 512)


async def test_create_twice_with_one_request_id(memory: Any) -> None:
    request_id = str(uuid4())
    assert await make(memory, request_id=request_id) == await make(memory, request_id=request_id)
    with pytest.raises(ValidationFailed):
        await make(memory, name="")


async def test_a_mask_changes_and_clears(memory: Any) -> None:
    made = await make(memory, description="d")
    request = pb.UpdateArchiveRequest(
        archive_id=made.id,
        archive=archive_pb2.Archive(name="new"),
        update_mask=FieldMask(paths=["name", "description"]),
    )
    changed = (await memory.archives.UpdateArchive(request, timeout=10)).archive
    assert (changed.name, changed.HasField("description")) == ("new", False)
    request = pb.UpdateArchiveRequest(
        archive_id=made.id, archive=archive_pb2.Archive(), update_mask=FieldMask(paths=["name"])
    )
    with pytest.raises(InvalidArgument):
        await memory.archives.UpdateArchive(request, timeout=10)


async def test_lists_page_and_filter(memory: Any) -> None:
    with memory.actor(Actor(new_id("org"), "user-x")):
        ids = [(await make(memory, name=f"n{number}")).id for number in range(4)]

        async def page(**fields: Any) -> list[str]:
            answer = await memory.archives.ListArchives(pb.ListArchivesRequest(**fields), timeout=10)
            return [found.id for found in answer.archives]

        assert ids[::-1] == await page()
        assert [ids[1]] == await page(name="n1")
        assert [ids[2], ids[1]] == await page(after=ids[3], limit=2)
        await memory.archives.DeleteArchive(pb.DeleteArchiveRequest(archive_id=ids[2]), timeout=10)
        assert [ids[1]] == await page(after=ids[2], limit=1)
        with pytest.raises(CursorNotFound):
            await page(after="archive-00000000-0000-4000-8000-000000000000")


async def test_an_agent_has_at_most_one_archive(memory: Any) -> None:
    agent, other = await memory.agent(), await memory.agent()
    first, second = await make(memory), await make(memory)
    for _ in range(2):
        await attach(memory, agent, first.id)
    await attach(memory, other, first.id)
    with pytest.raises(ArchiveTaken):
        await attach(memory, agent, second.id)
    held = await memory.archives.ListArchiveAgentIds(pb.ListArchiveAgentIdsRequest(archive_id=first.id), timeout=10)
    assert sorted([agent, other]) == list(held.agent_ids)
    for _ in range(2):
        await detach(memory, agent, first.id)
    await attach(memory, agent, second.id)


async def test_deleting_an_archive_frees_its_agents(memory: Any) -> None:
    agent, made = await memory.agent(), await make(memory)
    await attach(memory, agent, made.id)
    await memory.archives.DeleteArchive(pb.DeleteArchiveRequest(archive_id=made.id), timeout=10)
    await attach(memory, agent, (await make(memory)).id)
    with pytest.raises(ArchiveNotFound):
        await memory.archives.DeleteArchive(pb.DeleteArchiveRequest(archive_id=made.id), timeout=10)


async def test_an_agents_own_archive_goes_with_it_unless_shared(memory: Any) -> None:
    agent, other = await memory.agent(), await memory.agent()
    archives = []
    for owner in (agent, other):
        request = passage_service_pb2.CreateArchivalMemoryRequest(agent_id=owner, text="x")
        archives.append((await memory.passages.CreateArchivalMemory(request, timeout=10)).passages[0].archive_id)
    third = await memory.agent()
    await attach(memory, third, archives[1])
    for owner in (agent, other):
        await memory.contexts.DeprovisionAgent(context_service_pb2.DeprovisionAgentRequest(agent_id=owner), timeout=10)
    with pytest.raises(ArchiveNotFound):
        await memory.archives.GetArchive(pb.GetArchiveRequest(archive_id=archives[0]), timeout=10)
    await memory.archives.GetArchive(pb.GetArchiveRequest(archive_id=archives[1]), timeout=10)


async def test_unknown_ones_and_other_tenants(memory: Any) -> None:
    agent, made = await memory.agent(), await make(memory)
    with pytest.raises(AgentNotFound):
        await attach(memory, new_id("agent"), made.id)
    with pytest.raises(ArchiveNotFound):
        await attach(memory, agent, new_id("archive"))
    with pytest.raises(ArchiveNotFound):
        await detach(memory, agent, new_id("archive"))
    with memory.actor(memory.BOB):
        theirs = await memory.agent()
        mask = FieldMask(paths=["name"])
        for call in (
            memory.archives.GetArchive(pb.GetArchiveRequest(archive_id=made.id), timeout=10),
            memory.archives.DeleteArchive(pb.DeleteArchiveRequest(archive_id=made.id), timeout=10),
            memory.archives.UpdateArchive(
                pb.UpdateArchiveRequest(archive_id=made.id, archive=archive_pb2.Archive(name="x"), update_mask=mask),
                timeout=10,
            ),
            memory.archives.ListArchiveAgentIds(pb.ListArchiveAgentIdsRequest(archive_id=made.id), timeout=10),
            attach(memory, theirs, made.id),
            detach(memory, theirs, made.id),
        ):
            with pytest.raises(ArchiveNotFound):
                await call
        for call in (attach(memory, agent, made.id), detach(memory, agent, made.id)):
            with pytest.raises(AgentNotFound):
                await call


async def test_what_vectors_take_is_counted_for_each_organization(memory: Any) -> None:
    async def taken() -> float:
        answer = await memory.archives.GetEmbeddingStorage(pb.GetEmbeddingStorageRequest(), timeout=10)
        return float(answer.gigabytes)

    with memory.actor(Actor(new_id("org"), "user-x")):
        assert await taken() == 0
        made = await make(memory, embedding="test/words")
        for text in ("one", "two"):
            passage = passage_service_pb2.NewPassage(text=text)
            request = passage_service_pb2.CreatePassageRequest(archive_id=made.id, passage=passage)
            await memory.passages.CreatePassage(request, timeout=10)
        assert await taken() == 2 * 2 * 512 / 1_000_000_000
    with memory.actor(Actor(new_id("org"), "user-y")):
        assert await taken() == 0
