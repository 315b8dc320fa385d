"""What was changed last about tools is what the next message uses, through the unmodified letta-client."""

from __future__ import annotations

import pytest

SOURCE = '''import os

def tell() -> str:
    """{what}"""
    return "{what} " + os.environ.get("PLACE", "nowhere")
'''


@pytest.fixture
def told(client, agent):
    """Have the agent call the tool; return what it returned."""
    tool = client.tools.create(source_code=SOURCE.format(what="one"))
    client.agents.tools.attach(tool.id, agent_id=agent.id)

    def told():
        given = [{"role": "user", "content": "CALL tell {}"}]
        answer = client.agents.messages.create(agent.id, messages=given)
        [found] = [message for message in answer.messages if message.message_type == "tool_return_message"]
        return found.tool_return

    told.tool = tool
    yield told
    client.tools.delete(tool.id)


def test_new_source_is_what_runs(client, told):
    assert told() == "one nowhere"
    for what in ("two", "three", "four"):
        client.tools.update(told.tool.id, source_code=SOURCE.format(what=what))
        assert told() == f"{what} nowhere"


def test_a_new_variable_is_what_it_sees(client, told, agent):
    assert told() == "one nowhere"
    client.agents.update(agent.id, secrets={"PLACE": "here"})
    assert told() == "one here"
    client.agents.update(agent.id, secrets={"PLACE": "there"})
    assert told() == "one there"


def test_a_detached_tool_cannot_be_called(client, told, agent):
    assert told() == "one nowhere"
    client.agents.tools.detach(told.tool.id, agent_id=agent.id)
    assert "Cannot call tell" in told()


def test_an_agent_survives_the_end_of_its_tool(client, agent):
    tool = client.tools.create(source_code=SOURCE.format(what="gone").replace("tell", "vanish"))
    other = client.tools.create(source_code=SOURCE.format(what="kept").replace("tell", "stay"))
    client.agents.tools.attach(tool.id, agent_id=agent.id)
    client.agents.tools.attach(other.id, agent_id=agent.id)
    client.tools.delete(tool.id)

    answer = client.agents.messages.create(agent.id, messages=[{"role": "user", "content": "CALL stay {}"}])
    assert "kept nowhere" in [getattr(message, "tool_return", "") for message in answer.messages]
    names = [found.name for found in client.agents.retrieve(agent.id, include=["agent.tools"]).tools]
    assert "stay" in names
    assert "vanish" not in names
    assert "vanish" not in [found.name for found in client.agents.tools.list(agent.id)]
    client.agents.tools.detach(other.id, agent_id=agent.id)
    client.tools.delete(other.id)
