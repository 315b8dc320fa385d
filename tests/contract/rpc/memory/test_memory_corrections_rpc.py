"""MemoryReviewService: blocks that say otherwise than a later message of the user."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.memory.v1 import block_history_service_pb2, block_pb2, block_service_pb2, context_service_pb2
from letta.memory.v1 import memory_review_service_pb2 as pb
from letta.memory.v1.block_revision_pb2 import BlockWrite
from letta.memory.v1.memory_suggestion_pb2 import (
    AgentReviewPolicy,
    MemorySuggestion,
    MemorySuggestionKind,
    MemorySuggestionState,
)
from letta_common.errors import (
    AgentNotFound,
    BlockLimitExceeded,
    MemorySuggestionNotFound,
    MemorySuggestionOutdated,
)
from letta_common.values.ids import new_id
from tests.contract.rpc.memory.conftest import message

OPEN, ACCEPTED, DISMISSED, OUTDATED = MemorySuggestionState.values()[1:]
ABOUT = "Name: Sam\nLocation: Oslo\nFavorite color: blue"


async def agent(memory: Any, value: str = ABOUT, label: str = "human", **more: Any) -> tuple[str, str]:
    """Make an agent with a block; return the ids of both."""
    agent_id = new_id("agent")
    block = block_pb2.Block(label=label, value=value, **more)
    request = context_service_pb2.ProvisionAgentRequest(
        agent_id=agent_id, agent_name="Ada", new_blocks=[block], messages=[message(1, "You are Ada.")]
    )
    made = await memory.contexts.ProvisionAgent(request, timeout=10)
    return agent_id, made.memory.blocks[0].id


async def say(memory: Any, agent_id: str, *texts: str, fence: int = 1) -> None:
    """Say something as the user, a moment after what was written before."""
    run_id = new_id("run")
    said = [message(2, text, run_id=run_id) for text in texts]
    for each in said:
        each.created_at.GetCurrentTime()
    place = {"agent_id": agent_id, "conversation_id": agent_id, "run_id": run_id, "fence": fence}
    await memory.contexts.BeginStep(context_service_pb2.BeginStepRequest(**place, input=said), timeout=10)
    await memory.commit(agent_id, run_id, "I see.", fence=fence)


async def suggestions(memory: Any, **wanted: Any) -> list[MemorySuggestion]:
    request = pb.ListMemorySuggestionsRequest(**wanted)
    return list((await memory.reviews.ListMemorySuggestions(request, timeout=10)).suggestions)


async def proposed(memory: Any, agent_id: str, number: int = 1) -> list[MemorySuggestion]:
    """Wait for so many open suggestions of an agent."""
    while True:
        if len(found := await suggestions(memory, agent_id=agent_id, state=OPEN)) >= number:
            return found
        await asyncio.sleep(0.02)


async def reviewed(memory: Any, agent_id: str, color: str) -> None:
    """Wait until all that was said is compared, by saying what is proposed for certain."""
    await say(memory, agent_id, f"My favorite color is {color}.")
    while True:
        found = await suggestions(memory, agent_id=agent_id)
        if any(color in each.correction.replacement for each in found):
            return
        await asyncio.sleep(0.02)


async def accept(memory: Any, suggestion_id: str) -> MemorySuggestion:
    request = pb.AcceptMemorySuggestionRequest(suggestion_id=suggestion_id)
    return (await memory.reviews.AcceptMemorySuggestion(request, timeout=10)).suggestion


async def block_of(memory: Any, block_id: str) -> block_pb2.Block:
    request = block_service_pb2.GetBlockRequest(block_id=block_id)
    return (await memory.blocks.GetBlock(request, timeout=10)).block


async def set_to(memory: Any, block_id: str, **values: Any) -> None:
    request = block_service_pb2.UpdateBlockRequest(
        block_id=block_id, block=block_pb2.Block(**values), update_mask=FieldMask(paths=[*values])
    )
    await memory.blocks.UpdateBlock(request, timeout=10)


async def test_a_message_that_says_otherwise_is_proposed_and_accepting_says_why(memory: Any) -> None:
    agent_id, block_id = await agent(memory)
    await say(memory, agent_id, "Hello! By the way, I moved to Quito last month.")
    [found] = await proposed(memory, agent_id)

    assert found.kind == MemorySuggestionKind.MEMORY_SUGGESTION_KIND_CORRECT_BLOCK
    assert (found.agent_id, found.block_id, found.HasField("archive_id")) == (agent_id, block_id, False)
    told = found.correction
    assert (told.line_number, told.line, told.replacement) == (2, "Location: Oslo", "Location: Quito")
    assert (told.block_version, told.relation) == (1, "lives in")
    assert told.message_text == "I moved to Quito last month."
    assert len(told.message_ids) == 1
    assert [each.id for each in await suggestions(memory, block_id=block_id)] == [found.id]

    assert (await accept(memory, found.id)).state == ACCEPTED
    block = await block_of(memory, block_id)
    assert (block.value, block.version) == (ABOUT.replace("Oslo", "Quito"), 2)
    request = block_history_service_pb2.GetBlockRevisionRequest(block_id=block_id, version=2)
    revision = (await memory.history.GetBlockRevision(request, timeout=10)).revision
    assert (revision.written_by, revision.suggestion_id) == (BlockWrite.BLOCK_WRITE_SUGGESTION, found.id)
    assert revision.user_id == memory.ANN.user_id
    assert (await accept(memory, found.id)).state == ACCEPTED
    assert (await block_of(memory, block_id)).version == 2


async def test_what_was_said_last_counts(memory: Any) -> None:
    agent_id, _ = await agent(memory)
    await say(memory, agent_id, "I live in Quito.")
    [first] = await proposed(memory, agent_id)
    await say(memory, agent_id, "Sorry, I live in Lima.")
    while True:
        [second] = await proposed(memory, agent_id)
        if second.id != first.id:
            break
        await asyncio.sleep(0.02)
    assert second.correction.replacement == "Location: Lima"
    await say(memory, agent_id, "No, I live in Oslo.")
    await reviewed(memory, agent_id, "green")

    lines = [each.correction.line for each in await suggestions(memory, agent_id=agent_id, state=OPEN)]
    assert lines == ["Favorite color: blue"]


async def test_a_line_that_changed_outdates_it_and_another_line_does_not(memory: Any) -> None:
    agent_id, block_id = await agent(memory)
    await say(memory, agent_id, "I live in Quito. My favorite color is green.")
    by_line = {each.correction.line: each for each in await proposed(memory, agent_id, 2)}
    await set_to(memory, block_id, value="Likes tea\n" + ABOUT.replace("blue", "red"))
    with pytest.raises(MemorySuggestionOutdated):
        await accept(memory, by_line["Favorite color: blue"].id)
    await accept(memory, by_line["Location: Oslo"].id)

    assert (await block_of(memory, block_id)).value == "Likes tea\nName: Sam\nLocation: Quito\nFavorite color: red"


async def test_a_line_that_is_newer_than_the_message_stays(memory: Any) -> None:
    agent_id, block_id = await agent(memory, "Favorite color: blue")
    run_id = new_id("run")
    await memory.begin(agent_id, "I live in Quito.", run_id=run_id)  # said long ago, by its time
    await set_to(memory, block_id, value=ABOUT)
    await reviewed(memory, agent_id, "green")

    assert len(await suggestions(memory, agent_id=agent_id)) == 1


@pytest.mark.parametrize(
    "said", ["Do I live in Quito?", "I don't live in Quito.", "My sister lives in Quito.", "If I lived in Quito, fine."]
)
async def test_what_is_no_statement_of_the_user_is_not_proposed(memory: Any, said: str) -> None:
    agent_id, _ = await agent(memory)
    await say(memory, agent_id, said)
    await reviewed(memory, agent_id, "green")

    assert len(await suggestions(memory, agent_id=agent_id)) == 1


async def test_blocks_that_tell_of_others_are_left_alone(memory: Any) -> None:
    agent_id, block_id = await agent(memory, label="persona")
    human = block_pb2.Block(label="human", value=ABOUT)
    made = (await memory.blocks.CreateBlock(block_service_pb2.CreateBlockRequest(block=human), timeout=10)).block
    request = context_service_pb2.AttachBlockRequest(agent_id=agent_id, block_id=made.id)
    await memory.contexts.AttachBlock(request, timeout=10)
    await say(memory, agent_id, "I live in Quito.")
    [found] = await proposed(memory, agent_id)

    assert found.block_id == made.id != block_id


async def test_a_value_that_does_not_fit_is_refused_and_can_be_accepted_later(memory: Any) -> None:
    agent_id, block_id = await agent(memory, limit=len(ABOUT))
    await say(memory, agent_id, "I live in Quito.")
    [found] = await proposed(memory, agent_id)
    with pytest.raises(BlockLimitExceeded):
        await accept(memory, found.id)
    await set_to(memory, block_id, limit=1000)

    assert (await accept(memory, found.id)).state == ACCEPTED


async def test_the_policy_of_an_agent_switches_it(memory: Any) -> None:
    agent_id, _ = await agent(memory)
    other, _ = await agent(memory)

    async def policy(**values: Any) -> AgentReviewPolicy:
        given = AgentReviewPolicy(**values)
        request = pb.UpdateAgentReviewPolicyRequest(agent_id=agent_id, policy=given)
        request.update_mask.paths.extend(values)
        return (await memory.reviews.UpdateAgentReviewPolicy(request, timeout=10)).policy

    assert await policy(suggest_corrections=False) == AgentReviewPolicy(agent_id=agent_id, most_open=100)
    await say(memory, agent_id, "I live in Quito.")
    await reviewed(memory, other, "green")
    assert await suggestions(memory, agent_id=agent_id) == []
    told = await policy(suggest_corrections=True, most_open=1)
    assert told == AgentReviewPolicy(agent_id=agent_id, suggest_corrections=True, most_open=1)
    asked = pb.GetAgentReviewPolicyRequest(agent_id=agent_id)
    assert (await memory.reviews.GetAgentReviewPolicy(asked, timeout=10)).policy == told
    await say(memory, agent_id, "I live in Lima. My favorite color is red.")
    assert len(await proposed(memory, agent_id)) == 1
    with memory.actor(memory.BOB), pytest.raises(AgentNotFound):
        await memory.reviews.GetAgentReviewPolicy(asked, timeout=10)


@pytest.mark.parametrize("what", ["agent", "block"])
async def test_suggestions_go_with_their_agent_and_their_block(memory: Any, what: str) -> None:
    agent_id, block_id = await agent(memory)
    await say(memory, agent_id, "I live in Quito.")
    [found] = await proposed(memory, agent_id)
    if what == "agent":
        gone = context_service_pb2.DeprovisionAgentRequest(agent_id=agent_id)
        await memory.contexts.DeprovisionAgent(gone, timeout=10)
    else:
        await memory.blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block_id), timeout=10)

    with pytest.raises(MemorySuggestionNotFound):
        await memory.reviews.GetMemorySuggestion(pb.GetMemorySuggestionRequest(suggestion_id=found.id), timeout=10)
