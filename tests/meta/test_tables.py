"""Every key of every table of a tenant begins with the organization, so that a database can be spread by it."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from tests.support.databases import SCHEMAS

# Tables that belong to the deployment, and why.
GLOBAL = {
    "auth.organizations": "the list of organizations itself",
    "auth.signing_keys": "keys of the deployment",
    "auth.users": "finds the organization of a user",
    "auth.api_keys": "finds the organization of a credential",
}
# Single keys that may begin otherwise, and why.
EXCEPTIONS = {
    "archives_system_review": "archives of every organization are looked through for equal passages in turn",
    "suggestions_system_age": "the cleaner removes suggestions of every organization that were decided long ago",
    "archives_system_keeping": "what archives of every organization do not keep any more is removed in turn",
    "archives_system_waiting": "passages of every organization are embedded in turn",
    "files_system_deleted": "what is left of deleted files of every organization is removed in turn",
    "files_system_uploads": "the cleaner removes uploads of every organization that nobody goes on with",
    "folders_system_deleted": "what is left of deleted folders of every organization is removed in turn",
    "passage_imports_system_age": "the cleaner removes imports of every organization that nobody goes on with",
    "passage_purges_system_age": "the cleaner removes what tells repeats of old purges, of every organization",
    "passage_purges_system_waiting": "purges of every organization are brought to their end in turn",
    "folder_losses_system_order": "the agents of every organization that lost their last folder are settled in turn",
    "loose_objects_system_due": "objects of every organization that belong to no file are removed in turn",
    "search_scopes_system_tasks": "what search keeps of every organization is counted and tidied in turn",
    "conversation_queue_system_approvals": "the cleaner answers overdue requests for approval of every organization",
    "executions_started": "the sweep removes old calls of every organization",
    "provider_traces_system_age": "the cleaner removes old traces of every organization",
    "run_events_system_age": "the cleaner removes old events of every organization",
    "committed_steps_system_age": "the cleaner removes what tells repeats of old steps, of every organization",
    "file_openings_system_age": "the cleaner removes what tells repeats of old calls, of every organization",
    "tombstones_system_age": "the cleaner removes the places of rows deleted long ago, of every organization",
}

TABLES = """
select n.nspname || '.' || c.relname
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname = any(%s) and c.relname <> 'alembic_version' and not c.relispartition
order by 1
"""
KEYS = """
select n.nspname || '.' || t.relname, i.relname, coalesce(a.attname, '(expression)')
from pg_index x
join pg_class i on i.oid = x.indexrelid
join pg_class t on t.oid = x.indrelid
join pg_namespace n on n.oid = t.relnamespace
left join pg_attribute a on a.attrelid = t.oid and a.attnum = x.indkey[0] and x.indkey[0] > 0
where n.nspname = any(%s) and t.relname <> 'alembic_version'
order by 1, 2
"""
FOREIGN_KEYS = """
select n.nspname || '.' || t.relname, k.conname, a.attname
from pg_constraint k
join pg_class t on t.oid = k.conrelid
join pg_namespace n on n.oid = t.relnamespace
join pg_attribute a on a.attrelid = t.oid and a.attnum = k.conkey[1]
where k.contype = 'f' and n.nspname = any(%s)
order by 1, 2
"""


@pytest.fixture(scope="module")
def conn(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url) as made:
        yield made


def rows(conn: psycopg.Connection, statement: str) -> list[tuple[str, ...]]:
    return conn.execute(statement.encode(), (list(SCHEMAS),)).fetchall()


def is_of_a_tenant(table: str) -> bool:
    return table not in GLOBAL


def test_there_are_tables(conn):
    assert len(rows(conn, TABLES)) > 20


def test_every_table_of_a_tenant_has_a_primary_key(conn):
    keyed = {table for table, index, _ in rows(conn, KEYS) if index.endswith("_pkey")}

    assert {table for (table,) in rows(conn, TABLES)} - keyed == set()


def test_every_index_leads_with_the_organization(conn):
    wrong = [
        f"{table}: {index} leads with {column}"
        for table, index, column in rows(conn, KEYS)
        if is_of_a_tenant(table) and column != "organization_id" and index not in EXCEPTIONS
    ]

    assert not wrong


def test_every_foreign_key_leads_with_the_organization(conn):
    wrong = [
        f"{table}: {key} leads with {column}"
        for table, key, column in rows(conn, FOREIGN_KEYS)
        if is_of_a_tenant(table) and column != "organization_id"
    ]

    assert not wrong


def test_exceptions_exist(conn):
    tables = {table for (table,) in rows(conn, TABLES)}
    indexes = {index for _, index, _ in rows(conn, KEYS)}

    assert GLOBAL.keys() <= tables
    assert EXCEPTIONS.keys() <= indexes
