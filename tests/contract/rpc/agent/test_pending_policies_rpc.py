"""A deployment may let a message deny the calls that wait; and only so many messages wait for their turn."""

import asyncio

import pytest

from letta.agent.v1 import run_service_pb2 as pb
from letta.common.v1 import usage_pb2
from letta_common.errors import ConversationBusy


@pytest.fixture(scope="module")
def agent_settings():
    return {"on_pending_approval": "deny", "queue_length": 2}


async def test_a_message_denies_the_calls_that_wait_and_goes_on(stubs):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id])
    asked = await stubs.send(agent.id, "call roll {}")
    assert asked.stop_reason.stop_reason == usage_pb2.STOP_REASON_REQUIRES_APPROVAL

    answer = await stubs.send(agent.id, "something else")

    assert answer.stop_reason.stop_reason == usage_pb2.STOP_REASON_END_TURN
    assert answer.messages[-1].assistant_message.text == "something else"
    assert stubs.model.shapes[-4:] == ["approval 1", "answer", "tool 1", "user"]


async def test_messages_beyond_the_queue_are_refused(stubs):
    agent = await stubs.agent()
    first = await stubs.held(agent.id)
    waiting = [asyncio.ensure_future(stubs.send(agent.id, f"message {n}")) for n in range(2)]
    active = pb.ListActiveRunsRequest(agent_id=agent.id)
    while len((await stubs.runs.ListActiveRuns(active, timeout=5)).runs) < 3:  # noqa: ASYNC110
        await asyncio.sleep(0.01)

    with pytest.raises(ConversationBusy):
        await stubs.send(agent.id, "one too many")
    stubs.model.release.set()
    await asyncio.gather(first, *waiting)

    assert "one too many" not in stubs.model.seen
