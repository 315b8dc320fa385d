"""ContextService: fences, repeats and windows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from letta.common.v1 import message_pb2, usage_pb2
from letta.memory.v1 import block_pb2, block_service_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta_common.errors import (
    AgentNotFound,
    BlockLabelTaken,
    BlockNotFound,
    ConversationNotFound,
    Fenced,
    IdempotencyConflict,
    InvalidArgument,
    MessageNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id


async def test_begin_answers_with_the_whole_context(memory: Any) -> None:
    agent = await memory.agent("persona", "human")
    _, begun = await memory.begin(agent, "hello")

    assert [block.label for block in begun.blocks] == ["human", "persona"]
    assert memory.texts(begun.messages) == ["You are Ada.", "hello"]
    assert not begun.HasField("last_step")
    assert (begun.message_count, begun.passage_count) == (2, 0)


async def test_a_repeated_begin_appends_the_input_once(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    _, again = await memory.begin(agent, "hello", run_id=run)

    assert memory.texts(again.messages) == ["You are Ada.", "hello"]
    assert again.message_count == 2


async def test_a_take_over_learns_the_last_step(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    await memory.commit(agent, run, "one")
    await memory.commit(agent, run, "two", step=1, stop_reason=usage_pb2.STOP_REASON_END_TURN)
    _, begun = await memory.begin(agent, run_id=run, fence=2)

    assert (begun.last_step.step_index, begun.last_step.stop_reason) == (1, usage_pb2.STOP_REASON_END_TURN)
    assert memory.texts(begun.messages) == ["You are Ada.", "hello", "one", "two"]


async def test_an_old_owner_is_fenced_everywhere(memory: Any) -> None:
    agent = await memory.agent("human")
    run, _ = await memory.begin(agent, "hello", fence=3)
    await memory.begin(agent, run_id=run, fence=7)

    for call in (
        memory.begin(agent, run_id=run, fence=6),
        memory.commit(agent, run, "late", fence=3),
        memory.edit(agent, "human", fence=3, append=pb.AppendEdit(content="late")),
    ):
        with pytest.raises(Fenced) as caught:
            await call
        assert caught.value.metadata == {"fence": "7"}
    _, begun = await memory.begin(agent, run_id=run, fence=7)
    assert memory.texts(begun.messages) == ["You are Ada.", "hello"]
    assert await memory.values(agent) == {"human": "human"}


async def test_a_repeated_commit_changes_nothing(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    first = await memory.commit(agent, run, "one")
    again = await memory.commit(agent, run, "one")
    _, begun = await memory.begin(agent, run_id=run)

    assert (first.repeated_step, again.repeated_step) == (False, True)
    assert memory.texts(begun.messages) == ["You are Ada.", "hello", "one"]


async def test_concurrent_commits_of_one_step_append_once(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    answers = await asyncio.gather(*(memory.commit(agent, run, "one") for _ in range(6)))
    _, begun = await memory.begin(agent, run_id=run)

    assert sorted(answer.repeated_step for answer in answers) == [False] + [True] * 5
    assert memory.texts(begun.messages) == ["You are Ada.", "hello", "one"]


async def test_concurrent_commits_of_many_runs_keep_every_message(memory: Any) -> None:
    agent = await memory.agent()
    runs = [(await memory.begin(agent))[0] for _ in range(8)]
    await asyncio.gather(*(memory.commit(agent, run, f"said {place}") for place, run in enumerate(runs)))
    _, begun = await memory.begin(agent)

    assert {f"said {place}" for place in range(8)} == set(memory.texts(begun.messages)[1:])
    assert begun.message_count == 9


async def test_a_commit_brings_blocks_that_others_changed(memory: Any) -> None:
    agent = await memory.agent("human", "persona")
    run, begun = await memory.begin(agent)
    known = [pb.BlockVersion(block_id=block.id, version=block.version) for block in begun.blocks]
    unchanged = await memory.commit(agent, run, known_blocks=known)
    await memory.edit(agent, "human", append=pb.AppendEdit(content="likes tea"))
    await memory.edit(agent, "persona", delete=pb.DeleteEdit())
    changed = await memory.commit(agent, run, step=1, known_blocks=known)

    assert not unchanged.changed_blocks
    assert not unchanged.detached_block_ids
    assert [block.value for block in changed.changed_blocks] == ["human\nlikes tea"]
    assert [begun.blocks[1].id] == list(changed.detached_block_ids)


async def test_a_window_shows_first_summary_and_kept(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "a", "b")
    await memory.commit(agent, run, "c")
    kept = memory.message(3, "d")
    window = pb.Window(summary=memory.message(6, "so far"), first_kept_message_id=kept.id)
    request = pb.CommitStepRequest(
        agent_id=agent, conversation_id=agent, run_id=run, fence=1, step_index=1, messages=[kept], window=window
    )
    await memory.contexts.CommitStep(request, timeout=10)
    _, begun = await memory.begin(agent, "e")
    assert memory.texts(begun.messages) == ["You are Ada.", "so far", "d", "e"]
    assert begun.message_count == 7

    run, _ = await memory.begin(agent)
    window = pb.Window(summary=memory.message(6, "again"), first_kept_message_id=kept.id)
    await memory.commit(agent, run, window=window)
    _, begun = await memory.begin(agent)
    assert memory.texts(begun.messages) == ["You are Ada.", "again", "d", "e"]

    run, _ = await memory.begin(agent)
    await memory.commit(agent, run, "f", window=pb.Window(summary=memory.message(6, "all")))
    _, begun = await memory.begin(agent)
    assert memory.texts(begun.messages) == ["You are Ada.", "all", "f"]


async def test_a_window_needs_a_message_of_the_conversation(memory: Any) -> None:
    agent, other = await memory.agent(), await memory.agent()
    strange = memory.message(2, "elsewhere")
    run = new_id("run")
    await memory.contexts.BeginStep(
        pb.BeginStepRequest(agent_id=other, conversation_id=other, run_id=run, fence=1, input=[strange]), timeout=10
    )
    run, _ = await memory.begin(agent)
    with pytest.raises(MessageNotFound):
        await memory.commit(agent, run, "x", window=pb.Window(first_kept_message_id=strange.id))
    _, begun = await memory.begin(agent)
    assert memory.texts(begun.messages) == ["You are Ada."]


async def test_a_message_id_is_used_once(memory: Any) -> None:
    agent = await memory.agent()
    said = memory.message(2, "hello")
    for expected in (None, IdempotencyConflict):
        request = pb.BeginStepRequest(
            agent_id=agent, conversation_id=agent, run_id=new_id("run"), fence=1, input=[said]
        )
        if expected is None:
            await memory.contexts.BeginStep(request, timeout=10)
        else:
            with pytest.raises(expected):
                await memory.contexts.BeginStep(request, timeout=10)


async def test_a_message_needs_id_and_time(memory: Any) -> None:
    agent = await memory.agent()
    said = memory.message(2, "hello")
    said.ClearField("created_at")
    request = pb.BeginStepRequest(agent_id=agent, conversation_id=agent, run_id=new_id("run"), fence=1, input=[said])
    with pytest.raises(InvalidArgument):
        await memory.contexts.BeginStep(request, timeout=10)


async def test_unknown_conversations_and_other_tenants(memory: Any) -> None:
    agent = await memory.agent("human")
    run = new_id("run")
    with pytest.raises(ConversationNotFound):
        await memory.begin(new_id("agent"))
    with memory.actor(memory.BOB):
        for call in (
            memory.begin(agent),
            memory.commit(agent, run, "x"),
            memory.edit(agent, "human", append=pb.AppendEdit(content="x")),
            memory.contexts.ResetConversation(
                pb.ResetConversationRequest(agent_id=agent, conversation_id=agent), timeout=10
            ),
        ):
            with pytest.raises(ConversationNotFound):
                await call
        with pytest.raises(AgentNotFound):
            await memory.contexts.AttachBlock(
                pb.AttachBlockRequest(agent_id=agent, block_id=new_id("block")), timeout=10
            )
        assert await memory.values(agent) == {}


async def test_the_contract_is_checked(memory: Any) -> None:
    agent = await memory.agent()
    with pytest.raises(ValidationFailed) as caught:
        await memory.begin(agent, fence=0)
    assert "fence" in caught.value.metadata


async def test_provisioning_twice_changes_nothing(memory: Any) -> None:
    agent_id = new_id("agent")
    shared = await memory.blocks.CreateBlock(
        block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="shared", value="s")), timeout=10
    )
    request = pb.ProvisionAgentRequest(
        agent_id=agent_id,
        new_blocks=[block_pb2.Block(label="human", value="h")],
        block_ids=[shared.block.id],
        messages=[memory.message(1, "system")],
    )
    first = await memory.contexts.ProvisionAgent(request, timeout=10)
    again = await memory.contexts.ProvisionAgent(request, timeout=10)

    assert first == again
    assert [block.label for block in first.memory.blocks] == ["human", "shared"]
    assert [request.messages[0].id] == list(first.memory.message_ids)
    assert first.memory.blocks[0].description


async def test_provisioning_refuses_unknown_blocks_and_equal_labels(memory: Any) -> None:
    unknown = pb.ProvisionAgentRequest(agent_id=new_id("agent"), block_ids=[new_id("block")])
    with pytest.raises(BlockNotFound):
        await memory.contexts.ProvisionAgent(unknown, timeout=10)
    twice = pb.ProvisionAgentRequest(agent_id=new_id("agent"), new_blocks=[block_pb2.Block(label="x", value="1")])
    made = await memory.blocks.CreateBlock(
        block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="x", value="2")), timeout=10
    )
    twice.block_ids.append(made.block.id)
    with pytest.raises(BlockLabelTaken):
        await memory.contexts.ProvisionAgent(twice, timeout=10)
    known = await memory.contexts.ListAgentMemories(
        pb.ListAgentMemoriesRequest(agent_ids=[unknown.agent_id, twice.agent_id]), timeout=10
    )
    assert not known.memories  # nothing is left of either


async def test_provisioning_with_a_message_that_exists_says_so_and_leaves_nothing(memory: Any) -> None:
    first = pb.ProvisionAgentRequest(agent_id=new_id("agent"), messages=[memory.message(1, "system")])
    await memory.contexts.ProvisionAgent(first, timeout=10)
    taken = pb.ProvisionAgentRequest(
        agent_id=new_id("agent"), new_blocks=[block_pb2.Block(label="x")], messages=first.messages
    )
    with pytest.raises(IdempotencyConflict):
        await memory.contexts.ProvisionAgent(taken, timeout=10)
    taken.ClearField("messages")
    made = await memory.contexts.ProvisionAgent(taken, timeout=10)
    assert [block.label for block in made.memory.blocks] == ["x"]


async def test_deprovisioning_leaves_blocks(memory: Any) -> None:
    agent = await memory.agent("human")
    run, begun = await memory.begin(agent, "hello")
    await memory.commit(agent, run, "hi")
    for _ in range(2):
        await memory.contexts.DeprovisionAgent(pb.DeprovisionAgentRequest(agent_id=agent), timeout=10)

    with pytest.raises(ConversationNotFound):
        await memory.begin(agent)
    request = block_service_pb2.GetBlockRequest(block_id=begun.blocks[0].id)
    assert (await memory.blocks.GetBlock(request, timeout=10)).block.value == "human"


async def test_a_conversation_has_its_own_messages_and_isolated_blocks(memory: Any) -> None:
    agent = await memory.agent("human", "persona")
    conversation = new_id("conv")
    request = pb.ProvisionConversationRequest(
        agent_id=agent,
        conversation_id=conversation,
        messages=[memory.message(1, "own system")],
        isolated_block_labels=["human"],
    )
    first = await memory.contexts.ProvisionConversation(request, timeout=10)
    assert first == await memory.contexts.ProvisionConversation(request, timeout=10)
    begin = pb.BeginStepRequest(agent_id=agent, conversation_id=conversation, run_id=new_id("run"), fence=1)
    await memory.contexts.BeginStep(begin, timeout=10)
    change = pb.EditBlockRequest(
        agent_id=agent,
        conversation_id=conversation,
        fence=1,
        idempotency_key=f"{agent}:k",
        label="human",
        append=pb.AppendEdit(content="mine"),
    )
    edited = await memory.contexts.EditBlock(change, timeout=10)
    begun = await memory.contexts.BeginStep(begin, timeout=10)

    assert list(first.isolated_block_ids) == [edited.block.id]
    assert [block.value for block in begun.blocks] == ["human\nmine", "persona"]
    assert memory.texts(begun.messages) == ["own system"]
    assert await memory.values(agent) == {"human": "human", "persona": "persona"}

    gone = pb.DeprovisionConversationRequest(agent_id=agent, conversation_id=conversation)
    for _ in range(2):
        await memory.contexts.DeprovisionConversation(gone, timeout=10)
    with pytest.raises(ConversationNotFound):
        await memory.contexts.BeginStep(begin, timeout=10)


async def test_isolating_an_unknown_label_makes_nothing(memory: Any) -> None:
    agent, conversation = await memory.agent(), new_id("conv")
    request = pb.ProvisionConversationRequest(
        agent_id=agent, conversation_id=conversation, isolated_block_labels=["nope"]
    )
    with pytest.raises(BlockNotFound):
        await memory.contexts.ProvisionConversation(request, timeout=10)
    request.agent_id = new_id("agent")
    with pytest.raises(AgentNotFound):
        await memory.contexts.ProvisionConversation(request, timeout=10)


async def test_reset_keeps_or_replaces_the_first_message(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    await memory.commit(agent, run, "hi")
    await memory.contexts.ResetConversation(
        pb.ResetConversationRequest(agent_id=agent, conversation_id=agent), timeout=10
    )
    _, begun = await memory.begin(agent)
    assert (memory.texts(begun.messages), begun.message_count) == (["You are Ada."], 1)

    new = [memory.message(1, "You are new."), memory.message(2, "start")]
    request = pb.ResetConversationRequest(agent_id=agent, conversation_id=agent, messages=new)
    for _ in range(2):
        await memory.contexts.ResetConversation(request, timeout=10)
    _, begun = await memory.begin(agent, "more")
    assert memory.texts(begun.messages) == ["You are new.", "start", "more"]


async def test_attach_and_detach_may_be_repeated(memory: Any) -> None:
    agent, other = await memory.agent("human"), await memory.agent("human")
    made = await memory.blocks.CreateBlock(
        block_service_pb2.CreateBlockRequest(block=block_pb2.Block(label="shared", value="s")), timeout=10
    )
    attach = pb.AttachBlockRequest(agent_id=agent, block_id=made.block.id)
    for _ in range(2):
        await memory.contexts.AttachBlock(attach, timeout=10)
    assert await memory.values(agent) == {"human": "human", "shared": "s"}
    detach = pb.DetachBlockRequest(agent_id=agent, block_id=made.block.id)
    for _ in range(2):
        await memory.contexts.DetachBlock(detach, timeout=10)
    assert await memory.values(agent) == {"human": "human"}

    theirs = await memory.contexts.ListAgentMemories(pb.ListAgentMemoriesRequest(agent_ids=[other]), timeout=10)
    with pytest.raises(BlockLabelTaken):
        await memory.contexts.AttachBlock(
            pb.AttachBlockRequest(agent_id=agent, block_id=theirs.memories[0].blocks[0].id), timeout=10
        )
    with pytest.raises(BlockNotFound):
        await memory.contexts.AttachBlock(pb.AttachBlockRequest(agent_id=agent, block_id=new_id("block")), timeout=10)


async def test_memories_come_in_the_order_asked_for(memory: Any) -> None:
    first, second = await memory.agent("a"), await memory.agent("b")
    request = pb.ListAgentMemoriesRequest(agent_ids=[second, new_id("agent"), first], without_blocks=True)
    answer = await memory.contexts.ListAgentMemories(request, timeout=10)
    assert [second, first] == [found.agent_id for found in answer.memories]
    assert [len(found.blocks) for found in answer.memories] == [0, 0]
    assert [len(found.message_ids) for found in answer.memories] == [1, 1]


async def test_a_reset_that_a_newer_run_overtook_changes_nothing(memory: Any) -> None:
    agent = await memory.agent()
    await memory.begin(agent, "hello", fence=5)
    late = pb.ResetConversationRequest(agent_id=agent, conversation_id=agent, fence=4)
    with pytest.raises(Fenced) as caught:
        await memory.contexts.ResetConversation(late, timeout=10)
    assert caught.value.metadata == {"fence": "5"}
    assert memory.texts((await context_of(memory, agent)).messages) == ["You are Ada.", "hello"]


async def test_a_reset_keeps_older_owners_out(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello", fence=5)
    await memory.contexts.ResetConversation(
        pb.ResetConversationRequest(agent_id=agent, conversation_id=agent, fence=6), timeout=10
    )
    with pytest.raises(Fenced):
        await memory.commit(agent, run, "late", fence=5)
    assert memory.texts((await context_of(memory, agent)).messages) == ["You are Ada."]


async def test_a_cleared_window_keeps_the_first_message_alone(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    await memory.commit(agent, run, "one", "two", window=pb.Window(cleared=True))
    found = await context_of(memory, agent)
    assert (memory.texts(found.messages), found.message_count) == (["You are Ada."], 4)

    again = await memory.commit(agent, run, "one", "two", window=pb.Window(cleared=True))
    assert again.repeated_step
    _, begun = await memory.begin(agent, "next", fence=2)
    assert memory.texts(begun.messages) == ["You are Ada.", "next"]


async def test_a_summary_is_not_cleared_away(memory: Any) -> None:
    agent = await memory.agent()
    run, _ = await memory.begin(agent, "hello")
    window = pb.Window(summary=memory.message(6, "so far"), cleared=True)
    await memory.commit(agent, run, "one", window=window)
    assert memory.texts((await context_of(memory, agent)).messages) == ["You are Ada.", "so far", "one"]


async def context_of(memory: Any, agent: str, conversation: str = "") -> Any:
    request = pb.GetContextRequest(agent_id=agent, conversation_id=conversation or agent)
    return await memory.contexts.GetContext(request, timeout=10)


async def test_a_context_is_read_without_a_trace(memory: Any) -> None:
    agent = await memory.agent("human")
    run, begun = await memory.begin(agent, "hello", fence=3)
    found = await context_of(memory, agent)

    assert list(found.messages) == list(begun.messages)
    assert [block.label for block in found.blocks] == ["human"]
    assert (found.message_count, found.passage_count) == (2, 0)
    await memory.commit(agent, run, "one", fence=3)


async def test_a_conversations_context_is_its_own(memory: Any) -> None:
    agent, conversation = await memory.agent("human"), new_id("conv")
    made = await memory.contexts.ProvisionConversation(
        pb.ProvisionConversationRequest(
            agent_id=agent,
            conversation_id=conversation,
            messages=[memory.message(1, "Own.")],
            isolated_block_labels=["human"],
        ),
        timeout=10,
    )
    found = await context_of(memory, agent, conversation)
    assert memory.texts(found.messages) == ["Own."]
    assert [block.id for block in found.blocks] == list(made.isolated_block_ids)
    with pytest.raises(ConversationNotFound):
        await context_of(memory, await memory.agent(), conversation)
    with memory.actor(memory.BOB), pytest.raises(ConversationNotFound):
        await context_of(memory, agent)


async def test_the_system_prompt_is_replaced_in_its_place(memory: Any) -> None:
    agent = await memory.agent()
    _, begun = await memory.begin(agent, "hello")
    first = message_pb2.Message.FromString(begun.messages[0])
    request = pb.SetSystemMessageRequest(agent_id=agent, conversation_id=agent, text="You are Eve.")

    assert (await memory.contexts.SetSystemMessage(request, timeout=10)).message_id == first.id
    now = message_pb2.Message.FromString((await context_of(memory, agent)).messages[0])
    assert (now.id, now.role, now.created_at) == (first.id, first.role, first.created_at)
    assert now.parts[0].text.text == "You are Eve."
    with memory.actor(memory.BOB), pytest.raises(ConversationNotFound):
        await memory.contexts.SetSystemMessage(request, timeout=10)


async def test_what_is_no_system_prompt_is_not_replaced(memory: Any) -> None:
    agent, conversation = await memory.agent(), new_id("conv")
    place = {"agent_id": agent, "conversation_id": conversation}
    for messages in ([], [memory.message(2, "A person says.")]):
        request = pb.ProvisionConversationRequest(**place, messages=messages)
        await memory.contexts.ProvisionConversation(request, timeout=10)
        told = await memory.contexts.SetSystemMessage(pb.SetSystemMessageRequest(**place, text="You."), timeout=10)
        assert told.message_id == ""
        assert memory.texts((await context_of(memory, agent, conversation)).messages) == [
            message.parts[0].text.text for message in messages
        ]
        await memory.contexts.DeprovisionConversation(pb.DeprovisionConversationRequest(**place), timeout=10)
