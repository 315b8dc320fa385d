"""Streams: assembled, limited in time, coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from letta_common.errors import LLMInvalidResponse, LLMTimeout, LLMUnavailable
from letta_llm_gateway.domain.answers import (
    Completed,
    Delta,
    Ended,
    Event,
    FinishReason,
    Heartbeat,
    Reasoning,
    Signed,
    Started,
    Text,
    ToolCall,
    Usage,
)
from letta_llm_gateway.domain.streams import Assembler, Limits, Pump, within_limits

DONE = Completed(FinishReason.STOP, Usage(1, 2), "id")


async def events(*items: Event | float | Exception) -> AsyncGenerator[Event, None]:
    for item in items:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, float):
            await asyncio.sleep(item)
        else:
            yield item


async def said(source: AsyncGenerator[Event, None], **options: float) -> list[object]:
    async with aclosing(Pump(**options).run(source)) as spoken:
        return [event async for event in spoken]


def test_parts_are_put_together_in_the_order_they_began():
    assembler = Assembler()
    for event in (
        Started(0, Reasoning()),
        Delta(0, "hm"),
        Signed(0, "sig"),
        Started(1, ToolCall("a", "x")),
        Started(2, ToolCall("b", "y")),
        Delta(2, '{"q":'),
        Delta(1, "{"),
        Delta(2, "1}"),
        Delta(1, "}"),
        DONE,
    ):
        assembler.feed(event)

    answer = assembler.answer(lambda raw, name: raw)

    assert answer.parts == (Reasoning("hm", "sig"), ToolCall("a", "x", "{}"), ToolCall("b", "y", '{"q":1}'))
    assert (answer.usage, answer.response_id) == (Usage(1, 2), "id")


def test_a_stream_without_end_is_no_answer():
    assembler = Assembler()
    assert not assembler.begun
    assembler.feed(Started(0, Text()))
    assembler.feed(Delta(0, "half"))

    assert assembler.begun
    assert assembler.parts() == [Text("half")]
    with pytest.raises(LLMInvalidResponse):
        assembler.answer(lambda raw, name: raw)


async def test_deltas_that_come_at_once_are_joined():
    got = await said(
        events(Started(0, Text()), Delta(0, "a"), Delta(0, "b"), Ended(0), Started(1, Text()), Delta(1, "c"), DONE)
    )

    assert got == [Started(0, Text()), Delta(0, "ab"), Ended(0), Started(1, Text()), Delta(1, "c")]


async def test_the_first_delta_is_said_at_once_and_the_next_after_the_window():
    release = asyncio.Event()

    async def source() -> AsyncGenerator[Event, None]:
        yield Delta(0, "first")
        await release.wait()
        for letter in "abc":
            yield Delta(0, letter)
        yield DONE

    spoken = Pump(window=3600).run(source())
    assert await anext(spoken) == Delta(0, "first")
    release.set()
    assert [event async for event in spoken] == [Delta(0, "abc")]


async def test_silence_beats():
    got = await said(events(0.05, Delta(0, "a"), DONE), heartbeat=0.02)

    assert got[0] == Heartbeat()
    assert got[-1] == Delta(0, "a")


async def test_what_came_before_a_failure_is_said_first():
    spoken = Pump().run(events(Delta(0, "a"), LLMUnavailable("gone")))

    assert await anext(spoken) == Delta(0, "a")
    with pytest.raises(LLMUnavailable):
        await anext(spoken)


async def test_closing_the_pump_closes_the_source():
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[Event, None]:
        try:
            yield Delta(0, "a")
            await asyncio.Event().wait()
        finally:
            closed.set()

    spoken = Pump().run(source())
    await anext(spoken)
    await spoken.aclose()
    assert closed.is_set()


@pytest.mark.parametrize(
    ("items", "limits", "words"),
    [
        ((30.0,), Limits(first=0.02), "begin"),
        ((Started(0, Text()), 30.0), Limits(between=0.02), "silent"),
    ],
)
async def test_phases_have_limits(items, limits, words):
    with pytest.raises(LLMTimeout, match=words):
        async for _ in within_limits(events(*items), limits):
            pass


async def test_a_slow_reader_does_not_use_up_the_limits():
    async with aclosing(within_limits(events(Delta(0, "a"), Delta(0, "b")), Limits(first=1, between=0.05))) as source:
        async for _ in source:
            await asyncio.sleep(0.1)
