"""Calls that clients answer, on every wire: a vendor is told each result once, as it refuses a second one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from letta.common.v1.message_pb2 import Message, MessageRole
from letta.llm.v1.generation_service_pb2 import Prompt
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.vendors import anthropic, bedrock, google, openai
from letta_llm_gateway.providers.wires import chat
from tests.support.prompts import called_by_client, kept

Ask = Callable[[Prompt, Fragments], Awaitable[bytes]]


async def gemini(prompt: Prompt, fragments: Fragments) -> bytes:
    return (await google.request(prompt, fragments))[0]


def body(request: Callable[..., Awaitable[object]]) -> Ask:
    async def ask(prompt: Prompt, fragments: Fragments) -> bytes:
        made: bytes = (await request("model", prompt, fragments)).encoded()  # type: ignore[attr-defined]
        return made

    return ask


WIRES = {
    "anthropic": body(anthropic.request),
    "bedrock": body(bedrock.request),
    "chat": body(partial(chat.request, official=True)),
    "turns": body(partial(chat.request, official=False)),
    "thoughts": body(partial(chat.request, official=False, thoughts=True)),
    "responses": body(partial(openai.request, official=True)),
    "google": gemini,
}


@pytest.mark.parametrize("ask", WIRES.values(), ids=WIRES)
async def test_a_vendor_is_told_once_what_a_client_returned(ask: Ask) -> None:
    said = Message(role=MessageRole.MESSAGE_ROLE_USER)
    said.parts.add().text.text = "Let me in."
    sent = await ask(Prompt(messages=kept(said, *called_by_client("the door stands open"))), Fragments())

    assert sent.count(b"open_door") >= 1
    assert sent.count(b"the door stands open") == 1
