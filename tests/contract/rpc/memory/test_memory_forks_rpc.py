"""Conversations that begin with the context of another one."""

from __future__ import annotations

from typing import Any

import pytest

from letta.common.v1 import message_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta_common.errors import AgentNotFound, ConversationNotFound, MessageNotFound
from letta_common.values.ids import new_id


async def context_of(memory: Any, agent_id: str, conversation_id: str) -> pb.GetContextResponse:
    request = pb.GetContextRequest(agent_id=agent_id, conversation_id=conversation_id)
    found: pb.GetContextResponse = await memory.contexts.GetContext(request, timeout=10)
    return found


async def test_a_conversation_begins_with_the_context_of_another_one(memory: Any) -> None:
    agent, conversation = await memory.agent("human"), new_id("conv")
    run, _ = await memory.begin(agent, "hello")
    await memory.commit(agent, run, "hi")
    request = pb.ProvisionConversationRequest(
        agent_id=agent,
        conversation_id=conversation,
        messages=[memory.message(1, "own system")],
        source_conversation_id=agent,
    )
    first = await memory.contexts.ProvisionConversation(request, timeout=10)
    assert first == await memory.contexts.ProvisionConversation(request, timeout=10)
    found = await context_of(memory, agent, conversation)
    assert memory.texts(found.messages) == [
        "own system",
        *memory.texts((await context_of(memory, agent, agent)).messages)[1:],
    ]
    assert [message_pb2.Message.FromString(message).run_id for message in found.messages] == [""] * 3
    assert found.message_count == 3

    stranger = await memory.agent()
    other = pb.ProvisionConversationRequest(
        agent_id=stranger, conversation_id=new_id("conv"), source_conversation_id=agent
    )
    with pytest.raises(ConversationNotFound):
        await memory.contexts.ProvisionConversation(other, timeout=10)
    with memory.actor(memory.BOB), pytest.raises(AgentNotFound):
        await memory.contexts.ProvisionConversation(request, timeout=10)
    request.conversation_id, request.last_message_id = new_id("conv"), new_id("message")
    del request.messages[:]
    with pytest.raises(MessageNotFound):
        await memory.contexts.ProvisionConversation(request, timeout=10)
    with pytest.raises(ConversationNotFound):
        await context_of(memory, agent, request.conversation_id)


async def test_calls_that_nobody_answers_are_answered_by_the_fork(memory: Any) -> None:
    """Vendors refuse a transcript with an open call: one that waits for approval, or whose answer is not taken."""
    agent = await memory.agent("human")
    run, _ = await memory.begin(agent, "pay both")
    asked = message_pb2.Message(id=new_id("message"), role=message_pb2.MESSAGE_ROLE_ASSISTANT)
    asked.created_at.GetCurrentTime()
    earlier = message_pb2.Message(id=new_id("message"), role=message_pb2.MESSAGE_ROLE_TOOL)
    earlier.created_at.GetCurrentTime()
    # Of a vendor that gives a later call the same id.
    earlier.parts.add(tool_return=message_pb2.ToolReturnContent(tool_call_id="two", name="pay", content="paid"))
    for call_id in ("one", "two"):
        asked.parts.add(tool_call=message_pb2.ToolCallContent(id=call_id, name="pay", input="{}"))
    first = message_pb2.Message(id=new_id("message"), role=message_pb2.MESSAGE_ROLE_TOOL)
    first.created_at.GetCurrentTime()
    first.parts.add(tool_return=message_pb2.ToolReturnContent(tool_call_id="one", name="pay", content="paid"))
    await memory.contexts.CommitStep(
        pb.CommitStepRequest(
            agent_id=agent, conversation_id=agent, run_id=run, fence=1, step_index=0, messages=[earlier, asked, first]
        ),
        timeout=10,
    )

    for last, left in ((asked.id, ["one", "two"]), (first.id, ["two"])):
        request = pb.ProvisionConversationRequest(
            agent_id=agent, conversation_id=new_id("conv"), source_conversation_id=agent, last_message_id=last
        )
        await memory.contexts.ProvisionConversation(request, timeout=10)
        found = (await context_of(memory, agent, request.conversation_id)).messages
        closing = message_pb2.Message.FromString(found[-1])
        assert [part.tool_return.tool_call_id for part in closing.parts] == left
        assert all(part.tool_return.is_error and "forked before" in part.tool_return.content for part in closing.parts)
