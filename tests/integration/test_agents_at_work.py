"""What agents do over time: shared blocks, long histories, limits, and tools that misbehave."""

from __future__ import annotations

import json

import pytest

from tests.callers import OPENAI, orphans, texts
from tests.fakes.wire import Fault, Say

TOOLS = {
    "raises": '''
def raises(text: str) -> str:
    """Fail.

    Args:
        text: Why.
    """
    raise ValueError(f"no {text} today")
''',
    "shouts": '''
def shouts(megabytes: int) -> str:
    """Return very much.

    Args:
        megabytes: How much.
    """
    import sys
    for _ in range(megabytes):
        sys.stdout.write("x" * (1 << 20))
    return "y" * (megabytes << 20)
''',
    "hangs": '''
def hangs(seconds: int) -> str:
    """Take long.

    Args:
        seconds: How long.
    """
    import time
    while True:
        time.sleep(seconds)
''',
    "leaves": '''
def leaves(status: int) -> str:
    """Leave.

    Args:
        status: How.
    """
    import os
    os._exit(status)
''',
    "eats": '''
def eats(gigabytes: int) -> str:
    """Use very much memory.

    Args:
        gigabytes: How much.
    """
    return str(len(bytearray(gigabytes << 30)))
''',
    "peeks": '''
def peeks(path: str) -> str:
    """Read what it should not.

    Args:
        path: Where.
    """
    import os, socket
    found = dict(os.environ)
    try:
        found["file"] = open(path).read()
    except OSError as error:
        found["file"] = repr(error)
    try:
        socket.create_connection(("127.0.0.1", 22), 1)
        found["network"] = "open"
    except OSError as error:
        found["network"] = repr(error)
    return str(found)
''',
}


@pytest.fixture(scope="module")
async def tool_ids(api):
    made = {}
    for name, source in TOOLS.items():
        answer = await api.http.post("/v1/tools/", json={"source_code": source})
        assert answer.status_code == 200, answer.text
        made[name] = answer.json()["id"]
    return made


async def used(api, openai, tool_ids, name, arguments):
    """Let an agent use a tool; return the tool's return and check that the conversation is whole and goes on."""
    agent_id = await api.agent(tool_ids=[tool_ids[name]])
    openai.say(Say("I try.", calls=[(name, arguments)]))
    answer = await api.say(agent_id, "Use it.")
    assert texts(answer["messages"], "assistant_message") == ["I try.", "Done."]
    assert orphans(await api.history(agent_id)) == []
    await api.say(agent_id, "And now?")
    [returned] = [m for m in answer["messages"] if m["message_type"] == "tool_return_message"]
    return returned


async def test_what_one_agent_writes_another_one_sees_at_its_next_step(api, openai):
    block = (await api.http.post("/v1/blocks/", json={"label": "team", "value": "Nothing."})).json()
    one, other = [await api.agent(block_ids=[block["id"]]) for _ in range(2)]
    await api.say(other, "Warm up.")
    openai.say(Say(calls=[("memory_replace", {"label": "team", "old_string": "Nothing.", "new_string": "Launch."})]))
    await api.say(one, "We launch.")
    openai.requests.clear()
    await api.say(other, "What do we do?")

    [body] = [request.body for request in openai.requests if request.body]
    assert "Launch." in str(body["messages"][0])
    assert "Nothing." not in str(body["messages"][0])


async def test_an_edit_during_a_run_is_seen_by_its_next_step(api, openai):
    block = (await api.http.post("/v1/blocks/", json={"label": "team", "value": "Nothing."})).json()
    one, other = [await api.agent(block_ids=[block["id"]]) for _ in range(2)]

    def respond(body):
        return Say("One moment.", calls=[("memory_insert", {"label": "team", "new_string": "From within."})])

    openai.say(respond({}), "Seen.")
    edited = await api.http.patch(f"/v1/blocks/{block['id']}", json={"value": "From outside."})
    assert edited.status_code == 200
    await api.say(one, "Go.")
    openai.requests.clear()
    await api.say(other, "And you?")
    [body] = [request.body for request in openai.requests if request.body]
    assert "From outside." in str(body["messages"][0])
    assert "From within." in str(body["messages"][0])


async def test_a_history_longer_than_the_window_goes_on(api, openai):
    agent_id = await api.agent(context_window_limit=6_000)
    openai.respond = lambda body: Say("Noted. " * 20)
    for number in range(30):
        await api.say(agent_id, f"Fact {number}: " + "a long story, told at length. " * 25)
    bodies = [request.body for request in openai.requests if request.body and "messages" in request.body]

    assert max(len(json.dumps(body["messages"])) for body in bodies if body.get("tools")) < 6_000 * 6
    listed = await api.history(agent_id)
    assert len(texts(listed, "user_message")) >= 30
    found = await api.http.post("/v1/messages/search", json={"query": "Fact 0", "agent_id": agent_id})
    assert "Fact 0" in found.text


async def test_a_summary_that_cannot_be_made_does_not_end_the_conversation(api, openai):
    agent_id = await api.agent(context_window_limit=6_000)
    openai.respond = lambda body: Say("Noted.") if body.get("tools") else Fault(status=400)
    for number in range(20):
        await api.say(agent_id, f"Fact {number}: " + "a long story, told at length. " * 40)
    openai.respond = openai.default
    await api.say(agent_id, "Still there?")


async def test_a_vendor_that_says_the_window_is_full_gets_less(api, openai):
    agent_id = await api.agent(context_window_limit=16_000)
    for number in range(10):
        await api.say(agent_id, f"Fact {number}: " + "a long story, told at length. " * 40)
    error = {"message": "This model's maximum context length is 8192 tokens", "code": "context_length_exceeded"}
    before = len(openai.requests)

    def respond(body):
        return Fault(status=400, body={"error": error}) if len(body["messages"]) > 14 else Say("It fits now.")

    openai.respond = respond
    answer = await api.say(agent_id, "One more.")
    assert texts(answer["messages"], "assistant_message") == ["It fits now."]
    assert len(openai.requests) > before + 1


async def test_a_message_that_can_never_fit_is_refused_and_the_next_one_is_answered(api, openai):
    agent_id = await api.agent(context_window_limit=6_000)
    answer = await api.send(agent_id, "word " * 40_000)
    assert answer.status_code in (200, 400, 413, 422), answer.text
    assert (await api.send(agent_id, "Shorter.")).status_code in (200, 400)


async def test_a_model_that_never_stops_calling_is_stopped(api, openai):
    agent_id = await api.agent()
    openai.respond = lambda body: Say(calls=[("conversation_search", {"query": "x"})])
    answer = await api.say(agent_id, "Go.", max_steps=3)

    assert answer["stop_reason"]["stop_reason"] == "max_steps"
    assert answer["usage"]["step_count"] == 3
    assert orphans(await api.history(agent_id)) == []
    openai.respond = openai.default
    assert (await api.say(agent_id, "Enough."))["stop_reason"]["stop_reason"] == "end_turn"


async def test_a_tool_that_does_not_exist_is_told_to_the_model(api, openai):
    agent_id = await api.agent()
    openai.say(Say(calls=[("launch_rocket", {})]), "There is no rocket.")
    answer = await api.say(agent_id, "Launch!")

    [returned] = [m for m in answer["messages"] if m["message_type"] == "tool_return_message"]
    assert returned["status"] == "error"
    assert "launch_rocket" in returned["tool_return"]
    assert orphans(await api.history(agent_id)) == []


async def test_wrong_arguments_are_told_to_the_model(api, openai):
    agent_id = await api.agent()
    openai.say(Say(calls=[("memory_replace", {"label": 5, "unknown": []})]), "I was wrong.")
    answer = await api.say(agent_id, "Change it.")

    [returned] = [m for m in answer["messages"] if m["message_type"] == "tool_return_message"]
    assert returned["status"] == "error"


async def test_a_tool_that_raises_is_an_error_with_its_reason(api, openai, tool_ids):
    returned = await used(api, openai, tool_ids, "raises", {"text": "rain"})
    assert returned["status"] == "error"
    assert "no rain today" in returned["tool_return"]


async def test_two_hundred_megabytes_of_output_are_cut(api, openai, tool_ids):
    returned = await used(api, openai, tool_ids, "shouts", {"megabytes": 200})
    assert len(str(returned)) < 400_000
    assert max(len(json.dumps(r.body)) for r in openai.requests if r.body) < 200_000


async def test_a_tool_that_leaves_is_an_error(api, openai, tool_ids):
    returned = await used(api, openai, tool_ids, "leaves", {"status": 3})
    assert returned["status"] == "error"


async def test_a_tool_that_eats_all_memory_is_an_error(api, openai, tool_ids):
    returned = await used(api, openai, tool_ids, "eats", {"gigabytes": 30})
    assert returned["status"] == "error"


async def test_a_tool_sees_neither_files_nor_network_nor_secrets(api, openai, tool_ids):
    returned = await used(api, openai, tool_ids, "peeks", {"path": "/etc/shadow"})
    assert "LETTA_DATABASE_URL" not in returned["tool_return"]
    assert "sk-test" not in returned["tool_return"]
    assert "root:" not in returned["tool_return"]
    assert "'network': 'open'" not in returned["tool_return"]


async def test_names_and_words_of_all_kinds_come_back_as_they_went(api, openai):
    text = "Grüße 👋🏽 \u0000? \u202e \\ \" ' <b> 日本語 " + "é" * 3
    agent_id = await api.agent(OPENAI, name="Zoë's 日本")
    answer = await api.send(agent_id, text)
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        assert texts(answer.json()["messages"], "assistant_message") == [f"You said: {text}"]
    plain = text.replace("\u0000", "")
    answer = await api.say(agent_id, plain)
    assert texts(answer["messages"], "assistant_message") == [f"You said: {plain}"]
    assert plain in texts(await api.history(agent_id), "user_message")
