"""Replicas die in the middle of runs, and others take over."""

import asyncio
from dataclasses import replace

import pytest

from letta_agent.domain.calls import UNKNOWN_OUTCOME
from letta_agent.domain.jobs import RunStatus
from letta_common.errors import (
    Fenced,
    ServiceUnavailable,
)
from tests.fakes.agent_peers import answer, call, say, tool
from tests.fakes.agent_world import AGENT, ANN, MEMORY, SIGNED, STOP, World, asked, send_of


async def crash(world, admitted):
    """End the task of a run as a dying replica would: nothing is closed, the lease runs out."""
    admitted.active.task.cancel()
    await asyncio.wait([admitted.active.task])
    world.expire()


async def taken_over(world, run_id):
    await world.runner.dispatch()
    active = world.runner.find(run_id)
    await asyncio.wait([active.task])
    return active


async def test_a_crash_while_the_model_speaks_asks_it_again():
    world = await World(asyncio.Event(), answer(say("lost"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    await crash(world, admitted)

    second = world.another(answer(say("Hello.")))
    active = await taken_over(second, admitted.run_id)

    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]
    assert active.feed.messages()[0].seq_id > 1_000_000
    assert second.credentials.issued == [admitted.run_id]
    assert (await world.runs.answer(ANN, replace(admitted, active=None))).stop_reason == STOP.STOP_REASON_END_TURN


@pytest.mark.parametrize(("idempotent", "text"), [(True, "again"), (False, UNKNOWN_OUTCOME)])
async def test_a_crash_between_checkpoint_and_commit_replays_what_the_model_said(idempotent, text):
    reached = asyncio.Event()

    async def hang(_):
        reached.set()
        await asyncio.Event().wait()

    world = await World(
        answer(call("pay")), tools=[tool("pay", idempotent=idempotent)], behaviours={"pay": hang}
    ).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await reached.wait()
    await crash(world, admitted)
    world.tools.behaviours["pay"] = lambda _: "again"

    second = world.another(answer(say("done")))
    await taken_over(second, admitted.run_id)

    assert world.texts() == [("user", "hi"), ("assistant", "pay"), ("tool", text), ("assistant", "done")]
    assert len(second.models.prompts) == 1
    assert len(world.tools.executed) == (2 if idempotent else 1)


async def test_a_crash_after_a_memory_edit_does_not_make_it_twice():
    script = (answer(call("memory_insert", {"label": "human", "new_string": "x"})), answer(say("ok")))
    world = await World(*script, tools=[tool("memory_insert", MEMORY)]).agent()
    world.memory.fail["commit_step"] = [ServiceUnavailable("gone")]
    closing, world.store.close = world.store.close, _down
    with pytest.raises(ServiceUnavailable):
        await world.send()
    world.store.close = closing
    world.expire()

    [run_id] = [run.new.id for run in world.store._runs.values()]
    await taken_over(world.another(answer(say("ok"))), run_id)
    assert world.memory.blocks[AGENT]["human"].value == "Bob\nx"
    assert world.texts() == [("user", "hi"), ("assistant", "memory_insert"), ("tool", "Bob\nx"), ("assistant", "ok")]


async def _down(*_):
    raise ServiceUnavailable("the database is away")


async def test_a_crash_after_the_last_commit_only_closes():
    world = await World(answer(say("Hello."))).agent()
    closing, world.store.close = world.store.close, _down
    got = await world.send()
    world.store.close = closing
    assert (await world.store.get(ANN, got.run_id)).active
    world.expire()

    second = world.another()
    await taken_over(second, got.run_id)

    assert second.models.prompts == []
    record = await world.store.get(ANN, got.run_id)
    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_COMPLETED, STOP.STOP_REASON_END_TURN)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]


async def test_an_owner_that_was_paused_writes_nothing_more():
    gate = asyncio.Event()
    world = await World(gate, answer(say("zombie"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    world.expire()
    await taken_over(world.another(answer(say("Hello."))), admitted.run_id)

    gate.set()
    with pytest.raises(Fenced):
        await world.runs.answer(ANN, admitted)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]


async def test_a_lost_lease_stops_the_run():
    world = await World(asyncio.Event(), answer(say("zombie"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    world.expire()
    await world.store.claim_due(world.another().runner.lease, 10)
    await world.runner.renew()
    with pytest.raises(Fenced):
        await world.runs.answer(ANN, admitted)


async def test_a_restored_database_does_not_lock_an_agent_out():
    world = await World(answer(say("Hello."))).agent()
    world.memory.thread(AGENT).fence = 41
    assert (await world.send()).stop_reason == STOP.STOP_REASON_END_TURN
    assert world.memory.thread(AGENT).fence == 42


async def test_a_run_that_was_cancelled_before_its_take_over_ends_cancelled():
    world = await World(asyncio.Event(), answer(say("x"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await world.store.request_cancel(ANN, admitted.run_id)
    await crash(world, admitted)
    await taken_over(world.another(), admitted.run_id)
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED
