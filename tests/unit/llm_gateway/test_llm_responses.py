"""The responses wire: encrypted reasoning goes back, other vendors' does not; which models speak it."""

from __future__ import annotations

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import (
    PartEnded,
    PartStarted,
    Prompt,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from letta_common.egress import AddressGuard
from letta_common.errors import AppError, ContextWindowExceeded, LLMBadRequest, LLMRateLimit, LLMUnavailable
from letta_llm_gateway.domain.answers import Delta, Signed
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.parts import call_part, redacted_part, text_part
from letta_llm_gateway.providers.vendors import anthropic as anthropic_wire
from letta_llm_gateway.providers.vendors.openai import OpenAIProvider, StreamReader, answer, request
from tests.support.prompts import kept, sent

CLIENTS = Clients(AddressGuard())


def thought(signature: str, text: str = "Hm.") -> m.ContentPart:
    return m.ContentPart(reasoning=m.ReasoningContent(reasoning=text, signature=signature))


def said(*parts: m.ContentPart) -> Prompt:
    hello = m.Message(role=m.MESSAGE_ROLE_USER, parts=[m.ContentPart(text=m.TextContent(text="hi"))])
    return Prompt(messages=kept(hello, m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=parts)))


def test_encrypted_reasoning_goes_back_as_it_came():
    item = {"type": "reasoning", "id": "rs_7", "summary": [{"type": "summary_text", "text": "Hm."}]}
    [part] = answer(
        {"id": "r", "status": "completed", "output": [{**item, "encrypted_content": "e:n:c"}]}, vendor="v"
    ).parts

    body = sent(
        request(
            "o4-mini", said(thought(part.reasoning.signature, part.reasoning.reasoning)), Fragments(), official=True
        )
    )

    assert body["input"][1] == {**item, "encrypted_content": "e:n:c"}


def test_reasoning_without_a_summary_is_kept_and_goes_back():
    item = {"type": "reasoning", "id": "rs_7", "summary": [], "encrypted_content": "enc"}
    [part] = answer({"id": "r", "status": "completed", "output": [item]}, vendor="v").parts

    assert part == redacted_part("openai:rs_7:enc")
    again = part
    assert sent(request("o4-mini", said(again), Fragments(), official=True))["input"][1] == item


def test_no_vendor_gets_the_reasoning_of_another():
    text = m.ContentPart(text=m.TextContent(text="So."))

    ours = sent(request("o4-mini", said(thought("anthropics-own"), text), Fragments(), official=True))
    theirs = sent(anthropic_wire.request("claude", said(thought("openai:rs_1:enc"), text), Fragments()))

    assert [item.get("type") for item in ours["input"]] == [None, None]
    assert [block["type"] for block in theirs["messages"][1]["content"]] == ["text"]


def test_tools_are_loose_unless_strictness_is_asked_for():
    prompt = Prompt(
        tools=[ToolDefinition(name="a"), ToolDefinition(name="b", strict=True)],
        tool_choice=ToolChoice(mode=ToolChoiceMode.TOOL_CHOICE_MODE_TOOL, name="b"),
    )

    body = sent(request("o4-mini", prompt, Fragments(), official=True))

    assert [tool["strict"] for tool in body["tools"]] == [False, True]
    assert body["tool_choice"] == {"type": "function", "name": "b"}


def test_settings_take_the_form_of_the_wire():
    prompt = Prompt()
    prompt.settings.reasoning.reasoning_effort = "low"
    prompt.settings.verbosity = "high"
    prompt.settings.temperature = 0.5
    wanted = prompt.settings.response_format.json_schema.json_schema
    wanted.name, wanted.schema = "n", '{"type": "object"}'

    body = sent(request("gpt-5", prompt, Fragments(), official=True))

    assert body["reasoning"] == {"effort": "low", "summary": "auto"}
    assert body["text"] == {
        "verbosity": "high",
        "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}},
    }
    assert "temperature" not in body


def test_a_signature_comes_with_the_end_of_the_streamed_item():
    reader = StreamReader(vendor="v", model="m")
    delta = {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "Hm."}
    item = {"type": "reasoning", "id": "rs_1", "encrypted_content": "enc"}

    events = [*reader.feed(delta), *reader.feed({"type": "response.output_item.done", "output_index": 0, "item": item})]

    assert Signed(0, "openai:rs_1:enc") in events
    silent = StreamReader(vendor="v", model="m")
    [started, _] = silent.feed({"type": "response.output_item.done", "output_index": 0, "item": item})
    assert started == PartStarted(index=0, part=redacted_part("openai:rs_1:enc"))


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        ({"type": "error", "code": "rate_limit_exceeded", "message": "slow"}, LLMRateLimit),
        ({"type": "response.failed", "response": {"error": {"code": "server_error", "message": "x"}}}, LLMUnavailable),
        (
            {"type": "response.failed", "response": {"error": {"code": "context_length_exceeded", "message": "x"}}},
            ContextWindowExceeded,
        ),
        ({"type": "response.failed", "response": {"error": {"code": "invalid_prompt", "message": "x"}}}, LLMBadRequest),
    ],
)
def test_errors_in_a_stream_are_typed(event, expected):
    with pytest.raises(AppError) as caught:
        list(StreamReader(vendor="v", model="m").feed(event))

    assert type(caught.value) is expected


def test_a_refusal_is_text():
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}

    assert answer({"status": "completed", "output": [item]}, vendor="v").parts == [text_part("No.")]


@pytest.mark.parametrize("model", ["gpt-5", "gpt-5-mini", "o1", "o3-pro", "o4-mini"])
async def test_reasoning_models_of_openai_speak_responses(model):
    account = Account("openai", "openai", "sk-test")
    provider = OpenAIProvider(account, CLIENTS.of(account), Fragments())

    assert provider.responds(model)
    assert not provider.responds("gpt-4o")
    await provider.close()


async def test_compatible_servers_speak_chat_completions_for_every_model():
    account = Account("openai", "openai", "k", "http://127.0.0.1:9/v1")
    provider = OpenAIProvider(account, CLIENTS.of(account), Fragments())

    assert not provider.responds("gpt-5")
    await provider.close()


def test_a_call_that_comes_at_once_is_whole():
    item = {"type": "function_call", "call_id": "c", "name": "look", "arguments": '{"x": 1}'}
    announced = {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}}
    done = {"type": "response.output_item.done", "output_index": 0, "item": item}

    for events in ([done], [announced, done]):
        reader = StreamReader(vendor="v", model="m")
        got = [event for told in events for event in reader.feed(told)]
        id = got[0].part.tool_call.id
        assert got == [PartStarted(index=0, part=call_part(id, "look")), Delta(0, '{"x": 1}'), PartEnded(index=0)]
