"""Characters that memory cannot keep, and texts that are too long for it, in what models, tools and people write."""

from __future__ import annotations

import json

import pytest

from letta.common.v1 import limits_pb2
from tests.callers import CLAUDE, OPENAI, orphans, texts
from tests.fakes.wire import Say

MOST: int = limits_pb2.REQUEST_LIMIT_TEXT_CHARACTERS
NUL, HALF = "a\\u0000b", "a\\ud800b"


@pytest.mark.parametrize("character", [NUL, HALF])
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("memory_insert", '{"label": "human", "new_str": "<C>", "insert_line": 0}'),
        ("memory_replace", '{"label": "human", "old_str": "Sam", "new_str": "<C>"}'),
        ("memory_replace", '{"label": "human", "old_str": "S\\u0000am", "new_str": "<C>"}'),
        ("memory_rethink", '{"label": "hu\\u0000man", "new_memory": "<C>"}'),
        ("core_memory_append", '{"label": "human", "content": "<C>"}'),
    ],
)
async def test_memory_tools_leave_out_what_memory_cannot_keep(api, openai, character, name, arguments):
    agent_id = await api.agent(memory_blocks=[{"label": "human", "value": "Sam"}], tools=[name])
    openai.say(Say(calls=[(name, arguments.replace("<C>", character))]), Say("done"))

    said = await api.say(agent_id, "go")
    block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert returned["status"] == "success", returned
    assert ("ab" if character == NUL else "a\ufffdb") in block["value"]
    assert orphans(await api.history(agent_id)) == []


@pytest.mark.parametrize("arguments", ['{"content": "a\\u0000b", "tags": ["t\\u0000"]}', '{"content": "\\ud800 rain"}'])
async def test_passages_of_the_model_leave_it_out_too(api, openai, arguments):
    agent_id = await api.agent(tools=["archival_memory_insert"])
    openai.say(Say(calls=[("archival_memory_insert", arguments)]), Say("done"))

    said = await api.say(agent_id, "go")

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert returned["status"] == "success", returned
    assert len((await api.http.get(f"/v1/agents/{agent_id}/archival-memory")).json()) == 1


async def test_messages_keep_nul(api, openai):
    agent_id = await api.agent()
    openai.say(Say("x\0y"))

    await api.say(agent_id, "a\0b")
    history = await api.history(agent_id)

    assert texts(history, "user_message") == ["a\0b"]
    assert texts(history, "assistant_message") == ["x\0y"]


async def test_a_tool_of_the_model_may_take_and_return_nul(api, openai):
    source = 'def echo(text: str) -> str:\n    """Repeat.\n\n    Args:\n        text: Any.\n    """\n    return text\n'
    tool = (await api.http.post("/v1/tools/", json={"source_code": source})).json()
    agent_id = await api.agent(tool_ids=[tool["id"]])
    openai.say(Say(calls=[("echo", '{"text": "a\\u0000b"}')]), Say("done"))

    said = await api.say(agent_id, "go")

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert (returned["status"], returned["tool_return"]) == ("success", "a\0b")


async def test_what_a_tool_returns_is_cut_to_its_limit(api, openai):
    source = f'def long_one() -> str:\n    """Return much."""\n    return "z" * {MOST * 2}\n'
    tool = (await api.http.post("/v1/tools/", json={"source_code": source, "return_char_limit": 1000})).json()
    agent_id = await api.agent(tool_ids=[tool["id"]])
    openai.say(Say(calls=[("long_one", "{}")]), Say("done"))

    said = await api.say(agent_id, "go")

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert returned["status"] == "success", returned
    assert returned["tool_return"].startswith("z" * 900)
    assert len(returned["tool_return"]) < 1200


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("memory_insert", {"label": "human", "new_str": "<TEXT>", "insert_line": 0}),
        ("memory_rethink", {"label": "human", "new_memory": "<TEXT>"}),
        ("core_memory_append", {"label": "human", "content": "<TEXT>"}),
        ("archival_memory_insert", {"content": "<TEXT>"}),
        ("archival_memory_search", {"query": "<TEXT>"}),
        ("conversation_search", {"query": "<TEXT>"}),
    ],
)
async def test_what_models_write_too_long_is_told_to_them(api, openai, name, arguments):
    words = " ".join(f"{number:x}" for number in range(100_000, 100_000 + MOST // 6 + 10))
    agent_id = await api.agent(memory_blocks=[{"label": "human", "value": "Sam"}], tools=[name])
    told = {key: words if value == "<TEXT>" else value for key, value in arguments.items()}
    openai.say(Say(calls=[(name, json.dumps(told))]), Say("done"))

    said = await api.say(agent_id, "go")

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert len(returned["tool_return"]) < 2000, returned
    assert said["stop_reason"]["stop_reason"] == "end_turn"
    assert len(words) > MOST
    assert name.endswith("search") or returned["status"] == "error", returned


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("model", [OPENAI, CLAUDE])
async def test_what_a_vendor_says_can_be_read_back(api, openai, anthropic, model, streamed):
    """Halves of characters in words, names, ids and arguments, beside counts that cannot be."""
    vendor = openai if model == OPENAI else anthropic
    agent_id = await api.agent(model, memory_blocks=[{"label": "human", "value": "Sam"}], tools=["memory_insert"])
    counts = {"prompt_tokens": 10**30, "completion_tokens": 10**30, "input_tokens": 10**30, "output_tokens": -1}
    half, insert = "a\ud83db", {"label": "human", "new_string": "x\ude00y"}
    calls = [("memory_insert", insert), ("memory\ud800", {"k\udfff": "\ud800"})]
    vendor.say(Say(half, calls=calls, ids=("i\ud800", "j\ud800"), usage=counts), Say("done", usage=counts))

    if streamed:
        said = await api.stream(agent_id, "go")
        assert "error_message" not in [event["message_type"] for event in said]
    else:
        await api.say(agent_id, "go")
    history = await api.history(agent_id)
    block = (await api.http.get(f"/v1/agents/{agent_id}/core-memory/blocks/human")).json()

    assert texts(history, "assistant_message") == ["a\ufffdb", "done"]
    assert orphans(history) == []
    assert "x\ufffdy" in block["value"]
    assert (await api.say(agent_id, "again"))["stop_reason"]["stop_reason"] == "end_turn"
