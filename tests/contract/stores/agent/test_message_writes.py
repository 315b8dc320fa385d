"""What a message writes: counts that no neighbour of the machine changes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from benchmarks.statements import Spent, Talk
from letta_agent.store.agents import SqlAgentStore
from letta_agent.store.runs import SqlRunStore
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_memory.store.contexts import SqlContextStore
from letta_postgres.db import Database, DatabaseOptions

MESSAGES = 20
MOST_WAL_RECORDS = 46
"""Of a message: of those, 14 are of the indexes that find messages by id, time, run, step and word."""
STATEMENTS = (
    "select query, calls::int, wal_records::int from extensions.pg_stat_statements "
    "where toplevel and query ~ '(begin_step_after|commit_step|admit_run|close_run)' "
    "and dbid = (select oid from pg_database where datname = current_database())"
)
UPDATES = (
    "select relname::text, n_tup_upd::int, n_tup_hot_upd::int from pg_stat_user_tables "
    "where schemaname in ('agent', 'memory') and n_tup_upd > 0"
)


@pytest.fixture
async def databases_of_both(database_url: str) -> AsyncIterator[list[Database]]:
    options = DatabaseOptions(pool_size=1)
    found = [await Database.open(database_url, schema=schema, options=options) for schema in ("agent", "memory")]
    yield found
    for db in found:
        await db.close()


async def test_a_message_is_four_statements_and_rewrites_its_rows_in_place(databases_of_both: list[Database]) -> None:
    agent, memory = databases_of_both
    talk = Talk(SqlRunStore(agent), SqlContextStore(memory), Actor(new_id("org"), "user-ann", frozenset({"write"})))
    async with agent.raw() as conn:
        await conn.execute("create extension if not exists pg_stat_statements schema extensions")
    await talk.begin(SqlAgentStore(agent), 24)
    await talk.send(Spent([]))
    await agent.hot("select extensions.pg_stat_statements_reset()")

    for _ in range(MESSAGES):
        await talk.send(Spent([]))

    sent = await agent.hot(STATEMENTS)
    for db in databases_of_both:
        await db.hot("select pg_stat_force_next_flush()")
    updates = {name: (all_of_them, in_place) for name, all_of_them, in_place in await agent.hot(UPDATES)}
    assert sorted(calls for _, calls, _ in sent) == [MESSAGES] * 4
    assert sum(records for _, _, records in sent) <= MOST_WAL_RECORDS * MESSAGES
    for name in ("runs", "conversations"):
        assert updates[name][0] == updates[name][1] >= MESSAGES, updates
