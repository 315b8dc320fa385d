"""What is claimed of runs that are due: shares of organizations, in PostgreSQL and in its twin in memory."""

import asyncio

import pytest

from letta_agent.domain.journal.records import AdmissionOutcome, FreeSlots, HeldCalls, LeaseTerms, RunEnd, RunKey
from letta_common.values.ids import new_id
from tests.contract.stores.agent.conftest import agent_of, new_run

GONE, NEXT = LeaseTerms("gone", -1_000), LeaseTerms("next", 60_000)
COMPLETED, END_TURN, REQUIRES_APPROVAL = 3, 1, 12
MANY = 40


@pytest.fixture
async def store(rooms):
    """Give the stores, with nothing due: others use the same database."""
    while await rooms.queue.claim_due(NEXT, FreeSlots(10_000, 10_000)):
        pass
    return rooms


async def abandoned(store, actor, count=1):
    """Begin runs of new agents, each by a replica that is gone; return them in order."""
    runs = []
    for _ in range(count):
        agent = agent_of()
        await store.agents.create(actor, agent)
        run = new_run(agent.id)
        assert (await store.runs.admit(actor, run, GONE)).outcome is AdmissionOutcome.CLAIMED
        runs.append(run.id)
    return runs


async def claimed(store, room):
    return [job.held.run_id for job in await store.queue.claim_due(NEXT, room)]


async def test_an_organization_without_room_is_left_out_whatever_waits(store, ann, bob):
    older, younger = await abandoned(store, ann, MANY), await abandoned(store, bob, 2)

    assert await claimed(store, FreeSlots(32, 64, {ann.organization_id: 0})) == younger
    assert await claimed(store, FreeSlots(MANY, MANY)) == older


async def test_a_batch_has_no_more_of_one_than_its_room(store, ann, bob):
    older, younger = await abandoned(store, ann, MANY), await abandoned(store, bob, MANY)

    found = await claimed(store, FreeSlots(100, 64, {ann.organization_id: 3, bob.organization_id: 2}))

    assert sorted(found) == sorted([*older[:3], *younger[:2]])
    assert await claimed(store, FreeSlots(100, 1, {ann.organization_id: 0})) == [younger[2]]


async def test_organizations_share_a_batch_and_what_one_leaves_goes_to_the_next(store, ann, bob):
    older, younger = await abandoned(store, ann, MANY), await abandoned(store, bob, 2)

    first = await claimed(store, FreeSlots(8, 64))

    assert sorted(first) == sorted([*older[:4], *younger])
    assert await claimed(store, FreeSlots(8, 64)) == older[4:12]


async def test_where_room_is_too_small_for_all_those_with_least_come_first(store, actors):
    runs = [await abandoned(store, actor, 2) for actor in actors]
    left = {actors[0].organization_id: 5, actors[1].organization_id: 7}

    first = await claimed(store, FreeSlots(3, 9, left))

    assert sorted(first) == sorted([runs[2][0], runs[3][0], runs[1][0]])
    assert await claimed(store, FreeSlots(1, 9)) == [runs[0][0]]


async def test_a_conversation_comes_in_the_order_it_became_free(store, ann):
    holders = []
    for _ in range(3):
        agent = agent_of()
        await store.agents.create(ann, agent)
        run = new_run(agent.id)
        admission = await store.runs.admit(ann, run, NEXT)
        waiting = new_run(agent.id, most_waiting=5)
        assert (await store.runs.admit(ann, waiting, NEXT)).outcome is AdmissionOutcome.QUEUED
        held = RunKey(ann.organization_id, agent.id, agent.id, run.id, admission.fence)
        holders.append((held, waiting.id))
    for held, _ in reversed(holders):
        await store.runs.close(held, RunEnd(COMPLETED, END_TURN, ()))

    found = [(await claimed(store, FreeSlots(1, 64)))[0] for _ in holders]

    assert found == [waiting for _, waiting in reversed(holders)]


async def test_a_run_reopened_to_be_ended_is_the_first_of_its_organization(store, ann, bob):
    agent = agent_of()
    await store.agents.create(ann, agent)
    run = new_run(agent.id)
    admission = await store.runs.admit(ann, run, NEXT)
    held = RunKey(ann.organization_id, agent.id, agent.id, run.id, admission.fence)
    waits = HeldCalls("message-1", ("call-1",), b"")
    await store.runs.close(held, RunEnd(COMPLETED, REQUIRES_APPROVAL, (), pending=waits))
    await abandoned(store, ann, 3)
    await abandoned(store, bob, 1)

    assert await store.runs.reopen(ann, run.id)
    [job] = await store.queue.claim_due(NEXT, FreeSlots(1, 0, {ann.organization_id: 1}))

    assert (job.held.run_id, job.cancel_requested, job.waiting.call_ids) == (run.id, True, ("call-1",))


async def test_replicas_that_claim_at_once_get_each_run_once(store, ann, bob):
    runs = {*await abandoned(store, ann, MANY), *await abandoned(store, bob, MANY)}

    batches = await asyncio.gather(*(claimed(store, FreeSlots(MANY, MANY)) for _ in range(8)))
    found = [run_id for batch in batches for run_id in batch]
    while more := await claimed(store, FreeSlots(MANY, MANY)):
        found += more

    assert len(found) == len(runs)
    assert set(found) == runs


@pytest.fixture
def actors(ann):
    """Give organizations whose ids do not sort as they come."""
    return [type(ann)(new_id("org"), ann.user_id, ann.scopes) for _ in range(4)]
