"""What the agent loop costs in the database: one statement a call, whatever the length of the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.passage_pb2 import Passage
from letta.memory.v1.passage_service_pb2 import SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_memory.domain.blocks import new_block
from letta_memory.domain.passages import PassageScope
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.passages import SqlPassageStore
from letta_postgres.db import Database, DatabaseOptions
from tests.support.statements import Statements

ANN = Actor("org-a", "user-ann")
NOW = datetime(2026, 1, 2, tzinfo=UTC)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    options = DatabaseOptions(pool_size=2, application_name="letta-memory-test")
    database = await Database.open(database_url, schema="memory", options=options)
    yield database
    await database.close()


def new(text: str, role: MessageRole.ValueType = MessageRole.MESSAGE_ROLE_USER) -> Message:
    parts = [ContentPart(text=TextContent(text=text))]
    return Message(id=new_id("message"), role=role, created_at=stamp_of(NOW), parts=parts)


def owned(agent_id: str, fence: int) -> dict[str, Any]:
    """Return who asks: a new run of an agent's own conversation."""
    return {"agent_id": agent_id, "conversation_id": agent_id, "run_id": new_id("run"), "fence": fence}


async def agent(store: SqlContextStore, messages: int = 1) -> str:
    agent_id = new_id("agent")
    blocks = [new_block(ANN, new_id("block"), Block(label=label, value="v"), NOW) for label in ("human", "persona")]
    history = [new(f"message {number}") for number in range(messages)]
    request = pb.ProvisionAgentRequest(agent_id=agent_id, agent_name="Ada", messages=history)
    await store.provision_agent(ANN, request, blocks)
    return agent_id


async def test_each_hot_call_is_one_statement(db: Database, database_url: str) -> None:
    store, passages = SqlContextStore(db), SqlPassageStore(db)
    agent_id = await agent(store)
    owner = owned(agent_id, 1)
    draft = Passage(
        id=new_id("passage"), text="tea", tags=["t"], metadata="{}", created_at=stamp_of(NOW), embedding=[1.0, 0.0]
    )
    await store.begin_step(ANN, pb.BeginStepRequest(**owner))
    counted = Statements(database_url)

    await store.begin_step(ANN, pb.BeginStepRequest(**owner, input=[new("hello")]))
    known = [pb.BlockVersion(block_id="block-x", version=1)]
    answer = new("hi", MessageRole.MESSAGE_ROLE_ASSISTANT)
    await store.commit_step(ANN, pb.CommitStepRequest(**owner, messages=[answer], known_blocks=known))
    place = {"agent_id": agent_id, "conversation_id": agent_id, "fence": 1}
    append, create = pb.AppendEdit(content="x"), pb.CreateEdit(value="v", description="d")
    for edit in (
        pb.EditBlockRequest(**place, idempotency_key=f"{agent_id}:0", label="human", append=append),
        pb.EditBlockRequest(**place, idempotency_key=f"{agent_id}:1", label="new", create=create),
    ):
        await store.edit_block(ANN, edit, new_id=new_id("block"), now=NOW)
    scope = PassageScope(agent_id=agent_id)
    made = await passages.create(ANN, scope, [draft], embedder="test/two", request_hash=b"", now=NOW)
    [written] = made.rows
    question = EmbedResponse(model="test/two", embeddings=[Embedding(values=[0.9, 0.1])])
    query = SearchPassagesRequest(query="tea", limit=5)
    hits = await passages.search(ANN, [written.archive_id], query, [question], embeddings=False, now=NOW)

    sent = counted.sent()
    assert sum(calls for _, calls in sent) == 6, sent
    assert not [query for query, _ in sent if query.lower().startswith(("begin", "commit", "set "))]
    assert [hit.passage.text for hit in hits] == ["tea"]
    assert (list(written.embedding), list(hits[0].passage.embedding)) == ([1.0, 0.0], [])
    archive = await SqlArchiveStore(db).get(ANN, hits[0].passage.archive_id)
    assert archive.embedding_config.handle == "test/two"


async def test_a_list_of_agents_and_making_one_are_one_statement_each(db: Database, database_url: str) -> None:
    store = SqlContextStore(db)
    several = [await _window_of_ten(store, 3), await agent(store), await agent(store, 3)]
    counted = Statements(database_url)
    made = await agent(store, 2)
    wanted = pb.ListAgentMemoriesRequest(agent_ids=[*several, made, new_id("agent")])
    listed = await store.list_memories(ANN, wanted)
    bare = await store.list_memories(ANN, pb.ListAgentMemoriesRequest(agent_ids=[made], without_blocks=True))

    sent = counted.sent()
    assert sum(calls for _, calls in sent) == 3, sent
    assert [memory.agent_id for memory in listed] == [*several, made]
    assert [len(memory.message_ids) for memory in listed] == [10, 1, 3, 2]
    assert [[block.label for block in memory.blocks] for memory in listed] == [["human", "persona"]] * 4
    assert (list(bare[0].blocks), bare[0].message_ids) == ([], listed[-1].message_ids)
    for memory in listed:
        context = await store.get(ANN, memory.agent_id, memory.agent_id)
        assert list(memory.message_ids) == [Message.FromString(body).id for body in context.messages]


async def _window_of_ten(store: SqlContextStore, length: int) -> str:
    """Make an agent of so many messages, of which ten are in context."""
    agent_id = await agent(store, length)
    owner = owned(agent_id, 1)
    kept = [new(f"kept {number}") for number in range(8)]
    await store.begin_step(ANN, pb.BeginStepRequest(**owner))
    window = pb.Window(summary=new("summary", MessageRole.MESSAGE_ROLE_SUMMARY), first_kept_message_id=kept[0].id)
    await store.commit_step(ANN, pb.CommitStepRequest(**owner, messages=kept, window=window))
    return agent_id


async def _rows_read(db: Database, agent_id: str) -> int:
    """Return how many message rows the reading part of BeginStep fetches, by the plan's own count."""
    statement = (
        "explain (analyze, format json) select m.id from memory.conversations c, memory.messages m "
        "where c.organization_id = %s and c.id = %s and m.organization_id = c.organization_id "
        "and m.conversation_id = c.id and m.seq >= c.window_seq and m.seq <> c.first_seq and m.role <> 6"
    )
    rows = await db.hot(statement, (ANN.organization_id, agent_id))
    plan = rows[0][0][0]["Plan"]

    def walk(node: dict[str, Any]) -> int:
        own = 0
        if node.get("Relation Name") == "messages":
            own = int(node["Actual Rows"] * node["Actual Loops"]) + int(node.get("Rows Removed by Filter", 0))
        return own + sum(walk(child) for child in node.get("Plans", []))

    return walk(plan)


async def test_reading_the_window_does_not_grow_with_the_history(db: Database) -> None:
    store = SqlContextStore(db)
    short, long = await _window_of_ten(store, 10), await _window_of_ten(store, 10_000)
    async with db.raw() as conn:
        await conn.execute("analyze memory.messages")
    assert await _rows_read(db, short) == await _rows_read(db, long) <= 10
    for agent_id in (short, long):
        begun = await store.begin_step(ANN, pb.BeginStepRequest(**owned(agent_id, 2), input=[new("more")]))
        assert len(begun.messages) == 11
