"""Every wire: however the bytes of a stream are cut, it says the same; whatever else comes, the error is typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from letta.llm.v1.generation_service_pb2 import Generation, PartStarted
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Delta, Event
from letta_llm_gateway.domain.generation.streams import Assembler
from letta_llm_gateway.providers.errors import transport_errors
from letta_llm_gateway.providers.fitting.cleaning import Cleaner
from letta_llm_gateway.providers.vendors import anthropic as anthropic_wire
from letta_llm_gateway.providers.vendors import bedrock as bedrock_wire
from letta_llm_gateway.providers.vendors import google as google_wire
from letta_llm_gateway.providers.vendors import openai as responses_wire
from letta_llm_gateway.providers.wires import chat as openai_wire
from letta_llm_gateway.providers.wires import sse
from letta_llm_gateway.providers.wires.arguments import finished
from tests.fakes import anthropic_server, bedrock_server, google_server, openai_responses, openai_server
from tests.fakes.wire import Say

BODY = {"model": "m", "include": ["reasoning.encrypted_content"]}


@dataclass(frozen=True)
class Wire:
    """How a vendor's answers are made and read."""

    whole: Callable[[Say], Any]
    frames: Callable[[Say], list[bytes]]
    answer: Callable[[Any], Generation]
    reader: Callable[[], Any]
    interleaves: bool = False


WIRES = {
    "openai": Wire(
        lambda said: openai_server.whole(said, BODY),
        openai_server.frames_of,
        lambda body: openai_wire.answer(body, vendor="v"),
        lambda: openai_wire.StreamReader(vendor="v", model="m"),
        interleaves=True,
    ),
    "responses": Wire(
        lambda said: openai_responses.whole(said, BODY),
        lambda said: openai_responses.frames_of(said, BODY),
        lambda body: responses_wire.answer(body, vendor="v"),
        lambda: responses_wire.StreamReader(vendor="v", model="m"),
        interleaves=True,
    ),
    "anthropic": Wire(
        anthropic_server.whole,
        anthropic_server.frames_of,
        lambda body: anthropic_wire.answer(body, vendor="v"),
        lambda: anthropic_wire.StreamReader(vendor="v", model="m"),
    ),
    "google": Wire(
        google_server.whole,
        google_server.frames_of,
        lambda body: google_wire.answer(body, vendor="v"),
        lambda: google_wire.StreamReader(vendor="v", model="m"),
    ),
    "bedrock": Wire(
        bedrock_server.whole,
        bedrock_server.frames_of,
        lambda body: bedrock_wire.answer(body, vendor="v"),
        lambda: bedrock_wire.StreamReader(vendor="v"),
        interleaves=True,
    ),
}
every_wire = pytest.mark.parametrize("name", WIRES)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
WORDS = st.lists(
    st.sampled_from(["<think>", "</think>", " ", "\n", "\r\n\r\n", "data: ", "Hi", "ü", "🙂", '{"', "[DONE]"])
    | st.text(max_size=6),
    max_size=8,
).map("".join)
SAYS = st.builds(
    Say,
    text=WORDS.map(lambda text: f"A{text}Z"),
    reasoning=WORDS.map(lambda text: f"R{text}" if text else ""),
    signature=st.just("c2ln"),
    calls=st.lists(
        st.tuples(st.sampled_from(["look", "memory_insert"]), st.dictionaries(st.text(max_size=5), JSON, max_size=3)),
        max_size=3,
    ),
    finish=st.sampled_from([None, "length", "content_filter"]),
    piece=st.integers(1, 9),
    interleaved=st.booleans(),
)
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=20)


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at, turn = at + size, turn + 1


def read(name: str, pieces: Iterator[bytes]) -> Generation:
    """Read a stream as its provider does."""
    reader, assembler, cleaner = WIRES[name].reader(), Assembler(), Cleaner("v")
    for told in (_framed if name == "bedrock" else _sent)(reader, pieces):
        for event in cleaner.event(told):
            assembler.feed(event)
    for event in reader.end():
        assembler.feed(event)
    return assembler.answer(finished)


def _framed(reader: Any, pieces: Iterator[bytes]) -> Iterator[Event]:
    buffer = EventStreamBuffer()
    for piece in pieces:
        buffer.add_data(piece)
        for message in buffer:
            yield from reader.feed(message.headers[":event-type"], json.loads(message.payload))


def _sent(reader: Any, pieces: Iterator[bytes]) -> Iterator[Event]:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def texts() -> list[bytes]:
        return [text async for text in sse.events(chunks(), vendor="v")]

    for text in asyncio.run(texts()):
        if text == b"[DONE]":
            reader.done()
        else:
            yield from reader.feed(json.loads(text))


def told(answer: Generation) -> Generation:
    """Return an answer without what differs by chance: ids that the vendor did not give, spaces within JSON."""
    for part in answer.parts:
        if part.HasField("tool_call"):
            part.tool_call.id, part.tool_call.input = "", _plain(part.tool_call.input)
    return answer


def kinds(answer: Generation) -> list[str | None]:
    return [part.WhichOneof("part") for part in answer.parts]


def _plain(arguments: str) -> str:
    try:
        return json.dumps(json.loads(arguments))
    except ValueError:  # of a call that was cut, which lacks its last brace
        return json.dumps(json.loads(f"{arguments}}}"))[:-1]


@every_wire
@settings(max_examples=30, deadline=None)
@given(said=SAYS, sizes=CUTS)
def test_a_stream_says_the_same_however_it_is_cut(name, said, sizes):
    wire = WIRES[name]
    said = replace(said, interleaved=said.interleaved and wire.interleaves)
    data = b"".join(wire.frames(said))

    streamed = read(name, cut(data, sizes))

    ids = [part.tool_call.id for part in streamed.parts if part.HasField("tool_call")]
    assert len(set(ids)) == len(ids)
    assert told(streamed) == told(wire.answer(wire.whole(said)))


@every_wire
@settings(max_examples=20, deadline=None)
@given(said=SAYS, sizes=CUTS, at=st.integers(0, 10_000))
def test_a_stream_that_breaks_off_is_no_answer_or_the_whole_one(name, said, sizes, at):
    wire = WIRES[name]
    data = b"".join(wire.frames(said))

    try:
        got = read(name, cut(data[: at % len(data)], sizes))
    except (AppError, ValueError):  # half a line of JSON is refused by the provider's own reader
        return
    assert kinds(got) == kinds(wire.answer(wire.whole(said)))


KEYS = """
choices delta message content tool_calls function name arguments index id type error finish_reason usage prompt_tokens
content_block text thinking input stop_reason candidates parts functionCall args output item output_index response
status contentBlockIndex start toolUse reasoningContent signature usageMetadata
"""
FIELDS = st.sampled_from(KEYS.split())
NAMES = """
content_block_start content_block_delta content_block_stop message_start message_delta error tool_use text_delta
response.output_item.added response.output_item.done response.completed response.function_call_arguments.delta
function_call message reasoning input_json_delta response.failed
"""
TYPES = st.sampled_from(NAMES.split())
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 5) | st.floats(allow_nan=False) | st.text(max_size=5) | TYPES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(FIELDS, inner, max_size=5)
        | st.builds(lambda kind, rest: {**rest, "type": kind}, TYPES, st.dictionaries(FIELDS, inner))
    ),
    max_leaves=20,
)
KINDS = st.sampled_from(["contentBlockStart", "contentBlockDelta", "contentBlockStop", "messageStop", "metadata", "?"])


@settings(max_examples=60, deadline=None)
@given(junk=st.lists(JUNK, max_size=4), kind=KINDS)
def test_what_no_vendor_would_say_is_refused_by_type_or_read(junk, kind):
    for name in WIRES:  # an example is made once: making it costs more than reading it
        read_junk(name, junk, kind)


def read_junk(name, junk, kind):
    reader, assembler, cleaner = WIRES[name].reader(), Assembler(), Cleaner("v")
    with suppress(AppError), transport_errors("v"):
        for item in junk:
            for event in reader.feed(kind, item) if name == "bedrock" else reader.feed(item):
                assert isinstance(event.index, int) if isinstance(event, (PartStarted, Delta)) else True
                for clean in cleaner.event(event):
                    assembler.feed(clean)
        for event in reader.end():
            assembler.feed(event)
        assembler.answer(finished)


@settings(max_examples=60, deadline=None)
@given(body=JUNK)
def test_whole_answers_that_no_vendor_would_give_are_refused_by_type_or_read(body):
    for wire in WIRES.values():
        with suppress(AppError):
            with transport_errors("v"):
                answer = wire.answer(body)
            assert all(
                json.loads(part.tool_call.input) is not None for part in answer.parts if part.HasField("tool_call")
            )
