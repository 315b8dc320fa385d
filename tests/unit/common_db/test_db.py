"""The database access: statements, transactions, errors, limits and recovery."""

import asyncio
import os
import signal

import pytest
import sqlalchemy as sa

from letta_common.db import Database, DatabaseOptions, UniqueViolation, is_retryable, plain_dsn, retry
from letta_common.errors import DatabaseUnavailable, DeadlineExceeded
from letta_common.migrations import upgrade


@pytest.fixture(scope="module")
def database_url(databases):
    dsn = databases.empty()
    yield dsn
    databases.drop(dsn)


@pytest.fixture
async def db(database_url):
    database = await Database.open(
        database_url, schema="thing", options=DatabaseOptions(pool_size=3, pool_timeout_s=0.2)
    )
    await database.hot("create schema if not exists thing")
    await database.hot("create table if not exists thing.things (id text primary key, n int not null check (n < 100))")
    await database.hot("truncate thing.things")
    yield database
    await database.close()


async def test_hot_returns_tuples(db):
    assert [(1, "a"), (2, "b")] == await db.hot("select * from (values (1, 'a'), (2, 'b')) v order by 1")
    assert [] == await db.hot("insert into thing.things values (%s, %s)", ("a", 1))
    assert [(1,)] == await db.hot("select n from thing.things where id = %(id)s", {"id": "a"})


async def test_begin_commits_and_rolls_back(db):
    async with db.begin() as tx:
        await tx.execute(sa.text("insert into thing.things values ('a', 1)"))
    with pytest.raises(ZeroDivisionError):
        async with db.begin() as tx:
            await tx.execute(sa.text("insert into thing.things values ('b', 1)"))
            raise ZeroDivisionError
    async with db.connect() as conn:
        assert ["a"] == list((await conn.execute(sa.text("select id from thing.things"))).scalars())


async def test_connect_commits_each_statement(db):
    with pytest.raises(ZeroDivisionError):
        async with db.connect() as conn:
            await conn.execute(sa.text("insert into thing.things values ('a', 1)"))
            raise ZeroDivisionError
    assert [("a",)] == await db.hot("select id from thing.things")


async def test_unique_violation_names_its_constraint(db):
    await db.hot("insert into thing.things values ('a', 1)")
    with pytest.raises(UniqueViolation) as caught:
        await db.hot("insert into thing.things values ('a', 1)")
    assert ("things_pkey", "things") == (caught.value.constraint, caught.value.table)
    with pytest.raises(UniqueViolation):
        async with db.begin() as tx:
            await tx.execute(sa.text("insert into thing.things values ('a', 1)"))
