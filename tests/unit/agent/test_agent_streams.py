"""Streams of runs: order, positions, replay, failures."""

import pytest

from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import Follow
from letta_common.errors import (
    LLMUnavailable,
)
from letta_messages.rendering import type_of
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, ANN, SIGNED, STOP, World, send_of


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
