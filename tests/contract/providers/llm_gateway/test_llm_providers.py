"""What every provider must do, whatever the vendor's wire."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing, suppress
from dataclasses import replace

import httpx2
import pytest

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation, PartStarted
from letta_common.egress import AddressGuard
from letta_common.errors import (
    AppError,
    ContextWindowExceeded,
    LLMAuthentication,
    LLMBadRequest,
    LLMInsufficientCredits,
    LLMInvalidResponse,
    LLMRateLimit,
    LLMTimeout,
    LLMUnavailable,
    ModelNotFound,
)
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.http import Clients
from letta_llm_gateway.providers.parts import reasoning_part, text_part
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from letta_llm_gateway.providers.wires.arguments import finished
from tests.contract.providers.llm_gateway.conftest import Subject, account
from tests.contract.providers.llm_gateway.llm_prompts import assistant, call, prompt, returned, tool, user
from tests.fakes.wire import Fault, Say

HI = prompt(user("hi"))


async def answer(subject: Subject, mode: str, asked=HI) -> Generation:
    if mode == "unary":
        return await subject.provider.generate(Call("m", asked))
    assembler = Assembler()
    async with aclosing(subject.provider.stream(Call("m", asked))) as events:
        async for event in events:
            assembler.feed(event)
    return assembler.answer(finished)


both = pytest.mark.parametrize("mode", ["unary", "stream"])


@both
async def test_text_comes_with_usage_and_an_id(subject, mode):
    subject.vendor.say("Hello, wörld 🙂!")

    got = await answer(subject, mode)

    assert got.parts == [text_part("Hello, wörld 🙂!")]
    assert got.finish_reason == FinishReason.FINISH_REASON_STOP
    assert got.usage == TokenUsage(prompt_tokens=11, completion_tokens=7)
    assert got.response_id in {"chatcmpl-1", "goog_1", "msg_1", "req_1", "resp_1"}


@both
async def test_a_tool_is_called_with_its_arguments(subject, mode):
    subject.vendor.say(Say(calls=[("memory_insert", {"label": "human", "new_str": "Sam"})]))

    got = await answer(subject, mode, prompt(user("I am Sam"), tools=(tool(),)))

    [part] = got.parts
    assert part.HasField("tool_call")
    assert (part.tool_call.name, json.loads(part.tool_call.input)) == (
        "memory_insert",
        {"label": "human", "new_str": "Sam"},
    )
    assert part.tool_call.id
    assert got.finish_reason == FinishReason.FINISH_REASON_TOOL_CALLS


@both
async def test_parallel_calls_keep_their_arguments_apart(subject, mode):
    calls = [("a", {"x": "1" * 40}), ("b", {"y": "2" * 30}), ("c", {})]
    subject.vendor.say(Say("Wait.", calls=calls, interleaved=True, piece=3))

    got = await answer(subject, mode, prompt(user("go"), tools=(tool(),)))

    assert got.parts[0] == text_part("Wait.")
    assert [(p.tool_call.name, json.loads(p.tool_call.input)) for p in got.parts[1:]] == calls
    assert len({p.tool_call.id for p in got.parts[1:]}) == 3


@both
async def test_calls_have_ids_of_their_own(subject, mode):
    calls = [("a", {"x": 1}), ("b", {}), ("a", {"x": 2})]
    subject.vendor.say(Say(calls=calls, ids=("twice", "twice", "")))

    got = await answer(subject, mode, prompt(user("go"), tools=(tool(),)))

    assert [(part.tool_call.name, json.loads(part.tool_call.input)) for part in got.parts] == calls
    ids = [part.tool_call.id for part in got.parts]
    assert len(set(ids)) == 3
    assert all(ids)
    assert "twice" not in ids  # what vendors say repeats over steps


@both
async def test_reasoning_comes_before_the_text(subject, mode):
    subject.vendor.say(Say("So.", reasoning="Let me think.", signature="sig"))

    got = await answer(subject, mode)

    signature = {"anthropic": "sig", "bedrock": "bedrock:sig", "openai-responses": "openai:rs_0:sig"}.get(subject.kind)
    assert got.parts == [reasoning_part("Let me think.", signature), text_part("So.")]


@both
@pytest.mark.parametrize(
    ("finish", "reason"),
    [
        ("length", FinishReason.FINISH_REASON_LENGTH),
        ("content_filter", FinishReason.FINISH_REASON_CONTENT_FILTER),
        ("never_heard_of", FinishReason.FINISH_REASON_STOP),
    ],
)
@pytest.mark.filterwarnings("ignore:NEVER_HEARD_OF is not a valid FinishReason")  # Google's SDK says so and goes on
async def test_finish_reasons_are_read_and_unknown_ones_are_stop(subject, mode, finish, reason):
    subject.vendor.say(Say("x", finish=finish))

    assert (await answer(subject, mode)).finish_reason == reason


@both
@pytest.mark.parametrize("usage", [{}, {"prompt_tokens": 0, "input_tokens": 0, "completion_tokens": 0}])
async def test_missing_or_zero_usage_is_none(subject, mode, usage):
    subject.vendor.say(Say("x", usage=usage))

    assert not (await answer(subject, mode)).HasField("usage")


@both
async def test_no_arguments_are_an_empty_object(subject, mode):
    subject.vendor.say(Say(calls=[("now", "")]))

    [part] = (await answer(subject, mode)).parts
    assert part.tool_call.input == "{}"


STATUSES = [
    (400, {"message": "bad tool schema"}, LLMBadRequest),
    (400, {"message": "This model's maximum context length is 8192 tokens"}, ContextWindowExceeded),
    (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, ContextWindowExceeded),
    (400, {"message": "Your credit balance is too low"}, LLMInsufficientCredits),
    (401, {"message": "bad key sk-abcdefgh12345"}, LLMAuthentication),
    (402, {"message": "pay"}, LLMInsufficientCredits),
    (403, {"message": "no"}, LLMAuthentication),
    (404, {"message": "model m not found"}, ModelNotFound),
    (408, {"message": "slow"}, LLMTimeout),
    (413, {"message": "request_too_large"}, ContextWindowExceeded),
    (422, {"message": "unprocessable"}, LLMBadRequest),
    (429, {"message": "slow down"}, LLMRateLimit),
    (429, {"message": "You exceeded your quota", "code": "insufficient_quota"}, LLMInsufficientCredits),
    (500, {"message": "oops"}, LLMUnavailable),
    (503, {"message": "later"}, LLMUnavailable),
    (529, {"message": "Overloaded"}, LLMUnavailable),
]


@both
@pytest.mark.parametrize(("status", "error", "expected"), STATUSES)
async def test_refusals_are_typed_and_carry_no_key(subject, mode, status, error, expected):
    if subject.kind in {"anthropic", "bedrock", "google_ai"} and error.get("code"):
        pytest.skip("OpenAI's own code")
    body = {"type": "error", "error": {"type": "invalid_request_error", **error}}
    subject.vendor.say(Fault(status=status, body=body, headers={"retry-after": "7"}))

    with pytest.raises(AppError) as caught:
        await answer(subject, mode)

    assert type(caught.value) is expected
    assert "sk-abcdefgh" not in str(caught.value)
    assert subject.provider is not None
    if expected in {LLMRateLimit, LLMUnavailable}:
        assert caught.value.metadata["retry_after"] == "7"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("reset", LLMUnavailable),
        ("short", LLMUnavailable),
        ("garbage", LLMInvalidResponse),
        ("truncated", LLMInvalidResponse),
        ("empty", LLMInvalidResponse),
        ("huge", LLMInvalidResponse),
    ],
)
async def test_broken_answers_are_typed(subject, kind, expected):
    subject.vendor.say(Fault(kind))

    with pytest.raises(expected):
        await answer(subject, "unary")


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("reset", LLMUnavailable),
        ("cut", LLMInvalidResponse),
        ("garbage", LLMInvalidResponse),
        ("huge", LLMInvalidResponse),
        ("error", LLMUnavailable),
    ],
)
async def test_broken_streams_are_typed(subject, kind, expected, at):
    fault = Fault(kind)
    subject.vendor.say(Say("word " * 20, fault=fault, pieces_before_fault=at))

    with pytest.raises(expected):
        await answer(subject, "stream")


async def test_nobody_there_is_unavailable(subject):
    await subject.vendor.close()

    with pytest.raises(LLMUnavailable):
        await answer(subject, "unary")


async def test_a_server_without_tls_is_unavailable(subject):
    asked = account(subject.kind, subject.vendor)
    factory = ProviderFactory(BuiltinProvider())
    provider = await factory.provider(replace(asked, base_url=asked.base_url.replace("http:", "https:")))

    with pytest.raises(LLMUnavailable):
        await provider.generate(Call("m", HI))
    assert not [request for request in subject.vendor.requests if request.path != "/token"]
    await factory.close()


async def test_a_connection_that_is_not_made_in_time_is_told_as_such(subject):
    left = asyncio.Event()

    async def say_nothing(reader, writer):
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        left.set()

    async with await asyncio.start_server(say_nothing, "127.0.0.1") as server:
        address = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        asked = account(subject.kind, subject.vendor)
        clients = Clients(AddressGuard())
        made = clients.of(asked)
        made.timeout = httpx2.Timeout(None, connect=0.2)
        clients.of = lambda _: made
        factory = ProviderFactory(BuiltinProvider(), clients)
        provider = await factory.provider(replace(asked, base_url=address))

        with pytest.raises(LLMTimeout, match="connected to in time") as caught:
            await provider.generate(Call("m", HI))
        await factory.close()
        await asyncio.wait_for(left.wait(), 5)
    assert caught.value.metadata["phase"] == "connect"


async def test_cancelling_an_answer_reaches_the_vendor(subject):
    subject.vendor.say(Fault("hang"))
    task = asyncio.create_task(answer(subject, "unary"))
    await asyncio.wait_for(subject.vendor.asked.wait(), 5)

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(subject.vendor.gone.wait(), 5)


async def test_closing_a_stream_reaches_the_vendor(subject):
    subject.vendor.say(Say("word " * 50, fault=Fault("hang"), pieces_before_fault=6))

    async with aclosing(subject.provider.stream(Call("m", HI))) as events:
        async for event in events:
            if isinstance(event, PartStarted):
                break
    await asyncio.wait_for(subject.vendor.gone.wait(), 5)


async def test_a_whole_conversation_goes_out_in_the_vendors_form(subject):
    asked = prompt(
        user("first"),
        assistant(call("memory_insert", {"label": "human", "new_str": "x"})),
        returned("done", failed=True),
        user("second"),
        system="Be kind.",
        tools=(tool(),),
        settings={"max_output_tokens": 99, "temperature": 0.5},
    )

    await answer(subject, "unary", asked)

    body = subject.vendor.requests[-1].body
    sent = json.dumps(body)
    assert all(word in sent for word in ("first", "memory_insert", "done", "second", "Be kind.", "99", "0.5"))
    _FORMS.get(subject.kind, _chat_form)(body)


def _chat_form(body):
    assert [message["role"] for message in body["messages"]] == ["system", "user", "assistant", "tool", "user"]
    assert body["messages"][3]["tool_call_id"] == body["messages"][2]["tool_calls"][0]["id"]


def _anthropic_form(body):
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in body["messages"][2]["content"]] == ["tool_result", "text"]
    assert body["messages"][2]["content"][0]["is_error"] is True


def _responses_form(body):
    kinds = [item.get("role") or item["type"] for item in body["input"]]
    assert kinds == ["user", "function_call", "function_call_output", "user"]
    assert body["instructions"] == "Be kind."
    assert body["input"][1]["call_id"] == body["input"][2]["call_id"]
    assert body["store"] is False


def _google_form(body):
    assert [turn["role"] for turn in body["contents"]] == ["user", "model", "user"]
    assert body["systemInstruction"]["parts"] == [{"text": "Be kind."}]
    [result, text] = body["contents"][2]["parts"]
    assert result["functionResponse"] == {"name": "memory_insert", "response": {"error": "done"}}
    assert text == {"text": "second"}
    [declared] = body["tools"][0]["functionDeclarations"]
    assert declared["parameters_json_schema"]["required"] == ["label", "new_str"]


def _bedrock_form(body):
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    [result, text] = body["messages"][2]["content"]
    assert result["toolResult"]["status"] == "error"
    assert result["toolResult"]["toolUseId"] == body["messages"][1]["content"][0]["toolUse"]["toolUseId"]
    assert text == {"text": "second"}
    assert body["inferenceConfig"] == {"maxTokens": 99, "temperature": 0.5}


_FORMS = {
    "anthropic": _anthropic_form,
    "bedrock": _bedrock_form,
    "google_ai": _google_form,
    "openai-responses": _responses_form,
}


async def test_models_are_listed(subject):
    names = [model.name for model in await subject.provider.models()]

    assert names == [model["id"] for model in subject.vendor.models]


async def test_a_prompt_is_counted_by_the_vendor_where_it_counts(subject):
    asked = prompt(user("first"), system="Be kind.", tools=(tool(),), settings={"max_output_tokens": 5})

    counted = await subject.provider.count(Call("m", asked))

    if subject.kind not in {"anthropic", "bedrock", "google_ai"}:
        assert counted is None
        return
    assert counted > 10_000
    [sent] = subject.vendor.requests
    assert all(word in json.dumps(sent.body) for word in ("first", "Be kind.", "memory_insert"))


async def test_a_count_that_fails_is_typed(subject):
    if subject.kind in {"anthropic", "bedrock", "google_ai"}:
        await subject.vendor.close()
        with pytest.raises(LLMUnavailable):
            await subject.provider.count(Call("m", HI))
