"""Agents as models of chat completions, through OpenAI's unmodified SDK."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import BadRequestError, ConflictError, NotFoundError, OpenAI, UnprocessableEntityError

from tests.compat.test_client_approvals import PAY
from tests.servers import RunningServer

pytestmark = pytest.mark.varies  # the checks are on the content; times and ids of another dialect are not masked
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}
PIXEL = (
    b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\x06\0\0\0\x1f\x15\xc4\x89\0\0\0\rIDATx\x9cc\xf8\xff\xff?\0\5\xfe"
    b"\2\xfe\xa75\x81\x84\0\0\0\0IEND\xaeB`\x82"
)


@pytest.fixture(scope="module")
def openai(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.http_url}/v1", api_key="unused", timeout=60, max_retries=0) as made:
        yield made


def user(content: Any) -> Any:
    return {"role": "user", "content": content}


def stored(client, agent):
    listed = client.agents.messages.list(agent.id, order="asc", conversation_id="default")
    return [(m.message_type, getattr(m, "content", None)) for m in listed]


def test_an_agent_answers_as_a_model(openai, client, agent):
    answer = openai.chat.completions.create(model=agent.id, messages=[user("My name is Sam.")])
    [choice] = answer.choices
    run = client.runs.retrieve("run-" + answer.id.removeprefix("chatcmpl-"))
    said = [m.content for m in client.runs.messages.list(run.id) if m.message_type == "assistant_message"]
    assert (answer.object, answer.model, choice.index, choice.finish_reason) == ("chat.completion", agent.id, 0, "stop")
    assert [choice.message.role, choice.message.content] == ["assistant", *said]
    assert choice.message.tool_calls is None
    assert run.agent_id == agent.id
    used = client.runs.usage.retrieve(run.id)
    assert answer.usage.prompt_tokens == used.prompt_tokens > 0
    assert answer.usage.completion_tokens == used.completion_tokens
    assert answer.usage.total_tokens == used.total_tokens


def test_of_a_talk_only_what_is_behind_the_last_answer_is_new(openai, client, agent):
    talk = [{"role": "system", "content": "Be kind."}, user("Hello!")]
    first = openai.chat.completions.create(model=agent.id, messages=talk)
    talk += [{"role": "assistant", "content": first.choices[0].message.content}, user("And again."), user("Twice.")]
    openai.chat.completions.create(model=agent.id, messages=talk)
    said = [(kind, text) for kind, text in stored(client, agent) if kind in {"user_message", "system_message"}][1:]
    assert said == [
        ("system_message", "Be kind."),
        ("user_message", "Hello!"),
        ("user_message", "And again."),
        ("user_message", "Twice."),
    ]


def test_a_streamed_answer_is_the_whole_one_in_parts(openai, client, agent):
    stream = openai.chat.completions.create(
        model=agent.id, messages=[user("Hello!")], stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    *parts, last = chunks
    said = "".join(chunk.choices[0].delta.content or "" for chunk in parts)
    [(_, stored_text)] = [each for each in stored(client, agent) if each[0] == "assistant_message"]
    assert said == stored_text
    assert [chunk.choices[0].delta.role for chunk in parts] == ["assistant", *[None] * (len(parts) - 1)]
    assert [chunk.choices[0].finish_reason for chunk in parts if chunk.choices[0].finish_reason] == ["stop"]
    assert {(chunk.id, chunk.object, chunk.model) for chunk in chunks} == {
        (chunks[0].id, "chat.completion.chunk", agent.id)
    }
    run = client.runs.retrieve("run-" + last.id.removeprefix("chatcmpl-"))
    assert last.choices == []
    assert last.usage.total_tokens == client.runs.usage.retrieve(run.id).total_tokens


def test_usage_is_streamed_only_when_asked_for(openai, agent):
    chunks = list(openai.chat.completions.create(model=agent.id, messages=[user("Hello!")], stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_tool_of_the_caller_is_called_and_answered(openai, client, agent, streamed):
    talk = [user('CALL weather {"place": "Rome"}')]
    if streamed:
        parts = [
            call
            for chunk in openai.chat.completions.create(model=agent.id, messages=talk, tools=[WEATHER], stream=True)
            for call in chunk.choices[0].delta.tool_calls or ()
        ]
        assert {part.index for part in parts} == {0}
        call_id, name = parts[0].id, parts[0].function.name
        arguments = "".join(part.function.arguments or "" for part in parts)
    else:
        choice = openai.chat.completions.create(model=agent.id, messages=talk, tools=[WEATHER]).choices[0]
        assert choice.finish_reason == "tool_calls"
        [call] = choice.message.tool_calls
        call_id, name, arguments = call.id, call.function.name, call.function.arguments
    assert (name, json.loads(arguments)["place"]) == ("weather", "Rome")
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    talk += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": "sunny, 31 degrees"},
    ]
    answer = openai.chat.completions.create(model=agent.id, messages=talk, tools=[WEATHER])
    assert answer.choices[0].finish_reason == "stop"
    returns = [m for m in client.agents.messages.list(agent.id) if m.message_type == "tool_return_message"]
    assert [m.tool_return for m in returns] == ["sunny, 31 degrees"]


def test_a_tool_of_the_agent_runs_without_the_caller(openai, client, agent):
    client.agents.tools.attach(client.tools.upsert(source_code=PAY.replace("pay()", "post()")).id, agent_id=agent.id)
    answer = openai.chat.completions.create(model=agent.id, messages=[user("CALL post {}")])
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason == "stop"
    assert "tool_return_message" in [kind for kind, _ in stored(client, agent)]


@pytest.mark.parametrize(("word", "returned"), [("approve", "paid"), ("deny: too dear", "too dear")])
def test_a_tool_of_the_agent_that_waits_is_approved_or_denied(openai, client, agent, word, returned):
    client.agents.tools.attach(
        client.tools.upsert(source_code=PAY, default_requires_approval=True).id, agent_id=agent.id
    )
    talk = [user("CALL pay {}")]
    choice = openai.chat.completions.create(model=agent.id, messages=talk).choices[0]
    assert choice.finish_reason == "tool_calls"
    call_id = choice.message.tool_calls[0].id
    talk += [choice.message.model_dump(exclude_none=True), {"role": "tool", "tool_call_id": call_id, "content": "?"}]
    with pytest.raises((BadRequestError, UnprocessableEntityError), match="approve"):
        openai.chat.completions.create(model=agent.id, messages=talk)
    talk[-1]["content"] = word
    openai.chat.completions.create(model=agent.id, messages=talk)
    returns = [m for m in client.agents.messages.list(agent.id) if m.message_type == "tool_return_message"]
    assert returned in returns[0].tool_return


def test_a_conversation_is_a_model_too(openai, client, agent):
    talk = client.conversations.create(agent_id=agent.id)
    openai.chat.completions.create(model=talk.id, messages=[user("Only here.")])
    assert "Only here." in [getattr(m, "content", "") for m in client.conversations.messages.list(talk.id)]
    assert "Only here." not in [text for _, text in stored(client, agent)]


def test_an_image_reaches_the_agent(openai, client, agent):
    url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    openai.chat.completions.create(model=agent.id, messages=[user(content)])
    [said] = [m for m in client.agents.messages.list(agent.id) if m.message_type == "user_message"]
    assert [part["type"] if isinstance(part, dict) else part.type for part in said.content] == ["text", "image"]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        ({"messages": [user("a"), {"role": "assistant", "content": "b"}]}, "nothing is new"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "function": {"name": "weather"}}}, "tool_choice"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"model": "gpt-4o"}, "model"),
        ({"messages": [user([{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}])]}, "type"),
        ({"messages": [user([{"type": "image_url", "image_url": {"url": "data:image/png;base64,%%"}}])]}, "image"),
        ({"messages": [user([])]}, "content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_an_agent_cannot_do_is_refused_in_openais_words(openai, client, agent, change, kind, stream):
    with pytest.raises((BadRequestError, UnprocessableEntityError)) as refused:
        openai.chat.completions.create(**{"model": agent.id, "messages": [user("Hello!")], "stream": stream, **change})
    assert refused.value.type == "invalid_request_error"
    assert kind in refused.value.body["message"]
    assert [kind for kind, _ in stored(client, agent)] == ["system_message"]


def test_an_unknown_agent_is_an_unknown_model(openai):
    with pytest.raises(NotFoundError) as refused:
        openai.chat.completions.create(model=f"agent-{'0' * 8}-0000-4000-8000-{'0' * 12}", messages=[user("Hello!")])
    assert refused.value.body["message"].startswith("Agent with ID")


def test_a_talk_that_waits_for_an_answer_is_busy(openai, client, agent):
    client.agents.tools.attach(
        client.tools.upsert(source_code=PAY, default_requires_approval=True).id, agent_id=agent.id
    )
    openai.chat.completions.create(model=agent.id, messages=[user("CALL pay {}")])
    with pytest.raises(ConflictError):
        openai.chat.completions.create(model=agent.id, messages=[user("Hello!")])


def test_the_same_key_is_the_same_answer(openai, client, agent):
    answers = [
        openai.chat.completions.create(
            model=agent.id, messages=[user("Hello!")], extra_headers={"Idempotency-Key": "once"}
        )
        for _ in range(2)
    ]
    assert answers[0].id == answers[1].id
    assert [kind for kind, _ in stored(client, agent)].count("user_message") == 1


def test_a_stream_ends_with_done(server, agent):
    body = {"model": agent.id, "messages": [user("Hello!")], "stream": True}
    text = httpx.post(f"{server.http_url}/v1/chat/completions", json=body, timeout=60).text
    assert text.endswith("data: [DONE]\n\n")
    assert '"finish_reason":null' in text
