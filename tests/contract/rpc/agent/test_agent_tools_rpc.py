"""Tools of agents called outside of a run, and tools that see and change the agent's state."""

import json

import pytest

from letta.agent.v1 import agent_service_pb2 as pb
from letta.common.v1.message_pb2 import TOOL_RETURN_STATUS_ERROR as ERROR
from letta.common.v1.message_pb2 import TOOL_RETURN_STATUS_SUCCESS as SUCCESS
from letta.memory.v1 import block_pb2
from letta_common.errors import AgentNotFound, InvalidArgument, ToolNotFound
from letta_common.values.ids import new_id
from letta_messages.rendering import type_of

REMEMBER = """block = agent_state.memory.get_block("human")
    agent_state.memory.update_block_value("human", block["value"] + " " + word)
    print("noted")
    return {"name": agent_state.name, "labels": agent_state.memory.list_block_labels()}"""
READ_ONLY = block_pb2.Block(label="human", value="Ann", read_only=True)
ARGS = """

    Args:
        word (str): what to remember
    """


async def ran(stubs, agent_id, name, args=None):
    request = pb.RunAgentToolRequest(agent_id=agent_id, tool_name=name, args=json.dumps(args) if args else "")
    return await stubs.agents.RunAgentTool(request, timeout=20)


async def blocks_of(stubs, agent_id):
    request = pb.GetAgentRequest(agent_id=agent_id, include=[pb.AGENT_INCLUDE_BLOCKS])
    return [block.value for block in (await stubs.agents.GetAgent(request, timeout=5)).agent.blocks]


async def remembering(stubs, **more):
    tool = await stubs.tool("remember", REMEMBER, 'agent_state: "AgentState", word: str', ARGS)
    return await stubs.agent(name="Ada", tool_ids=[tool.id], **more)


async def test_a_custom_tool_is_called(stubs):
    body = "import os\n    print('rolling')\n    return {'rolled': 6, 'key': os.environ['KEY']}"
    agent = await stubs.agent(tool_ids=[(await stubs.tool(body=body)).id], secret_values={"KEY": "secret"})

    answer = await ran(stubs, agent.id, "roll")

    assert (answer.status, json.loads(answer.func_return)) == (SUCCESS, {"rolled": 6, "key": "secret"})
    assert (list(answer.stdout), list(answer.stderr)) == (["rolling"], [])
    assert len(agent.message_ids) == 1


async def test_a_tool_that_fails_is_an_answer(stubs):
    agent = await stubs.agent(tool_ids=[(await stubs.tool(body="raise ValueError('no dice')")).id])

    answer = await ran(stubs, agent.id, "roll")

    assert answer.status == ERROR
    assert "no dice" in json.loads(answer.func_return)


@pytest.mark.parametrize("runs", [0, 2])
async def test_a_memory_tool_edits_the_block(stubs, runs):
    agent = await stubs.agent(tools=["memory_insert", "memory_replace"])
    for _ in range(runs):
        await stubs.send(agent.id)

    done = await ran(stubs, agent.id, "memory_replace", {"label": "human", "old_string": "Ann", "new_string": "Bea"})
    failed = await ran(stubs, agent.id, "memory_replace", {"label": "human", "old_string": "Cy", "new_string": "Bea"})

    assert (done.status, json.loads(done.func_return), failed.status) == (SUCCESS, "Bea", ERROR)
    assert await blocks_of(stubs, agent.id) == ["Bea"]
    assert (await stubs.send(agent.id, "still")).messages[0].assistant_message.text == "still"


async def test_what_cannot_be_called_is_refused(stubs):
    tool = await stubs.tool()
    agent = await stubs.agent(tool_ids=[tool.id])

    with pytest.raises(ToolNotFound):
        await ran(stubs, agent.id, "memory_insert")
    with pytest.raises(AgentNotFound):
        await ran(stubs, new_id("agent"), "roll")
    with stubs.bob(), pytest.raises(AgentNotFound):
        await ran(stubs, agent.id, "roll")
    with pytest.raises(InvalidArgument):
        await ran(stubs, agent.id, "roll", [1])


async def test_a_tool_sees_and_changes_the_agents_state(stubs):
    agent = await remembering(stubs)

    answer = await ran(stubs, agent.id, "remember", {"word": "sails"})

    assert json.loads(answer.func_return) == {"name": "Ada", "labels": ["human"]}
    assert await blocks_of(stubs, agent.id) == ["Ann sails"]


async def test_a_run_keeps_what_a_tool_changes(stubs):
    agent = await remembering(stubs)

    answer = await stubs.send(agent.id, 'call remember {"word": "sails"}')

    kinds = [type_of(message) for message in answer.messages]
    assert kinds == ["tool_call_message", "tool_return_message", "assistant_message"]
    assert await blocks_of(stubs, agent.id) == ["Ann sails"]
    await stubs.send(agent.id, 'call remember {"word": "often"}')
    assert await blocks_of(stubs, agent.id) == ["Ann sails often"]


async def test_a_change_that_memory_refuses_is_an_error(stubs):
    agent = await remembering(stubs, memory_blocks=[READ_ONLY])

    answer = await ran(stubs, agent.id, "remember", {"word": "sails"})

    assert answer.status == ERROR
    assert "read" in json.loads(answer.func_return)
    assert await blocks_of(stubs, agent.id) == ["Ann"]
