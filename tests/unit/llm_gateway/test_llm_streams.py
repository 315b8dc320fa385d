"""Streams: assembled, limited in time, coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from letta_common.errors import LLMInvalidResponse, LLMTimeout, LLMUnavailable
from letta_llm_gateway.domain.answers import (
    Answer,
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
from letta_llm_gateway.domain.generation.streams import (
    Assembler,
    PhaseLimits,
    Pump,
    answer_within_limits,
    within_limits,
)
from letta_llm_gateway.providers.wires.arguments import finished

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

    answer = assembler.answer(finished)

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
        assembler.answer(finished)


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
    ("items", "limits", "words", "phase"),
    [
        ((30.0,), PhaseLimits(first=0.02), "begin", "first_token"),
        ((Started(0, Text()), 30.0), PhaseLimits(between=0.02), "silent", "between_tokens"),
        ((30.0,), PhaseLimits(total=0.02), "finish", "total"),
        ((Started(0, Text()), 30.0), PhaseLimits(total=0.02), "finish", "total"),
    ],
)
async def test_phases_have_limits(items, limits, words, phase):
    with pytest.raises(LLMTimeout, match=words) as caught:
        async for _ in within_limits(events(*items), limits):
            pass
    assert caught.value.metadata["phase"] == phase


async def test_a_model_that_never_stops_talking_is_stopped():
    async def chatter() -> AsyncGenerator[Event, None]:
        while True:
            yield Delta(0, "and ")
            await asyncio.sleep(0)

    with pytest.raises(LLMTimeout, match="finish"):
        async for _ in within_limits(chatter(), PhaseLimits(total=0.05)):
            pass


async def test_a_limit_that_passed_in_an_earlier_attempt_ends_the_next_at_once():
    over = asyncio.get_running_loop().time() - 1

    with pytest.raises(LLMTimeout, match="finish"):
        async for _ in within_limits(events(30.0), PhaseLimits(), ends=over):
            pass
    with pytest.raises(LLMTimeout, match="finish"):
        await answer_within_limits(asyncio.sleep(30, Answer(())), PhaseLimits(), ends=over)


async def test_an_answer_at_once_has_the_limit_of_the_first_word():
    limits = PhaseLimits(first=0.02)

    with pytest.raises(LLMTimeout, match=r"within 0\.02 s") as caught:
        await answer_within_limits(asyncio.sleep(30, Answer(())), limits, ends=limits.ends())
    assert caught.value.metadata["phase"] == "first_token"
    assert await answer_within_limits(asyncio.sleep(0, Answer(())), limits, ends=limits.ends()) == Answer(())


async def test_a_slow_reader_does_not_use_up_the_limits():
    async with aclosing(
        within_limits(events(Delta(0, "a"), Delta(0, "b")), PhaseLimits(first=1, between=0.05))
    ) as source:
        async for _ in source:
            await asyncio.sleep(0.1)


async def test_a_stream_of_many_words_sets_no_timer_for_each(monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    set_timer = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **more: timers.append(args[0]) or set_timer(*args, **more))

    heard = [event async for event in within_limits(events(*[Delta(0, "a")] * 1000), PhaseLimits())]

    assert len(heard) == 1000
    assert len(timers) <= 2, "one for the first word, one for the silence between two"


async def test_a_silence_after_a_slow_reader_has_its_whole_limit_and_then_ends():
    source = within_limits(events(Delta(0, "a"), Delta(0, "b"), 30.0), PhaseLimits(first=30, between=0.05))
    async with aclosing(source) as heard:
        assert await anext(heard) == Delta(0, "a")
        await asyncio.sleep(0.15)  # the timer fires while nothing is waited for
        assert await anext(heard) == Delta(0, "b")
        with pytest.raises(LLMTimeout, match="fell silent"):
            await anext(heard)
