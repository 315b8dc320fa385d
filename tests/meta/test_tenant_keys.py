"""Every key of every tenant table leads with the organization, so that tables can be distributed by it."""

import psycopg
import pytest

DIRECTORY = {"auth.organizations", "auth.users", "auth.api_keys", "auth.signing_keys"}
"""Tables that tell to which organization a credential belongs, or that belong to none."""
GLOBAL: set[str] = set()
"""Tables of the deployment that hold nothing of a tenant."""
SYSTEM = "_system_"
"""Part of the name of an index for a statement that spans organizations: lease renewal, dispatcher, schedules."""
KEYS = """
    select n.nspname || '.' || c.relname, i.relname,
           (select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum = x.indkey[0]),
           m.amname
    from pg_index x
    join pg_class c on c.oid = x.indrelid
    join pg_class i on i.oid = x.indexrelid
    join pg_am m on m.oid = i.relam
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname in ('auth', 'agent', 'memory', 'tools', 'llm') and c.relname <> 'alembic_version'
"""
FOREIGN_KEYS = """
    select n.nspname || '.' || c.relname, k.conname,
           (select a.attname from pg_attribute a where a.attrelid = c.oid and a.attnum = k.conkey[1])
    from pg_constraint k
    join pg_class c on c.oid = k.conrelid
    join pg_namespace n on n.oid = c.relnamespace
    where k.contype = 'f' and n.nspname in ('auth', 'agent', 'memory', 'tools', 'llm')
"""
TABLES = """
    select n.nspname || '.' || c.relname,
           exists (
               select from pg_attribute a where a.attrelid = c.oid and a.attname = 'organization_id' and a.attnotnull
           )
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname in ('auth', 'agent', 'memory', 'tools', 'llm')
    and c.relname <> 'alembic_version'
"""


@pytest.fixture(scope="module")
def query(database_url):
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield lambda statement: conn.execute(statement).fetchall()


def test_every_tenant_table_names_its_organization(query):
    tables = query(TABLES)
    assert tables
    assert [table for table, named in tables if not named and table not in DIRECTORY | GLOBAL] == []


def test_every_key_and_index_leads_with_the_organization(query):
    faults = [
        f"{table}: {index} leads with {first}"
        for table, index, first, method in query(KEYS)
        if table not in DIRECTORY | GLOBAL and method == "btree" and first != "organization_id" and SYSTEM not in index
    ]
    assert faults == []


def test_every_foreign_key_leads_with_the_organization(query):
    faults = [
        f"{table}: {name}"
        for table, name, first in query(FOREIGN_KEYS)
        if table not in DIRECTORY | GLOBAL and first != "organization_id"
    ]
    assert faults == []
