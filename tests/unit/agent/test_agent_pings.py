"""Pings among the events of a stream."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from letta.agent.v1 import run_pb2
from letta_agent.domain.journal.feed import Event
from letta_agent.servicers.streams import with_pings
from letta_common.clock import SystemClock
from letta_common.errors import LLMUnavailable
from letta_messages.rendering import type_of

NEVER = 3600.0


def event(position: int) -> Event:
    return Event(seq_id=position, stop_reason=run_pb2.StopReasonMessage())


async def tokens(count: int, error: Exception | None = None):
    for position in range(1, count + 1):
        await asyncio.sleep(0)
        yield event(position)
    if error is not None:
        raise error


def pinged(events, *, at_once: bool = False, silence: float = NEVER):
    return with_pings(events, "run-1", SystemClock(), at_once=at_once, silence=silence)


async def test_a_stream_takes_one_task_and_one_timer_however_many_tokens_it_has(monkeypatch):
    loop, made = asyncio.get_running_loop(), {"tasks": 0, "timers": 0}
    later, task = loop.call_later, loop.create_task

    def counted(name, make):
        def call(*args, **more):
            made[name] += 1
            return make(*args, **more)

        return call

    monkeypatch.setattr(loop, "call_later", counted("timers", later))
    monkeypatch.setattr(loop, "create_task", counted("tasks", task))
    assert [e.seq_id async for e in pinged(tokens(200))] == list(range(1, 201))
    assert made == {"tasks": 1, "timers": 1}


async def test_silence_is_filled_with_pings_at_the_position_of_the_last_event():
    gate = asyncio.Event()

    async def slow():
        yield event(1)
        await gate.wait()
        yield event(2)

    async with asyncio.timeout(10), aclosing(pinged(slow(), silence=0.001)) as events:
        assert (await anext(events)).seq_id == 1
        for _ in range(3):
            silent = await anext(events)
            assert (type_of(silent.message), silent.seq_id) == ("ping", 1)
        gate.set()
        rest = [e async for e in events]
    assert [e.seq_id for e in rest if not e.HasField("message")] == [2]


async def test_what_a_stream_fails_with_comes_behind_its_events():
    events = pinged(tokens(40, LLMUnavailable("down")), at_once=True)
    assert [(await anext(events)).seq_id for _ in range(41)] == [0, *range(1, 41)]
    with pytest.raises(LLMUnavailable):
        await anext(events)


async def test_a_listener_that_leaves_closes_what_it_read_from():
    closed = asyncio.Event()

    async def endless():
        try:
            position = 0
            while True:
                position += 1
                yield event(position)
        finally:
            closed.set()

    async with aclosing(pinged(endless())) as events:
        assert (await anext(events)).seq_id == 1
    assert closed.is_set()
