"""Answers of vendors are input like any other: read as far as they can be, else refused by type; never a crash."""

from __future__ import annotations

import json
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

import pytest
from structlog.testing import capture_logs

from letta.common.v1.message_pb2 import ContentPart
from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.errors import LLMInvalidResponse, LLMUnavailable
from letta_llm_gateway.domain.answers import Call, said_in
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.parts import text_part
from letta_llm_gateway.providers.wires.arguments import finished
from tests.contract.providers.llm_gateway import hostile_answers as hostile
from tests.contract.providers.llm_gateway.conftest import Subject
from tests.contract.providers.llm_gateway.llm_prompts import prompt, tool, user
from tests.fakes.wire import Fault, Say

HALF = "\ud83d"
ASKED = prompt(user("hi"), tools=(tool("first"),))
SAID = Say("Hello there", calls=[("first", {"label": "x"})], reasoning="Hm.", signature="c2ln")
both = pytest.mark.parametrize("stream", [False, True])


async def answered(subject: Subject, *, stream: bool, step: Fault) -> Generation:
    subject.vendor.say(step)
    if not stream:
        return await subject.provider.generate(Call("m", ASKED))
    assembler = Assembler()
    async with aclosing(subject.provider.stream(Call("m", ASKED))) as events:
        async for event in events:
            assembler.feed(event)
    return assembler.answer(finished)


def texts_of(part: ContentPart) -> list[str]:
    call = part.tool_call
    return [said_in(part), call.id, call.name, call.signature, part.reasoning.signature, part.text.signature]


def is_sound(got: Generation) -> None:
    """Every text can be sent on and stored; every count can be added up."""
    for text in (got.response_id, *(text for part in got.parts for text in texts_of(part))):
        assert isinstance(text, str)
        text.encode()
    for call in (part.tool_call for part in got.parts if part.HasField("tool_call")):
        assert call.name
        assert call.id
    if got.HasField("usage"):
        counts = [count for _, count in got.usage.ListFields()]
        assert all(type(count) is int and 0 <= count <= 10_000_000 for count in counts)


@both
@pytest.mark.parametrize(
    "count", [10**30, -(10**30), -5, 1.5, 1e308, "7", "many", None, True, [], {}, hostile.DROP], ids=repr
)
async def test_counts_that_cannot_be_never_cost_the_answer(subject: Subject, count: Any, stream: bool) -> None:
    def change(key: str, value: Any) -> Any:
        return count if key in hostile.USAGE else value

    got = await answered(subject, stream=stream, step=hostile.answer(subject.kind, SAID, change, stream=stream))

    is_sound(got)
    assert text_part("Hello there") in got.parts


@both
@pytest.mark.parametrize("usage", [None, [], "x", 7, hostile.DROP], ids=repr)
async def test_usage_of_another_form_never_costs_the_answer(subject: Subject, usage: Any, stream: bool) -> None:
    def change(key: str, value: Any) -> Any:
        return usage if key in {"usage", "usageMetadata"} else value

    got = await answered(subject, stream=stream, step=hostile.answer(subject.kind, SAID, change, stream=stream))

    is_sound(got)
    assert text_part("Hello there") in got.parts


@both
async def test_halves_of_characters_become_whole_ones(subject: Subject, stream: bool) -> None:
    said = Say(f"a{HALF}b", calls=[(f"fi{HALF}rst", {"la\ude00bel": HALF})], reasoning=f"{HALF}Hm", signature="c2ln")

    def change(key: str, value: Any) -> Any:
        ids = {"id", "item_id", "call_id", "toolUseId", "responseId"}
        return f"{value}{HALF}" if key in ids and isinstance(value, str) else value

    got = await answered(subject, stream=stream, step=hostile.answer(subject.kind, said, change, stream=stream))

    is_sound(got)
    assert text_part("a\ufffdb") in got.parts
    [call] = [part.tool_call for part in got.parts if part.HasField("tool_call")]
    assert call.name == "fi\ufffdrst"
    assert json.loads(call.input) == {"la\ufffdbel": "\ufffd"}


@both
async def test_every_field_may_hold_anything(subject: Subject, stream: bool) -> None:
    """What no vendor sends, in each place of its answer: an answer that is sound, or the typed refusal."""
    if subject.kind in {"azure", "vllm"}:
        pytest.skip("the wire of openai, read by the same code")
    events = [body for _, body in hostile.events(subject.kind, SAID)]
    keys = hostile.keys_of(events if stream else hostile.whole(subject.kind, SAID))
    with capture_logs() as logs:
        for key in sorted(keys):
            for junk in (hostile.DROP, None, [], {}, "x", 10**30, [None], [[]], {"type": 7}, True):
                change = partial(_put, key, junk)
                step = hostile.answer(subject.kind, SAID, change, stream=stream)
                with suppress(LLMInvalidResponse, LLMUnavailable):
                    is_sound(await answered(subject, stream=stream, step=step))
    assert not [entry for entry in logs if entry["log_level"] in {"error", "critical"}]


def _put(key: str, junk: Any, name: str, value: Any) -> Any:
    return junk if name == key else value


PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Welcome to the hotel</body></html>"


@both
@pytest.mark.parametrize(
    "content_type", ["text/html; charset=utf-8", "application/json", "text/plain", "image/png", ""]
)
async def test_a_page_in_place_of_an_answer_is_typed(subject: Subject, content_type: str, stream: bool) -> None:
    with pytest.raises(LLMInvalidResponse):
        await answered(
            subject, stream=stream, step=hostile.raw(subject.kind, [PAGE], stream=stream, content_type=content_type)
        )


@pytest.mark.parametrize("content_type", ["text/html", "text/plain; charset=latin-1", "application/octet-stream"])
async def test_an_answer_of_another_content_type_is_read(subject: Subject, content_type: str) -> None:
    body = json.dumps(hostile.whole(subject.kind, Say("Hellö"))).encode()
    step = hostile.raw(subject.kind, [body], stream=False, content_type=content_type)

    got = await answered(subject, stream=False, step=step)

    assert got.parts == [text_part("Hellö")]


async def test_an_answer_that_is_cut_anywhere_is_typed(subject: Subject) -> None:
    body = json.dumps(hostile.whole(subject.kind, SAID)).encode()
    for at in range(0, len(body), 41):
        with pytest.raises(LLMInvalidResponse):
            await answered(subject, stream=False, step=hostile.raw(subject.kind, [body[:at]], stream=False))


async def test_a_stream_that_is_cut_anywhere_is_typed_or_whole(subject: Subject) -> None:
    """An answer counts as whole only when the model said that it stopped."""
    pieces = [hostile.framed(subject.kind, *event) for event in hostile.events(subject.kind, Say("Hello there"))]
    data = b"".join(pieces)
    for at in range(0, len(data), 41):
        try:
            got = await answered(subject, stream=True, step=hostile.raw(subject.kind, [data[:at]], stream=True))
        except (LLMInvalidResponse, LLMUnavailable):
            continue
        assert got.parts == [text_part("Hello there")]


async def test_a_stream_that_comes_byte_by_byte_is_read_as_one_that_comes_whole(subject: Subject) -> None:
    data = b"".join(hostile.framed(subject.kind, *event) for event in hostile.events(subject.kind, SAID))
    read = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        got = await answered(subject, stream=True, step=hostile.raw(subject.kind, pieces, stream=True))
        for part in got.parts:
            if part.HasField("tool_call"):
                part.tool_call.id = ""  # the gateway gives each call an id of its own
        read.append(got)

    assert read[0] == read[1]
    assert len(read[0].parts) >= 2


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"7", b'"text"', b"{}", b"\xff\xfe\x00", b"[" * 50_000])
async def test_what_is_no_answer_is_typed(subject: Subject, body: bytes) -> None:
    for stream in (False, True):
        with pytest.raises(LLMInvalidResponse):
            await answered(subject, stream=stream, step=hostile.raw(subject.kind, [body], stream=stream))
    for event in (body, b"data: " + body + b"\n\n"):
        with pytest.raises(LLMInvalidResponse):
            await answered(subject, stream=True, step=hostile.raw(subject.kind, [event], stream=True))
