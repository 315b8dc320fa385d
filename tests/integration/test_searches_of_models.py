"""What models read of a search: the newest above, with its date and how well it fits."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from tests.callers import Api
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Say

BEST, SECOND, THIRD, FOURTH = "best match", "2nd best match", "3rd best match", "4th best match"


async def looked_up(api: Api, openai: OpenAIServer, agent_id: str, tool: str, query: str) -> Any:
    """Have the model search, and return what it was told, as it came over the wire of the vendor."""
    openai.say(Say(calls=[(tool, json.dumps({"query": query}))]), Say("done"))
    openai.requests.clear()
    await api.say(agent_id, "go")
    [told] = [message["content"] for message in openai.requests[-1].body["messages"] if message["role"] == "tool"][-1:]
    return json.loads(told)


async def test_passages_come_newest_first_with_date_and_place(api: Api, openai: OpenAIServer) -> None:
    agent_id = await api.agent(tools=["archival_memory_search"])
    told = {
        "Sam lives in Oslo now.": "2024-05-01T12:00:00Z",
        "Sam lives in Rome, Sam says of where Sam lives.": "2023-05-01T12:00:00Z",
        "Trains to Lyon are slow; nobody lives there.": "2025-05-01T12:00:00Z",
        "Kim lives with a cat.": "2022-05-01T12:00:00Z",
    }
    for text, at in told.items():
        kept = await api.http.post(f"/v1/agents/{agent_id}/archival-memory", json={"text": text, "created_at": at})
        assert kept.status_code == 200

    found = await looked_up(api, openai, agent_id, "archival_memory_search", "where Sam lives")

    assert [each["content"] for each in found] == sorted(told, key=lambda text: told[text], reverse=True)
    assert [datetime.fromisoformat(each["timestamp"]) for each in found] == sorted(
        (datetime.fromisoformat(at) for at in told.values()), reverse=True
    )
    places = {each["content"]: each["relevance"] for each in found}
    assert sorted(places.values()) == sorted((BEST, SECOND, THIRD, FOURTH))
    assert {places[text] for text in told if "Sam" in text} == {BEST, SECOND}, places


async def test_messages_come_newest_first_with_date_and_place(api: Api, openai: OpenAIServer) -> None:
    agent_id = await api.agent(tools=["conversation_search"])
    words = ["Oolong tea is the tea that I drink.", "The car is red.", "My neighbour also has tea at times."]
    for text in words:
        openai.say(Say("Noted."))
        await api.say(agent_id, text)

    answer = await looked_up(api, openai, agent_id, "conversation_search", "oolong tea drink")

    found = answer["results"]
    assert answer["message"] == f"Showing {len(found)} results:"
    assert [each["content"] for each in found if "tea" in each["content"]] == [words[2], words[0]]
    dates = [datetime.fromisoformat(each["timestamp"]) for each in found]
    assert dates == sorted(dates, reverse=True)
    assert all(date.tzinfo == UTC for date in dates)
    places = {each["content"]: each["relevance"] for each in found}
    assert (places[words[0]], places[words[2]]) == (BEST, SECOND)
    assert found[-1]["role"] == "user"
    assert found[-1]["time_ago"].endswith("s ago")
