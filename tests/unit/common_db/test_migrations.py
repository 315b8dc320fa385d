"""Migrations: from nothing to the newest revision, once, whoever starts at the same time."""

import asyncio
import sys

import psycopg
import pytest

from letta_common.migrations import MigrationFailed, check_names, newest_revision, upgrade, upgrade_sync

FIRST = '''"""First."""

from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.execute("create table {schema}.things (id text primary key, v extensions.halfvec(3))")
'''
SECOND = '''"""Second."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("alter table {schema}.things add column n int")
'''


@pytest.fixture
def package(tmp_path, monkeypatch, request):
    """Make an importable package with two migrations."""
    name = f"pkg_{abs(hash(request.node.name))}"
    versions = tmp_path / name / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    (versions / "0001_first.py").write_text(FIRST.format(schema="things"))
    (versions / "0002_second.py").write_text(SECOND.format(schema="things"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name, versions
    sys.modules.pop(name, None)


@pytest.fixture
def dsn(databases):
    dsn = databases.empty()
    yield dsn
    databases.drop(dsn)


def _columns(dsn):
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select column_name from information_schema.columns where table_name = 'things'")
        return {row[0] for row in rows}


async def test_upgrade_from_nothing(package, dsn):
    await upgrade(dsn, package=package[0], schema="things")
    assert {"id", "v", "n"} == _columns(dsn)
    await upgrade(dsn, package=package[0], schema="things")


async def test_concurrent_upgrades_are_safe(package, dsn):
    await asyncio.gather(*(upgrade(dsn, package=package[0], schema="things") for _ in range(4)))
    assert {"id", "v", "n"} == _columns(dsn)
    with psycopg.connect(dsn) as conn:
        assert [("0002",)] == conn.execute("select version_num from things.alembic_version").fetchall()
