"""Sends that find an agent at work wait for their turn; what fails does not pile up when it is sent again."""

import asyncio

import pytest

from letta.agent.v1 import conversation_service_pb2, run_pb2
from letta.agent.v1 import run_service_pb2 as pb
from letta_common.errors import ConversationBusy, DeadlineExceeded, LLMRateLimit
from tests.contract.rpc.agent.test_approvals_rpc import returns, waits_for


async def streamed(stubs, agent_id, text):
    request = pb.StreamMessageRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text=text, include_pings=False))
    return [event async for event in stubs.runs.StreamMessage(request, timeout=20)]


async def begun(stubs, agent_id, text):
    request = pb.CreateRunRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text=text))
    return (await stubs.runs.CreateRun(request, timeout=5)).run


async def test_sends_of_every_kind_wait_for_their_turn_in_order(stubs):
    agent = await stubs.agent()
    first = await stubs.held(agent.id)
    kinds = [stubs.send, lambda a, t: streamed(stubs, a, t), lambda a, t: begun(stubs, a, t), stubs.send]
    waiting = []
    for number, kind in enumerate(kinds):
        waiting.append(asyncio.ensure_future(kind(agent.id, f"message {number}")))
        await waits_for(stubs, agent.id, number + 2)
    stubs.model.release.set()
    await first
    answers = await asyncio.gather(*waiting)
    assert answers[0].messages[0].assistant_message.text == "message 0"
    assert answers[1][0].message.assistant_message.text == "message 1"
    assert answers[3].messages[0].assistant_message.text == "message 3"
    assert [text for text in stubs.model.seen if text.startswith("message")][::2] == [f"message {n}" for n in range(4)]


async def test_conversations_refuse_as_before(stubs):
    agent = await stubs.agent()
    first = await stubs.held(agent.id)
    request = conversation_service_pb2.SendConversationMessageRequest(
        conversation_id=agent.id, run=run_pb2.RunRequest(input_text="hi")
    )
    with pytest.raises(ConversationBusy):
        await stubs.conversations.SendConversationMessage(request, timeout=5)
    stubs.model.release.set()
    await first


async def test_a_send_whose_deadline_passes_while_it_waits_is_forgotten(stubs):
    agent = await stubs.agent()
    first = await stubs.held(agent.id)
    request = pb.SendMessageRequest(agent_id=agent.id, run=run_pb2.RunRequest(input_text="impatient"))
    with pytest.raises(DeadlineExceeded):
        await stubs.runs.SendMessage(request, timeout=0.5)
    active = pb.ListActiveRunsRequest(agent_id=agent.id)
    while len((await stubs.runs.ListActiveRuns(active, timeout=5)).runs) > 1:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    stubs.model.release.set()
    await first
    await stubs.send(agent.id, "next")
    assert "impatient" not in stubs.model.seen


@pytest.mark.parametrize("kind", ["send", "stream"])
async def test_a_message_that_failed_does_not_stay(stubs, kind):
    agent = await stubs.agent()
    for _ in range(3):
        with pytest.raises(LLMRateLimit):
            await (stubs.send(agent.id, "fail") if kind == "send" else streamed(stubs, agent.id, "fail"))
    await stubs.send(agent.id, "next")
    assert stubs.model.seen == ["next"]


async def test_a_turn_that_failed_later_goes_on_when_its_message_comes_again(stubs):
    tool = await stubs.tool()
    agent = await stubs.agent(tool_ids=[tool.id])
    stubs.model.failures = [None, LLMRateLimit("later", retry_after="0"), LLMRateLimit("later", retry_after="0")]
    for _ in range(2):
        with pytest.raises(LLMRateLimit):
            await stubs.send(agent.id, "call roll {}")
    done = await stubs.send(agent.id, "call roll {}")
    assert (returns(done), stubs.model.shapes) == ([], ["user", "assistant 1", "tool 1"])
    again = await stubs.send(agent.id, "call roll {}")
    assert returns(again) == ["rolled"]
