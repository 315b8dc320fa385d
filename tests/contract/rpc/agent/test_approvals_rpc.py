"""A request for approval always has a way out, and the conversation is sound after each of them."""

import asyncio

import pytest

from letta.agent.v1 import agent_service_pb2, conversation_service_pb2, run_pb2
from letta.agent.v1 import run_service_pb2 as pb
from letta.common.v1 import message_pb2, model_settings_pb2, usage_pb2
from letta_common.errors import (
    InvalidArgument,
    NoPendingApproval,
    PendingApproval,
    RunNotActive,
    RunNotFound,
    ServiceUnavailable,
)

WAITS = usage_pb2.STOP_REASON_REQUIRES_APPROVAL
END = usage_pb2.STOP_REASON_END_TURN
CANCELLED = run_pb2.RUN_STATUS_CANCELLED


ARGS = """

    Args:
        n: A number.
    """


class Asking:
    """An agent whose call of a tool waits for approval."""

    def __init__(self, stubs, agent, tool, answer):
        self.stubs, self.agent_id, self.tool, self.run_id = stubs, agent.id, tool, answer.run_id
        self.message_id = answer.messages[-1].id
        self.call_id = answer.messages[-1].approval_request_message.tool_call.tool_call_id

    async def send(self, *messages, **more):
        request = pb.SendMessageRequest(agent_id=self.agent_id, run=run_pb2.RunRequest(messages=messages), **more)
        return await self.stubs.runs.SendMessage(request, timeout=20)

    async def kinds(self):
        """Return what the model is shown of the conversation: role, and whether calls and returns fit."""
        await self.stubs.send(self.agent_id, "and then")
        return self.stubs.model.shapes

    async def state(self):
        include = [agent_service_pb2.AGENT_INCLUDE_PENDING_APPROVAL]
        request = agent_service_pb2.GetAgentRequest(agent_id=self.agent_id, include=include)
        return (await self.stubs.agents.GetAgent(request, timeout=5)).agent


def answers(*pairs):
    given = [message_pb2.ApprovalReturn(tool_call_id=call, approve=approve) for call, approve in pairs]
    approvals = [message_pb2.Approval(approval_return=one) for one in given]
    return run_pb2.InputMessage(approval=run_pb2.ApprovalCreate(approvals=approvals))


def said(text):
    return run_pb2.InputMessage(message_create=run_pb2.MessageCreate(role=message_pb2.MESSAGE_ROLE_USER, text=text))


def returns(answer):
    return [m.tool_return_message.tool_return for m in answer.messages if m.HasField("tool_return_message")]


@pytest.fixture
async def asking(stubs):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id])
    answer = await stubs.send(agent.id, "call roll {}")
    assert answer.stop_reason.stop_reason == WAITS
    return Asking(stubs, agent, tool, answer)


async def cancelled_by_run(asking):
    run = (await asking.stubs.runs.CancelRun(pb.CancelRunRequest(run_id=asking.run_id), timeout=10)).run
    assert run.status == CANCELLED


async def cancelled_by_ids(asking):
    request = pb.CancelAgentRunsRequest(agent_id=asking.agent_id, run_ids=[asking.run_id])
    statuses = (await asking.stubs.runs.CancelAgentRuns(request, timeout=10)).statuses
    assert dict(statuses) == {asking.run_id: "cancelled"}


async def cancelled_by_agent(asking):
    request = pb.CancelAgentRunsRequest(agent_id=asking.agent_id)
    statuses = (await asking.stubs.runs.CancelAgentRuns(request, timeout=10)).statuses
    assert dict(statuses) == {asking.run_id: "cancelled"}


async def cancelled_by_conversation(asking):
    request = conversation_service_pb2.CancelConversationRequest(conversation_id=asking.agent_id)
    statuses = (await asking.stubs.conversations.CancelConversation(request, timeout=10)).statuses
    assert dict(statuses) == {asking.run_id: "cancelled"}


async def run_deleted(asking):
    await asking.stubs.runs.DeleteRun(pb.DeleteRunRequest(run_id=asking.run_id), timeout=10)
    with pytest.raises(RunNotFound):
        await asking.stubs.runs.GetRun(pb.GetRunRequest(run_id=asking.run_id), timeout=5)


@pytest.mark.parametrize(
    "way", [cancelled_by_run, cancelled_by_ids, cancelled_by_agent, cancelled_by_conversation, run_deleted]
)
async def test_cancelling_denies_what_waits(stubs, asking, way):
    assert (await asking.state()).HasField("pending_approval")
    await way(asking)
    assert not (await asking.state()).HasField("pending_approval")
    answer = await stubs.send(asking.agent_id, "go on")
    assert answer.stop_reason.stop_reason == END
    assert stubs.model.shapes[-3:] == ["approval 1", "tool 1", "user"]
    with pytest.raises(NoPendingApproval):
        await asking.send(answers((asking.call_id, True)))
    with pytest.raises((RunNotActive, RunNotFound)):
        await stubs.runs.CancelRun(pb.CancelRunRequest(run_id=asking.run_id), timeout=10)


async def test_the_same_approval_again_is_done(stubs, asking):
    first = await asking.send(answers((asking.call_id, True)))
    again = await asking.send(answers((asking.call_id, True)))
    assert (returns(first), again.run_id) == (["rolled"], first.run_id)
    assert [m.id for m in again.messages] == [m.id for m in first.messages]
    assert await asking.kinds() == ["user", "approval 1", "answer", "tool 1", "assistant", "user"]
    with pytest.raises(NoPendingApproval):
        await asking.send(answers((asking.call_id, False)))


@pytest.mark.parametrize("approve", [True, False])
@pytest.mark.parametrize("form", ["older", "message"])
async def test_the_message_that_asked_stands_for_its_calls(asking, form, approve):
    if form == "older":
        given = run_pb2.ApprovalCreate(approve=approve, approval_request_id=asking.message_id, reason="so it is")
        message = run_pb2.InputMessage(approval=given)
    else:
        message = answers((asking.message_id, approve))
    told = returns(await asking.send(message))
    assert told == ["rolled"] if approve else told[0].startswith("Error: request to call tool denied")
    assert (await asking.send(message)).stop_reason.stop_reason == END


async def test_an_approval_that_names_nothing_is_refused(asking):
    with pytest.raises(InvalidArgument, match="approval_request_id"):
        await asking.send(run_pb2.InputMessage(approval=run_pb2.ApprovalCreate(approve=True)))


async def several(stubs):
    tool = await stubs.tool(default_requires_approval=True, parameters="n: int", body="return str(n)", described=ARGS)
    agent = await stubs.agent(
        tool_ids=[tool.id], model_settings=model_settings_pb2.ModelSettings(parallel_tool_calls=True)
    )
    answer = await stubs.send(agent.id, 'calls roll {"n": 1} {"n": 2}')
    asking = Asking(stubs, agent, tool, answer)
    calls = answer.messages[-1].approval_request_message.tool_calls.tool_calls
    return asking, [call.tool_call_id for call in calls]


async def test_calls_may_be_answered_one_by_one(stubs):
    asking, [one, two] = await several(stubs)
    partly = await asking.send(answers((two, False)))
    assert partly.stop_reason.stop_reason == WAITS
    shown = partly.messages[-1].approval_request_message.tool_calls.tool_calls
    assert [call.tool_call_id for call in shown] == [one]
    with pytest.raises(PendingApproval):
        await stubs.send(asking.agent_id, "hello?")
    done = await asking.send(answers((one, True)), said("thanks"))
    told = [
        r.text for m in done.messages if m.HasField("tool_return_message") for r in m.tool_return_message.tool_returns
    ]
    assert (told[0], told[1][:6]) == ("1", "Error:")
    shapes = stubs.model.shapes
    assert shapes == ["user", "approval 2", "answer", "answer", "tool 2", "user"]


@pytest.mark.parametrize("which", ["first", "second"])
async def test_what_was_answered_in_part_can_be_cancelled(stubs, which):
    asking, [one, _] = await several(stubs)
    partly = await asking.send(answers((one, True)))
    asking.run_id = asking.run_id if which == "first" else partly.run_id
    await cancelled_by_run(asking)
    await stubs.send(asking.agent_id, "go on")
    assert stubs.model.shapes == ["user", "approval 2", "answer", "tool 2", "user"]


async def test_a_queued_message_does_not_come_between_a_call_and_its_approval(stubs):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id])
    waiting = await stubs.held(agent.id)
    asks = asyncio.ensure_future(stubs.send(agent.id, "call roll {}"))
    await waits_for(stubs, agent.id, 2)
    late = asyncio.ensure_future(stubs.send(agent.id, "too early"))
    await waits_for(stubs, agent.id, 3)
    stubs.model.release.set()
    await waiting
    asking = Asking(stubs, agent, tool, await asks)
    with pytest.raises(PendingApproval) as caught:
        await late
    assert caught.value.metadata["pending_request_id"] == asking.message_id
    assert returns(await asking.send(answers((asking.call_id, True)))) == ["rolled"]


async def waits_for(stubs, agent_id, count):
    """Wait until an agent has so many runs that have not ended."""
    request = pb.ListActiveRunsRequest(agent_id=agent_id)
    while len((await stubs.runs.ListActiveRuns(request, timeout=5)).runs) < count:  # noqa: ASYNC110
        await asyncio.sleep(0.01)


async def test_the_rule_or_the_tool_may_go_while_a_call_waits(stubs, asking):
    rule = agent_service_pb2.SetToolApprovalRequest(agent_id=asking.agent_id, tool_name="roll")
    await stubs.agents.SetToolApproval(rule, timeout=5)
    with pytest.raises(PendingApproval):
        await stubs.send(asking.agent_id, "hello?")
    detach = agent_service_pb2.DetachToolRequest(agent_id=asking.agent_id, tool_id=asking.tool.id)
    await stubs.agents.DetachTool(detach, timeout=5)
    done = await asking.send(answers((asking.call_id, True)))
    assert done.stop_reason.stop_reason == END
    assert "Cannot call roll" in returns(done)[0]


async def test_an_approval_that_could_not_be_carried_out_still_waits(stubs, asking):
    stubs.faults.plan("CommitStep", *(ServiceUnavailable("away") for _ in range(100)))
    with pytest.raises(ServiceUnavailable):
        await asking.send(answers((asking.call_id, True)))
    stubs.faults.plan("CommitStep")
    assert (await asking.state()).pending_approval.id == asking.message_id
    assert returns(await asking.send(answers((asking.call_id, True)))) == ["rolled"]
    assert stubs.model.shapes == ["user", "approval 1", "answer", "tool 1"]


async def test_a_conversation_may_be_deleted_while_a_call_waits(stubs, asking):
    made = conversation_service_pb2.CreateConversationRequest(agent_id=asking.agent_id)
    conversation = (await stubs.conversations.CreateConversation(made, timeout=5)).conversation
    request = conversation_service_pb2.SendConversationMessageRequest(
        conversation_id=conversation.id, run=run_pb2.RunRequest(input_text="call roll {}")
    )
    waits = await stubs.conversations.SendConversationMessage(request, timeout=10)
    gone = conversation_service_pb2.DeleteConversationRequest(conversation_id=conversation.id)
    await stubs.conversations.DeleteConversation(gone, timeout=5)
    with pytest.raises((RunNotActive, RunNotFound)):
        await stubs.runs.CancelRun(pb.CancelRunRequest(run_id=waits.run_id), timeout=5)
    assert returns(await asking.send(answers((asking.call_id, True)))) == ["rolled"]
