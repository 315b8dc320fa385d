"""GenerationService through a real server."""

from __future__ import annotations

import asyncio
import json

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta_common.errors import (
    BudgetExceeded,
    CapabilityMissing,
    ContextWindowExceeded,
    LLMAuthentication,
    LLMInvalidResponse,
    LLMRateLimit,
    LLMTimeout,
    LLMUnavailable,
    ModelNotFound,
    RequestCancelled,
    Unauthenticated,
    ValidationFailed,
)
from letta_rpc.client import streaming
from tests.contract.providers.llm_gateway.llm_prompts import call, prompt, text, tool, user
from tests.fakes.wire import Fault, Say

GPT = "openai/gpt-4o-mini"


def ask(model: str = GPT, *messages: m.Message, **rest) -> pb.Prompt:
    return prompt(*(messages or (user("hi"),)), model=model, **rest)


async def generate(gateway, asked: pb.Prompt) -> pb.Generation:
    return (await gateway.generations.Generate(pb.GenerateRequest(prompt=asked), timeout=20)).generation


async def listen(gateway, asked: pb.Prompt) -> list[pb.StreamGenerateResponse]:
    call_ = gateway.generations.StreamGenerate(pb.StreamGenerateRequest(prompt=asked), timeout=20)
    async with streaming(call_) as events:
        return [event async for event in events]


async def test_an_answer_says_who_made_it(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say("Hello!")

    got = await generate(gateway, ask())

    assert got.parts[0].text.text == "Hello!"
    assert (got.model, got.provider_type, got.context_window) == (GPT, "openai", 128_000)
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (11, 7)
    assert got.usage_source == pb.TOKEN_COUNT_SOURCE_PROVIDER
    assert got.finish_reason == pb.FINISH_REASON_STOP


async def test_a_stream_numbers_its_events_and_ends_with_the_whole_answer(start, anthropic):
    gateway = await start(anthropic_api_key="k", anthropic_base_url=anthropic.base_url)
    anthropic.say(Say("One two three.", calls=[("memory_insert", {"label": "human"})], pause=0.002))

    events = await listen(gateway, ask("anthropic/claude-haiku-4-5-20251001", tools=(tool(),)))

    assert [event.seq_id for event in events] == list(range(1, len(events) + 1))
    assert events[-1].WhichOneof("event") == "finished"
    whole = events[-1].finished.generation
    deltas = {0: "", 1: ""}
    for event in events:
        if event.HasField("part_delta"):
            deltas[event.part_delta.index] += event.part_delta.delta
    assert deltas[0] == whole.parts[0].text.text == "One two three."
    assert json.loads(deltas[1]) == json.loads(whole.parts[1].tool_call.input) == {"label": "human"}
    started = [event.part_started.part.WhichOneof("part") for event in events if event.HasField("part_started")]
    assert started == ["text", "tool_call"]


async def test_deltas_of_a_fast_model_are_joined(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Say("x" * 4000, piece=4))

    events = await listen(gateway, ask())

    assert len([event for event in events if event.HasField("part_delta")]) < 200
    assert events[-1].finished.generation.parts[0].text.text == "x" * 4000


async def test_silence_is_filled_with_heartbeats(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, heartbeat_seconds=0.03)
    openai.say(Say("ab", piece=1, pause=0.1))

    kinds = [event.WhichOneof("event") for event in await listen(gateway, ask())]

    assert "heartbeat" in kinds
    assert kinds[-1] == "finished"


async def test_missing_usage_is_estimated_and_says_so(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Say("word " * 40, usage={}))

    got = await generate(gateway, ask())

    assert got.usage_source == pb.TOKEN_COUNT_SOURCE_ESTIMATE
    assert got.usage.completion_tokens == 50
    assert got.usage.prompt_tokens > 0


async def test_an_unknown_handle_names_some_that_exist(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)

    with pytest.raises(ModelNotFound, match=r"Handle openai/nope not found, must be one of \[.*gpt-4o-mini"):
        await generate(gateway, ask("openai/nope"))
    with pytest.raises(ModelNotFound):
        await generate(gateway, ask("nobody/nope"))
    with pytest.raises(ModelNotFound):
        await generate(gateway, ask("nohandle"))


async def test_a_missing_model_is_invalid(start):
    gateway = await start()

    with pytest.raises(ValidationFailed):
        await generate(gateway, ask(""))


async def test_a_caller_without_actor_is_refused(start):
    gateway = await start()
    from letta_common.actor import acting_as

    with acting_as(b""), pytest.raises(Unauthenticated):
        await generate(gateway, ask("builtin/echo"))


async def test_refusals_that_pass_are_retried(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Fault(status=500), Fault(status=429, headers={"retry-after": "0.01"}), "At last.")

    assert (await generate(gateway, ask())).parts[0].text.text == "At last."


async def test_a_stream_that_has_not_begun_is_retried(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Fault(status=503), Fault("reset"), "At last.")

    events = await listen(gateway, ask())

    assert events[-1].finished.generation.parts[0].text.text == "At last."


async def test_a_stream_that_has_begun_fails_as_it_breaks(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Say("word " * 20, fault=Fault("reset"), pieces_before_fault=6), "never said")

    with pytest.raises(LLMUnavailable):
        await listen(gateway, ask())
    assert len(openai.script) == 1


async def test_retries_end(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, attempts=2)
    openai.say(Fault(status=500), Fault(status=500), "too late")

    with pytest.raises(LLMUnavailable):
        await generate(gateway, ask())


async def test_a_long_retry_after_is_told_to_the_caller(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, retry_patience_seconds=1)
    openai.say(Fault(status=429, headers={"retry-after": "3600"}))

    with pytest.raises(LLMRateLimit) as caught:
        await generate(gateway, ask())
    assert float(caught.value.metadata["retry_after"]) == 3600


@pytest.mark.parametrize("stream", [False, True])
async def test_another_model_answers_when_the_first_cannot(start, openai, anthropic, stream):
    other = "anthropic/claude-haiku-4-5-20251001"
    gateway = await start(
        openai_api_key="k",
        openai_base_url=openai.base_url,
        anthropic_api_key="k",
        anthropic_base_url=anthropic.base_url,
        attempts=1,
        fallbacks={GPT: [other]},
    )
    openai.say(Fault(status=500))
    anthropic.say("Here I am.")

    got = (await listen(gateway, ask()))[-1].finished.generation if stream else await generate(gateway, ask())

    assert (got.model, got.parts[0].text.text) == (other, "Here I am.")


async def test_rules_never_stand_in_for_a_model(start, openai):
    gateway = await start(
        openai_api_key="k", openai_base_url=openai.base_url, attempts=1, fallbacks={GPT: ["builtin/rules"]}
    )
    openai.say(Fault(status=500))

    with pytest.raises(LLMUnavailable):
        await generate(gateway, ask())


async def test_a_refused_key_fails_over_to_nobody(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, fallbacks={GPT: ["builtin/rules"]})
    openai.say(Fault(status=401, body={"error": {"message": "bad key"}}))

    with pytest.raises(LLMAuthentication):
        await generate(gateway, ask())


async def test_a_vendor_that_fails_again_and_again_is_left_alone(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, attempts=1)
    openai.respond = lambda _: Fault(status=500)
    for _ in range(8):
        with pytest.raises(LLMUnavailable):
            await generate(gateway, ask())
    before = len(openai.requests)

    with pytest.raises(LLMUnavailable, match="in a row"):
        await generate(gateway, ask())
    assert len(openai.requests) == before


@pytest.mark.parametrize("stream", [False, True])
async def test_a_vendor_that_says_nothing_times_out(start, openai, stream):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, first_token_seconds=0.2)
    openai.say(Fault("hang"))

    with pytest.raises(LLMTimeout):
        await (listen if stream else generate)(gateway, ask())
    await asyncio.wait_for(openai.gone.wait(), 5)


async def test_a_vendor_that_falls_silent_times_out(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, between_tokens_seconds=0.2)
    openai.say(Say("word " * 20, fault=Fault("hang"), pieces_before_fault=6))

    with pytest.raises(LLMTimeout, match="silent"):
        await listen(gateway, ask())


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_has_a_limit_from_first_attempt_to_last_word(start, openai, anthropic, stream):
    gateway = await start(
        openai_api_key="k",
        openai_base_url=openai.base_url,
        anthropic_api_key="k",
        anthropic_base_url=anthropic.base_url,
        total_seconds=1.5,
        fallbacks={GPT: ["anthropic/claude-haiku-4-5-20251001"]},
    )
    openai.say(Fault(status=500), Say("word " * 400, pause=0.02) if stream else Fault("hang"))

    with pytest.raises(LLMTimeout, match=f"{GPT} did not finish its answer within 1.5 s") as caught:
        await (listen if stream else generate)(gateway, ask())
    assert caught.value.metadata["phase"] == "total"
    await asyncio.wait_for(openai.gone.wait(), 5)
    assert not [request for request in anthropic.requests if request.path == "/v1/messages"], "no time is left for it"
    await asyncio.wait_for(gateway.books.written.wait(), 5)
    [(_, call)] = gateway.books.records.values()
    assert call.outcome == "LLM_TIMEOUT"
    assert bool(call.usage.completion_tokens) is stream, "what was said before the limit was paid for"


async def test_a_retry_that_would_come_too_late_is_not_waited_for(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, total_seconds=5)
    openai.say(Fault(status=429, headers={"retry-after": "19"}), "too late")

    with pytest.raises(LLMRateLimit):
        await generate(gateway, ask())
    assert len(openai.script) == 1


async def test_leaving_a_stream_reaches_the_vendor(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Say("word " * 20, fault=Fault("hang"), pieces_before_fault=6))

    call_ = gateway.generations.StreamGenerate(pb.StreamGenerateRequest(prompt=ask()), timeout=20)
    async with streaming(call_) as events:
        async for _ in events:
            break
    await asyncio.wait_for(openai.gone.wait(), 5)


async def test_leaving_an_answer_at_once_reaches_the_vendor(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await generate(gateway, ask())
    openai.asked.clear()
    openai.say(Fault("hang"))

    task = asyncio.create_task(generate(gateway, ask()))
    await asyncio.wait_for(openai.asked.wait(), 5)
    task.cancel()
    with pytest.raises((asyncio.CancelledError, RequestCancelled)):
        await task
    await asyncio.wait_for(openai.gone.wait(), 5)


async def test_what_was_said_before_a_cancel_is_booked(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(Say("word " * 20, fault=Fault("hang"), pieces_before_fault=6))

    call_ = gateway.generations.StreamGenerate(pb.StreamGenerateRequest(prompt=ask()), timeout=20)
    async with streaming(call_) as events:
        async for event in events:
            if event.HasField("part_delta"):
                break
    await asyncio.wait_for(gateway.books.written.wait(), 5)
    [(_, call)] = gateway.books.records.values()
    assert call.outcome == "cancelled"
    assert call.usage.completion_tokens > 0


async def test_usage_is_booked_on_whom_it_is_for(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    booked = pb.Attribution(agent_id="agent-1", run_id="run-1", step_id="step-1", purpose=pb.CALL_PURPOSE_STEP)
    await generate(gateway, ask(attribution=booked))
    await asyncio.wait_for(gateway.books.written.wait(), 5)

    [(organization_id, call)] = gateway.books.records.values()
    assert organization_id.startswith("org-0000")
    assert (call.agent_id, call.run_id, call.step_id, call.purpose) == ("agent-1", "run-1", "step-1", booked.purpose)
    assert (call.usage.prompt_tokens, call.outcome, call.model) == (11, "ok", GPT)
    assert call.cost_microdollars == round(11 * 0.15 + 7 * 0.60)


async def test_a_spent_budget_refuses(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url, budget_dollars=0.000001)
    await generate(gateway, ask())

    with pytest.raises(BudgetExceeded):
        await generate(gateway, ask())


async def test_arguments_that_cannot_be_read_come_as_the_model_wrote_them_streamed_or_not(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    for written, told in (
        ('{"label": "hum', '{"label": "hum'),
        ('{"a": 1, "b": ', '{"a": 1, "b":'),
        ('{}{"a":1}', "{}"),
    ):
        openai.say(Say(calls=[("memory_insert", written)]), Say(calls=[("memory_insert", written)]))
        whole = await generate(gateway, ask(tools=(tool(),)))
        streamed = (await listen(gateway, ask(tools=(tool(),))))[-1].finished.generation

        assert whole.parts[0].tool_call.input == streamed.parts[0].tool_call.input == told


@pytest.mark.parametrize(
    "empty", [Say(""), Say(" "), Say("", reasoning="hm"), Say("Half", finish="content_filter")], ids=str
)
async def test_an_answer_that_is_none_is_asked_for_once_more_and_then_told(start, openai, empty):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    openai.say(empty, "At last.")
    assert (await generate(gateway, ask())).parts[0].text.text == "At last."
    openai.say(empty, empty, "never")
    with pytest.raises(LLMInvalidResponse, match="gave no answer"):
        await generate(gateway, ask())
    openai.script.clear()

    if not empty.text.strip():
        openai.say(empty, "At last.")
        assert (await listen(gateway, ask()))[-1].finished.generation.parts[-1].text.text == "At last."
    openai.say(empty, empty, "never")
    with pytest.raises(LLMInvalidResponse, match="gave no answer"):
        await listen(gateway, ask())


async def test_an_image_for_a_text_model_is_refused(start, openai):
    openai.models.append({"id": "gpt-3.5-turbo"})
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    source = m.ImageSource(base64=m.Base64Image(media_type="image/png", data=b"png"))
    message = m.Message(
        role=m.MESSAGE_ROLE_USER, parts=[text("see"), m.ContentPart(image=m.ImageContent(source=source))]
    )

    with pytest.raises(CapabilityMissing, match="images"):
        await generate(gateway, ask("openai/gpt-3.5-turbo", message))
    await generate(gateway, ask(GPT, message))
    assert openai.requests[-1].body["messages"][0]["content"][1]["image_url"]["url"] == "data:image/png;base64,cG5n"


async def test_a_prompt_over_the_window_is_refused_before_it_is_sent(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)

    with pytest.raises(ContextWindowExceeded):
        await generate(gateway, ask(GPT, user("word " * 120_000)))
    assert not [request for request in openai.requests if request.path.endswith("completions")]


async def test_a_schema_that_is_no_json_leaves_out_its_tool_with_a_warning(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    broken = pb.ToolDefinition(name="second", parameters="{")
    whole = await generate(gateway, ask(tools=(tool(), broken)))
    streamed = (await listen(gateway, ask(tools=(tool(), broken))))[-1].finished.generation

    assert "'second' was left out" in whole.warnings[0]
    assert whole.warnings == streamed.warnings


async def test_the_echo_repeats_the_last_words(start):
    gateway = await start()

    got = await generate(gateway, ask("builtin/echo", user("one"), user("two")))
    assert (got.parts[0].text.text, got.model) == ("two", "builtin/echo")
    events = await listen(gateway, ask("builtin/echo", user("two")))
    assert events[-1].finished.generation.parts[0].text.text == "two"


async def test_the_rules_remember_and_answer(start):
    gateway = await start()
    first = await generate(gateway, ask("builtin/rules", user("Hi, my name is Sam"), tools=(tool(),)))

    assert first.finish_reason == pb.FINISH_REASON_TOOL_CALLS
    assert json.loads(first.parts[0].tool_call.input) == {"label": "human", "new_str": "The user's name is Sam."}
    assert call  # the helper is exercised by the engine's own tests


async def test_tokens_of_a_prompt_are_counted(start):
    gateway = await start()

    got = await gateway.generations.CountTokens(
        pb.CountTokensRequest(prompt=ask("builtin/echo", user("a" * 400))), timeout=5
    )
    assert (got.prompt_tokens, got.source) == (100, pb.TOKEN_COUNT_SOURCE_ESTIMATE)


async def test_a_count_says_where_it_comes_from(start, openai, anthropic):
    openai.models.append({"id": "who-knows"})
    gateway = await start(
        openai_api_key="k",
        openai_base_url=openai.base_url,
        anthropic_api_key="k",
        anthropic_base_url=anthropic.base_url,
    )

    async def counted(model: str) -> tuple[int, int]:
        request = pb.CountTokensRequest(prompt=ask(model, user("hello world")))
        got = await gateway.generations.CountTokens(request, timeout=20)
        return got.prompt_tokens, got.source

    tokens, source = await counted("anthropic/claude-haiku-4-5-20251001")
    assert (tokens > 10_000, source) == (True, pb.TOKEN_COUNT_SOURCE_PROVIDER)
    assert await counted(GPT) == (2 + 4, pb.TOKEN_COUNT_SOURCE_TOKENIZER)
    assert await counted("openai/who-knows") == (3, pb.TOKEN_COUNT_SOURCE_ESTIMATE)
    with pytest.raises(ModelNotFound):
        await counted("openai/nope")


async def test_usage_that_the_vendor_leaves_out_is_counted_once_the_vocabulary_is_there(start, openai):
    gateway = await start(openai_api_key="k", openai_base_url=openai.base_url)
    await gateway.generations.CountTokens(pb.CountTokensRequest(prompt=ask()), timeout=20)  # loads it
    openai.say(Say("hello world", usage={}))

    got = await generate(gateway, ask(GPT, user("hello world")))

    assert got.usage_source == pb.TOKEN_COUNT_SOURCE_TOKENIZER
    assert (got.usage.prompt_tokens, got.usage.completion_tokens) == (2 + 4, 2)
