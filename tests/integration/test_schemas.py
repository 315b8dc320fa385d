"""Schemas: one made from nothing equals one brought up from the last release, whose calls still run on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from letta_postgres.migrations import EXTENSIONS_SCHEMA, upgrade_sync
from tests.support.databases import SCHEMAS, Databases

LAST_RELEASE = Path(__file__).parents[1] / "data" / "last_release"

COLUMNS = """
select c.relname, c.relkind::text, c.reloptions, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
  a.attstorage::text, pg_get_expr(d.adbin, d.adrelid)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where n.nspname = %s and c.relkind in ('r', 'c') order by 1, 4
"""
INDEXES = "select indexname, indexdef from pg_indexes where schemaname = %s order by 1"
CONSTRAINTS = """
select c.conrelid::regclass::text, c.conname, pg_get_constraintdef(c.oid)
from pg_constraint c join pg_namespace n on n.oid = c.connamespace where n.nspname = %s order by 1, 2
"""
FUNCTIONS = """
select p.oid::regprocedure::text, pg_get_functiondef(p.oid), obj_description(p.oid, 'pg_proc')
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = %s order by 1
"""
TRIGGERS = """
select t.tgname, pg_get_triggerdef(t.oid) from pg_trigger t join pg_class c on c.oid = t.tgrelid
join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and not t.tgisinternal order by 1
"""
CALLS = """
select p.oid::regprocedure::text, pg_get_function_result(p.oid)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname = %s order by 1
"""


def read(dsn: str, query: str, schema: str) -> list[Any]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query.encode(), (schema,)).fetchall()


def load_last_release(dsn: str, schema: str) -> None:
    """Make the schema as the last release left it."""
    with psycopg.connect(dsn) as conn:
        conn.execute(f"create schema {EXTENSIONS_SCHEMA}".encode())
        for name in ("vector", "pg_trgm", "btree_gin"):
            conn.execute(f"create extension {name} with schema {EXTENSIONS_SCHEMA}".encode())
        conn.execute("set check_function_bodies = off")
        conn.execute((LAST_RELEASE / f"{schema}.sql").read_bytes())


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_a_schema_from_nothing_equals_one_brought_up(databases: Databases, schema: str) -> None:
    scratch, old = databases.empty(), databases.empty()
    upgrade_sync(scratch, package=SCHEMAS[schema], schema=schema)
    load_last_release(old, schema)
    upgrade_sync(old, package=SCHEMAS[schema], schema=schema)

    for query in (COLUMNS, INDEXES, CONSTRAINTS, FUNCTIONS, TRIGGERS):
        assert read(old, query, schema) == read(scratch, query, schema)


@pytest.mark.parametrize("schema", sorted(SCHEMAS))
def test_calls_of_the_last_release_run_on_the_new_schema(databases: Databases, schema: str) -> None:
    """While releases change, the replicas of the last one call functions as they know them."""
    dsn = databases.empty()
    load_last_release(dsn, schema)
    before = read(dsn, CALLS, schema)
    upgrade_sync(dsn, package=SCHEMAS[schema], schema=schema)

    assert set(before) <= set(read(dsn, CALLS, schema))
