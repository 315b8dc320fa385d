"""Two organizations on one database, one of them with thousands of runs that wait: both get their shares."""

from __future__ import annotations

import asyncio
import json

import pytest

from letta.agent.v1 import run_pb2, stored_pb2
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.journal.records import AdmissionOutcome, LeaseTerms, NewRun
from letta_agent.store.agents import SqlAgentStore
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from tests.fakes.agent.peers import ScriptedModels, answer, say
from tests.fakes.agent.world import World
from tests.integration.test_exchange import Stores

WAITING = 10_000
SLOTS, OF_ONE = 4, 3
COPIES = """
with made as (
  insert into agent.agents select (jsonb_populate_record(a, jsonb_build_object('id', a.id || '-' || n))).*
  from agent.agents a, generate_series(1, %(count)s) n where a.organization_id = %(org)s and a.id = %(agent)s
  returning organization_id, id
), queued as (
  insert into agent.runs (organization_id, id, agent_id, conversation_id, request_hash, status, run_type, user_id,
    scopes, request, input)
  select m.organization_id, 'run-' || m.id, m.id, m.id, r.request_hash, 1, r.run_type, r.user_id, r.scopes,
    r.request, r.input
  from made m join agent.runs r on r.organization_id = m.organization_id and r.agent_id = %(agent)s
)
insert into agent.conversation_queue (organization_id, conversation_id, agent_id, pending, lease_until)
select m.organization_id, m.id, m.id, 1, clock_timestamp() - interval '1 hour' from made m
"""
EXPLAIN = (
    "explain (analyze, buffers, format json) "
    "select * from agent.claim_due_runs('me', 60000, 32, 64, %(organization_ids)s::text[], %(left)s::integer[])"
)


@pytest.fixture
async def db(databases):
    database = await Database.open(databases.clone(["agent"]), schema="agent")
    yield database
    await database.close()


def new_actor():
    return Actor(new_id("org"), new_id("user"), frozenset({"write"}))


async def abandoned(world, actor):
    """Begin a run of a new agent by a replica that is gone."""
    state = world.state_of()
    state.id = new_id("agent")
    await SqlAgentStore(world.store.db).create(actor, StoredAgent(state.id, state))
    await world.memory.provision(state.id, "a", [], [], [])
    run = NewRun(
        id=new_id("run"),
        agent_id=state.id,
        conversation_id=state.id,
        key="",
        request_hash=b"h",
        request=run_pb2.RunRequest(input_text="hi").SerializeToString(),
        input=stored_pb2.StoredInput().SerializeToString(),
    )
    assert (await world.store.admit(actor, run, LeaseTerms("gone", -1_000))).outcome is AdmissionOutcome.CLAIMED
    return state.id


async def backlog(world, actor, count):
    """Let runs of as many conversations wait, all of them for longer than those of others."""
    agent_id = await abandoned(world, actor)
    async with world.store.db.raw() as conn:
        await conn.execute(COPIES.encode(), {"org": actor.organization_id, "agent": agent_id, "count": count})
        await conn.execute(b"analyze")
    for number in range(1, count + 1):
        await world.memory.provision(f"{agent_id}-{number}", "a", [], [], [])


class Held(ScriptedModels):
    """A model that answers when it is let."""

    def __init__(self, gate):
        super().__init__()
        self.gate = gate

    async def generate(self, prompt, messages):
        await self.gate.wait()
        return answer(say("done"))


def held_of(world):
    return sorted(active.job.held.organization_id for active in world.runner._active.values())


async def test_a_replica_full_for_one_organization_takes_the_runs_of_another(db):
    gate, ann, bob = asyncio.Event(), new_actor(), new_actor()
    world = World(store=Stores(db), models=Held(gate), slots=SLOTS, slots_of_one=OF_ONE)
    await backlog(world, ann, 1_000)
    await world.runner.dispatch()
    assert held_of(world) == [ann.organization_id] * OF_ONE, "no more than it has slots for"

    for _ in range(2):
        await abandoned(world, bob)
    await world.runner.dispatch()

    assert held_of(world) == sorted([ann.organization_id] * OF_ONE + [bob.organization_id])
    assert world.runner.full
    await world.runner.close(0)


async def test_a_claim_reads_no_backlog(db):
    ann, bob = new_actor(), new_actor()
    world = World(store=Stores(db))
    await backlog(world, ann, WAITING)
    for _ in range(5):
        await abandoned(world, bob)

    read = {}
    for name, left in (("left out", {ann.organization_id: 0}), ("shared", {})):
        values = {"organization_ids": list(left), "left": list(left.values())}
        async with db.raw() as conn, conn.transaction(force_rollback=True):
            [(plan,)] = await (await conn.execute(EXPLAIN.encode(), values)).fetchall()
        found = (plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]
        read[name] = (found["Actual Rows"], found["Shared Hit Blocks"] + found["Shared Read Blocks"])

    assert read["left out"][0] == 5
    assert read["shared"][0] == 16 + 5
    assert read["left out"][1] < 1_000
    assert read["shared"][1] < 3_000
