"""Streams of runs: order, positions, replay, failures."""

import asyncio
from datetime import UTC, datetime

import pytest

from letta_agent.domain.journal.feed import ping
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import Follow
from letta_common.clock import SystemClock
from letta_common.errors import (
    LLMUnavailable,
)
from letta_messages.rendering import type_of
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.runs import FakeRuns
from tests.fakes.agent.world import AGENT, ANN, SIGNED, STOP, World, send_of

NEVER = 3600.0


class CountedWrites(FakeRuns):
    """The store of a replica; counts the statements that write events, and the events of each."""

    def __init__(self, clock):
        super().__init__(clock)
        self.writes = []

    async def append_events(self, events):
        self.writes.append(len(events))
        await super().append_events(events)


async def events_of(world, send):
    admitted = await world.runs.admit(ANN, send, SIGNED)
    return [event async for event in world.runs.follow(ANN, admitted.run_id, Follow())]


async def test_a_stream_ends_with_reason_and_usage():
    world = await World(answer(say("Hello there."))).agent()
    events = await events_of(world, send_of())
    assert [event.WhichOneof("event") for event in events] == ["message", "stop_reason", "usage_statistics"]
    assert [event.seq_id for event in events] == [1, 2, 3]


async def test_tokens_are_pieces_of_the_message_that_is_stored():
    world = await World(answer(call("roll", {"a": 1})), answer(say("Hello there.")), tools=[tool("roll")]).agent()
    events = await events_of(world, send_of(stream_tokens=True))
    told = [event.message for event in events if event.HasField("message")]

    assert [type_of(m) for m in told] == ["tool_call_message"] * 2 + ["tool_return_message"] + ["assistant_message"] * 2
    assert [m.assistant_message.text for m in told[3:]] == ["Hello", "there."]
    assert told[0].tool_call_message.tool_call_delta.name == "roll"
    assert told[1].tool_call_message.tool_call_delta.arguments == '{"a": 1}'
    stored = [Message.FromString(data) for data in world.memory.thread(AGENT).messages]
    assert {m.id for m in told} == {m.id for m in stored[2:]}
    assert [event.seq_id for event in events] == list(range(1, len(events) + 1))


async def test_a_stream_can_be_read_again_from_any_position():
    world = await World(answer(say("Hello."))).agent()
    admitted = await world.runs.admit(ANN, send_of(record=True), SIGNED)
    first = [event async for event in world.runs.follow(ANN, admitted.run_id, Follow())]
    await world.writer.flush()

    again = [event async for event in world.runs.follow(ANN, admitted.run_id, Follow(after=1))]
    assert again == first[1:]


async def test_a_stream_is_written_by_one_statement_before_the_run_ends_and_one_after():
    store = CountedWrites(SystemClock())
    world = await World(answer(say("one two three four five")), store=store, window=NEVER).agent()
    world.writer.start()
    first = await events_of(world, send_of(stream_tokens=True, record=True))
    assert store.writes == [len(first) - 2]
    await world.writer.close()
    assert store.writes == [len(first) - 2, 2]


async def test_who_comes_back_to_another_replica_misses_nothing_that_was_told_just_before_the_end():
    world = await World(answer(say("one two three")), window=NEVER).agent()
    admitted = await world.runs.admit(ANN, send_of(stream_tokens=True, record=True), SIGNED)
    first = [event async for event in world.runs.follow(ANN, admitted.run_id, Follow())]
    again = [event async for event in world.another().runs.follow(ANN, admitted.run_id, Follow(after=1))]
    assert again == first[1:]


async def test_events_are_written_soon_while_somebody_follows_from_another_replica():
    gate = asyncio.Event()
    world = await World(gate, answer(say("Hello.")), window=NEVER).agent()
    world.writer.start()
    admitted = await world.runs.admit(ANN, send_of(record=True), SIGNED)
    feed = admitted.active.feed
    feed.say([ping(admitted.run_id, datetime.now(UTC))])
    events = world.another().runs.follow(ANN, admitted.run_id, Follow(poll_seconds=0.001))
    async with asyncio.timeout(10):
        waiting = asyncio.ensure_future(anext(events))
        while not feed.followed:
            await asyncio.sleep(0)
            await world.runner.look_for_wishes()
        assert (await waiting).seq_id == 1  # told before anybody followed
        feed.say([ping(admitted.run_id, datetime.now(UTC))])
        assert (await anext(events)).seq_id == 2
    gate.set()
    assert [event.seq_id async for event in events] == [3, 4, 5]
    await world.writer.close()


async def test_a_run_without_stored_events_is_told_from_its_messages():
    world = await World(answer(say("Hello."))).agent()
    got = await world.send()
    events = [event async for event in world.runs.follow(ANN, got.run_id, Follow())]
    assert [event.WhichOneof("event") for event in events] == ["message", "stop_reason", "usage_statistics"]


async def test_a_failing_stream_tells_the_reason_and_then_fails():
    world = await World(LLMUnavailable("down")).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    events = world.runs.follow(ANN, admitted.run_id, Follow())
    seen = [(await anext(events)).stop_reason.stop_reason]
    with pytest.raises(LLMUnavailable):
        await anext(events)
    assert seen == [STOP.STOP_REASON_LLM_API_ERROR]
