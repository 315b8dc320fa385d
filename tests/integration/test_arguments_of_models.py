"""What models write as arguments counts: what cannot be done is told to them, and nothing of it is dropped."""

from __future__ import annotations

import json

import pytest

from tests.fakes.wire import Say

SOURCE = """
def plan({parameter}: str) -> str:
    \"\"\"Repeat.

    Args:
        {parameter}: Any.
    \"\"\"
    return {parameter}


def other(text: str) -> str:
    \"\"\"Repeat.

    Args:
        text: Any.
    \"\"\"
    return text
"""


async def returned(api, openai, agent_id, name, **arguments):
    openai.say(Say(calls=[(name, json.dumps(arguments))]), Say("done"))
    said = await api.say(agent_id, "go")
    [found] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    return found["status"], found["tool_return"]


@pytest.mark.parametrize("parameter", ["thinking", "inner_thoughts"])
async def test_a_tool_gets_the_thoughts_that_are_its_own_parameter(api, openai, parameter):
    own, text = (SOURCE.split("\n\n\n")[0], SOURCE.split("\n\n\n")[1])
    sources = [own.replace("{parameter}", parameter).replace("plan", f"plan_{parameter}"), text]
    tools = [(await api.http.put("/v1/tools/", json={"source_code": source})).json() for source in sources]
    agent_id = await api.agent(tool_ids=[tool["id"] for tool in tools])

    asked = {parameter: "first tea", "request_heartbeat": True}
    assert await returned(api, openai, agent_id, f"plan_{parameter}", **asked) == ("success", "first tea")
    unasked = {"text": "tea", parameter: "I repeat it."}
    assert await returned(api, openai, agent_id, "other", **unasked) == ("success", "tea")


async def test_a_search_finds_the_roles_that_it_asks_for(api, openai):
    agent_id = await api.agent(
        memory_blocks=[{"label": "human", "value": ""}], tools=["conversation_search", "core_memory_append"]
    )
    kept = {"label": "human", "content": "likes oolong"}
    await returned(api, openai, agent_id, "core_memory_append", **kept)
    openai.say(Say("Noted, oolong."))
    await api.say(agent_id, "Sam likes oolong.")

    async def roles(**more):
        status, told = await returned(api, openai, agent_id, "conversation_search", query="oolong", **more)
        assert status == "success", told
        return [(found["role"], found["content"]) for found in json.loads(told)["results"]]

    expected = [
        ("assistant", "Noted, oolong."),
        ("assistant", f"core_memory_append {json.dumps(kept)}"),
        ("user", "Sam likes oolong."),
    ]
    # A former search has the words too, and what it asked and found is left out.
    assert sorted(await roles()) == sorted(await roles()) == expected
    assert await roles(roles=["user"]) == [("user", "Sam likes oolong.")]
    found = await roles(roles=["tool"])
    assert [role for role, _ in found] == ["tool"]
    assert "likes oolong" in found[0][1]
    status, told = await returned(api, openai, agent_id, "conversation_search", query="oolong", roles=["system"])
    assert (status, "'roles' may be assistant, user, tool, not 'system'" in told) == ("error", True)


async def test_returns_of_tools_take_no_place_of_what_is_found(api, openai):
    agent_id = await api.agent(
        memory_blocks=[{"label": "human", "value": ""}], tools=["conversation_search", "core_memory_append"]
    )
    await api.say(agent_id, "Sam likes oolong, in the morning, with a friend, and never in the evening.")
    for _ in range(3):
        await returned(api, openai, agent_id, "core_memory_append", label="human", content="oolong oolong oolong")

    _, told = await returned(api, openai, agent_id, "conversation_search", query="oolong", roles=None, limit=1)

    assert json.loads(told)["message"] == "Showing 1 results:"
