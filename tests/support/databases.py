"""Databases for tests: one throw-away server a session, a migrated template a set of services, a clone a module."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_postgres.db import quoted
from letta_postgres.migrations import upgrade_sync

SCHEMAS = {
    "auth": "letta_auth",
    "agent": "letta_agent",
    "memory": "letta_memory",
    "tools": "letta_tools",
    "llm": "letta_llm_gateway",
}
"""Schema of each service and the package with its migrations."""


class Databases:
    """Makes migrated databases on one server, quickly."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self._server = server
        self._templates: dict[tuple[str, ...], str] = {}
        self._numbers = itertools.count(1)

    def clone(self, schemas: Sequence[str]) -> str:
        """Return the connection string of a new database with these schemas, migrated and empty."""
        wanted = tuple(sorted(schemas))
        if wanted not in self._templates:
            self._templates[wanted] = self._make_template(wanted)
        return self._create(f"test_{next(self._numbers)}", self._templates[wanted])

    def empty(self) -> str:
        """Return the connection string of a new database with nothing in it."""
        return self._create(f"test_{next(self._numbers)}", "template0")

    def drop(self, dsn: str) -> None:
        """Remove a database, whoever uses it."""
        name = dsn.split("@/", 1)[1].split("?", 1)[0]
        self._run(f"drop database if exists {quoted(name)} with (force)")

    def _make_template(self, schemas: tuple[str, ...]) -> str:
        name = "_".join(("template", *schemas))
        dsn = self._create(name, "template0")
        for schema in schemas:
            upgrade_sync(dsn, package=SCHEMAS[schema], schema=schema)
        return name

    def _create(self, name: str, template: str) -> str:
        # As files: page by page, as a server in use should, costs two and a half times as much.
        self._run(f"create database {quoted(name)} template {quoted(template)} strategy file_copy")
        return self._server.dsn(name)

    def _run(self, statement: str) -> None:
        with psycopg.connect(self._server.dsn("postgres"), autocommit=True) as conn:
            conn.execute(statement.encode())


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """Run a server for the session; fast, not durable, with pg_stat_statements."""
    home = Path(tempfile.mkdtemp(prefix="letta-test-"))
    options = PostgresOptions(
        durable=False,
        restart=False,
        parameters={"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.track": "all"},
    )
    try:
        with EmbeddedPostgres(home / "pg", options) as server:
            yield server
    finally:
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    """Make databases on the session's server."""
    return Databases(postgres)


@pytest.fixture(scope="module")
def database_url(databases: Databases) -> Iterator[str]:
    """Give a module a migrated database of its own, with the schema of every service."""
    dsn = databases.clone(tuple(SCHEMAS))
    yield dsn
    databases.drop(dsn)
