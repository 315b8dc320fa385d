"""What a caller did wrong: every provider says it by type, and names what to change."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta_common.errors import (
    AppError,
    CapabilityMissing,
    ContextWindowExceeded,
    LLMAuthentication,
    LLMBadRequest,
)
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.providers.refusals import refused_tool, sizes_of
from letta_llm_gateway.providers.registry import KINDS, ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from tests.contract.providers.llm_gateway.conftest import Subject, account
from tests.contract.providers.llm_gateway.llm_prompts import assistant, prompt, returned, tool, user
from tests.fakes.wire import Fault, Say

TOOLS = (tool("first"), tool("second"), tool("third"))


async def asked(subject: Subject, asked_: pb.Prompt, *, stream: bool = False) -> None:
    if not stream:
        await subject.provider.generate(Call("m", asked_))
        return
    async with aclosing(subject.provider.stream(Call("m", asked_))) as events:
        async for _ in events:
            pass


def refuse(subject: Subject, message: str, status: int = 400) -> None:
    error = {"type": "invalid_request_error", "message": message}
    subject.vendor.say(Fault(status=status, body={"type": "error", "error": error}))


async def test_a_choice_of_a_tool_that_is_not_there_is_told(subject):
    choice = pb.ToolChoice(mode=pb.TOOL_CHOICE_MODE_TOOL, name="fourth")

    with pytest.raises(LLMBadRequest, match=r"fourth.*attach it"):
        await asked(subject, prompt(user("hi"), tools=TOOLS, tool_choice=choice))
    assert subject.vendor.requests == []


@pytest.mark.parametrize("schema", ["", "1", "[]", "{"])
async def test_a_form_of_answers_that_cannot_be_is_told_before_it_is_sent(subject, schema):
    form = {"json_schema": {"json_schema": {"name": "n", "schema": schema}}}

    with pytest.raises(LLMBadRequest, match="schema of response_format"):
        await asked(subject, prompt(user("hi"), settings={"response_format": form}))
    assert subject.vendor.requests == []


async def test_a_form_of_answers_that_the_vendor_lacks_is_told_with_what_it_has(subject):
    asked_ = prompt(user("hi"), settings={"response_format": {"json_object": {}}})

    if subject.kind not in {"anthropic", "bedrock"}:
        await asked(subject, asked_)
        assert "json" in json.dumps(subject.vendor.requests[-1].body)
        return
    with pytest.raises(CapabilityMissing, match=r"json_object.*use one of \['json_schema', 'text'\]"):
        await asked(subject, asked_)
    assert subject.vendor.requests == []


SAID = [
    "Invalid content type. image_url is only supported by certain models.",
    "m is not a multimodal model",
    "This model does not support images",
    "this model is missing data required for image input",
    "registry.ollama.ai/library/gemma:2b does not support tools",
    "This model doesn't support the image content block that you provided.",
    "No endpoints found that support image input",
]


@pytest.mark.parametrize("said", SAID)
async def test_what_the_model_lacks_is_told_as_such(subject, said):
    refuse(subject, said)

    with pytest.raises(CapabilityMissing, match="choose a model that can"):
        await asked(subject, prompt(user("hi")))


WINDOWS = [
    ("prompt is too long: 210000 tokens > 200000 maximum", 210_000, 200_000),
    ("input length and `max_tokens` exceed context limit: 190000 + 20000 > 200000, decrease", None, 200_000),
    ("This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.", 9001, 8192),
    ("This model's maximum context length is 4096 tokens. However, you requested 5000 tokens (4000 in the messages, "
     "1000 in the completion).", 5000, 4096),
    ("The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).", 1_200_000, 1_048_576),
    ("This model's maximum prompt length is 131072 but the request contains 537812 tokens.", 537_812, 131_072),
    ("Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
     40_000, 32_768),
    ("request (9,001 tokens) exceeds the available context size (8,192 tokens), try increasing it", 9001, 8192),
    ("This model's maximum context length is 8192 tokens", None, 8192),
    ("context length is 9000 tokens, however you requested 12 tokens", None, 9000),
    ("Input is too long for requested model.", None, None),
    ("Your input exceeds the context window of this model.", None, None),
    ("Input Tokens Exceeded: Number of input tokens exceeds maximum length.", None, None),
]  # fmt: skip


@pytest.mark.parametrize(("said", "tokens", "window"), WINDOWS)
async def test_a_prompt_over_the_window_is_told_with_the_vendors_numbers(subject, said, tokens, window):
    refuse(subject, said)

    with pytest.raises(ContextWindowExceeded) as caught:
        await asked(subject, prompt(user("hi")))
    told = {key: int(value) for key, value in caught.value.metadata.items() if key in {"tokens", "context_window"}}
    assert told == {key: value for key, value in (("tokens", tokens), ("context_window", window)) if value is not None}


async def test_a_missing_key_is_told_before_anything_is_sent(subject):
    asked_ = account(subject.kind, subject.vendor)
    factory = ProviderFactory(BuiltinProvider())

    if KINDS[subject.kind].keyless or subject.kind.startswith(
        "openai"
    ):  # any server may speak OpenAI's wire without keys
        await (await factory.provider(replace(asked_, api_key=""))).generate(Call("m", prompt(user("hi"))))
    else:
        with pytest.raises(LLMAuthentication, match=f"{asked_.name} has no key; set"):
            await factory.provider(replace(asked_, api_key=""))
        assert subject.vendor.requests == []
    await factory.close()


@pytest.mark.parametrize("kind", ["openai", "groq", "anthropic", "google_ai"])
async def test_the_vendors_own_servers_need_a_key(kind):
    factory = ProviderFactory(BuiltinProvider())

    with pytest.raises(LLMAuthentication, match="mine has no key; set its api_key"):
        await factory.provider(Account("mine", kind))
    await factory.close()


async def test_a_call_of_the_history_that_nobody_can_read_does_not_block_the_conversation(subject):
    broken = m.ContentPart(tool_call=m.ToolCallContent(id="call_0", name="first", input='{"x": "cut'))

    await asked(subject, prompt(user("a"), assistant(broken), returned("no"), user("b"), tools=TOOLS))
    assert '{\\"x\\": \\"cut' in json.dumps(subject.vendor.requests[-1].body)


async def test_an_empty_history_and_blank_texts_are_sendable(subject):
    await asked(subject, prompt(user(" "), assistant(), user(""), user("go")))
    assert "go" in json.dumps(subject.vendor.requests[-1].body)


async def test_errors_never_carry_the_key(subject):
    refuse(subject, "bad key sk-test12345 in Authorization: Bearer sk-test12345 secret-of-test", 400)

    with pytest.raises(AppError) as caught:
        await asked(subject, prompt(user("hi")))
    assert "sk-test12345" not in f"{caught.value} {caught.value.metadata}"


def test_places_are_read_as_vendors_write_them():
    names = ["a", "b", "c"]

    assert refused_tool("tools[2].function.parameters: bad", names) == "c"
    assert refused_tool("tools.0.custom.name: bad", names) == "a"
    assert refused_tool("tools[0].functionDeclarations[1].name", names) == "b"
    assert refused_tool("Invalid schema for function 'c'", names) == "c"
    assert refused_tool("Invalid schema for function 'x': tools[9]", names) == ""
    assert refused_tool("messages[1].content is bad", names) == ""
    assert sizes_of("nothing of sizes") == {}


async def test_a_cancelled_call_leaves_the_connection_usable(subject):
    subject.vendor.say(Fault("hang"))
    task = asyncio.create_task(asked(subject, prompt(user("hi"))))
    await asyncio.wait_for(subject.vendor.asked.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    subject.vendor.say(Say("still here"))

    await asked(subject, prompt(user("hi")))
