"""Migrations: from nothing to the newest revision, once, whoever starts at the same time."""

import asyncio
import os
import subprocess
import sys

import psycopg
import pytest

from letta_common.process.faults import MigrationFailed
from letta_postgres.migrations import newest_revision, upgrade, upgrade_sync

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
        assert conn.execute("select version_num from things.alembic_version").fetchall() == [("0002",)]


def test_a_schema_that_is_newer_than_the_program_is_refused(package, dsn):
    upgrade_sync(dsn, package=package[0], schema="things")
    (package[1] / "0002_second.py").unlink()
    with pytest.raises(MigrationFailed, match="run a newer release"):
        upgrade_sync(dsn, package=package[0], schema="things")


def test_a_failed_script_changes_nothing(package, dsn):
    (package[1] / "0002_second.py").write_text(SECOND.format(schema="nowhere"))
    with pytest.raises(Exception, match="nowhere"):
        upgrade_sync(dsn, package=package[0], schema="things")
    assert _columns(dsn) == set()


def test_an_extension_in_another_schema_is_called_so(package, dsn):
    with psycopg.connect(dsn) as conn:
        conn.execute("create extension vector")
    with pytest.raises(MigrationFailed, match="alter extension vector set schema extensions"):
        upgrade_sync(dsn, package=package[0], schema="things")


def test_an_extension_that_the_server_lacks_is_called_so(package, dsn):
    with pytest.raises(MigrationFailed, match="create extension nonsense"):
        upgrade_sync(dsn, package=package[0], schema="things", extensions=("nonsense",))


def test_a_service_without_vectors_needs_no_extension(package, dsn):
    (package[1] / "0001_first.py").write_text(FIRST.format(schema="things").replace(", v extensions.halfvec(3)", ""))
    upgrade_sync(dsn, package=package[0], schema="things", extensions=())
    assert _columns(dsn) == {"id", "n"}


def test_a_database_at_the_newest_revision_needs_no_alembic(package, dsn):
    upgrade_sync(dsn, package=package[0], schema="things")
    code = (
        "import sys; from letta_postgres.migrations import upgrade_sync; "
        f"upgrade_sync({dsn!r}, package={package[0]!r}, schema='things'); print('alembic' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(package[1].parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "False"


def test_the_newest_revision_is_the_last_script(package):
    assert newest_revision(package[1]) == "0002"
