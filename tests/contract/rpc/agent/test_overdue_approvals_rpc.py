"""A request for approval that nobody answers in time gets the default answer."""

import asyncio

import pytest

from letta.agent.v1 import run_pb2
from letta.agent.v1 import run_service_pb2 as pb
from letta.common.v1 import usage_pb2


@pytest.fixture(scope="module", params=["approve", "deny"])
def agent_settings(request):
    return {"approval_seconds": 0.05, "sweep_seconds": 0.05, "approval_default": request.param}


async def test_what_nobody_answers_is_answered_by_default(stubs, agent_settings):
    tool = await stubs.tool(default_requires_approval=True)
    agent = await stubs.agent(tool_ids=[tool.id])
    asked = await stubs.send(agent.id, "call roll {}")
    assert asked.stop_reason.stop_reason == usage_pb2.STOP_REASON_REQUIRES_APPROVAL
    ended = pb.ListRunsRequest(agent_id=agent.id, statuses=[run_pb2.RUN_STATUS_COMPLETED])
    while len((await stubs.runs.ListRuns(ended, timeout=5)).runs) < 2:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.02)

    await stubs.send(agent.id, "and now?")

    assert ("rolled" in "".join(stubs.model.returned)) is (agent_settings["approval_default"] == "approve")
