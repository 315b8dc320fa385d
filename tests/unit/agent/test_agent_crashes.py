"""Replicas die in the middle of runs, and others take over."""

import asyncio
import json
from dataclasses import replace

import pytest

from letta_agent.domain.journal.records import FreeSlots, LeaseTerms, ListStepsRequest, RunStatus
from letta_agent.domain.toolcalls.executor import UNKNOWN_OUTCOME
from letta_common.errors import Fenced, LLMRateLimit, RunAbandoned, ServiceUnavailable
from letta_common.values.paging import Page
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, ANN, MEMORY, SIGNED, STOP, World, asked, send_of


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
    assert (
        await world.runs.answer(ANN, replace(admitted, active=None))
    ).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


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

    [run_id] = [run.new.id for run in world.store.state.runs.values()]
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
    await world.store.claim_due(world.another().runner.lease, FreeSlots(10, 10))
    await world.runner.renew()
    with pytest.raises(Fenced):
        await world.runs.answer(ANN, admitted)


async def test_a_restored_database_does_not_lock_an_agent_out():
    world = await World(answer(say("Hello."))).agent()
    world.memory.thread(AGENT).fence = 41
    assert (await world.send()).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN
    assert world.memory.thread(AGENT).fence == 42


async def test_a_run_that_was_cancelled_before_its_take_over_ends_cancelled():
    world = await World(asyncio.Event(), answer(say("x"))).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await world.store.request_cancel(ANN, admitted.run_id)
    await crash(world, admitted)
    await taken_over(world.another(), admitted.run_id)
    assert (await world.store.get(ANN, admitted.run_id)).status == RunStatus.RUN_STATUS_CANCELLED


async def die(world, admitted, times):
    """Let replica after replica take a run over and die."""
    await crash(world, admitted)
    for _ in range(times):
        after = world.another(asyncio.Event())
        await after.runner.dispatch()
        active = after.runner.find(admitted.run_id)
        await asked(after)
        active.task.cancel()
        await asyncio.wait([active.task])
        world.expire()


async def test_a_run_whose_replica_dies_each_time_is_given_up():
    world = await World(asyncio.Event()).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    await die(world, admitted, 2)

    last = world.another(answer(say("never asked")), takeovers=2)
    active = await taken_over(last, admitted.run_id)

    record = await world.store.get(ANN, admitted.run_id)
    assert (record.status, record.stop_reason) == (RunStatus.RUN_STATUS_FAILED, STOP.STOP_REASON_ERROR)
    assert json.loads(record.error)["error_type"] == "run_abandoned"
    assert isinstance(active.feed.error, RunAbandoned)
    assert last.models.prompts == []
    with pytest.raises(RunAbandoned):
        await last.runs.answer(ANN, replace(admitted, active=None))
    assert (
        await world.another(answer(say("Fresh."))).send("again")
    ).stop_reason.stop_reason == STOP.STOP_REASON_END_TURN


async def test_a_run_within_the_limit_is_worked_on():
    world = await World(asyncio.Event()).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    await die(world, admitted, 1)
    await taken_over(world.another(answer(say("Hello.")), takeovers=2), admitted.run_id)
    assert world.texts() == [("user", "hi"), ("assistant", "Hello.")]


async def test_a_run_that_was_decided_is_not_given_up():
    world = await World(answer(say("Hello."))).agent()
    closing, world.store.close = world.store.close, _down
    got = await world.send()
    world.store.close = closing
    world.expire()

    await taken_over(world.another(takeovers=0), got.run_id)
    assert (await world.store.get(ANN, got.run_id)).status == RunStatus.RUN_STATUS_COMPLETED


async def test_a_run_that_kills_whoever_looks_at_it_is_closed_unseen():
    world = await World(answer(say("Hello."))).agent()
    closing, world.store.close = world.store.close, _down
    got = await world.send()
    world.store.close = closing
    world.expire()
    await world.store.claim_due(LeaseTerms("dies", -1_000), FreeSlots(10, 10))
    before = len(world.memory.calls)

    await taken_over(world.another(takeovers=0), got.run_id)
    assert (await world.store.get(ANN, got.run_id)).status == RunStatus.RUN_STATUS_FAILED
    assert world.memory.calls[before:] == []


async def test_the_step_in_which_a_run_failed_says_why():
    world = await World(answer(call("roll")), LLMRateLimit("too fast"), tools=[tool("roll")]).agent()
    with pytest.raises(LLMRateLimit) as failed:
        await world.send()

    steps = await world.store.list_steps(
        ANN, ListStepsRequest(run_id=failed.value.metadata["run_id"]), Page(ascending=True)
    )
    assert [(s.step_index, s.status) for s in steps] == [(0, 2), (1, 3)]
    assert (steps[1].error_type, steps[1].error_data.message) == ("llm_rate_limit", "too fast")
    assert (steps[1].model_handle, steps[1].stop_reason) == ("twin/model", STOP.STOP_REASON_LLM_API_ERROR)


async def test_the_step_in_which_a_run_was_cancelled_is_told():
    world = await World(asyncio.Event()).agent()
    admitted = await world.runs.admit(ANN, send_of(), SIGNED)
    await asked(world)
    await world.runs.cancel(ANN, admitted.run_id)

    [step] = await world.store.list_steps(ANN, ListStepsRequest(run_id=admitted.run_id), Page())
    assert (step.status, step.stop_reason) == (4, STOP.STOP_REASON_CANCELLED)
    assert step.error_type == ""
