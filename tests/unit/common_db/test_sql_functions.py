"""Functions of the database follow their files, and the older of two releases leaves the newer one's alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import psycopg
import pytest

from letta_common.process.faults import MigrationFailed
from letta_postgres.sql_functions import FOLDER, Functions

NUMBER = "create or replace function things.number() returns integer language sql as $$ select {} $$;\n"


@pytest.fixture
def conn(databases: Any) -> Any:
    dsn = databases.empty()
    with psycopg.connect(dsn) as connection:
        connection.execute("create schema things")
        yield connection
    databases.drop(dsn)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / FOLDER).mkdir(parents=True)
    return tmp_path


def write(home: Path, name: str, text: str) -> None:
    (home / FOLDER / f"{name}.sql").write_text(text)


def release(home: Path, *numbers: int) -> Functions:
    return dataclasses.replace(Functions.of("nothing_installed", home), release=numbers)


def number(conn: Any) -> int:
    return int(conn.execute("select things.number()").fetchone()[0])


def test_a_function_is_written_once_and_again_when_its_file_changes(conn: Any, home: Path) -> None:
    write(home, "number", NUMBER.format(1))
    release(home, 1).apply(conn, "things")
    assert (number(conn), release(home, 1).stale(conn, "things")) == (1, [])
    write(home, "number", NUMBER.format(2))
    assert [file.name for file in release(home, 1).stale(conn, "things")] == ["number"]
    release(home, 1).apply(conn, "things")
    assert number(conn) == 2


def test_an_older_release_leaves_what_a_newer_one_wrote(conn: Any, home: Path) -> None:
    write(home, "number", NUMBER.format(2))
    release(home, 1, 10).apply(conn, "things")
    write(home, "number", NUMBER.format(1))
    older = release(home, 1, 9)
    assert older.stale(conn, "things") == []
    older.apply(conn, "things")
    assert number(conn) == 2


def test_functions_may_call_each_other_whatever_comes_first(conn: Any, home: Path) -> None:
    write(home, "a", "create or replace function things.a() returns int language sql as $$ select things.b() $$;")
    write(home, "b", "create or replace function things.b() returns int language sql as $$ select 3 $$;")
    release(home, 1).apply(conn, "things")
    assert conn.execute("select things.a()").fetchone() == (3,)


def test_a_function_without_a_file_is_dropped_unless_a_newer_release_wrote_it(conn: Any, home: Path) -> None:
    write(home, "number", NUMBER.format(1))
    release(home, 2).apply(conn, "things")
    (home / FOLDER / "number.sql").unlink()
    release(home, 1).apply(conn, "things")
    assert number(conn) == 1
    release(home, 3).apply(conn, "things")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        number(conn)


@pytest.mark.parametrize(
    "changed",
    [
        "create or replace function things.number(n integer) returns integer language sql as $$ select n $$;",
        "create or replace function things.number() returns text language sql as $$ select 'x' $$;",
    ],
)
def test_a_function_that_changes_its_shape_needs_another_name(conn: Any, home: Path, changed: str) -> None:
    write(home, "number", NUMBER.format(1))
    release(home, 1).apply(conn, "things")
    write(home, "number", changed)
    with pytest.raises(MigrationFailed, match="give it a new name"):
        release(home, 1).apply(conn, "things")
