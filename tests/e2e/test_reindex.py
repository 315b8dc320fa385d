"""`letta db reindex` as an operator runs it: killed and run again, without a database, with one of another release."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from letta_postgres.db import Database
from tests.support.databases import SCHEMAS, Databases
from tests.support.searches import SearchStore

TEXTS = 3_000
NOBODY = "postgresql://nobody:secret@127.0.0.1:1/nothing"


def variables(database_url: str, home: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LETTA")}
    return {**kept, "COLUMNS": "200", "LETTA_DATABASE_URL": database_url, "LETTA_HOME": home}


def reindex(database_url: str) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "letta_cli", "db", "reindex"]
        return subprocess.run(
            command, env=variables(database_url, home), capture_output=True, text=True, timeout=300, check=False
        )


async def _fill(dsn: str) -> None:
    db = await Database.open(dsn, schema="memory")
    store = SearchStore(db)
    await store.begin()
    for start in range(0, TEXTS, 500):
        await store.write(*(f"tea number {number}" for number in range(start, start + 500)), vector=False)
    await db.close()


@pytest.fixture
def filled(databases: Databases) -> Iterator[str]:
    dsn = databases.clone(tuple(SCHEMAS))
    asyncio.run(_fill(dsn))
    yield dsn
    databases.drop(dsn)


def asked(dsn: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(statement.encode()).fetchall()


def test_after_kill_9_it_goes_on_where_it_stopped(filled: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "letta_cli", "db", "reindex"]
    with subprocess.Popen(command, env=variables(filled, str(tmp_path)), stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        lines = iter(running.stderr.readline, "")
        assert any(f"of {TEXTS:,} texts are indexed anew" in line for line in lines)
        running.kill()
    # Its backend commits what it was told to before it sees that nobody is there.
    ends = time.monotonic() + 300
    backends = "select 1 from pg_stat_activity where datname = current_database() and application_name = 'letta-memory'"
    while asked(filled, backends):
        assert time.monotonic() < ends
        time.sleep(0.05)
    begun = "select rebuild_below, next_place from memory.search_scopes where rebuild_below is not null"
    [(below, end)] = asked(filled, begun)
    assert 1 <= int(str(below)) < int(str(end))
    postings = "select count(*), count(distinct place) from memory.search_postings"
    before = asked(filled, postings)

    done = reindex(filled)
    assert done.returncode == 0, done.stderr
    assert f"going on: {int(str(below)) - 1:,} texts" in done.stderr
    assert "all texts are indexed anew" in done.stderr
    assert asked(filled, begun) == []
    assert asked(filled, postings) == before
    again = reindex(filled)
    assert again.returncode == 0
    assert f"{TEXTS:,} texts are to be indexed anew" in again.stderr
    assert asked(filled, postings) == before


def test_what_stands_in_the_way_is_one_sentence_and_status_1(databases: Databases) -> None:
    newer = databases.clone(tuple(SCHEMAS))
    with psycopg.connect(newer) as conn:
        conn.execute("update memory.alembic_version set version_num = '9999'")
    for dsn, reason in ((NOBODY, "database"), (newer, "run a newer release")):
        done = reindex(dsn)
        last = done.stderr.strip().splitlines()[-1]
        assert (done.returncode, "Traceback" in done.stderr, "secret" in done.stderr) == (1, False, False)
        assert last.startswith("error: ")
        assert reason in last
    databases.drop(newer)


def test_an_older_database_is_brought_up_to_date_first(databases: Databases) -> None:
    empty = databases.empty()
    done = reindex(empty)
    assert done.returncode == 0, done.stderr
    assert "0 texts are to be indexed anew" in done.stderr
    databases.drop(empty)
