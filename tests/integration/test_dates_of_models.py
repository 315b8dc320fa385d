"""Dates that models search for are days of the place where their agent lives."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.fakes.wire import Say

DAY, NEXT, LAST = "2024-01-31", "2024-02-01", "2024-01-30"
AT = "2024-01-30T12:00:00Z"
"""One o'clock at night of the day in Auckland."""


@pytest.mark.parametrize(
    ("zone", "start", "end", "found"),
    [
        ("Pacific/Auckland", DAY, DAY, True),
        ("Pacific/Auckland", LAST, LAST, False),
        ("Pacific/Auckland", "2024-01-31T00:59", "2024-01-31T01:01", True),
        ("Pacific/Auckland", "2024-01-30T11:59:00Z", "2024-01-30T12:01:00+00:00", True),
        ("Pacific/Auckland", "2024-01-31T01:01", NEXT, False),
        ("UTC", LAST, LAST, True),
        ("UTC", DAY, DAY, False),
    ],
)
async def test_dates_without_a_zone_are_of_the_agents_own(api, openai, zone, start, end, found):
    agent_id = await api.agent(tools=["archival_memory_search"], timezone=zone)
    told = {"text": "Sam likes tea.", "created_at": AT}
    assert (await api.http.post(f"/v1/agents/{agent_id}/archival-memory", json=told)).status_code == 200
    arguments = {"query": "tea", "start_datetime": start, "end_datetime": end}
    openai.say(Say(calls=[("archival_memory_search", json.dumps(arguments))]), Say("done"))

    said = await api.say(agent_id, "go")

    [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
    assert returned["status"] == "success", returned
    assert ("Sam likes tea." in returned["tool_return"]) is found, returned


async def test_messages_are_searched_by_the_agents_days_too(api, openai):
    agent_id = await api.agent(tools=["conversation_search"], timezone="Pacific/Auckland")
    openai.say(Say("Noted."))
    await api.say(agent_id, "Sam likes tea.")
    [at] = [m["date"] for m in await api.history(agent_id) if m["message_type"] == "user_message"]
    local = datetime.fromisoformat(at).astimezone(ZoneInfo("Pacific/Auckland")).replace(tzinfo=None)
    hour = timedelta(hours=1)
    for start, found in ((local - hour, True), (local + hour, False)):
        arguments = {"query": "tea", "start_date": f"{start:%Y-%m-%dT%H:%M}"}
        openai.say(Say(calls=[("conversation_search", json.dumps(arguments))]), Say("done"))
        said = await api.say(agent_id, "go")
        [returned] = [message for message in said["messages"] if message["message_type"] == "tool_return_message"]
        assert ("Sam likes tea." in returned["tool_return"]) is found, returned
