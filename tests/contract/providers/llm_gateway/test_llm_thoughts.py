"""Reasoning goes back to servers that need it, within the turn that goes on, and to no other."""

from __future__ import annotations

import pytest

from letta.common.v1 import message_pb2
from letta.llm.v1 import generation_service_pb2 as pb
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.providers.wires import chat as openai_wire
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.fakes.wire import Fault, Say
from tests.support.prompts import kept, sent

USER, ASSISTANT = message_pb2.MESSAGE_ROLE_USER, message_pb2.MESSAGE_ROLE_ASSISTANT
TOOL = message_pb2.MESSAGE_ROLE_TOOL
COMPATIBLE = {"openai", "ollama", "vllm"}  # at an address of their own


def spoken(role: int, *parts: message_pb2.ContentPart) -> message_pb2.Message:
    return message_pb2.Message(role=role, parts=parts)


def text(words: str) -> message_pb2.ContentPart:
    return message_pb2.ContentPart(text=message_pb2.TextContent(text=words))


def thought(words: str, signature: str | None = None) -> message_pb2.ContentPart:
    return message_pb2.ContentPart(reasoning=message_pb2.ReasoningContent(reasoning=words, signature=signature))


def call(id: str) -> message_pb2.ContentPart:
    return message_pb2.ContentPart(tool_call=message_pb2.ToolCallContent(id=id, name="add", input='{"a":1}'))


def returned(id: str) -> message_pb2.ContentPart:
    told = message_pb2.ToolReturnContent(tool_call_id=id, name="add", content="2")
    return message_pb2.ContentPart(tool_return=told)


def prompt() -> pb.Prompt:
    """Two turns with a call each; the second one goes on."""
    messages = [
        *(
            spoken(USER, text("one")),
            spoken(ASSISTANT, thought("old"), call("callAAAAA")),
            spoken(TOOL, returned("callAAAAA")),
        ),
        *(spoken(ASSISTANT, text("2")), spoken(USER, text("two"))),
        *(spoken(ASSISTANT, thought("I should add"), call("callBBBBB")), spoken(TOOL, returned("callBBBBB"))),
    ]
    return pb.Prompt(
        messages=kept(*messages), tools=[pb.ToolDefinition(name="add", description="Adds.", parameters="{}")]
    )


def thoughts(body: dict) -> list[str | None]:
    return [message.get("reasoning_content") for message in body["messages"] if message.get("tool_calls")]


def test_only_the_turn_that_goes_on_is_told() -> None:
    assert thoughts(sent(openai_wire.request("m", prompt(), Fragments(), official=False, thoughts=True))) == [
        None,
        "I should add",
    ]
    assert thoughts(sent(openai_wire.request("m", prompt(), Fragments(), official=True))) == [None, None]


def test_thoughts_that_another_vendor_signed_stay() -> None:
    signed = pb.Prompt(
        messages=kept(spoken(USER, text("x")), spoken(ASSISTANT, thought("theirs", "sig"), call("callAAAAA")))
    )
    assert thoughts(sent(openai_wire.request("m", signed, Fragments(), official=False, thoughts=True))) == [None]


async def test_a_compatible_server_gets_them_back_through_the_sdk(subject: Subject) -> None:
    await subject.provider.generate(Call("m", prompt()))
    told = subject.vendor.requests[-1].body
    if subject.kind in COMPATIBLE:
        assert thoughts(told) == [None, "I should add"]
    else:
        assert "reasoning_content" not in str(told)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_refuses_them_is_asked_without_from_then_on(subject: Subject, stream: bool) -> None:
    if subject.kind != "vllm":
        pytest.skip("one server of the wire is enough")
    error = {"type": "invalid_request_error", "message": "property 'reasoning_content' is unsupported"}
    refusal = Fault(status=400, body={"error": error})
    subject.vendor.respond = lambda body: refusal if "reasoning_content" in str(body) else Say("ok")
    for _ in range(2):
        if stream:
            assert [event async for event in subject.provider.stream(Call("m", prompt()))]
        else:
            await subject.provider.generate(Call("m", prompt()))

    assert ["reasoning_content" in str(asked.body) for asked in subject.vendor.requests] == [True, False, False]
