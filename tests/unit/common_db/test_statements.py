"""Hot statements: what their parameters and rows may be, and what they leave behind when they fail or are cancelled."""

import asyncio
import datetime as dt
import math
import uuid
from decimal import Decimal

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.types.json import Jsonb

from letta_common.errors import DatabaseUnavailable, InvalidArgument
from letta_postgres import statements
from letta_postgres.db import Database, DatabaseOptions

ONE = DatabaseOptions(pool_size=1, pool_timeout_s=20)
NOON = dt.datetime(2026, 3, 1, 12, 0, 0, 250_001, tzinfo=dt.UTC)
LONG_AGO = dt.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=dt.UTC)
VIENNA = dt.datetime(2026, 3, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=1)))


@pytest.fixture(params=["prepared", "unprepared"])
async def db(request, database_url):
    options = DatabaseOptions(pool_size=1, pool_timeout_s=20, prepared=request.param == "prepared")
    database = await Database.open(database_url, schema="public", options=options)
    yield database
    await database.close()


@pytest.fixture
async def prepared(database_url):
    database = await Database.open(database_url, schema="public", options=ONE)
    yield database
    await database.close()


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", "häßlich 🐘 \\ ' \" {,}"),
        ("text", ""),
        ("varchar", "v"),
        ("bytea", bytes(range(256))),
        ("boolean", True),
        ("boolean", False),
        ("smallint", -(2**15)),
        ("integer", 2**31 - 1),
        ("bigint", -(2**63)),
        ("float8", math.pi),
        ("float8", 3),
        ("timestamptz", NOON),
        ("timestamptz", LONG_AGO),
        ("timestamptz", VIENNA),
        ("text[]", ["a", "", 'q"uote', "NULL", "{}"]),
        ("text[]", ["a", None]),
        ("text[]", []),
        ("bytea[]", [b"\x00", b""]),
        ("boolean[]", [True, False]),
        ("smallint[]", [1, -1]),
        ("integer[]", [1, None, 3]),
        ("bigint[]", [2**40]),
        ("timestamptz[]", [NOON, LONG_AGO]),
    ],
)
async def test_values_come_back_as_they_were(db, kind, value):
    assert await db.hot(f"select %s::{kind}", (value,)) == [(value,)]
    assert await db.hot(f"select %s::{kind}", (None,)) == [(None,)]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("jsonb", Jsonb({"a": [1, None]}), {"a": [1, None]}),
        ("jsonb", '{"a": 1}', {"a": 1}),
        ("numeric", Decimal("1.50"), Decimal("1.50")),
        ("uuid", uuid.UUID(int=7), uuid.UUID(int=7)),
        ("date", dt.date(2026, 3, 1), dt.date(2026, 3, 1)),
        ("interval", dt.timedelta(hours=1), dt.timedelta(hours=1)),
        ("integer[]", [[1, 2], [3, 4]], [[1, 2], [3, 4]]),
        ("bytea", memoryview(b"seen"), b"seen"),
    ],
)
async def test_types_without_an_encoder_of_their_own_are_adapted(db, kind, value, expected):
    assert await db.hot(f"select %s::{kind}", (value,)) == [(expected,)]


async def test_the_context_of_a_parameter_gives_its_type(prepared):
    assert await prepared.hot("select n from generate_series(1, 5) n order by n limit %s", (2,)) == [(1,), (2,)]
    assert await prepared.hot("select 1 where 'b' = any(%s)", (["a", "b"],)) == [(1,)]
    assert await prepared.hot("select 1.5::float8 * %s", (2,)) == [(3.0,)]


async def test_a_value_that_its_type_cannot_hold_is_refused(db):
    with pytest.raises(psycopg.DataError):
        await db.hot("select %s::smallint", (2**15,))
    with pytest.raises(InvalidArgument):
        await db.hot("select %s::text", ("before\0after",))
    assert await db.hot("select 1") == [(1,)]


async def test_placeholders_are_counted_and_named(db):
    assert await db.hot("select %s::text, %s::text, 7 %% 4", ("a", "b")) == [("a", "b", 3)]
    assert await db.hot("select %(b)s::text, %(a)s::text, %(b)s::text", {"a": "1", "b": "2", "c": "3"}) == [
        ("2", "1", "2")
    ]
    assert await db.hot("select 'a' like '%'") == [(True,)]
    with pytest.raises(psycopg.ProgrammingError):
        await db.hot("select %s::text", ("a", "b"))


async def test_more_than_a_socket_takes_at_once(db):
    large = "x" * 6_000_000
    assert await db.hot("select length(%s::text), %s::bytea", (large, large.encode())) == [(len(large), large.encode())]


async def test_a_statement_is_prepared_once(prepared):
    names = "select count(*) from pg_prepared_statements where statement like '%41 + $1::int'"
    for number in range(3):
        await prepared.hot("select 41 + %s::int", (number,))
    assert await prepared.hot(names) == [(1,)]


async def test_what_is_kept_prepared_has_a_bound(prepared, monkeypatch):
    monkeypatch.setattr(statements, "MOST", 5)
    for number in range(20):
        assert await prepared.hot(f"select {number}") == [(number,)]
    [(kept,)] = await prepared.hot("select count(*) from pg_prepared_statements")
    assert kept <= 5
    assert await prepared.hot("select 0") == [(0,)]


async def test_a_failed_preparation_is_tried_again(prepared):
    with pytest.raises(psycopg.errors.UndefinedTable):
        await prepared.hot("select * from public.later")
    await prepared.hot("create table public.later as select 1 as n")
    assert await prepared.hot("select * from public.later") == [(1,)]
    await prepared.hot("drop table public.later")


async def test_a_cancelled_statement_ends_at_the_server_and_frees_its_connection(prepared, database_url):
    task = asyncio.create_task(prepared.hot("select pg_sleep(60)"))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as watcher:
        running = "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)' and state = 'active'"
        while (await (await watcher.execute(running)).fetchone())[0] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await (await watcher.execute(running)).fetchone())[0] == 0
    assert await prepared.hot("select 1") == [(1,)]


async def test_a_connection_that_the_server_ends_is_reported_and_replaced(prepared, database_url):
    [(pid,)] = await prepared.hot("select pg_backend_pid()")
    task = asyncio.create_task(prepared.hot("select pg_sleep(60)"))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as killer:
        running = "select count(*) from pg_stat_activity where pid = %s and query like '%%pg_sleep%%'"
        while (await (await killer.execute(running, (pid,))).fetchone())[0] == 0:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await killer.execute("select pg_terminate_backend(%s)", (pid,))
    with pytest.raises(DatabaseUnavailable) as caught:
        await task
    assert caught.value.metadata["sqlstate"] == "57P01"
    [(other,)] = await prepared.hot("select pg_backend_pid()")
    assert other != pid


async def test_copy_is_refused_and_its_connection_dropped(prepared):
    with pytest.raises(psycopg.ProgrammingError):
        await prepared.hot("copy (select 1) to stdout")
    assert await prepared.hot("select 1") == [(1,)]


async def test_a_transaction_between_hot_statements_is_its_own(prepared):
    await prepared.hot("create table if not exists public.rows (n int)")
    async with prepared.begin() as tx:
        await tx.execute(sa.text("insert into public.rows values (1)"))
    await prepared.hot("insert into public.rows values (%s)", (2,))
    assert await prepared.hot("select n from public.rows order by n") == [(1,), (2,)]
    await prepared.hot("drop table public.rows")


async def test_a_transaction_that_rolls_back_does_not_break_the_statements_of_its_connection(prepared):
    """psycopg deallocates every statement of a connection when it prepared one itself and then rolls back."""

    async def core(number):
        async with prepared.begin() as conn:
            await conn.execute(sa.text("select 1 / cast(:n as integer)"), {"n": number})

    assert await prepared.hot("select %s::int", (1,)) == [(1,)]
    for _ in range(8):
        await core(1)
    with pytest.raises(psycopg.errors.DivisionByZero):
        await core(0)
    await core(1)

    assert await prepared.hot("select %s::int", (2,)) == [(2,)]
    assert await prepared.hot("select %s::int", (3,)) == [(3,)]
