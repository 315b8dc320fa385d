"""One key is one run; busy conversations; cancellation."""

import asyncio
from dataclasses import replace

import pytest

from letta.agent.v1 import run_pb2
from letta.common.v1 import message_pb2
from letta_agent.domain.journal.records import RunStatus
from letta_common.errors import (
    ConversationBusy,
    IdempotencyConflict,
)
from tests.fakes.agent.peers import answer, say
from tests.fakes.agent.world import ANN, SIGNED, STOP, World, asked, send_of


def user(text, otid=""):
    said = run_pb2.MessageCreate(role=message_pb2.MESSAGE_ROLE_USER, text=text, otid=otid)
    return run_pb2.InputMessage(message_create=said)


async def test_ten_sends_with_one_otid_are_one_run_with_one_answer():
    world = await World(answer(say("Hello."))).agent()
    send = send_of(messages=[user("hi", otid="o-1")])
    answers = await asyncio.gather(*(world.runs.send(ANN, send, SIGNED) for _ in range(10)))

    assert len({got.run_id for got in answers}) == 1
    assert {tuple(m.assistant_message.text for m in got.messages) for got in answers} == {("Hello.",)}
    assert len(world.models.prompts) == 1
    assert (await world.runs.send(ANN, send, SIGNED)).run_id == answers[0].run_id


async def test_one_key_with_two_bodies_is_a_conflict():
    world = await World().agent()
    await world.send("one", request_id="k")
    with pytest.raises(IdempotencyConflict):
        await world.send("two", request_id="k")


async def test_a_busy_conversation_refuses_and_names_the_run():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first"))).agent()
    first = await world.runs.admit(ANN, send_of(), SIGNED)
    with pytest.raises(ConversationBusy) as caught:
        await world.send()
    assert caught.value.metadata["run_id"] == first.run_id
    gate.set()
    await world.runs.answer(ANN, first)


async def test_a_send_may_wait_for_its_turn():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    second = asyncio.create_task(world.send("2", on_busy=run_pb2.ON_BUSY_WAIT))
    await asyncio.sleep(0)
    gate.set()
    await world.runs.answer(ANN, first)
    await world.runner.dispatch()
    assert [m.assistant_message.text for m in (await second).messages] == ["second"]
    assert world.texts()[-2:] == [("user", "2"), ("assistant", "second")]
    assert (await world.runs.answer(ANN, first)).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


async def test_a_send_may_interrupt():
    world = await World(asyncio.Event(), answer(say("never")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    await asked(world)
    got = await world.send("2", on_busy=run_pb2.ON_BUSY_INTERRUPT)
    assert got.stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert (await world.store.get(ANN, first.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


async def test_an_enqueued_run_begins_when_the_one_before_it_ends():
    gate = asyncio.Event()
    world = await World(gate, answer(say("first")), answer(say("second"))).agent()
    first = await world.runs.admit(ANN, send_of("1"), SIGNED)
    queued = await world.runs.admit(ANN, send_of("2", on_busy=run_pb2.ON_BUSY_ENQUEUE), SIGNED)
    gate.set()
    await world.runs.answer(ANN, first)
    await world.runner.dispatch()
    got = await world.runs.answer(ANN, replace(queued, active=world.runner.find(queued.run_id)))
    assert [m.assistant_message.text for m in got.messages] == ["second"]
    assert world.credentials.issued == [queued.run_id]


async def test_cancelling_reaches_the_model():
    world = await World(asyncio.Event(), answer(say("never"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    record = await world.runs.cancel(ANN, admitted.run_id)

    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_CANCELLED, STOP.STOP_REASON_CANCELLED)
    assert world.models.cancelled == 1
    events = [event async for event in admitted.active.feed.follow()]
    assert [event.WhichOneof("event") for event in events] == ["stop_reason"]


async def test_cancelling_through_another_replica():
    world = await World(asyncio.Event(), answer(say("never"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await world.another().runs.cancel(ANN, admitted.run_id)
    await world.runner.look_for_wishes()
    await asyncio.wait([admitted.active.task])
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


async def test_a_run_cancelled_before_it_began_asks_no_model():
    world = await World().agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    assert (await world.runs.cancel(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED
    assert world.models.prompts == []
