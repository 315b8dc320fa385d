"""What single vendors have of their own reaches the callers of GenerationService, and goes back."""

from __future__ import annotations

import base64
import json

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import provider_pb2
from letta.llm.v1.provider_service_pb2 import CreateProviderRequest
from letta_common.errors import LLMInvalidResponse
from tests.contract.providers.llm_gateway.llm_prompts import returned, tool, user
from tests.contract.rpc.llm_gateway.test_llm_generation_rpc import ask, generate, listen
from tests.fakes.google_server import GoogleServer
from tests.fakes.wire import Fault, Say


@pytest.mark.parametrize("stream", [False, True])
async def test_a_signature_of_a_text_comes_and_goes_back(start, stream):
    signature = base64.b64encode(b"\xff of a text").decode()
    parts = [{"text": "I look.", "thoughtSignature": signature}, {"functionCall": {"name": "first", "args": {}}}]
    chunk = json.dumps({"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}]})
    piece = f"data: {chunk}\n\n" if stream else chunk
    async with GoogleServer() as vendor:
        gateway = await start()
        own = provider_pb2.Provider(name="mine", provider_type="google_ai", api_key="k", base_url=vendor.base_url)
        await gateway.providers.CreateProvider(CreateProviderRequest(provider=own), timeout=20)
        vendor.say(Fault("raw", 200, headers={"content-type": "text/event-stream"}, pieces=[piece.encode()]))
        asked = ask("mine/gemini-2.5-flash", tools=(tool("first"),))
        made = (await listen(gateway, asked))[-1].finished.generation if stream else await generate(gateway, asked)

        said = m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=made.parts)
        again = ask("mine/gemini-2.5-flash", user("hi"), said, returned("x", made.parts[1].tool_call.id))
        await generate(gateway, again)

    told = vendor.requests[-1].body["contents"][1]["parts"][0]
    assert made.parts[0].text.signature == f"google:{signature}"
    assert told == {"text": "I look.", "thoughtSignature": base64.urlsafe_b64encode(b"\xff of a text").decode()}


async def test_a_blocked_answer_says_why(start, openai, anthropic):
    gateway = await start(
        openai_api_key="k",
        openai_base_url=openai.base_url,
        anthropic_api_key="k",
        anthropic_base_url=anthropic.base_url,
    )
    openai.say(*[Say("I cannot help with that.", finish="content_filter")] * 2)
    with pytest.raises(LLMInvalidResponse, match=r"blocked the answer: I cannot help with that\."):
        await generate(gateway, ask())
    details = {"type": "refusal", "category": "cyber", "explanation": "It could harm."}
    refused = {"type": "message", "content": [], "stop_reason": "refusal", "stop_details": details, "usage": {}}
    anthropic.say(*[Fault(status=200, body=refused)] * 2)
    with pytest.raises(LLMInvalidResponse, match=r"blocked the answer: refusal: cyber: It could harm\."):
        await generate(gateway, ask("anthropic/claude-haiku-4-5-20251001"))
