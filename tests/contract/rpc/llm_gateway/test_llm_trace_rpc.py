"""TraceService: what is kept of a step, for whom, and what never is."""

from __future__ import annotations

import json
from functools import partial

import pytest

from letta.llm.v1 import generation_service_pb2 as gen
from letta.llm.v1 import trace_service_pb2 as pb
from letta_common.errors import LLMBadRequest, ValidationFailed
from letta_llm_gateway import wiring
from letta_llm_gateway.domain.accounting.usage import WriterOptions
from letta_rpc.client import streaming
from tests.contract.providers.llm_gateway.llm_prompts import prompt, tool, user
from tests.contract.rpc.llm_gateway.conftest import BEN
from tests.fakes.wire import Fault, Say

GPT, CLAUDE = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5-20251001"
KEY = "sk-deployment-0123456789abcdef"


def asked(step: str, said: str = "hi", model: str = GPT, **rest) -> gen.Prompt:
    return prompt(user(said), model=model, attribution=gen.Attribution(step_id=step, agent_id="agent-1"), **rest)


async def generate(gateway, wanted: gen.Prompt) -> None:
    await gateway.generations.Generate(gen.GenerateRequest(prompt=wanted), timeout=30)


async def trace_of(gateway, step: str):
    answer = await gateway.traces.GetProviderTrace(pb.GetProviderTraceRequest(step_id=step), timeout=30)
    return answer.trace if answer.HasField("trace") else None


@pytest.fixture
async def gateway(start, openai, anthropic):
    return await start(
        openai_api_key=KEY,
        openai_base_url=openai.base_url,
        anthropic_api_key=KEY,
        anthropic_base_url=anthropic.base_url,
        provider_trace=True,
        attempts=1,
    )


async def test_nothing_is_kept_unless_the_operator_says_so(start, openai):
    gateway = await start(openai_api_key=KEY, openai_base_url=openai.base_url)
    await generate(gateway, asked("step-1"))

    assert await trace_of(gateway, "step-1") is None


@pytest.mark.parametrize("model", [GPT, CLAUDE])
async def test_what_the_vendor_got_and_answered_is_kept(gateway, openai, anthropic, model):
    vendor = openai if model == GPT else anthropic
    vendor.say(Say("One moment.", calls=[("memory_insert", {"label": "human"})]))
    await generate(gateway, asked("step-1", model=model, tools=(tool(),)))

    kept = await trace_of(gateway, "step-1")
    assert json.loads(kept.request_json) == vendor.requests[-1].body
    assert [part["type"] for part in json.loads(kept.response_json)["parts"]] == ["Text", "ToolCall"]
    assert (kept.agent_id, kept.model, kept.provider_type) == ("agent-1", model, model.partition("/")[0])
    assert KEY not in kept.request_json + kept.response_json


async def test_a_stream_is_kept_too_and_so_is_a_failure(gateway, openai):
    stream = gen.StreamGenerateRequest(prompt=asked("step-1"))
    async with streaming(gateway.generations.StreamGenerate(stream, timeout=30)) as events:
        async for _ in events:
            pass
    kept = await trace_of(gateway, "step-1")
    assert json.loads(kept.request_json) == openai.requests[-1].body
    assert json.loads(kept.response_json)["parts"][0]["text"] == "You said: hi"

    openai.say(Fault(status=400))
    with pytest.raises(LLMBadRequest):
        await generate(gateway, asked("step-2"))
    assert json.loads((await trace_of(gateway, "step-2")).response_json)["outcome"] == "LLM_BAD_REQUEST"


async def test_secrets_that_people_write_are_not_kept(gateway, openai):
    secret = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"
    await generate(gateway, asked("step-1", f"my token is {secret}"))

    kept = await trace_of(gateway, "step-1")
    assert secret in json.dumps(openai.requests[-1].body), "the model saw it"
    assert secret not in kept.request_json + kept.response_json


async def test_long_prompts_are_cut(start, openai):
    gateway = await start(
        openai_api_key=KEY, openai_base_url=openai.base_url, provider_trace=True, provider_trace_kilobytes=4
    )
    await generate(gateway, asked("step-1", "word " * 5000))

    kept = json.loads((await trace_of(gateway, "step-1")).request_json)
    assert kept["truncated"]
    assert kept["bytes"] > 25_000


async def test_a_share_of_none_keeps_none(start, openai):
    gateway = await start(
        openai_api_key=KEY, openai_base_url=openai.base_url, provider_trace=True, provider_trace_share=0.0
    )
    await generate(gateway, asked("step-1"))

    assert await trace_of(gateway, "step-1") is None


async def test_a_prompt_that_waits_to_be_written_down_takes_no_more_memory_than_traces_may(start, monkeypatch):
    monkeypatch.setattr(wiring, "WriterOptions", partial(WriterOptions, most_trace_bytes=20_000))
    gateway = await start(provider_trace=True)
    await generate(gateway, asked("step-1", "word " * 5000, model="builtin/echo"))
    await generate(gateway, asked("step-2", "word", model="builtin/echo"))

    assert await trace_of(gateway, "step-1") is None
    assert await trace_of(gateway, "step-2") is not None


async def test_an_engine_without_a_wire_is_traced_by_its_prompt(gateway):
    await generate(gateway, asked("step-1", model="builtin/echo"))

    kept = await trace_of(gateway, "step-1")
    assert json.loads(kept.request_json)["messages"][0]["parts"][0]["text"]["text"] == "hi"


async def test_another_organization_finds_nothing(gateway):
    await generate(gateway, asked("step-1"))

    with gateway.as_actor(BEN):
        assert await trace_of(gateway, "step-1") is None
    with pytest.raises(ValidationFailed):
        await trace_of(gateway, "run-1")
