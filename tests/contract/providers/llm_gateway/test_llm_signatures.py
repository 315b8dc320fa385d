"""Google signs texts too: a signature goes back with its text within the turn that goes on, and to no other vendor."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from letta.common.v1 import message_pb2 as m
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation
from letta_common.errors import LLMBadRequest
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.providers.parts import text_part
from tests.contract.providers.llm_gateway import hostile_answers as hostile
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import prompt, returned, tool, user
from tests.contract.providers.llm_gateway.test_llm_hostile import answered
from tests.fakes.wire import Fault

SIGNED = base64.b64encode(b"\xff\xfe of a text").decode()
OF_ADDRESSES = SIGNED.replace("+", "-").replace("/", "_")
OTHER = base64.b64encode(b"of a call").decode()
both = pytest.mark.parametrize("stream", [False, True])
google = pytest.mark.parametrize("subject", ["google_ai", "google_vertex"], indirect=True)


def chunk(*parts: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": list(parts)}, **({"finishReason": finish} if finish else {})}
    return {"candidates": [candidate], "responseId": "r"}


async def said(subject: Subject, *parts: dict[str, Any], stream: bool) -> Generation:
    """Return what the model says in these parts, each a chunk of its own where it streams."""
    chunks = [*map(chunk, parts), chunk(finish="STOP")] if stream else [chunk(*parts, finish="STOP")]
    pieces = [hostile.framed("google_ai", "", each) if stream else json.dumps(each).encode() for each in chunks]
    return await answered(subject, stream=stream, step=hostile.raw("google_ai", pieces, stream=stream))


def text(words: str, signature: str | None) -> m.ContentPart:
    return m.ContentPart(text=m.TextContent(text=words, signature=signature))


def called(signature: str | None = None) -> m.ContentPart:
    return m.ContentPart(tool_call=m.ToolCallContent(id="callAAAAA", name="first", input="{}", signature=signature))


def assistant(*parts: m.ContentPart) -> m.Message:
    return m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=parts)


CALL = {"functionCall": {"name": "first", "args": {}}, "thoughtSignature": OTHER}
WAYS: dict[str, tuple[dict[str, Any], ...]] = {
    "with the text": ({"text": "I look.", "thoughtSignature": SIGNED}, CALL),
    "in the letters of addresses": ({"text": "I look.", "thoughtSignature": OF_ADDRESSES}, CALL),
    "with its last piece": ({"text": "I "}, {"text": "look.", "thoughtSignature": SIGNED}, CALL),
    "behind the text": ({"text": "I look."}, {"text": "", "thoughtSignature": SIGNED}, CALL),
    "behind it without a text": ({"text": "I look."}, {"thoughtSignature": SIGNED}, CALL),
    "after thoughts": ({"text": "Hm.", "thought": True}, {"text": "I look.", "thoughtSignature": SIGNED}, CALL),
    "on thoughts, which are not told again": (
        *({"text": "Hm.", "thought": True, "thoughtSignature": OTHER},),
        *({"text": "I look.", "thoughtSignature": SIGNED}, CALL),
    ),
}


@google
@both
@pytest.mark.parametrize("way", WAYS)
async def test_the_signature_of_a_text_is_kept_with_it(subject: Subject, way: str, stream: bool) -> None:
    got = await said(subject, *WAYS[way], stream=stream)

    thoughts = [part for part in got.parts if part.HasField("reasoning")]
    words, call = got.parts[len(thoughts) :]
    assert words == text_part("I look.", f"google:{SIGNED}")
    assert call.HasField("tool_call")
    assert call.tool_call.signature == f"google:{OTHER}"


@google
@both
async def test_a_signature_without_a_text_is_no_part(subject: Subject, stream: bool) -> None:
    got = await said(subject, CALL, {"text": "", "thoughtSignature": SIGNED}, stream=stream)

    assert [part.WhichOneof("part") for part in got.parts] == ["tool_call"]
    assert got.parts[0].tool_call.signature == f"google:{OTHER}"


SIGNATURES = {
    "google_ai": (f"google:{SIGNED}", SIGNED),
    "of another vendor": (f"openai:{SIGNED}", None),
    "bare": (SIGNED, None),
    "none": (None, None),
    "no base64": ("google:?", None),
}


@pytest.mark.parametrize("whose", SIGNATURES)
async def test_it_goes_back_within_the_turn_that_goes_on(subject: Subject, whose: str) -> None:
    given, told = SIGNATURES[whose]
    old = (user("one"), assistant(text("I looked.", given), called()), returned("x", "callAAAAA"))
    now = (user("two"), assistant(text("I look.", given), called()), returned("y", "callAAAAA"))

    await subject.provider.generate(Call("m", prompt(*old, *now, tools=(tool("first"),))))

    body = json.dumps(subject.vendor.requests[-1].body)
    if subject.kind != "google_ai":
        assert SIGNED not in body
        return
    parts = [part for content in json.loads(body)["contents"] for part in content["parts"] if "text" in part]
    back = {part["text"]: _standard(part.get("thoughtSignature")) for part in parts}
    assert back == {"one": None, "I looked.": None, "two": None, "I look.": told}


def _standard(signature: str | None) -> str | None:
    return signature and signature.replace("-", "+").replace("_", "/")


STOPS = {
    "a prompt": (
        {"promptFeedback": {"blockReason": "PROHIBITED_CONTENT", "blockReasonMessage": "Not this subject."}},
        "PROHIBITED_CONTENT: Not this subject.",
    ),
    "a prompt, in a word": ({"promptFeedback": {"blockReason": "BLOCKLIST"}}, "BLOCKLIST"),
    "an answer": (
        {"candidates": [{"finishReason": "SAFETY", "finishMessage": "It is <b>dangerous</b>."}]},
        "SAFETY: It is dangerous .",
    ),
    "an answer, in a word": ({"candidates": [{"finishReason": "RECITATION"}]}, "RECITATION"),
    "an answer that holds a key": (
        {"candidates": [{"finishReason": "SPII", "finishMessage": "You said sk-abcdefghijk"}]},
        "SPII: You said [redacted]",
    ),
    "anything": ({"candidates": [{"finishReason": "SAFETY", "finishMessage": {"x": [7]}}]}, "SAFETY"),
}


@google
@both
@pytest.mark.parametrize("what", STOPS)
async def test_a_stop_says_why_in_the_words_of_the_vendor(subject: Subject, what: str, stream: bool) -> None:
    body, why = STOPS[what]
    pieces = [hostile.framed("google_ai", "", body)] if stream else [json.dumps(body).encode()]

    got = await answered(subject, stream=stream, step=hostile.raw("google_ai", pieces, stream=stream))

    assert (got.parts, got.finish_reason, got.filter_reason) == ([], FinishReason.FINISH_REASON_CONTENT_FILTER, why)


@google
@both
@pytest.mark.parametrize("wrapped", [False, True])
async def test_a_refusal_is_told_whatever_its_form(subject: Subject, wrapped: bool, stream: bool) -> None:
    details = [{"fieldViolations": [{"field": "contents", "description": "empty"}]}]
    error = {"error": {"code": 400, "message": "No contents.", "status": "INVALID_ARGUMENT", "details": details}}

    with pytest.raises(LLMBadRequest, match=r"INVALID_ARGUMENT: No contents\.$"):
        await answered(subject, stream=stream, step=Fault(status=400, body=[error] if wrapped else error))
