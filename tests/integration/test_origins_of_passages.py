"""Passages that agents write with their tools say where they came from, and go by it."""

from __future__ import annotations

from tests.fakes.wire import Say


async def test_a_passage_knows_the_run_the_message_and_the_call_that_wrote_it(api, openai):
    agent_id = await api.agent(tools=["archival_memory_insert"])
    for text in ("The red car.", "The red boat."):
        openai.say(Say(calls=[("archival_memory_insert", f'{{"content": "{text}"}}')]), Say("done"))
        await api.say(agent_id, "go")
    await api.http.post(f"/v1/agents/{agent_id}/archival-memory", json={"text": "The red bike of a person."})

    passages = (await api.http.get(f"/v1/agents/{agent_id}/archival-memory")).json()
    calls = [each for each in await api.history(agent_id) if each["message_type"] == "tool_call_message"]
    assert [passage.get("origin") for passage in passages] == [
        {
            "agent_id": agent_id,
            "conversation_id": agent_id,
            "run_id": call["run_id"],
            "message_id": call["id"],
            "tool_call_id": call["tool_call"]["tool_call_id"],
            "tool_name": "archival_memory_insert",
        }
        for call in calls
    ] + [None]

    asked = {"filter": {"origin": {"run_id": calls[0]["run_id"]}}}
    counted = await api.http.post("/v1/passages/purge", json=asked)
    assert counted.json() == {"purge_count": 1, "purge_sample": [passages[0]["id"]]}
    assert (await api.http.post("/v1/passages/purge", json=asked | {"force": True})).json()["purge_count"] == 1
    path = f"/v1/agents/{agent_id}/archival-memory/search"
    found = (await api.http.get(path, params={"query": "red"})).json()["results"]
    assert {each["content"] for each in found} == {"The red boat.", "The red bike of a person."}
    assert (await api.http.post("/v1/passages/purge", json={"force": True})).status_code == 422
