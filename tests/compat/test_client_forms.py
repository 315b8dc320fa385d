"""The form that answers shall have, through the unmodified SDK: kept as it was said, and told to the vendor."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from letta_client import AsyncLetta, UnprocessableEntityError
from tests.callers import IMPATIENT, OPENAI, SCHEMAS, environment, serving
from tests.fakes.openai_server import OpenAIServer
from tests.support.databases import Databases

SCHEMA = {"type": "object", "properties": {"zebra": {"type": "integer"}, "ant": {"const": None}}, "x-own": [1.5, {}]}
NAMED = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
WHOLE = {"type": "json_schema", "json_schema": {"name": "n", "description": "d", "schema": SCHEMA, "strict": False}}
OBJECT = {"type": "json_object"}
TEXT = {"type": "text"}


@pytest.fixture(scope="module")
async def both(databases: Databases) -> AsyncIterator[tuple[AsyncLetta, OpenAIServer]]:
    """Yield a client, and the vendor that its server asks."""
    async with (
        OpenAIServer() as openai,
        serving(databases.clone(SCHEMAS), environment={**IMPATIENT, **environment(openai)}) as server,
        AsyncLetta(base_url=server.http_url, api_key="unused", timeout=30, max_retries=0) as letta,
    ):
        yield letta, openai


def settings(form: Any) -> dict[str, Any]:
    return {"model_settings": {"provider_type": "openai", "response_format": form}}


async def shown(letta: AsyncLetta, agent_id: str) -> tuple[Any, Any]:
    """Return the form of an agent, and that of its settings."""
    agent = await letta.agents.retrieve(agent_id)
    of_settings = (agent.to_dict()["model_settings"] or {}).get("response_format")
    return agent.to_dict()["response_format"], of_settings


async def told(letta: AsyncLetta, openai: OpenAIServer, agent_id: str) -> Any:
    openai.requests.clear()
    openai.say('{"zebra": 1}')
    await letta.agents.messages.create(agent_id, input="Count them.")
    [body] = [request.body for request in openai.requests if request.body and "messages" in request.body]
    return body.get("response_format")


@pytest.mark.parametrize(("form", "wire"), [(NAMED, NAMED), (WHOLE, WHOLE), (OBJECT, OBJECT), (TEXT, None)])
@pytest.mark.parametrize("place", ["settings", "agent"])
async def test_a_form_is_kept_told_and_cleared(both, form, wire, place):
    letta, openai = both
    said = settings if place == "settings" else lambda given: {"response_format": given}
    agent = await letta.agents.create(model=OPENAI, **said(form))

    assert await shown(letta, agent.id) == ((None, form) if place == "settings" else (form, None))
    assert await told(letta, openai, agent.id) == wire
    await letta.agents.update(agent.id, **said(None))
    assert await shown(letta, agent.id) == (None, None)
    assert await told(letta, openai, agent.id) is None


async def test_the_form_of_the_settings_wins(both):
    letta, openai = both
    agent = await letta.agents.create(model=OPENAI, response_format=OBJECT, **settings(NAMED))
    assert await told(letta, openai, agent.id) == NAMED

    await letta.agents.update(agent.id, response_format=WHOLE, **settings(None))
    assert await told(letta, openai, agent.id) == WHOLE


async def test_older_words_say_a_form_too(both):
    letta, openai = both
    config = {
        "model": "gpt-4o-mini",
        "handle": OPENAI,
        "context_window": 9000,
        "model_endpoint_type": "openai",
        "response_format": NAMED,
    }
    agent = await letta.agents.create(llm_config=config)

    assert (await shown(letta, agent.id))[1] == NAMED
    assert (await letta.agents.retrieve(agent.id)).llm_config.to_dict()["response_format"] == NAMED
    assert await told(letta, openai, agent.id) == NAMED


@pytest.mark.parametrize(
    "form",
    [{"type": "xml"}, {}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"name": "n"}}, "text"],
)
async def test_what_is_no_form_is_refused(both, form):
    letta, _ = both
    with pytest.raises(UnprocessableEntityError, match="response_format"):
        await letta.agents.create(model=OPENAI, response_format=form)
