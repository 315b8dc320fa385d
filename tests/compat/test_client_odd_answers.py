"""Answers of models that are none, or that were cut within a call, through the unmodified SDK, streamed and whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from letta_client import APIStatusError, AsyncLetta
from tests.callers import CLAUDE, IMPATIENT, OPENAI, SCHEMAS, environment, serving
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Say, Vendor
from tests.support.databases import Databases

TEA = {"label": "human", "new_string": "Likes tea."}
CUT = '{"label": "human", "new_string": "Likes te'
both = pytest.mark.parametrize("stream", [False, True])
Told = tuple[list[Any], str]


@pytest.fixture(scope="module")
async def vendors() -> AsyncIterator[dict[str, Vendor]]:
    async with OpenAIServer() as openai, AnthropicServer() as anthropic:
        yield {OPENAI: openai, CLAUDE: anthropic}


@pytest.fixture(scope="module")
async def letta(databases: Databases, vendors: dict[str, Vendor]) -> AsyncIterator[AsyncLetta]:
    variables = {**IMPATIENT, **environment(*vendors.values())}
    async with (
        serving(databases.clone(SCHEMAS), environment=variables) as server,
        AsyncLetta(base_url=server.http_url, api_key="unused", timeout=30, max_retries=0) as client,
    ):
        yield client


@pytest.fixture(params=[OPENAI, CLAUDE])
def model(request: pytest.FixtureRequest, vendors: dict[str, Vendor]) -> str:
    vendors[request.param].script.clear()
    vendors[request.param].requests.clear()
    return str(request.param)


async def made(letta: AsyncLetta, model: str) -> str:
    agent = await letta.agents.create(model=model, memory_blocks=[{"label": "human", "value": "Name: Sam."}])
    return agent.id


async def told(letta: AsyncLetta, agent_id: str, *, stream: bool) -> Told:
    """Say something; return the messages of the answer and why it stopped."""
    if not stream:
        answer = await letta.agents.messages.create(agent_id, input="I like tea.")
        return list(answer.messages), answer.stop_reason.stop_reason
    events = [
        event
        async for event in await letta.agents.messages.create(
            agent_id, input="I like tea.", streaming=True, stream_tokens=True
        )
    ]
    [stop] = [event.stop_reason for event in events if event.message_type == "stop_reason"]
    return events, stop


def asked(vendor: Vendor) -> int:
    return sum(bool(request.body and "messages" in request.body) for request in vendor.requests)


async def noted(letta: AsyncLetta, agent_id: str) -> bool:
    return "tea" in (await letta.agents.blocks.retrieve("human", agent_id=agent_id)).value


@both
async def test_an_empty_answer_is_asked_for_once_more(letta, vendors, model, stream):
    agent_id = await made(letta, model)
    vendors[model].say("", "Here I am.")
    messages, stop = await told(letta, agent_id, stream=stream)

    said = "".join(str(found.content) for found in messages if found.message_type == "assistant_message")
    assert (said, stop, asked(vendors[model])) == ("Here I am.", "end_turn", 2)


@both
async def test_a_model_that_goes_on_saying_nothing_stops_the_run_and_it_says_so(letta, vendors, model, stream):
    agent_id = await made(letta, model)
    vendors[model].say("", "", "Never asked for.")
    with pytest.raises(APIStatusError, match="gave no answer") as caught:
        await told(letta, agent_id, stream=stream)
    [run] = (await letta.runs.list(agent_id=agent_id)).items

    assert (run.status, run.stop_reason, asked(vendors[model])) == ("failed", "invalid_llm_response", 2)
    assert caught.value.status_code == (200 if stream else 502)


@both
@pytest.mark.parametrize("arguments", ["{not json", CUT, "[1]"])
async def test_arguments_that_cannot_be_read_go_back_to_the_model(letta, vendors, model, stream, arguments):
    if model == CLAUDE and not stream:
        pytest.skip("whole answers of this vendor carry objects")
    agent_id = await made(letta, model)
    vendors[model].say(Say(calls=[("memory_insert", arguments)], finish="length"), "I am sorry.")
    messages, stop = await told(letta, agent_id, stream=stream)

    [returned] = [found for found in messages if found.message_type == "tool_return_message"]
    assert (returned.status, stop, asked(vendors[model])) == ("error", "end_turn", 2)
    assert "no JSON object" in str(returned.tool_return)
    assert not await noted(letta, agent_id)


@both
async def test_a_whole_call_at_the_end_of_a_cut_answer_is_executed_where_whole_is_certain(
    letta, vendors, model, stream
):
    agent_id = await made(letta, model)
    vendors[model].say(Say(calls=[("memory_insert", TEA)], finish="length"), "Noted.")
    messages, stop = await told(letta, agent_id, stream=stream)

    [returned] = [found for found in messages if found.message_type == "tool_return_message"]
    certain = model == OPENAI
    assert (returned.status, stop) == ("success" if certain else "error", "end_turn")
    assert await noted(letta, agent_id) == certain
