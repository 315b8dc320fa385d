"""Which tools see the agent's state, what they see, and what becomes of their changes."""

import json

import pytest

from letta.agent.v1 import agent_pb2
from letta.common.v1 import agent_type_pb2
from letta.memory.v1 import block_pb2
from letta.memory.v1.context_service_pb2 import EditBlockRequest, RethinkEdit
from letta_agent.domain.peers.tools import Tool
from letta_agent.domain.toolcalls.agent_state import edits_of, state_of, wants_state


@pytest.mark.parametrize(
    ("source", "wants"),
    [
        ("def f(agent_state, x): ...", True),
        ("async def f(x, *, agent_state): ...", True),
        ("def f(agent_state, /): ...", True),
        ("def f(x):\n    agent_state = 1", False),
        ("def helper(agent_state): ...\ndef f(x): ...", False),
        ("def f(agent_state): ...\ndef later(x): ...", True),
        ("def other(agent_state): ...", True),
        ("def f(agent_state", False),
        ("", False),
    ],
)
def test_a_tool_asks_for_the_state_by_its_parameter(source, wants):
    assert wants_state(Tool(name="f", source_code=source)) is wants


def test_a_tool_sees_the_agent_and_its_blocks():
    state = agent_pb2.Agent(id="agent-1", name="Ada", agent_type=agent_type_pb2.AGENT_TYPE_LETTA_V1_AGENT, tags=["x"])
    blocks = [block_pb2.Block(label="z", value="ü"), block_pb2.Block(label="a", value="1", limit=9, read_only=True)]

    shown = json.loads(state_of(state, blocks))

    assert (shown["id"], shown["name"], shown["agent_type"], shown["tags"]) == (
        "agent-1",
        "Ada",
        "letta_v1_agent",
        ["x"],
    )
    assert [(block["label"], block["value"], block["read_only"]) for block in shown["blocks"]] == [
        ("a", "1", True),
        ("z", "ü", False),
    ]
    assert "secrets" not in shown


def test_without_changes_there_is_nothing_to_edit():
    assert edits_of({}) == []


def test_changes_become_edits_in_the_same_order_every_time():
    expected = [
        EditBlockRequest(label=label, rethink=RethinkEdit(value=value)) for label, value in (("a", "1"), ("b", "2"))
    ]

    assert edits_of({"b": "2", "a": "1"}) == edits_of({"a": "1", "b": "2"}) == expected
