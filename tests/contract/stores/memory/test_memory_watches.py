"""Streams of what happens to blocks: notices of the database wake them, whichever replica wrote."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import psycopg
import pytest

from letta.memory.v1.block_history_service_pb2 import WatchBlocksResponse
from letta.memory.v1.block_pb2 import Block
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import ServiceUnavailable
from letta_common.values.ids import new_id
from letta_memory.domain.block_history.watches import BlockWatches
from letta_memory.domain.blocks import Blocks
from letta_memory.store.block_history.revisions import SqlBlockHistoryStore
from letta_memory.store.blocks import SqlBlockStore
from letta_postgres.db import Database

CLOCK = SystemClock()
NEVER = 3_600.0
"""Seconds between two looks that nobody asked for: what is told here, a notice told."""


class Replica:
    """A process of its own, as far as the database can tell."""

    def __init__(self, db: Database) -> None:
        self.db = db
        self.notices = db.notices("memory_blocks")
        self.watches = BlockWatches(SqlBlockHistoryStore(db), self.notices, CLOCK, look_seconds=NEVER)
        self.blocks = Blocks(SqlBlockStore(db), CLOCK)

    async def write(self, actor: Actor, value: str) -> str:
        made = await self.blocks.create(actor, Block(label="note", value=value))
        return made.id


@pytest.fixture
async def replicas(database_url: str) -> AsyncIterator[list[Replica]]:
    made = [Replica(await Database.open(database_url, schema="memory")) for _ in range(2)]
    yield made
    for each in made:
        await each.notices.close()
        await each.db.close()


@pytest.fixture
def actor() -> Actor:
    return Actor(new_id("org"), "user-ann")


async def told(stream: AsyncIterator[WatchBlocksResponse]) -> tuple[str, str]:
    event = await anext(stream)
    assert event.WhichOneof("event") == "written", event
    return event.written.block_id, event.written.value


async def test_a_write_of_another_replica_is_told_without_a_look_by_the_clock(
    replicas: list[Replica], actor: Actor
) -> None:
    here, there = replicas
    async with aclosing(here.watches.watch(actor, "", "")) as stream:  # type: ignore[type-var]
        await anext(stream)
        for value in "abc":
            waiting = asyncio.ensure_future(told(stream))
            await asyncio.sleep(0.05)
            block_id = await there.write(actor, value)
            assert await waiting == (block_id, value)


async def test_a_write_that_other_transactions_hide_is_told_when_they_are_over(
    replicas: list[Replica], actor: Actor, database_url: str
) -> None:
    here, there = replicas
    async with await psycopg.AsyncConnection.connect(database_url) as older:
        await older.execute("select pg_current_xact_id()")
        async with aclosing(here.watches.watch(actor, "", "")) as stream:  # type: ignore[type-var]
            await anext(stream)
            waiting = asyncio.ensure_future(told(stream))
            block_id = await there.write(actor, "hidden")
            await asyncio.sleep(0.2)
            assert not waiting.done()
            await older.commit()
            assert await waiting == (block_id, "hidden")


async def test_a_connection_that_broke_loses_no_write(replicas: list[Replica], actor: Actor, database_url: str) -> None:
    here, there = replicas
    async with aclosing(here.watches.watch(actor, "", "")) as stream:  # type: ignore[type-var]
        await anext(stream)
        waiting = asyncio.ensure_future(told(stream))
        assert await listeners(database_url, end=True) >= 1
        block_id = await there.write(actor, "unheard")
        assert await waiting == (block_id, "unheard")


async def test_a_replica_that_stops_ends_its_streams_and_takes_no_new_one(
    replicas: list[Replica], actor: Actor
) -> None:
    here, there = replicas
    async with aclosing(here.watches.watch(actor, "", "")) as stream:  # type: ignore[type-var]
        position = (await anext(stream)).position
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        here.watches.drain()
        with pytest.raises(ServiceUnavailable):
            await waiting
    missed = await there.write(actor, "meanwhile")
    async with aclosing(there.watches.watch(actor, "", position)) as stream:  # type: ignore[type-var]
        await anext(stream)
        assert await told(stream) == (missed, "meanwhile")
    late = here.watches.watch(actor, "", position)
    with pytest.raises(ServiceUnavailable):
        [event async for event in late]


async def test_nobody_is_told_of_organizations_that_nobody_watches(
    replicas: list[Replica], actor: Actor, database_url: str
) -> None:
    here, there = replicas
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("listen memory_blocks")
        async with aclosing(here.watches.watch(actor, "", "")) as stream:  # type: ignore[type-var]
            await anext(stream)
            await there.write(Actor(new_id("org"), "user-bob"), "of Bob")
            await there.write(actor, "mine")
            heard = [notice async for notice in conn.notifies(stop_after=1)]

    assert [notice.payload for notice in heard] == [actor.organization_id]


async def listeners(url: str, *, end: bool) -> Any:
    """Return how many connections listen, and end them."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while True:
            cursor = await conn.execute(
                "select count(*) filter (where pg_terminate_backend(pid)) from pg_stat_activity "
                "where datname = current_database() and query ilike 'listen%%' and %s",
                (end,),
            )
            if found := (await cursor.fetchone() or (0,))[0]:
                return found
            await asyncio.sleep(0.02)
