"""Old records are removed in batches, and what is young stays."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from letta.common.v1.message_pb2 import Message, MessageRole
from letta.memory.v1 import context_service_pb2 as pb
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import DatabaseUnavailable
from letta_common.process.periodic import Periodic
from letta_common.values.ids import new_id
from letta_memory.domain.pruning import PruneOptions, Pruner
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.pruning import SqlPruneStore
from letta_postgres.db import Database

NOW = datetime.now(UTC)
LATER, EARLIER = NOW + timedelta(hours=1), NOW - timedelta(hours=1)


@pytest.fixture
async def stores(database_url):
    db = await Database.open(database_url, schema="memory")
    yield SqlContextStore(db), SqlPruneStore(db)
    await db.close()


def message():
    return Message(id=new_id("message"), role=MessageRole.MESSAGE_ROLE_USER, created_at=datetime.now(UTC))


async def worked(contexts, steps):
    """Make an agent whose run commits steps."""
    actor, agent_id, run_id = Actor(new_id("org"), "user-ann"), new_id("agent"), new_id("run")
    await contexts.provision_agent(actor, pb.ProvisionAgentRequest(agent_id=agent_id, messages=[message()]), [])
    owner = {"agent_id": agent_id, "conversation_id": agent_id, "run_id": run_id, "fence": 1}
    await contexts.begin_step(actor, pb.BeginStepRequest(**owner, input=[message()]))
    for index in range(steps):
        await contexts.commit_step(actor, pb.CommitStepRequest(**owner, step_index=index, messages=[message()]))
    return actor, owner


async def test_old_runs_go_a_batch_at_a_time(stores):
    contexts, pruning = stores
    actor, owner = await worked(contexts, 3)
    for _ in range(4):
        other = {**owner, "run_id": new_id("run")}
        await contexts.begin_step(actor, pb.BeginStepRequest(**other, input=[message()]))
    assert await pruning.prune_steps(EARLIER, 10) == 0
    assert [await pruning.prune_steps(LATER, 3) for _ in range(3)] == [3, 1, 0]


async def test_the_last_run_is_known_and_one_before_it_until_it_is_pruned(stores):
    contexts, pruning = stores
    actor, first = await worked(contexts, 1)
    second = {**first, "run_id": new_id("run")}
    assert (await contexts.begin_step(actor, pb.BeginStepRequest(**first))).HasField("last_step")
    await contexts.begin_step(actor, pb.BeginStepRequest(**second))
    assert (await contexts.begin_step(actor, pb.BeginStepRequest(**first))).HasField("last_step")
    await contexts.begin_step(actor, pb.BeginStepRequest(**second))
    await pruning.prune_steps(LATER, 10)
    assert not (await contexts.begin_step(actor, pb.BeginStepRequest(**first))).HasField("last_step")


async def test_old_places_of_deleted_rows_go(stores):
    contexts, pruning = stores
    actor, owner = await worked(contexts, 1)
    place = {name: owner[name] for name in ("agent_id", "conversation_id")}
    request = pb.ResetConversationRequest(**place, messages=[message()])
    await contexts.reset_conversation(actor, request)
    assert await pruning.prune_places(EARLIER, 10) == 0
    assert [await pruning.prune_places(LATER, 2) for _ in range(3)] == [2, 1, 0]


class Shelf:
    """Old records that are there to be removed."""

    def __init__(self, **left):
        self.left = left
        self.asked = []

    async def prune_steps(self, before, limit):
        return self._take("steps", before, limit)

    async def prune_openings(self, before, limit):
        return self._take("openings", before, limit)

    async def prune_places(self, before, limit):
        return self._take("places", before, limit)

    async def prune_suggestions(self, before, limit):
        return self._take("suggestions", before, limit)

    async def prune_purges(self, before, limit):
        return self._take("purges", before, limit)

    async def prune_archive(self, now, limit):
        return self._take("passages", now, limit) or None

    async def prune_imports(self, before, limit):
        return self._take("imports", before, limit)

    async def prune_watches(self, before, limit):
        return self._take("watches", before, limit)

    async def expire_uploads(self, before, limit):
        return self._take("uploads", before, limit)

    def _take(self, kind, before, limit):
        self.asked.append((kind, before))
        gone = min(limit, self.left[kind])
        self.left[kind] -= gone
        return gone


async def test_the_pruner_removes_everything_that_is_old_enough():
    shelf, clock = (
        Shelf(
            steps=25,
            openings=15,
            places=10,
            purges=11,
            suggestions=13,
            uploads=12,
            imports=14,
            watches=3,
            passages=2_500,
        ),
        SystemClock(),
    )
    options = PruneOptions(timedelta(days=1), timedelta(days=2), timedelta(days=3), batch=10)
    assert await Pruner(shelf, clock, options).prune() == 2_603
    assert set(shelf.left.values()) == {0}
    ages = {kind: round((clock.now() - before) / timedelta(days=1)) for kind, before in shelf.asked}
    expected = {
        "steps": 1,
        "openings": 1,
        "places": 2,
        "purges": 2,
        "suggestions": 90,
        "uploads": 3,
        "imports": 3,
        "watches": 3,
    }
    assert ages == {**expected, "passages": 0}


async def test_the_pruner_survives_a_database_that_is_away():
    tries = asyncio.Semaphore(0)

    class Away:
        async def prune_steps(self, before, limit):
            tries.release()
            raise DatabaseUnavailable("away")

        prune_openings = prune_places = prune_purges = prune_suggestions = prune_imports = prune_watches = prune_steps
        expire_uploads = prune_steps

    background = Periodic("prune", Pruner(Away(), SystemClock(), PruneOptions()).prune, 0.001)
    background.start()
    await tries.acquire()
    await tries.acquire()
    await background.stop()
