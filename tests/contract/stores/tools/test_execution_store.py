"""What every store of executions does."""

import asyncio
from datetime import timedelta

import psycopg
import pytest

from letta_common.actor import Actor
from letta_common.process.periodic import Next
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from letta_tools.domain.executions.executions import CallLease, Intent, Standing
from letta_tools.store.executions import _SWEEP, SqlExecutionStore
from tests.fakes.tools.stores import FakeExecutionStore


@pytest.fixture(params=["fake", "sql"])
async def store(request, database_url):
    if request.param == "fake":
        yield FakeExecutionStore()
        return
    db = await Database.open(database_url, schema="tools")
    store = SqlExecutionStore(db)
    yield store
    await store.close()
    await db.close()


def intent(key="run-1:1:0", fingerprint="hash", lease=60.0, again=False):
    return Intent(key, fingerprint, "tool-1", "agent-1", lease, again)


async def test_the_first_begins_and_the_second_sees_it_run(store, ann):
    assert await store.begin(ann, intent()) == Standing(True, "hash")
    assert await store.begin(ann, intent(fingerprint="other")) == Standing(False, "hash", None, True)


async def test_of_many_at_once_one_begins(store, ann):
    standings = await asyncio.gather(*(store.begin(ann, intent()) for _ in range(8)))

    assert sum(standing.begun for standing in standings) == 1


async def test_an_outcome_is_kept(store, ann):
    await store.begin(ann, intent())
    store.finish(ann, "run-1:1:0", b"done")

    for again in (False, True):
        assert await store.begin(ann, intent(again=again)) == Standing(False, "hash", b"done")


async def test_keys_belong_to_an_organization(store, ann):
    await store.begin(ann, intent())

    assert (await store.begin(Actor(new_id("org"), "user-bob"), intent())).begun


async def test_a_lost_call_begins_again_only_if_asked_to(store, ann):
    await store.begin(ann, intent(lease=0.0))

    assert await store.begin(ann, intent(lease=0.0)) == Standing(False, "hash", None, False)
    assert not (await store.begin(ann, intent(fingerprint="other", again=True))).begun
    assert (await store.begin(ann, intent(again=True))).begun
    assert (await store.begin(ann, intent(again=True))).is_running


async def test_calls_whose_leases_are_renewed_run_on(store, ann):
    for key in ("waits", "runs", "lost"):
        await store.begin(ann, intent(key, lease=0.0))
    await store.begin(ann, intent("done"))
    store.finish(ann, "done", b"done")
    await store.renew([CallLease(ann.organization_id, key, 60.0) for key in ("waits", "runs", "done", "unknown")])

    for key in ("waits", "runs"):
        assert await store.begin(ann, intent(key, again=True)) == Standing(False, "hash", None, True)
    assert (await store.begin(ann, intent("lost", again=True))).begun
    assert (await store.begin(ann, intent("done", again=True))).outcome == b"done"


async def test_an_abandoned_call_begins_anew_and_a_finished_one_stays(store, ann):
    await store.begin(ann, intent())
    await store.abandon(ann, "run-1:1:0")

    assert (await store.begin(ann, intent(fingerprint="other"))).begun


@pytest.fixture
async def sql(database_url):
    db = await Database.open(database_url, schema="tools")
    yield db
    await db.close()


async def test_outcomes_are_written_in_batches(sql, ann):
    first, second = SqlExecutionStore(sql), SqlExecutionStore(sql)
    for number in range(3):
        await first.begin(ann, intent(key=f"k{number}"))
        first.finish(ann, f"k{number}", b"done")

    assert (await second.begin(ann, intent(key="k0"))).is_running
    await first.start()
    await first.close()

    for number in range(3):
        assert (await second.begin(ann, intent(key=f"k{number}"))).outcome == b"done"


async def test_old_calls_are_removed(sql, ann):
    store = SqlExecutionStore(sql)
    await store.begin(ann, intent())
    await store.sweep()
    assert not (await store.begin(ann, intent())).begun

    await sql.hot(
        "update tools.executions set started_at = now() - interval '8 days' where organization_id = %s",
        (ann.organization_id,),
    )
    await store.sweep()

    assert (await store.begin(ann, intent())).begun


async def test_as_many_old_calls_as_there_are_are_removed(sql, ann):
    store = SqlExecutionStore(sql, swept_at_once=2)
    for number in range(5):
        await store.begin(ann, intent(key=f"old-{number}"))
    await sql.hot(
        "update tools.executions set started_at = now() - interval '8 days' where organization_id = %s",
        (ann.organization_id,),
    )

    assert [await store.sweep() for _ in range(3)] == [Next.AT_ONCE, Next.AT_ONCE, Next.AFTER_A_PAUSE]
    assert await sql.hot("select 1 from tools.executions where organization_id = %s", (ann.organization_id,)) == []


async def test_old_calls_are_found_without_reading_the_others(database_url):
    with psycopg.connect(database_url) as conn:
        conn.execute(
            "insert into tools.executions (organization_id, idempotency_key, call_hash, lease_until) "
            "select 'org-' || n, 'k', '', now() from generate_series(1, 20000) n"
        )
        conn.execute("analyze tools.executions")
        plan = conn.execute(b"explain " + _SWEEP.encode(), (timedelta(days=7), 5000)).fetchall()
        conn.rollback()

    assert not [line for (line,) in plan if "Seq Scan" in line]
