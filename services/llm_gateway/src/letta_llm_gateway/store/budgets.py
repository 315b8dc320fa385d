"""Budgets in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_llm_gateway.domain.accounting.budgets import (
    Action,
    Budget,
    BudgetScope,
    BudgetStanding,
    Period,
    Spent,
    missing,
)
from letta_llm_gateway.store import tables
from letta_postgres.db import Database
from letta_postgres.keyset import Keyset, fetch_page

_b = tables.budgets.c
_SPENT = """(
  select coalesce(sum(s.cost_microdollars), 0)::bigint from llm.spending s
  where s.organization_id = b.organization_id
    and s.day >= case b.period when 1 then %s::date when 2 then %s::date else '0001-01-01'::date end
    and (b.scope = 1 or (b.scope = 2 and s.user_id = b.subject_id) or (b.scope = 3 and s.agent_id = b.subject_id)))"""
_STANDINGS = f"""
with o as (select unnest(%s::text[]) as organization_id)
select o.organization_id, null, null, null, null, null, null, null, null, (
  select coalesce(sum(s.cost_microdollars), 0)::bigint from llm.spending s
  where s.organization_id = o.organization_id and s.day >= %s::date)
from o
union all
select b.organization_id, b.id, b.scope, b.subject_id, b.period, b.limit_microdollars, b.action, b.created_at,
  b.updated_at, {_SPENT}
from o join llm.budgets b using (organization_id)
"""


class SqlBudgetStore:
    """Keeps budgets in `llm.budgets`; what was spent is read from `llm.spending`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, actor: Actor, budget: Budget) -> Budget:
        """Store a budget; one of the same scope, subject and period is changed and keeps its id."""
        statement = postgresql.insert(tables.budgets).values(
            id=budget.id,
            organization_id=actor.organization_id,
            scope=budget.scope.value,
            subject_id=budget.subject_id,
            period=budget.period.value,
            limit_microdollars=budget.limit_microdollars,
            action=budget.action.value,
            created_at=budget.created_at,
            updated_at=budget.updated_at,
        )
        changed = ("limit_microdollars", "action", "updated_at")
        statement = statement.on_conflict_do_update(
            constraint="budgets_subject", set_={name: statement.excluded[name] for name in changed}
        )
        async with self._db.begin() as conn:
            return _budget((await conn.execute(statement.returning(*tables.budgets.columns))).one())

    async def list_budgets(self, actor: Actor, page: Page) -> list[Budget]:
        """Return one page of budgets. Raises CursorNotFound."""
        mine = _b.organization_id == actor.organization_id
        keyset = Keyset(at=_b.created_at, id=_b.id, scope=mine)
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, sa.select(tables.budgets).where(mine), page, keyset)
        return [_budget(row) for row in rows]

    async def delete(self, actor: Actor, budget_id: str) -> None:
        """Delete a budget."""
        statement = sa.delete(tables.budgets).where(_b.organization_id == actor.organization_id, _b.id == budget_id)
        async with self._db.begin() as conn:
            if (await conn.execute(statement)).rowcount != 1:
                raise missing(budget_id)

    async def spent(self, organization_ids: Sequence[str], today: date) -> dict[str, Spent]:
        """Return what organizations have spent: a statement of the system."""
        month = Period.MONTH.start(today)
        rows = await self._db.hot(_STANDINGS, (list(organization_ids), month, today, month))
        months = {row[0]: row[-1] for row in rows if row[1] is None}
        lines: dict[str, list[BudgetStanding]] = {organization_id: [] for organization_id in organization_ids}
        for organization_id, budget_id, scope, subject, period, limit, action, created, updated, spent in rows:
            if budget_id is not None:
                budget = Budget(
                    budget_id, organization_id, BudgetScope(scope), subject, Period(period), limit, Action(action),
                    created, updated,
                )  # fmt: skip
                lines[organization_id].append(BudgetStanding(budget, spent))
        return {key: Spent(months.get(key, 0), lines[key]) for key in organization_ids}


def _budget(row: sa.Row[Any]) -> Budget:
    return Budget(
        row.id,
        row.organization_id,
        BudgetScope(row.scope),
        row.subject_id,
        Period(row.period),
        row.limit_microdollars,
        Action(row.action),
        row.created_at,
        row.updated_at,
    )
