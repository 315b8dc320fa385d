"""The books in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from letta_common.actor import Actor
from letta_common.db import Database
from letta_llm_gateway.domain.usage import Attribution, Trace, UsageRecord
from letta_llm_gateway.store import tables

_AT_ONCE = 1000
_ADD = """
with quick as (select set_config('synchronous_commit', 'off', true)),
booked as (
  insert into llm.usage select u.* from quick, jsonb_populate_recordset(null::llm.usage, %s) u
  on conflict do nothing)
insert into llm.provider_traces select t.* from quick, jsonb_populate_recordset(null::llm.provider_traces, %s) t
on conflict do nothing returning 1
"""


class SqlUsageStore:
    """Keeps the books in `llm.usage` and `llm.provider_traces`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, records: Sequence[UsageRecord], traces: Sequence[Trace]) -> None:
        """Write records, each once, in one statement that does not wait for the disk."""
        await self._db.hot(_ADD, (_json(records), _json(traces)))

    async def spent(self, actor: Actor, since: datetime) -> int:
        """Return what the organization's generations have cost, in millionths of a dollar."""
        query = sa.select(sa.func.coalesce(sa.func.sum(tables.usage.c.cost_microdollars), 0)).where(
            tables.usage.c.organization_id == actor.organization_id, tables.usage.c.created_at >= since
        )
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def trace_of_step(self, actor: Actor, step_id: str) -> Trace | None:
        """Return the newest trace of a step."""
        query = (
            sa.select(tables.traces)
            .where(tables.traces.c.organization_id == actor.organization_id, tables.traces.c.step_id == step_id)
            .order_by(tables.traces.c.created_at.desc(), tables.traces.c.id.desc())
            .limit(1)
        )
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return None if row is None else _trace(row)

    async def forget_traces(self, before: datetime) -> int:
        """Delete traces that are older, of every organization: a statement of the system."""
        old = (
            sa.select(tables.traces.c.organization_id, tables.traces.c.id)
            .where(tables.traces.c.created_at < before)
            .limit(_AT_ONCE)
        )
        statement = sa.delete(tables.traces).where(
            sa.tuple_(tables.traces.c.organization_id, tables.traces.c.id).in_(old)
        )
        async with self._db.begin() as conn:
            return (await conn.execute(statement)).rowcount


def _json(booked: Sequence[UsageRecord] | Sequence[Trace]) -> Jsonb:
    return Jsonb([_row(one) for one in booked])


def _row(booked: UsageRecord | Trace) -> dict[str, Any]:
    values = asdict(booked)
    attribution: dict[str, str] = values.pop("attribution")
    return {**values, **attribution, "created_at": booked.created_at.isoformat()}


def _trace(row: sa.Row[Any]) -> Trace:
    attribution = Attribution(row.agent_id, row.run_id, row.step_id, row.purpose)
    return Trace(
        row.id,
        row.organization_id,
        row.user_id,
        row.created_at,
        attribution,
        row.model,
        row.provider_type,
        row.request_json,
        row.response_json,
    )
