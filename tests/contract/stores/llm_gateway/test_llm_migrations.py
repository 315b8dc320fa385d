"""What a database of the first release holds is still right after the upgrade."""

from __future__ import annotations

import shutil
import sys
from datetime import date
from pathlib import Path

import psycopg
import pytest

import letta_llm_gateway
from letta.llm.v1.usage_service_pb2 import ModelCallFilter
from letta_llm_gateway.store.budgets import SqlBudgetStore
from letta_llm_gateway.store.usage import SqlUsageStore
from letta_postgres.db import Database
from letta_postgres.migrations import upgrade
from tests.contract.stores.llm_gateway.test_llm_stores import ANN, Page, record

ROW = """
insert into llm.usage (organization_id, id, user_id, created_at, agent_id, run_id, step_id, purpose, model,
  provider_type, prompt_tokens, completion_tokens, cached_input_tokens, cache_write_tokens, reasoning_tokens, source,
  cost_microdollars, duration_ms, outcome)
values ('org-a', %s, 'user-a', %s, 'agent-1', '', '', '', 'm', %s, 1, 1, 0, 0, 0, 1, %s, 1, 'ok')
"""


@pytest.fixture
def first_release(tmp_path, monkeypatch):
    """A package with the first migration alone."""
    name = "letta_llm_first_release"
    versions = tmp_path / name / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / name / "__init__.py").touch()
    source = Path(letta_llm_gateway.__file__).parent / "migrations" / "versions" / "0001_tables.py"
    shutil.copy(source, versions)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name
    sys.modules.pop(name, None)


@pytest.fixture
async def old(databases, first_release):
    dsn = databases.empty()
    await upgrade(dsn, package=first_release, schema="llm", extensions=())
    with psycopg.connect(dsn, autocommit=True) as conn:
        for id_, at, kind, cost in (
            ("usage-1", "2026-11-21T23:30:00+00:00", "openai", 5),
            ("usage-2", "2026-11-22T00:30:00+00:00", "openai", 7),
            ("usage-3", "2026-11-22T00:30:00+01:00", "openai", 11),
            ("usage-4", "2026-11-22T12:00:00+00:00", "openai", 0),
            ("usage-5", "2026-11-22T12:00:00+00:00", "builtin", 0),
        ):
            conn.execute(ROW.encode(), (id_, at, kind, cost))
    yield dsn
    databases.drop(dsn)


async def test_costs_that_were_not_known_become_absent_and_spending_is_counted_by_day(old):
    await upgrade(old, package="letta_llm_gateway", schema="llm", extensions=())

    db = await Database.open(old, schema="llm")
    try:
        calls = await SqlUsageStore(db).list_calls(ANN, Page(ascending=True), ModelCallFilter())
        costs = {call.id: call.cost_microdollars if call.HasField("cost_microdollars") else None for call in calls}
        assert costs == {"usage-1": 5, "usage-2": 7, "usage-3": 11, "usage-4": None, "usage-5": 0}
        days = await db.hot("select day, cost_microdollars from llm.spending order by 1")
        assert days == [(date(2026, 11, 21), 16), (date(2026, 11, 22), 7)]

        await SqlUsageStore(db).create([record(cost=100)], [])
        spent = await SqlBudgetStore(db).spent(["org-a"], date(2026, 11, 22))
        assert spent["org-a"].month_microdollars == 123
    finally:
        await db.close()
