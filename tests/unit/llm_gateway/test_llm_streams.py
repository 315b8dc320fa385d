"""Streams: assembled, limited in time, coalesced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, Generation, Heartbeat, PartDelta, PartEnded, PartStarted
from letta_common.errors import LLMInvalidResponse, LLMTimeout, LLMUnavailable
from letta_llm_gateway.domain.answers import Completed, Event, Signed
from letta_llm_gateway.domain.generation.streams import (
    Assembler,
    PhaseLimits,
    Pump,
    answer_within_limits,
    within_limits,
)
from letta_llm_gateway.providers.parts import answer_of, call_part, reasoning_part, text_part
from letta_llm_gateway.providers.wires.arguments import finished

DONE = Completed(answer_of(FinishReason.FINISH_REASON_STOP, TokenUsage(prompt_tokens=1, completion_tokens=2), "id"))


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
        PartStarted(index=0, part=reasoning_part()),
        PartDelta(index=0, delta="hm"),
        Signed(0, "sig"),
        PartStarted(index=1, part=call_part("a", "x")),
        PartStarted(index=2, part=call_part("b", "y")),
        PartDelta(index=2, delta='{"q":'),
        PartDelta(index=1, delta="{"),
        PartDelta(index=2, delta="1}"),
        PartDelta(index=1, delta="}"),
        DONE,
    ):
        assembler.feed(event)

    answer = assembler.answer(finished)

    assert answer.parts == [reasoning_part("hm", "sig"), call_part("a", "x", "{}"), call_part("b", "y", '{"q":1}')]
    assert (answer.usage, answer.response_id) == (TokenUsage(prompt_tokens=1, completion_tokens=2), "id")


def test_a_stream_without_end_is_no_answer():
    assembler = Assembler()
    assert not assembler.begun
    assembler.feed(PartStarted(index=0, part=text_part()))
    assembler.feed(PartDelta(index=0, delta="half"))

    assert assembler.begun
    assert assembler.parts() == [text_part("half")]
    with pytest.raises(LLMInvalidResponse):
        assembler.answer(finished)


async def test_deltas_that_come_at_once_are_joined():
    got = await said(
        events(
            PartStarted(index=0, part=text_part()),
            PartDelta(index=0, delta="a"),
            PartDelta(index=0, delta="b"),
            PartEnded(index=0),
            PartStarted(index=1, part=text_part()),
            PartDelta(index=1, delta="c"),
            DONE,
        )
    )

    assert got == [
        PartStarted(index=0, part=text_part()),
        PartDelta(index=0, delta="ab"),
        PartEnded(index=0),
        PartStarted(index=1, part=text_part()),
        PartDelta(index=1, delta="c"),
    ]


async def test_the_first_delta_is_said_at_once_and_the_next_after_the_window():
    release = asyncio.Event()

    async def source() -> AsyncGenerator[Event, None]:
        yield PartDelta(index=0, delta="first")
        await release.wait()
        for letter in "abc":
            yield PartDelta(index=0, delta=letter)
        yield DONE

    spoken = Pump(window=3600).run(source())
    assert await anext(spoken) == PartDelta(index=0, delta="first")
    release.set()
    assert [event async for event in spoken] == [PartDelta(index=0, delta="abc")]


async def test_silence_beats():
    got = await said(events(0.05, PartDelta(index=0, delta="a"), DONE), heartbeat=0.02)

    assert got[0] == Heartbeat()
    assert got[-1] == PartDelta(index=0, delta="a")


async def test_what_came_before_a_failure_is_said_first():
    spoken = Pump().run(events(PartDelta(index=0, delta="a"), LLMUnavailable("gone")))

    assert await anext(spoken) == PartDelta(index=0, delta="a")
    with pytest.raises(LLMUnavailable):
        await anext(spoken)


async def test_closing_the_pump_closes_the_source():
    closed = asyncio.Event()

    async def source() -> AsyncGenerator[Event, None]:
        try:
            yield PartDelta(index=0, delta="a")
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
        ((PartStarted(index=0, part=text_part()), 30.0), PhaseLimits(between=0.02), "silent", "between_tokens"),
        ((30.0,), PhaseLimits(total=0.02), "finish", "total"),
        ((PartStarted(index=0, part=text_part()), 30.0), PhaseLimits(total=0.02), "finish", "total"),
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
            yield PartDelta(index=0, delta="and ")
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
        await answer_within_limits(asyncio.sleep(30, Generation()), PhaseLimits(), ends=over)


async def test_an_answer_at_once_has_the_limit_of_the_first_word():
    limits = PhaseLimits(first=0.02)

    with pytest.raises(LLMTimeout, match=r"within 0\.02 s") as caught:
        await answer_within_limits(asyncio.sleep(30, Generation()), limits, ends=limits.ends())
    assert caught.value.metadata["phase"] == "first_token"
    assert await answer_within_limits(asyncio.sleep(0, Generation()), limits, ends=limits.ends()) == Generation()


async def test_a_slow_reader_does_not_use_up_the_limits():
    async with aclosing(
        within_limits(
            events(PartDelta(index=0, delta="a"), PartDelta(index=0, delta="b")), PhaseLimits(first=1, between=0.05)
        )
    ) as source:
        async for _ in source:
            await asyncio.sleep(0.1)


async def test_a_stream_of_many_words_sets_no_timer_for_each(monkeypatch):
    loop, timers = asyncio.get_running_loop(), []
    set_timer = loop.call_at
    monkeypatch.setattr(loop, "call_at", lambda *args, **more: timers.append(args[0]) or set_timer(*args, **more))

    heard = [event async for event in within_limits(events(*[PartDelta(index=0, delta="a")] * 1000), PhaseLimits())]

    assert len(heard) == 1000
    assert len(timers) <= 2, "one for the first word, one for the silence between two"


async def test_a_silence_after_a_slow_reader_has_its_whole_limit_and_then_ends():
    source = within_limits(
        events(PartDelta(index=0, delta="a"), PartDelta(index=0, delta="b"), 30.0), PhaseLimits(first=30, between=0.05)
    )
    async with aclosing(source) as heard:
        assert await anext(heard) == PartDelta(index=0, delta="a")
        await asyncio.sleep(0.15)  # the timer fires while nothing is waited for
        assert await anext(heard) == PartDelta(index=0, delta="b")
        with pytest.raises(LLMTimeout, match="fell silent"):
            await anext(heard)
