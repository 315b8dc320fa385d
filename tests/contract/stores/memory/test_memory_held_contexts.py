"""Who holds a context is told only what is newer; whatever else changed the context makes it whole again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta_agent.clients.held_contexts import HeldContexts
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_memory.domain.blocks import new_block
from letta_memory.store.contexts import SqlContextStore
from letta_postgres.db import Database

NOW = SystemClock().now()


def message(text: str, role: MessageRole.ValueType = MessageRole.MESSAGE_ROLE_USER) -> Message:
    parts = [ContentPart(text=TextContent(text=text))]
    return Message(id=new_id("message"), role=role, created_at=stamp_of(NOW), parts=parts)


def texts(answer: pb.BeginStepResponse | pb.GetContextResponse) -> list[str]:
    return [Message.FromString(found).parts[0].text.text for found in answer.messages]


@dataclass
class Thread:
    """An agent's own conversation, and a caller who holds its context."""

    db: Database
    actor: Actor
    agent_id: str
    block_id: str
    held: HeldContexts = field(default_factory=HeldContexts)
    fence: int = 0
    told: list[str] = field(default_factory=list)
    """What memory sent last."""

    def __post_init__(self) -> None:
        self.store = SqlContextStore(self.db)

    def owner(self) -> dict[str, Any]:
        self.fence += 1
        run_id = new_id("run")
        return {"agent_id": self.agent_id, "conversation_id": self.agent_id, "run_id": run_id, "fence": self.fence}

    async def begin(self, text: str) -> pb.BeginStepResponse:
        """Begin a run as the agent service does; return the whole context."""
        request = pb.BeginStepRequest(**self.owner(), input=[message(text)])
        held = self.held.find("", self.agent_id)
        if held is not None:
            request.held.CopyFrom(held.mark)
        answer = await self.store.begin_step(self.actor, request)
        self.told = texts(answer)
        return self.held.complete(("", self.agent_id), held, answer)

    async def commit(self, text: str, **more: Any) -> None:
        owner = self.owner()
        await self.store.begin_step(self.actor, pb.BeginStepRequest(**owner))
        await self.store.commit_step(self.actor, pb.CommitStepRequest(**owner, messages=[message(text)], **more))

    async def whole(self) -> list[str]:
        return texts(await self.store.get(self.actor, self.agent_id, self.agent_id))


@pytest.fixture
async def thread(database_url: str) -> AsyncIterator[Thread]:
    db = await Database.open(database_url, schema="memory")
    made = Thread(db, Actor(new_id("org"), "user-ann"), new_id("agent"), new_id("block"))
    request = pb.ProvisionAgentRequest(
        agent_id=made.agent_id, messages=[message("system", MessageRole.MESSAGE_ROLE_SYSTEM)]
    )
    block = new_block(made.actor, made.block_id, Block(label="human", value="v"), NOW)
    await made.store.provision_agent(made.actor, request, [block])
    yield made
    await db.close()


async def test_who_holds_a_context_is_told_only_what_is_newer(thread: Thread) -> None:
    await thread.begin("one")
    assert thread.told == ["system", "one"]
    await thread.commit("answer")
    begun = await thread.begin("two")

    assert thread.told == ["answer", "two"]
    assert texts(begun) == await thread.whole() == ["system", "one", "answer", "two"]
    assert [block.label for block in begun.blocks] == ["human"]
    assert begun.blocks_held


async def compact(thread: Thread) -> None:
    await thread.commit("kept", window=pb.Window(summary=message("summary", MessageRole.MESSAGE_ROLE_SUMMARY)))


async def clear(thread: Thread) -> None:
    await thread.commit("gone", window=pb.Window(cleared=True))


async def reset(thread: Thread) -> None:
    request = pb.ResetConversationRequest(agent_id=thread.agent_id, conversation_id=thread.agent_id)
    await thread.store.reset_conversation(thread.actor, request)


async def withdraw(thread: Thread) -> None:
    owner = thread.owner()
    await thread.store.begin_step(thread.actor, pb.BeginStepRequest(**owner, input=[message("mistake")]))
    await thread.store.withdraw_input(thread.actor, pb.WithdrawInputRequest(**owner))


async def rewrite(thread: Thread) -> None:
    opening = await thread.store.find_opening(thread.actor, thread.agent_id, thread.agent_id)
    assert opening is not None
    other = message("another system", MessageRole.MESSAGE_ROLE_SYSTEM)
    other.id = opening.id
    await thread.store.update_message(thread.actor, thread.agent_id, other)


async def make_anew(thread: Thread) -> None:
    await thread.store.deprovision_agent(thread.actor, thread.agent_id)
    request = pb.ProvisionAgentRequest(
        agent_id=thread.agent_id, messages=[message("other", MessageRole.MESSAGE_ROLE_SYSTEM), message("other one")]
    )
    await thread.store.provision_agent(thread.actor, request, [])


CHANGES: list[Callable[[Thread], Awaitable[None]]] = [compact, clear, reset, withdraw, rewrite, make_anew]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_a_context_that_changed_otherwise_is_told_anew(
    thread: Thread, change: Callable[[Thread], Awaitable[None]]
) -> None:
    await thread.begin("one")
    await change(thread)
    begun = await thread.begin("two")

    assert texts(begun) == thread.told == await thread.whole()
    assert texts(begun)[-1] == "two"
    await thread.begin("three")
    assert thread.told == ["three"]


async def test_blocks_that_changed_are_told_anew(thread: Thread) -> None:
    await thread.begin("one")
    change = "update memory.blocks set value = 'w', version = version + 1 where organization_id = %s and id = %s"
    await thread.db.hot(change, (thread.actor.organization_id, thread.block_id))
    changed = await thread.begin("two")
    await thread.store.detach_block(thread.actor, thread.agent_id, thread.block_id)
    detached = await thread.begin("three")

    assert ([block.value for block in changed.blocks], list(detached.blocks)) == (["w"], [])
    assert [changed.blocks_held, detached.blocks_held] == [False, False]


async def test_what_is_held_is_bounded_and_the_oldest_goes_first() -> None:
    held = HeldContexts(most_bytes=13_000)
    for name, size in (("a", 4_000), ("b", 4_000), ("a", 5_000), ("c", 5_000)):
        held.complete(("org", name), None, pb.BeginStepResponse(messages=[b"x" * size]))
    assert [held.find("org", name) is not None for name in ("a", "b", "c")] == [True, False, True]
    held.complete(("org", "d"), None, pb.BeginStepResponse(messages=[b"x" * 13_000]))
    assert [held.find("org", name) is not None for name in ("a", "c", "d")] == [True, True, False]
    assert held.find("other", "a") is None
