"""The books in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from letta.llm.v1.usage_pb2 import UsageGroup
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_llm_gateway.domain.accounting.traces import Trace
from letta_llm_gateway.domain.accounting.usage import GROUP_KEYS, Attribution, CallFilter, GroupBy, UsageRecord
from letta_llm_gateway.store import tables
from letta_postgres.db import Database
from letta_postgres.keyset import Keyset, fetch_page

# Spending counts rows that were really added, so that a repeated batch costs nothing. All replicas lock in one order.
_ADD = """
with quick as (select set_config('synchronous_commit', 'off', true)),
booked as (
  insert into llm.usage select u.* from quick, jsonb_populate_recordset(null::llm.usage, %s) u
  order by u.organization_id, u.id
  on conflict do nothing
  returning organization_id, (created_at at time zone 'UTC')::date as day, user_id, agent_id, cost_microdollars),
spent as (
  insert into llm.spending (organization_id, day, user_id, agent_id, cost_microdollars)
  select organization_id, day, user_id, agent_id, sum(cost_microdollars) from booked
  where cost_microdollars > 0 group by 1, 2, 3, 4 order by 1, 2, 3, 4
  on conflict (organization_id, day, user_id, agent_id)
  do update set cost_microdollars = llm.spending.cost_microdollars + excluded.cost_microdollars)
insert into llm.provider_traces select t.* from quick, jsonb_populate_recordset(null::llm.provider_traces, %s) t
on conflict do nothing returning 1
"""
_u = tables.usage.c
_GROUPS: dict[GroupBy, sa.ColumnElement[str]] = {
    GroupBy.MODEL: _u.model,
    GroupBy.AGENT: _u.agent_id,
    GroupBy.USER: _u.user_id,
    GroupBy.RUN: _u.run_id,
    GroupBy.DAY: sa.func.to_char(sa.func.timezone("UTC", _u.created_at), "YYYY-MM-DD"),
}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
_SUMS = ("calls", "failed_calls", *_TOKENS, "cost_microdollars", "unpriced_calls")


class SqlUsageStore:
    """Keeps the books in `llm.usage`, `llm.spending` and `llm.provider_traces`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, records: Sequence[UsageRecord], traces: Sequence[Trace]) -> None:
        """Write records, each once, in one statement that does not wait for the disk."""
        await self._db.hot(_ADD, (_json([_row(one) for one in records]), _json([_plain(one) for one in traces])))

    async def list_calls(self, actor: Actor, page: Page, wanted: CallFilter) -> list[UsageRecord]:
        """Return one page of calls. Raises CursorNotFound."""
        mine = _u.organization_id == actor.organization_id
        query = sa.select(tables.usage).where(mine, *_wanted(wanted))
        keyset = Keyset(at=_u.created_at, id=_u.id, scope=mine)
        async with self._db.connect() as conn:
            return [_record(row) for row in await fetch_page(conn, query, page, keyset)]

    async def list_sums(
        self, actor: Actor, wanted: CallFilter, groups: Sequence[GroupBy], most: int
    ) -> list[UsageGroup]:
        """Return sums, the costliest groups first; days in their order when they are the first group."""
        keys = [_GROUPS[group].label(f"k{at}") for at, group in enumerate(groups)]
        cost = sa.func.sum(_u.cost_microdollars)
        query = sa.select(
            *keys,
            sa.func.count(),
            sa.func.count().filter(_u.outcome != "ok"),
            *(sa.cast(sa.func.coalesce(sa.func.sum(_u[name]), 0), sa.BigInteger) for name in _TOKENS),
            sa.cast(cost, sa.BigInteger),
            sa.func.count().filter(_u.cost_microdollars.is_(None)),
        ).where(_u.organization_id == actor.organization_id, *_wanted(wanted))
        if keys:
            places: list[sa.ColumnElement[Any]] = [sa.literal_column(f"k{at}") for at in range(len(keys))]
            query = query.group_by(*places)
            first = [] if groups[0] is GroupBy.DAY else [cost.desc().nulls_last()]
            query = query.order_by(*first, *places)
        async with self._db.connect() as conn:
            rows = (await conn.execute(query.limit(most))).all()
        names = [*(GROUP_KEYS[group] for group in groups), *_SUMS]
        return [UsageGroup(**dict(zip(names, row, strict=True))) for row in rows]

    async def find_trace(self, actor: Actor, step_id: str) -> Trace | None:
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

    async def forget_traces(self, before: datetime, most: int) -> int:
        """Delete traces that are older, of every organization: a statement of the system."""
        old = (
            sa.select(tables.traces.c.organization_id, tables.traces.c.id)
            .where(tables.traces.c.created_at < before)
            .limit(most)
        )
        statement = sa.delete(tables.traces).where(
            sa.tuple_(tables.traces.c.organization_id, tables.traces.c.id).in_(old)
        )
        async with self._db.begin() as conn:
            return (await conn.execute(statement)).rowcount


def _wanted(wanted: CallFilter) -> list[sa.ColumnElement[bool]]:
    named = ("agent_id", "run_id", "step_id", "user_id", "model")
    found: list[sa.ColumnElement[bool]] = [_u[name] == getattr(wanted, name) for name in named if getattr(wanted, name)]
    if wanted.start_at is not None:
        found.append(_u.created_at >= wanted.start_at)
    if wanted.end_at is not None:
        found.append(_u.created_at < wanted.end_at)
    return found


def _json(rows: Sequence[dict[str, Any]]) -> Jsonb:
    return Jsonb(rows)


def _row(record: UsageRecord) -> dict[str, Any]:
    values = _plain(record)
    del values["attribution"]
    return {**values, **_fields(record.attribution)}


def _plain(booked: UsageRecord | Trace) -> dict[str, Any]:
    return {**_fields(booked), "created_at": booked.created_at.isoformat()}


def _fields(value: UsageRecord | Trace | Attribution) -> dict[str, Any]:
    """Return the fields of a value by name. `asdict` would copy each deeply: 4 % of the time of a message."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _record(row: sa.Row[Any]) -> UsageRecord:
    return UsageRecord(
        row.id,
        row.organization_id,
        row.user_id,
        row.created_at,
        Attribution(row.agent_id, row.run_id, row.step_id, row.purpose),
        row.model,
        row.provider_type,
        row.prompt_tokens,
        row.completion_tokens,
        row.cached_input_tokens,
        row.cache_write_tokens,
        row.reasoning_tokens,
        row.source,
        row.cost_microdollars,
        row.duration_ms,
        row.outcome,
    )


def _trace(row: sa.Row[Any]) -> Trace:
    return Trace(
        row.id,
        row.organization_id,
        row.user_id,
        row.created_at,
        row.agent_id,
        row.run_id,
        row.step_id,
        row.purpose,
        row.model,
        row.provider_type,
        row.request_json,
        row.response_json,
    )
