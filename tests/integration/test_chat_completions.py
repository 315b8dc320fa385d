"""Chat completions of agents whose models are vendors, streamed and broken, through OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from openai import APIError, APIStatusError, AsyncOpenAI

from tests.callers import CLAUDE, OPENAI
from tests.fakes.wire import Fault, Say

LOOK: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}
HELLO: Any = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(params=["openai", "anthropic"])
def vendor(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
async def agent_id(api, vendor, openai):
    return await api.agent(OPENAI if vendor is openai else CLAUDE)


@pytest.fixture
async def sdk(server) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{server.http_url}/v1", api_key="k", timeout=300, max_retries=0) as made:
        yield made


async def test_words_are_streamed_as_the_model_speaks(sdk, vendor, agent_id):
    text = "One two three four five six seven eight nine ten."
    vendor.say(Say(text, pause=0.03))
    stream = await sdk.chat.completions.create(model=agent_id, messages=HELLO, stream=True)
    parts = [chunk.choices[0].delta.content async for chunk in stream]
    said = [part for part in parts if part]
    assert len(said) > 2
    assert "".join(said) == text


async def test_what_the_model_says_in_two_messages_is_one_answer(sdk, vendor, agent_id):
    memory = ("core_memory_append", {"label": "human", "content": "Likes tea."})
    talks = []
    for streamed in (False, True):
        vendor.say(Say("Let me note that.", calls=[memory]), Say("Noted."))
        if streamed:
            stream = await sdk.chat.completions.create(model=agent_id, messages=HELLO, stream=True)
            talks.append("".join([chunk.choices[0].delta.content or "" async for chunk in stream]))
        else:
            answer = await sdk.chat.completions.create(model=agent_id, messages=HELLO)
            talks.append(answer.choices[0].message.content)
    assert talks == ["Let me note that.\n\nNoted."] * 2


async def test_calls_of_the_callers_tools_are_streamed_in_parts(sdk, vendor, agent_id):
    arguments = {"where": "behind the boiler, under the stairs"}
    vendor.say(Say(calls=[("look", arguments), ("look", {"where": "up"})], pause=0.02))
    stream = await sdk.chat.completions.create(model=agent_id, messages=HELLO, tools=[LOOK], stream=True)
    chunks = [chunk.choices[0] async for chunk in stream]
    calls: dict[int, list[Any]] = {}
    for choice in chunks:
        for part in choice.delta.tool_calls or ():
            calls.setdefault(part.index, []).append(part)
    assert [json.loads("".join(part.function.arguments or "" for part in calls[at])) for at in sorted(calls)] == [
        arguments,
        {"where": "up"},
    ]
    assert [[part.function.name for part in calls[at] if part.function.name] for at in sorted(calls)] == [["look"]] * 2
    assert len({parts[0].id for parts in calls.values()}) == 2
    assert chunks[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_failing_vendor_is_an_error_in_openais_words(sdk, api, vendor, agent_id, streamed):
    vendor.respond = lambda body: Fault(status=400)
    with pytest.raises(APIStatusError) as failed:
        await sdk.chat.completions.create(model=agent_id, messages=HELLO, stream=streamed)
    assert failed.value.status_code == 400
    assert failed.value.type.startswith("llm_")
    vendor.respond = vendor.default
    again = await sdk.chat.completions.create(model=agent_id, messages=HELLO)
    assert again.choices[0].finish_reason == "stop"


async def test_a_stream_that_breaks_is_an_error_and_no_end(sdk, vendor, agent_id):
    text = "This sentence never comes to its end because the vendor goes away."
    vendor.respond = lambda body: Say(text, pieces_before_fault=5, fault=Fault("reset"), pause=0.03)
    stream = await sdk.chat.completions.create(model=agent_id, messages=HELLO, stream=True)
    finishes = []

    async def listen() -> None:
        async for chunk in stream:
            finishes.append(chunk.choices[0].finish_reason)  # noqa: PERF401  what came before the error counts

    with pytest.raises(APIError) as failed:
        await listen()
    assert failed.value.message
    assert set(finishes) == {None}
