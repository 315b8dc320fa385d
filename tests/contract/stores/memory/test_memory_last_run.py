"""A conversation knows its last run; one before it that comes back is known too, and does nothing twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.common.v1.usage_pb2 import StopReason
from letta.memory.v1 import context_service_pb2 as pb
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_memory.store.contexts import SqlContextStore
from letta_postgres.db import Database

STOP = StopReason.STOP_REASON_MAX_STEPS


@dataclass
class Thread:
    """A conversation of one message, and two runs in it."""

    store: SqlContextStore
    db: Database
    actor: Actor
    agent_id: str
    first: dict[str, Any]
    second: dict[str, Any]

    async def begin(self, run: dict[str, Any], *texts: str) -> pb.BeginStepResponse:
        return await self.store.begin_step(self.actor, pb.BeginStepRequest(**run, input=map(message, texts)))

    async def commit(self, run: dict[str, Any], index: int, text: str) -> bool:
        """Commit a step; say whether it was a repeat."""
        step = pb.CommitStepRequest(**run, step_index=index, messages=[message(text)], stop_reason=STOP)
        return (await self.store.commit_step(self.actor, step)).repeated_step

    async def withdraw(self, run: dict[str, Any]) -> bool:
        return await self.store.withdraw_input(self.actor, pb.WithdrawInputRequest(**run))

    async def texts(self) -> list[str]:
        begun = await self.begin(self.first)
        return [Message.FromString(found).parts[0].text.text for found in begun.messages]


@pytest.fixture
async def thread(database_url: str) -> AsyncIterator[Thread]:
    db = await Database.open(database_url, schema="memory")
    store, actor, agent_id = SqlContextStore(db), Actor(new_id("org"), "user-ann"), new_id("agent")
    await store.provision_agent(actor, pb.ProvisionAgentRequest(agent_id=agent_id, messages=[message("system")]), [])
    first, second = ({**_conversation(agent_id), "run_id": new_id("run")} for _ in range(2))
    yield Thread(store, db, actor, agent_id, first, second)
    await db.close()


def _conversation(agent_id: str) -> dict[str, Any]:
    return {"agent_id": agent_id, "conversation_id": agent_id, "fence": 1}


def message(text: str) -> Message:
    parts = [ContentPart(text=TextContent(text=text))]
    now = stamp_of(SystemClock().now())
    return Message(id=new_id("message"), role=MessageRole.MESSAGE_ROLE_USER, created_at=now, parts=parts)


async def test_a_run_that_comes_back_appends_neither_its_input_nor_its_steps_again(thread: Thread) -> None:
    await thread.begin(thread.first, "one")
    await thread.commit(thread.first, 0, "answer")
    await thread.begin(thread.second, "two")

    begun = await thread.begin(thread.first, "one again")

    assert (begun.last_step.step_index, begun.last_step.stop_reason) == (0, STOP)
    assert await thread.commit(thread.first, 0, "answer again")
    assert not await thread.commit(thread.first, 1, "more")
    assert await thread.texts() == ["system", "one", "answer", "two", "more"]


async def test_a_commit_of_a_run_that_is_not_the_last_is_known_too(thread: Thread) -> None:
    await thread.begin(thread.first, "one")
    await thread.commit(thread.first, 0, "answer")
    await thread.commit(thread.second, 0, "other")
    assert await thread.commit(thread.first, 0, "answer again")
    assert (await thread.begin(thread.second)).last_step.step_index == 0
    assert await thread.texts() == ["system", "one", "answer", "other"]


async def test_an_input_is_withdrawn_once_whichever_run_was_last(thread: Thread) -> None:
    await thread.begin(thread.first, "one")
    await thread.begin(thread.second, "two")
    assert [await thread.withdraw(thread.first) for _ in range(2)] == [True, False]
    assert [await thread.withdraw(thread.second) for _ in range(2)] == [True, False]
    assert await thread.texts() == ["system"]

    await thread.begin(thread.first, "one")
    await thread.commit(thread.first, 0, "answer")
    await thread.begin(thread.second)
    assert not await thread.withdraw(thread.first)
    assert await thread.texts() == ["system", "one", "answer"]


async def test_steps_that_the_release_before_committed_are_known(thread: Thread) -> None:
    """It stored a row for each input, with index -1, and one for each step."""
    first, second = thread.first["run_id"], thread.second["run_id"]
    insert = (
        "insert into memory.committed_steps (organization_id, run_id, step_index, conversation_id, stop_reason) "
        "values (%s, %s, %s, %s, %s)"
    )
    for run_id, index in ((first, -1), (first, 0), (first, 1), (second, -1)):
        await thread.db.hot(insert, (thread.actor.organization_id, run_id, index, thread.agent_id, STOP))

    begun, other = await thread.begin(thread.first, "one again"), await thread.begin(thread.second, "two again")

    assert (begun.last_step.step_index, begun.last_step.stop_reason) == (1, STOP)
    assert not other.HasField("last_step")
    assert await thread.texts() == ["system"]
