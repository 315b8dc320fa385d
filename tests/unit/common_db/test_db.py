"""The database access: statements, transactions, errors, limits and recovery."""

import asyncio
import os
import signal

import psycopg
import pytest
import sqlalchemy as sa
from pgvector import HalfVector

from letta_common.errors import DatabaseUnavailable, DeadlineExceeded, InvalidArgument
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_postgres.addresses import plain_dsn
from letta_postgres.db import (
    ConstraintViolation,
    Database,
    DatabaseOptions,
    ForeignKeyViolation,
    HalfVec,
    UniqueViolation,
    is_retryable,
    retry,
    translated,
)

SMALL = DatabaseOptions(pool_size=3, pool_timeout_s=0.2)


@pytest.fixture
async def db(database_url):
    database = await Database.open(database_url, schema="thing", options=SMALL)
    await database.hot("create schema if not exists thing")
    await database.hot(
        "create table if not exists thing.things "
        "(id text primary key, n int not null check (n < 100), parent text references thing.things)"
    )
    await database.hot("truncate thing.things")
    yield database
    await database.close()


async def test_hot_returns_tuples(db):
    assert await db.hot("select * from (values (1, 'a'), (2, 'b')) v order by 1") == [(1, "a"), (2, "b")]
    assert await db.hot("insert into thing.things values (%s, %s)", ("a", 1)) == []
    assert await db.hot("select n from thing.things where id = %(id)s", {"id": "a"}) == [(1,)]


async def test_hot_binds_bytes_lists_and_nulls(db):
    assert await db.hot("select %s::bytea, %s::text[], %s::text", (b"\x00\xff", ["a", "b"], None)) == [
        (b"\x00\xff", ["a", "b"], None)
    ]


async def test_begin_commits_and_rolls_back(db):
    async with db.begin() as tx:
        await tx.execute(sa.text("insert into thing.things values ('a', 1)"))
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 the block is what is tested
        async with db.begin() as tx:
            await tx.execute(sa.text("insert into thing.things values ('b', 1)"))
            raise ZeroDivisionError
    async with db.connect() as conn:
        assert list((await conn.execute(sa.text("select id from thing.things"))).scalars()) == ["a"]


async def test_connect_commits_each_statement(db):
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 the block is what is tested
        async with db.connect() as conn:
            await conn.execute(sa.text("insert into thing.things values ('a', 1)"))
            raise ZeroDivisionError
    assert await db.hot("select id from thing.things") == [("a",)]


async def test_both_paths_share_one_pool(db):
    for _ in range(5):
        async with db.begin() as tx:
            first = (await tx.execute(sa.text("select pg_backend_pid()"))).scalar_one()
        [(second,)] = await db.hot("select pg_backend_pid()")
        async with db.connect() as conn:
            third = (await conn.execute(sa.text("select pg_backend_pid()"))).scalar_one()
        assert first == second == third


async def test_a_borrowed_connection_keeps_one_notice_handler(db):
    for _ in range(5):
        async with db.begin() as tx:
            await tx.execute(sa.text("select 1"))
    async with db.raw() as conn:
        assert len(conn._notice_handlers) == 1


async def test_pool_size_is_a_cap_and_waiting_has_an_end(db):
    async def hold(entered, leave):
        async with db.begin() as tx:
            await tx.execute(sa.text("select 1"))
            entered.release()
            await leave.wait()

    entered, leave = asyncio.Semaphore(0), asyncio.Event()
    holders = [asyncio.create_task(hold(entered, leave)) for _ in range(3)]
    for _ in holders:
        await entered.acquire()
    with pytest.raises(DatabaseUnavailable, match="busy"):
        await db.hot("select 1")
    waiting = asyncio.create_task(db.hot("select 1"))
    leave.set()
    await asyncio.gather(*holders)
    assert await waiting == [(1,)]


async def test_cancelled_work_gives_its_connection_back(db):
    for _ in range(6):
        task = asyncio.create_task(db.hot("select pg_sleep(60)"))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    async with db.begin() as tx:
        assert (await tx.execute(sa.text("select 1"))).scalar_one() == 1


async def test_a_connection_that_is_not_finished_is_closed(databases, monkeypatch):
    dsn = databases.clone(("memory",))
    made, asked = [], asyncio.Event()

    async def fetch(conn, name):
        made.append(conn)
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr("letta_postgres.db.TypeInfo.fetch", fetch)
    opening = asyncio.create_task(Database.open(dsn, schema="memory"))
    await asked.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [conn.closed for conn in made] == [True]


async def test_violations_name_their_constraint(db):
    await db.hot("insert into thing.things values ('a', 1)")
    with pytest.raises(UniqueViolation) as caught:
        await db.hot("insert into thing.things values ('a', 1)")
    assert (caught.value.constraint, caught.value.table) == ("things_pkey", "things")
    with pytest.raises(UniqueViolation):
        async with db.begin() as tx:
            await tx.execute(sa.text("insert into thing.things values ('a', 1)"))
    with pytest.raises(ForeignKeyViolation):
        await db.hot("insert into thing.things values ('b', 1, 'nobody')")
    with pytest.raises(ConstraintViolation, match="things_n_check"):
        await db.hot("insert into thing.things values ('b', 100)")


async def test_characters_that_cannot_be_kept_are_an_invalid_argument(db):
    with pytest.raises(InvalidArgument):
        await db.hot("select %s::text", ("a\0b",))
    with pytest.raises(InvalidArgument):
        await db.hot("select %s::jsonb", ('{"a": "\\u0000"}',))
    async with db.connect() as conn:
        with pytest.raises(InvalidArgument):
            async with db.connect() as other:
                await other.execute(sa.select(sa.literal("a\0b")))
        assert (await conn.execute(sa.text("select 1"))).scalar_one() == 1


async def test_what_an_index_cannot_take_is_an_invalid_argument(db):
    hashes = "select string_agg(md5(n::text), '') from generate_series(1, 1000) n"
    async with db.begin() as tx:
        with pytest.raises(InvalidArgument, match="for its index; split it"):
            async with db.begin() as other:
                await other.execute(sa.text(f"insert into thing.things values (({hashes}), 1)"))
        assert (await tx.execute(sa.text("select 1"))).scalar_one() == 1
    with pytest.raises(InvalidArgument, match="for its index"):
        await db.hot(f"insert into thing.things values (({hashes}), 1)")
    with pytest.raises(InvalidArgument, match="different words"):
        await db.hot("select to_tsvector((select string_agg(md5(n::text), ' ') from generate_series(1, 40000) n))")


async def test_faults_of_the_program_pass_as_they_are(db):
    with pytest.raises(psycopg.errors.UndefinedTable) as caught:
        await db.hot("select * from thing.nothing")
    assert caught.value.__cause__ is None
    with pytest.raises(psycopg.errors.RaiseException, match="no"):
        await db.hot("do $$ begin raise exception 'no'; end $$")


async def test_a_slow_statement_exceeds_its_deadline(database_url):
    database = await Database.open(database_url, schema="thing", options=DatabaseOptions(statement_timeout_ms=20))
    with pytest.raises(DeadlineExceeded):
        await database.hot("select pg_sleep(60)")
    await database.close()


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (psycopg.errors.DiskFull, "disk of the database is full"),
        (psycopg.errors.TooManyConnections, "no more connections"),
        (psycopg.errors.SerializationFailure, "40001"),
        (psycopg.errors.ReadOnlySqlTransaction, "25006"),
        (psycopg.errors.AdminShutdown, "57P01"),
    ],
)
def test_states_that_pass_by_are_unavailable(kind, text):
    new = translated(kind("x"))
    assert isinstance(new, DatabaseUnavailable)
    assert text in new.message


async def test_an_unreachable_database_is_reported_at_once(tmp_path):
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        await Database.open(f"postgresql://x@/x?host={tmp_path}", schema="thing")
    with pytest.raises(DatabaseUnavailable, match="address cannot be read"):
        await Database.open("postgresql://x@/x?nonsense=1", schema="thing")


@pytest.mark.parametrize(
    "place", ["postgresql://someone@127.0.0.1:1/secretdb", "postgresql://someone@/secretdb?host={}"]
)
async def test_an_error_names_no_address_of_the_database(tmp_path, place):
    with pytest.raises(DatabaseUnavailable) as caught:
        await Database.open(place.format(tmp_path), schema="thing")

    told = f"{caught.value.message} {caught.value.metadata}"
    assert not [word for word in ("127.0.0.1", "port", str(tmp_path), "socket", "secretdb", "someone") if word in told]
    assert caught.value.__cause__ is not None  # for the log


async def test_a_missing_address_is_called_so():
    with pytest.raises(DatabaseUnavailable, match="LETTA_DATABASE_URL"):
        await Database.open("", schema="thing")


def test_dsns_of_other_drivers_are_read():
    for dsn in ("postgresql+asyncpg://h/d", "postgres://h/d", "postgresql+psycopg://h/d", " postgresql://h/d "):
        assert plain_dsn(dsn) == "postgresql://h/d"


async def test_retry_repeats_what_a_conflict_ended():
    calls = []

    async def unit():
        calls.append(1)
        if len(calls) < 3:
            raise DatabaseUnavailable("conflict", sqlstate="40001")
        return "done"

    assert await retry(unit) == "done"
    assert len(calls) == 3


async def test_retry_gives_up_on_what_repeating_does_not_mend():
    calls = []

    async def unit():
        calls.append(1)
        raise DatabaseUnavailable("full", sqlstate="53100")

    with pytest.raises(DatabaseUnavailable):
        await retry(unit)
    assert len(calls) == 1


async def test_halfvec_travels_in_binary_on_both_paths(databases):
    dsn = databases.empty()
    try:
        with psycopg.connect(dsn) as conn:
            conn.execute("create schema extensions")
            conn.execute("create extension vector with schema extensions")
            conn.execute("create table public.v (id int, v extensions.halfvec(3))")
        database = await Database.open(dsn, schema="thing")
        table = sa.table("v", sa.column("id"), sa.column("v", HalfVec(3)), schema="public")
        await database.hot("insert into public.v values (1, %b)", (HalfVector([1, 2, 3]),))
        async with database.begin() as tx:
            await tx.execute(sa.insert(table).values(id=2, v=HalfVector([1, 2, 3])))
            values = (await tx.execute(sa.select(table.c.v).order_by(table.c.id))).scalars().all()
        assert [value.to_list() for value in values] == [[1.0, 2.0, 3.0]] * 2
        assert values[0] == (await database.hot("select v from public.v"))[0][0]
        await database.close()
    finally:
        databases.drop(dsn)


async def test_the_pool_recovers_after_the_server_was_killed(tmp_path):
    with EmbeddedPostgres(tmp_path / "pg", PostgresOptions(durable=False)) as server:
        database = await Database.open(server.dsn(), schema="thing")
        await asyncio.gather(*(database.hot("select 1") for _ in range(4)))
        await database.hot("create table public.kept as select 7 as n")
        await database.hot("checkpoint")
        killed = server.pid
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(30):
            while server.pid in {killed, None}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            while True:
                try:
                    assert await database.hot("select n from public.kept") == [(7,)]
                    break
                except DatabaseUnavailable as error:
                    assert is_retryable(error)  # noqa: PT017 it may be raised or not
                    await asyncio.sleep(0.05)
        async with database.begin() as tx:
            assert (await tx.execute(sa.text("select n from public.kept"))).scalar_one() == 7
        await database.close()
