"""Brings a service's schema up to date: Alembic scripts in `<package>/migrations/versions`, without ini files, for the
tables, and then the functions in `<package>/store/sql/functions`.

A script is called `NNNN_title.py`, its revision is `NNNN`, and it follows the one numbered before it; so the newest
revision is known from the file names, and a start that finds it in the database never imports Alembic.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from letta_common.process.faults import MigrationFailed
from letta_postgres.addresses import plain_dsn
from letta_postgres.db import driver_errors, quoted
from letta_postgres.sql_functions import Functions

EXTENSIONS_SCHEMA = "extensions"
EXTENSIONS = ("vector", "pg_trgm", "btree_gin")
VERSION_TABLE = "alembic_version"

_LOCK = "select pg_advisory_xact_lock(hashtextextended(%s, 0))"

_one_at_a_time = threading.Lock()
"""Alembic's `op` is one for the process."""


async def upgrade(dsn: str, *, package: str, schema: str, extensions: Sequence[str] = EXTENSIONS) -> None:
    """Bring one schema to the newest revision; safe when several replicas do it at once.

    Raises:
        DatabaseUnavailable: the database cannot be reached.
        MigrationFailed: an extension is missing, or the schema is newer than the program.
    """
    await asyncio.to_thread(upgrade_sync, dsn, package=package, schema=schema, extensions=extensions)


def upgrade_sync(dsn: str, *, package: str, schema: str, extensions: Sequence[str] = EXTENSIONS) -> None:
    """Do what `upgrade` does, blocking."""
    directory = _versions_of(package)
    functions = Functions.of(package, directory.parent.parent)
    head = newest_revision(directory)
    with driver_errors():
        current, stale = _state(plain_dsn(dsn), schema, functions)
    if head is None or (current == head and not stale):
        return
    if current is not None and current > head:
        raise MigrationFailed(
            f"schema {schema} is at revision {current}, this program knows {head}: run a newer release"
        )
    with _one_at_a_time, driver_errors():
        if current == head:
            _apply_functions(plain_dsn(dsn), schema, functions)
        else:
            _run_scripts(plain_dsn(dsn), directory, schema, extensions, functions)


def newest_revision(directory: Path) -> str | None:
    """Return the number of the last script, or None when there is none."""
    numbers = sorted(path.name.split("_", 1)[0] for path in directory.glob("[0-9]*_*.py"))
    return numbers[-1] if numbers else None


def _versions_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise MigrationFailed(f"the package {package} is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "migrations" / "versions"


def _state(dsn: str, schema: str, functions: Functions) -> tuple[str | None, bool]:
    """Return the revision of the tables and whether functions are stale."""
    with psycopg.connect(dsn, autocommit=True, connect_timeout=5) as conn:
        try:
            row = conn.execute(f"select version_num from {quoted(schema, VERSION_TABLE)}".encode()).fetchone()
        # A new database, or one in which only this service has no schema yet.
        except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName):
            return None, True
        return (str(row[0]) if row else None), bool(functions.stale(conn, schema))


def _apply_functions(dsn: str, schema: str, functions: Functions) -> None:
    with psycopg.connect(dsn, connect_timeout=5) as conn:
        conn.execute(_LOCK.encode(), (f"letta.migrate.{schema}",))
        functions.apply(conn, schema)


def _run_scripts(dsn: str, directory: Path, schema: str, extensions: Sequence[str], functions: Functions) -> None:
    engine = sa.create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(dsn, connect_timeout=5), poolclass=NullPool
    )
    with engine.begin() as conn:
        # A transaction of its own: all services make the same extensions, and wait for each other in this part alone.
        _lock(conn, EXTENSIONS_SCHEMA)
        _create_extensions(conn, extensions)
    with engine.begin() as conn:
        _lock(conn, schema)
        conn.execute(sa.text(f"create schema if not exists {quoted(schema)}"))
        _run_alembic(conn, directory, schema)
        driver: Any = conn.connection.driver_connection
        functions.apply(driver, schema)
    engine.dispose()


def _lock(conn: sa.Connection, name: str) -> None:
    """Let one replica at a time pass. The lock ends with the transaction, so poolers cannot leak it."""
    conn.exec_driver_sql(_LOCK, (f"letta.migrate.{name}",))


def _create_extensions(conn: sa.Connection, extensions: Sequence[str]) -> None:
    if not extensions:
        return
    conn.execute(sa.text(f"create schema if not exists {EXTENSIONS_SCHEMA}"))
    places: dict[str, str] = dict(
        conn.execute(
            sa.text(
                "select e.extname, n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace "
                "where e.extname = any(:names)"
            ),
            {"names": list(extensions)},
        ).all()
    )
    for name in extensions:
        place = places.get(name)
        if place is None:
            try:
                conn.execute(sa.text(f"create extension {quoted(name)} with schema {EXTENSIONS_SCHEMA}"))
            except sa.exc.DBAPIError as error:
                raise MigrationFailed(
                    f"the database has no extension {name} and refuses to make it ({str(error.orig).strip()}); have an "
                    f"administrator run: create extension {name} with schema {EXTENSIONS_SCHEMA}"
                ) from error
        elif place != EXTENSIONS_SCHEMA:
            raise MigrationFailed(
                f"the extension {name} is in schema {place}; run: alter extension {name} set schema {EXTENSIONS_SCHEMA}"
            )


def _run_alembic(conn: sa.Connection, directory: Path, schema: str) -> None:
    # Here and not above: a start with nothing to migrate does without its import.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    config = Config()
    # Alembic reads its options as those of an ini file, where `%` begins a reference.
    config.set_main_option("script_location", str(directory.parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    script = ScriptDirectory.from_config(config)
    with EnvironmentContext(config, script, fn=lambda revision, _: script._upgrade_revs("head", revision)) as context:
        context.configure(connection=conn, version_table=VERSION_TABLE, version_table_schema=schema)
        context.run_migrations()
