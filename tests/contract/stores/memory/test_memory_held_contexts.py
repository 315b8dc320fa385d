"""Who holds a context is told only what is newer; whatever else changed the context makes it whole again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
import sqlalchemy as sa

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta_agent.clients.held_contexts import HeldContexts
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import Fenced
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
    """A conversation of an agent, and a caller who holds its context."""

    db: Database
    actor: Actor
    agent_id: str
    conversation_id: str
    block_id: str
    held: HeldContexts = field(default_factory=HeldContexts)
    fences: Iterator[int] = field(default_factory=lambda: count(1))
    told: list[str] = field(default_factory=list)
    """What memory sent last."""

    def __post_init__(self) -> None:
        self.store = SqlContextStore(self.db)

    def place(self) -> dict[str, str]:
        return {"agent_id": self.agent_id, "conversation_id": self.conversation_id}

    def owner(self) -> dict[str, Any]:
        run_id = new_id("run")
        fence = next(self.fences)
        return {**self.place(), "run_id": run_id, "fence": fence}

    async def begin(self, text: str) -> pb.BeginStepResponse:
        """Begin a run as the agent service does; return the whole context."""
        request = pb.BeginStepRequest(**self.owner(), input=[message(text)])
        return await self.held.begin("", request, self.ask)

    async def ask(self, request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        answer = await self.store.begin_step(self.actor, request)
        self.told = texts(answer)
        return answer

    async def commit(self, text: str, **more: Any) -> None:
        owner = self.owner()
        await self.store.begin_step(self.actor, pb.BeginStepRequest(**owner))
        await self.store.commit_step(self.actor, pb.CommitStepRequest(**owner, messages=[message(text)], **more))

    async def further(self, messages: list[Message]) -> None:
        """Make the conversation, with a copy of the block of its own."""
        request = pb.ProvisionConversationRequest(**self.place(), messages=messages, isolated_block_labels=["human"])
        await self.store.provision_conversation(self.actor, request)

    async def whole(self) -> list[str]:
        return texts(await self.store.get(self.actor, *self.place().values()))


async def open_thread(database_url: str, agent_id: str, conversation_id: str) -> AsyncIterator[Thread]:
    db = await Database.open(database_url, schema="memory")
    made = Thread(db, Actor(new_id("org"), "user-ann"), agent_id, conversation_id, new_id("block"))
    request = pb.ProvisionAgentRequest(
        agent_id=made.agent_id, messages=[message("system", MessageRole.MESSAGE_ROLE_SYSTEM)]
    )
    block = new_block(made.actor, made.block_id, Block(label="human", value="v"), NOW)
    await made.store.provision_agent(made.actor, request, [block])
    if conversation_id != agent_id:
        await made.further([message("system", MessageRole.MESSAGE_ROLE_SYSTEM)])
    yield made
    await db.close()


@pytest.fixture
async def thread(database_url: str) -> AsyncIterator[Thread]:
    """The agent's own conversation."""
    agent_id = new_id("agent")
    async for made in open_thread(database_url, agent_id, agent_id):
        yield made


@pytest.fixture
async def further(database_url: str) -> AsyncIterator[Thread]:
    """Another conversation of an agent, with a block of its own."""
    async for made in open_thread(database_url, new_id("agent"), new_id("conv")):
        yield made


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
    request = pb.ResetConversationRequest(**thread.place())
    await thread.store.reset_conversation(thread.actor, request)


async def withdraw(thread: Thread) -> None:
    owner = thread.owner()
    await thread.store.begin_step(thread.actor, pb.BeginStepRequest(**owner, input=[message("mistake")]))
    await thread.store.withdraw_input(thread.actor, pb.WithdrawInputRequest(**owner))


async def rewrite(thread: Thread) -> None:
    opening = await thread.store.find_opening(thread.actor, *thread.place().values())
    assert opening is not None
    other = message("another system", MessageRole.MESSAGE_ROLE_SYSTEM)
    other.id = opening.id
    await thread.store.update_message(thread.actor, thread.conversation_id, other)


async def make_anew(thread: Thread) -> None:
    messages = [message("other", MessageRole.MESSAGE_ROLE_SYSTEM), message("other one")]
    if thread.conversation_id != thread.agent_id:
        await thread.store.deprovision_conversation(thread.actor, *thread.place().values())
        await thread.further(messages)
        return
    await thread.store.deprovision_agent(thread.actor, thread.agent_id)
    request = pb.ProvisionAgentRequest(agent_id=thread.agent_id, messages=messages)
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


@pytest.fixture
async def other(thread: Thread) -> Thread:
    """The same conversation as another replica sees it; both count fences from one queue."""
    return replace(thread, held=HeldContexts(), fences=thread.fences)


async def check(*replicas: Thread) -> None:
    """Begin a run on each replica; each must work on what memory has."""
    for replica in replicas:
        begun = await replica.begin(new_id("word"))
        context = await replica.store.get(replica.actor, *replica.place().values())
        assert texts(begun) == texts(context)
        assert list(begun.blocks) == list(context.blocks)


async def test_a_replica_is_told_what_another_one_wrote(thread: Thread, other: Thread) -> None:
    await thread.begin("one")
    await other.begin("two")
    await other.commit("answer")
    await thread.begin("three")
    assert thread.told == ["two", "answer", "three"]
    await check(other, thread)
    assert other.told[:-1] == ["answer", "three"]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_no_replica_keeps_what_another_one_changed(
    thread: Thread, other: Thread, change: Callable[[Thread], Awaitable[None]]
) -> None:
    await thread.begin("one")
    await other.begin("two")
    await change(other)
    await check(thread, other)
    await change(thread)
    await check(other, thread, thread)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
async def test_further_conversations_are_held_as_the_first_one(
    further: Thread, change: Callable[[Thread], Awaitable[None]]
) -> None:
    second = replace(further, held=HeldContexts(), fences=further.fences)
    await check(further, second)
    assert further.told[0] == "system"
    await check(further)
    assert len(further.told) == 2
    await change(second)
    await check(further, second, further)


async def test_an_answer_that_is_lost_is_told_again(thread: Thread, other: Thread) -> None:
    """A run that fails after its input was appended leaves it, whoever comes next."""
    await thread.begin("one")
    await thread.store.begin_step(thread.actor, pb.BeginStepRequest(**thread.owner(), input=[message("lost")]))
    begun = await thread.begin("two")
    assert thread.told == ["lost", "two"]
    assert texts(begun) == await thread.whole()
    await check(other, thread)


async def test_a_run_that_another_replica_takes_over_is_told_whole(thread: Thread, other: Thread) -> None:
    await thread.begin("one")
    await other.begin("two")
    request = pb.BeginStepRequest(**thread.owner(), input=[message("three")])
    await thread.held.begin("", request, thread.ask)
    again = pb.BeginStepRequest(**{**other.owner(), "run_id": request.run_id}, input=request.input)
    begun = await other.held.begin("", again, other.ask)
    assert other.told == ["three"]
    assert texts(begun) == await thread.whole()
    await check(thread, other)


async def test_a_request_without_input_is_held_by_nobody(thread: Thread) -> None:
    await thread.begin("one")
    begun = await thread.held.begin("", pb.BeginStepRequest(**thread.owner()), thread.ask)
    assert (texts(begun), thread.told) == (await thread.whole(), [])
    await check(thread)
    assert thread.told[0] == "system"


async def test_blocks_that_others_change_are_told_to_each_replica(thread: Thread, other: Thread) -> None:
    """Another agent edits a shared block; another block comes."""
    neighbour, more = new_id("agent"), new_id("block")
    await thread.store.provision_agent(
        thread.actor, pb.ProvisionAgentRequest(agent_id=neighbour, block_ids=[thread.block_id]), []
    )
    await check(thread, other)
    edit = pb.EditBlockRequest(
        agent_id=neighbour,
        conversation_id=neighbour,
        fence=1,
        idempotency_key="edit",
        label="human",
        append=pb.AppendEdit(content="tea"),
    )
    await thread.store.edit_block(thread.actor, edit, new_id="", now=NOW)
    await check(thread, other)
    added = new_block(thread.actor, more, Block(label="persona", value="p"), NOW)
    await thread.store.provision_agent(thread.actor, pb.ProvisionAgentRequest(agent_id=new_id("agent")), [added])
    await thread.store.attach_block(thread.actor, thread.agent_id, more)
    await check(thread, other)
    await thread.store.detach_block(thread.actor, thread.agent_id, thread.block_id)
    await check(thread, other)


async def test_a_database_that_was_restored_is_believed(thread: Thread, other: Thread) -> None:
    """Version, position and versions of blocks come again with other messages and texts; what is held is of neither."""
    who = (thread.actor.organization_id, thread.conversation_id)
    of_conversation = "from memory.conversations where organization_id = %s and id = %s"
    await thread.begin("one")
    [saved] = await thread.db.hot(f"select window_version, next_seq, message_count {of_conversation}", who)
    block = "update memory.blocks set value = %s, version = %s where organization_id = %s and id = %s"
    await thread.db.hot(block, ("lost", 2, who[0], thread.block_id))
    await thread.begin("lost")

    await thread.db.hot(
        "delete from memory.messages where organization_id = %s and conversation_id = %s and seq >= %s",
        (*who, saved[1]),
    )
    await thread.db.hot(
        "update memory.conversations set window_version = %s, next_seq = %s, message_count = %s "
        "where organization_id = %s and id = %s",
        (*saved, *who),
    )
    await thread.db.hot(block, ("kept", 2, who[0], thread.block_id))
    await other.begin("true")

    begun = await thread.begin("two")
    assert texts(begun) == ["system", "one", "true", "two"]
    assert [found.value for found in begun.blocks] == ["kept"]
    await check(other, thread)


async def test_a_context_that_is_too_large_to_hold_is_told_whole_each_time(thread: Thread) -> None:
    thread.held = HeldContexts(most_bytes=20_000)
    for text in ("one", "y" * 8_000, "z" * 12_000, "two"):
        begun = await thread.begin(text)
        assert texts(begun) == await thread.whole()
    assert thread.told == await thread.whole()
    await clear(thread)
    await check(thread, thread)
    assert len(thread.told) == 1


async def test_a_request_that_is_tried_again_names_nothing_that_made_room(thread: Thread) -> None:
    await thread.begin("one")
    request = pb.BeginStepRequest(**thread.owner(), input=[message("two")])

    async def refuse(_: pb.BeginStepRequest) -> pb.BeginStepResponse:
        raise Fenced("a newer owner holds the conversation")

    with pytest.raises(Fenced):
        await thread.held.begin("", request, refuse)
    assert request.HasField("held")
    thread.held = HeldContexts()
    begun = await thread.held.begin("", request, thread.ask)
    assert texts(begun) == await thread.whole()


async def test_who_rewrites_a_message_waits_for_its_conversation_first(thread: Thread) -> None:
    """A run or a reset that holds the conversation can remove the message; else each would wait for the other."""
    who = {"org": thread.actor.organization_id, "conversation": thread.conversation_id}
    where = "where organization_id = :org and "
    waiting = sa.text(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and query like '%set body =%' "
        "and datname = current_database()"
    )
    async with asyncio.TaskGroup() as group, thread.db.begin() as tx:
        await tx.execute(sa.text(f"select from memory.conversations {where} id = :conversation for no key update"), who)
        group.create_task(rewrite(thread))
        while not (await tx.execute(waiting)).scalar_one():
            await asyncio.sleep(0.01)
            await tx.execute(sa.text("select pg_stat_clear_snapshot()"), {})
        await tx.execute(
            sa.text(f"select from memory.messages {where} conversation_id = :conversation for update nowait"), who
        )
        await tx.execute(sa.text(f"delete from memory.messages {where} conversation_id = :conversation"), who)


async def test_small_messages_weigh_what_they_take_of_a_process() -> None:
    held = HeldContexts(most_bytes=10_000)

    async def ask(request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        return pb.BeginStepResponse(messages=[b"x"] * 1_000, messages_held=request.HasField("held"))

    for _ in range(2):
        request = pb.BeginStepRequest(conversation_id="c")
        await held.begin("org", request, ask)
        assert not request.HasField("held")


async def test_what_is_held_is_bounded_and_the_oldest_goes_first() -> None:
    held = HeldContexts(most_bytes=13_000)
    named: list[bool] = []

    async def begin(organization: str, conversation: str, size: int) -> None:
        async def ask(request: pb.BeginStepRequest) -> pb.BeginStepResponse:
            named.append(request.HasField("held"))
            return pb.BeginStepResponse(messages=[b"x" * size])

        await held.begin(organization, pb.BeginStepRequest(conversation_id=conversation), ask)

    for name, size in (("a", 4_000), ("b", 4_000), ("a", 5_000), ("c", 5_000), ("b", 1)):
        await begin("org", name, size)
    assert named == [False, False, True, False, False]
    await begin("org", "d", 13_000)
    await begin("org", "d", 1)
    await begin("other", "c", 1)
    await begin("org", "c", 1)
    assert named[5:] == [False, False, False, True]
