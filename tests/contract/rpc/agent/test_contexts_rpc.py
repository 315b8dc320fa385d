"""What fills a context, making it smaller, its stored prompt, and forgetting it: over the network and in process."""

import asyncio
import json

import pytest

from letta.agent.v1 import agent_pb2, run_pb2, tool_rule_pb2
from letta.agent.v1 import agent_service_pb2 as pb
from letta.agent.v1 import conversation_service_pb2 as conversation_pb
from letta.agent.v1 import run_service_pb2 as run_pb
from letta.memory.v1 import block_pb2
from letta_common.errors import (
    AgentNotFound,
    ConversationBusy,
    ConversationNotFound,
    IdempotencyConflict,
    NothingToCompact,
    RunNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id


async def window(stubs, agent_id, conversation_id=None):
    request = pb.GetContextWindowRequest(agent_id=agent_id, conversation_id=conversation_id)
    return await stubs.agents.GetContextWindow(request, timeout=10)


async def compacted(stubs, agent_id, **more):
    return await stubs.agents.SummarizeMessages(pb.SummarizeMessagesRequest(agent_id=agent_id, **more), timeout=20)


async def conversation(stubs, agent_id, **more):
    request = conversation_pb.CreateConversationRequest(agent_id=agent_id, **more)
    return (await stubs.conversations.CreateConversation(request, timeout=10)).conversation


async def said(stubs, conversation_id, *texts):
    for text in texts:
        asked = run_pb2.RunRequest(input_text=text)
        request = conversation_pb.SendConversationMessageRequest(conversation_id=conversation_id, run=asked)
        await stubs.conversations.SendConversationMessage(request, timeout=20)


async def talked(stubs, turns=4, **more):
    agent = await stubs.agent(**more)
    for turn in range(turns):
        await stubs.send(agent.id, f"turn {turn}")
    return agent


async def test_a_context_is_told_by_kind(stubs):
    tool = await stubs.tool()
    rule = tool_rule_pb2.ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name="roll"))
    agent = await stubs.agent(tool_ids=[tool.id], system="Be kind.", tool_rules=[rule])
    await stubs.send(agent.id, "hello")
    found = await window(stubs, agent.id)

    assert (found.num_messages, found.num_recall_memory, found.num_archival_memory) == (3, 3, 0)
    assert (found.system_prompt, found.num_tokens_system) == ("Be kind.", 2)
    assert "Ann" in found.core_memory
    assert "roll ends your turn" in found.tool_usage_rules
    assert agent.id in found.external_memory_summary
    [function] = json.loads(found.functions_definitions)
    assert (function["type"], function["function"]["name"]) == ("function", "roll")
    told = json.loads(found.messages)
    assert [message["role"] for message in told] == ["system", "user", "assistant"]
    assert [message["content"][0]["text"] for message in told[1:]] == ["hello", "hello"]
    assert (found.num_tokens_summary_memory, found.HasField("summary_memory")) == (0, False)
    parts = (
        found.num_tokens_external_memory_summary,
        found.num_tokens_system,
        found.num_tokens_core_memory,
        found.num_tokens_tool_usage_rules,
        found.num_tokens_summary_memory,
        found.num_tokens_functions_definitions,
        found.num_tokens_messages,
    )
    assert found.context_window_size_current == sum(parts)
    assert found.context_window_size_max == agent.context_window_limit
    assert all(part > 0 for index, part in enumerate(parts) if index != 4)


async def test_calls_and_returns_in_a_context_are_told(stubs):
    tool = await stubs.tool()
    agent = await stubs.agent(tool_ids=[tool.id])
    await stubs.send(agent.id, "call roll {}")
    told = json.loads((await window(stubs, agent.id)).messages)

    [[call]] = [message["tool_calls"] for message in told if message["tool_calls"]]
    assert (call["type"], call["function"]) == ("function", {"name": "roll", "arguments": "{}"})
    [[returned]] = [message["tool_returns"] for message in told if message["role"] == "tool"]
    assert (returned["status"], returned["tool_call_id"]) == ("success", call["id"])


async def test_a_conversations_context_is_its_own(stubs):
    agent = await talked(stubs, 1)
    made = await conversation(stubs, agent.id, isolated_block_labels=["human"])
    await said(stubs, made.id, "only here")

    own, default = await window(stubs, agent.id, made.id), await window(stubs, agent.id)
    assert [m["content"][0]["text"] for m in json.loads(own.messages)[1:]] == ["only here", "only here"]
    assert {m["conversation_id"] for m in json.loads(own.messages)} == {made.id}
    assert {m["conversation_id"] for m in json.loads(default.messages)} == {None}


async def test_contexts_of_nobody_are_not_found(stubs):
    agent = await stubs.agent()
    with pytest.raises(AgentNotFound):
        await window(stubs, new_id("agent"))
    with pytest.raises(ConversationNotFound):
        await window(stubs, agent.id, new_id("conv"))
    with stubs.bob(), pytest.raises(AgentNotFound):
        await window(stubs, agent.id)
    with pytest.raises(ValidationFailed):
        await window(stubs, "nobody")


async def test_a_context_is_compacted_and_stays_searchable(stubs):
    agent = await talked(stubs)
    done = await compacted(stubs, agent.id)

    assert (done.num_messages_before, done.num_messages_after < 9) == (9, True)
    assert done.summary
    found = await window(stubs, agent.id)
    assert found.num_messages == done.num_messages_after
    assert (found.summary_memory, found.num_recall_memory) == (done.summary, 10)
    run = (await stubs.runs.GetRun(run_pb.GetRunRequest(run_id=done.run_id), timeout=5)).run
    assert (json.loads(run.metadata)["run_type"], run.status) == ("compaction", run_pb2.RUN_STATUS_COMPLETED)
    assert (await stubs.send(agent.id, "after")).messages[0].assistant_message.text == "after"


async def test_a_compaction_with_the_same_key_is_the_same(stubs):
    agent = await talked(stubs)
    first = await compacted(stubs, agent.id, request_id="once")
    again = await compacted(stubs, agent.id, request_id="once")
    assert again == first
    every = agent_pb2.CompactionSettings(mode=agent_pb2.COMPACTION_MODE_ALL)
    with pytest.raises(IdempotencyConflict):
        await compacted(stubs, agent.id, request_id="once", compaction_settings=every)


async def test_ten_compactions_with_one_key_at_once_are_one(stubs):
    agent = await talked(stubs)
    answers = await asyncio.gather(*(compacted(stubs, agent.id, request_id="once") for _ in range(10)))
    assert len({answer.run_id for answer in answers}) == 1
    assert len({answer.SerializeToString() for answer in answers}) == 1
    assert (await window(stubs, agent.id)).num_recall_memory == 10


async def test_a_small_context_is_not_compacted(stubs):
    agent = await talked(stubs, 1)
    with pytest.raises(NothingToCompact):
        await compacted(stubs, agent.id)
    every = agent_pb2.CompactionSettings(mode=agent_pb2.COMPACTION_MODE_ALL)
    assert (await compacted(stubs, agent.id, compaction_settings=every)).num_messages_after == 2


async def test_a_busy_context_is_not_compacted_nor_forgotten(stubs):
    agent = await talked(stubs)
    waiting = await stubs.held(agent.id)
    with pytest.raises(ConversationBusy):
        await compacted(stubs, agent.id)
    with pytest.raises(ConversationBusy):
        await stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), timeout=5)
    stubs.model.release.set()
    await waiting


async def test_compaction_knows_its_tenants(stubs):
    agent = await talked(stubs)
    with stubs.bob(), pytest.raises(AgentNotFound):
        await compacted(stubs, agent.id)
    with pytest.raises(AgentNotFound):
        await compacted(stubs, new_id("agent"))
    settings = agent_pb2.CompactionSettings(sliding_window_percentage=1.5)
    with pytest.raises(ValidationFailed):
        await compacted(stubs, agent.id, compaction_settings=settings)


async def test_a_conversation_is_compacted_alone(stubs):
    agent = await talked(stubs)
    made = await conversation(stubs, agent.id)
    await said(stubs, made.id, "one", "two", "three")
    before = await window(stubs, agent.id)
    request = conversation_pb.CompactConversationRequest(conversation_id=made.id)
    done = await stubs.conversations.CompactConversation(request, timeout=20)

    assert (done.num_messages_before, (await window(stubs, agent.id, made.id)).num_messages) == (
        7,
        done.num_messages_after,
    )
    assert (await window(stubs, agent.id)).messages == before.messages
    default = conversation_pb.CompactConversationRequest(conversation_id="default", agent_id=agent.id)
    assert (await stubs.conversations.CompactConversation(default, timeout=20)).num_messages_before == 9
    with stubs.bob(), pytest.raises(ConversationNotFound):
        await stubs.conversations.CompactConversation(request, timeout=5)


async def stored_prompt(stubs, agent_id, conversation_id=None):
    first = json.loads((await window(stubs, agent_id, conversation_id)).messages)[0]
    return first["id"], first["content"][0]["text"]


async def test_the_stored_prompt_is_made_anew(stubs):
    green = await stubs.agent(memory_blocks=[block_pb2.Block(label="color", value="Green.")])
    agent = await stubs.agent(system="Be kind.")
    kept, before = await stored_prompt(stubs, agent.id)
    attach = pb.AttachBlockRequest(agent_id=agent.id, block_id=green.blocks[0].id)
    await stubs.agents.AttachBlock(attach, timeout=5)

    dry = await stubs.agents.RecompileAgent(pb.RecompileAgentRequest(agent_id=agent.id, dry_run=True), timeout=5)
    assert "Green." in dry.system_prompt
    assert await stored_prompt(stubs, agent.id) == (kept, before)

    done = await stubs.agents.RecompileAgent(pb.RecompileAgentRequest(agent_id=agent.id), timeout=5)
    assert await stored_prompt(stubs, agent.id) == (kept, done.system_prompt)
    assert done.system_prompt == dry.system_prompt
    with stubs.bob(), pytest.raises(AgentNotFound):
        await stubs.agents.RecompileAgent(pb.RecompileAgentRequest(agent_id=agent.id), timeout=5)


async def test_new_instructions_are_in_the_next_step_and_in_the_stored_prompt(stubs):
    agent = await stubs.agent(system="Be kind.")
    update = pb.UpdateAgentRequest(agent_id=agent.id, agent=agent_pb2.Agent(system="Be brief."))
    changed = (await stubs.agents.UpdateAgent(update, timeout=5)).agent

    assert changed.system == "Be brief."
    assert (await stored_prompt(stubs, agent.id))[1].startswith("Be brief.")
    assert (await window(stubs, agent.id)).system_prompt == "Be brief."
    other = pb.UpdateAgentRequest(agent_id=agent.id, agent=agent_pb2.Agent(description="A test."))
    assert (await stubs.agents.UpdateAgent(other, timeout=5)).agent.system == "Be brief."


async def test_a_conversations_prompt_is_made_anew(stubs):
    agent = await stubs.agent(system="Be kind.")
    made = await conversation(stubs, agent.id)
    update = pb.UpdateAgentRequest(agent_id=agent.id, agent=agent_pb2.Agent(system="Be brief."))
    await stubs.agents.UpdateAgent(update, timeout=5)
    assert (await stored_prompt(stubs, agent.id, made.id))[1].startswith("Be kind.")

    request = conversation_pb.RecompileConversationRequest(conversation_id=made.id)
    done = await stubs.conversations.RecompileConversation(request, timeout=5)
    assert made.id in done.system_prompt
    assert (await stored_prompt(stubs, agent.id, made.id))[1] == done.system_prompt
    missing = conversation_pb.RecompileConversationRequest(conversation_id=new_id("conv"))
    with pytest.raises(ConversationNotFound):
        await stubs.conversations.RecompileConversation(missing, timeout=5)


async def test_forgetting_and_talking_at_once_leaves_all_or_nothing_of_a_turn(stubs):
    """Whoever comes first: a turn is in context as a whole, or forgotten as a whole, and nothing fails strangely."""
    agent = await stubs.agent()

    async def forget():
        try:
            await stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), timeout=10)
        except ConversationBusy:
            return False
        return True

    async def talk(text):
        try:
            await stubs.send(agent.id, text)
        except ConversationBusy:
            return ""
        return text

    for round_ in range(8):
        texts = [f"{round_} {n}" for n in range(3)]
        await asyncio.gather(*(talk(text) for text in texts), *(forget() for _ in range(3)))
        told = [m["content"][0]["text"] for m in json.loads((await window(stubs, agent.id)).messages)[1:]]
        assert told[::2] == told[1::2], told
    assert await forget()
    assert (await window(stubs, agent.id)).num_recall_memory == 1


async def test_forgetting_forgets_what_waits_for_approval(stubs):
    tool = await stubs.tool()
    rule = tool_rule_pb2.ToolRule(requires_approval=tool_rule_pb2.RequiresApprovalToolRule(tool_name="roll"))
    agent = await stubs.agent(tool_ids=[tool.id], tool_rules=[rule])
    await stubs.send(agent.id, "call roll {}")
    await stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), timeout=5)
    assert (await stubs.send(agent.id, "hello")).messages[0].assistant_message.text == "hello"


async def test_a_forgetful_agent_has_an_empty_window_after_each_run(stubs):
    agent = await stubs.agent(message_buffer_autoclear=True)
    for text in ("one", "two"):
        await stubs.send(agent.id, text)
        found = await window(stubs, agent.id)
        assert found.num_messages == 1
    assert found.num_recall_memory == 5


async def test_runs_of_nobody_cannot_be_cancelled(stubs):
    with pytest.raises(AgentNotFound):
        await stubs.runs.CancelAgentRuns(run_pb.CancelAgentRunsRequest(agent_id=new_id("agent")), timeout=5)
    agent, other = await stubs.agent(), await stubs.agent()
    with stubs.bob(), pytest.raises(AgentNotFound):
        await stubs.runs.CancelAgentRuns(run_pb.CancelAgentRunsRequest(agent_id=agent.id), timeout=5)
    run = (await stubs.send(agent.id)).run_id
    named = run_pb.CancelAgentRunsRequest(agent_id=other.id, run_ids=[run])
    with pytest.raises(RunNotFound):
        await stubs.runs.CancelAgentRuns(named, timeout=5)
    assert (
        dict((await stubs.runs.CancelAgentRuns(run_pb.CancelAgentRunsRequest(agent_id=agent.id), timeout=5)).statuses)
        == {}
    )
