"""Approvals, turns and failures through the unmodified SDK."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from letta_client import BadRequestError, ConflictError, UnprocessableEntityError

PAY = '''
def pay() -> str:
    """Pay the bill."""
    return "paid"
'''


@pytest.fixture
def asked(client, agent):
    """Return the message of an agent whose call waits for approval."""
    tool = client.tools.upsert(source_code=PAY, default_requires_approval=True)
    client.agents.tools.attach(tool.id, agent_id=agent.id)
    answer = client.agents.messages.create(agent.id, input="CALL pay {}")
    assert answer.stop_reason.stop_reason == "requires_approval"
    return answer.messages[-1]


def kinds(client, agent):
    return [m.message_type for m in client.agents.messages.list(agent.id, order="asc", limit=100)]


def answered(client, agent, message):
    return client.agents.messages.create(agent.id, messages=[message])


@pytest.mark.parametrize("way", ["run", "agent", "agent and run", "conversation", "delete"])
def test_cancelling_lets_the_next_message_in(client, agent, asked, way):
    with pytest.raises(ConflictError) as refused:
        client.agents.messages.create(agent.id, input="hello?")
    assert refused.value.body["detail"]["pending_request_id"] == asked.id
    run = asked.run_id
    if way == "run":
        client.post(f"/v1/runs/{run}/cancel", cast_to=object)
    elif way == "agent":
        assert client.agents.messages.cancel(agent.id) == {run: "cancelled"}
    elif way == "agent and run":
        assert client.agents.messages.cancel(agent.id, run_ids=[run]) == {run: "cancelled"}
    elif way == "conversation":
        client.conversations.cancel(agent.id)
    else:
        client.delete(f"/v1/runs/{run}", cast_to=object)
    assert client.agents.retrieve(agent.id, include=["agent.pending_approval"]).pending_approval is None
    answer = client.agents.messages.create(agent.id, input="Hello!")
    assert answer.stop_reason.stop_reason == "end_turn"
    shown = kinds(client, agent)
    assert shown[shown.index("approval_request_message") + 1] == "tool_return_message"


@pytest.mark.parametrize("form", ["call", "message", "older"])
def test_forms_of_an_approval_and_their_repeats(client, agent, asked, form):
    call_id = asked.id if form == "message" else asked.tool_call.tool_call_id
    message = {"type": "approval", "approvals": [{"type": "approval", "tool_call_id": call_id, "approve": True}]}
    if form == "older":
        message = {"type": "approval", "approve": True, "approval_request_id": asked.id}
    first = answered(client, agent, message)
    assert [m.tool_return for m in first.messages if m.message_type == "tool_return_message"] == ["paid"]
    assert [m.id for m in answered(client, agent, message).messages] == [m.id for m in first.messages]
    with pytest.raises(BadRequestError):
        answered(client, agent, {"type": "approval", "approve": False, "approval_request_id": asked.id})


@pytest.mark.varies  # who of the four is first
def test_two_sends_at_once_take_turns(client, agent):
    words = [f"I like number {n}." for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda text: client.agents.messages.create(agent.id, input=text), words))
    assert {answer.stop_reason.stop_reason for answer in answers} == {"end_turn"}
    said = [m.content for m in client.agents.messages.list(agent.id, limit=100) if m.message_type == "user_message"]
    assert sorted(said) == words


@pytest.mark.parametrize("zone", ["Mars/Base", "GMT+2", "+09:00"])
def test_what_is_no_time_zone_is_refused(client, agent, zone):
    with pytest.raises(UnprocessableEntityError):
        client.agents.create(model="builtin/rules", timezone=zone)
    with pytest.raises(UnprocessableEntityError):
        client.agents.update(agent.id, timezone=zone)
