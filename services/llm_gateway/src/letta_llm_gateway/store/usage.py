"""The books in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from psycopg.types.json import Jsonb

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import TokenCountSource
from letta.llm.v1.trace_service_pb2 import ProviderTrace
from letta.llm.v1.usage_pb2 import ModelCall, UsageGroup
from letta.llm.v1.usage_service_pb2 import ModelCallFilter, UsageGroupBy
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_common.values.times import duration_of, optional_time, stamp_of, time_of
from letta_llm_gateway.domain.accounting.usage import GROUP_KEYS, BookedCall
from letta_llm_gateway.store import tables
from letta_llm_gateway.store.purposes import purpose_of, purpose_word
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
_GROUPS: dict[UsageGroupBy.ValueType, sa.ColumnElement[str]] = {
    UsageGroupBy.USAGE_GROUP_BY_MODEL: _u.model,
    UsageGroupBy.USAGE_GROUP_BY_AGENT: _u.agent_id,
    UsageGroupBy.USAGE_GROUP_BY_USER: _u.user_id,
    UsageGroupBy.USAGE_GROUP_BY_RUN: _u.run_id,
    UsageGroupBy.USAGE_GROUP_BY_DAY: sa.func.to_char(sa.func.timezone("UTC", _u.created_at), "YYYY-MM-DD"),
}
_TOKENS = ("prompt_tokens", "completion_tokens", "cached_input_tokens", "cache_write_tokens", "reasoning_tokens")
_SUMS = ("calls", "failed_calls", *_TOKENS, "cost_microdollars", "unpriced_calls")


class SqlUsageStore:
    """Keeps the books in `llm.usage`, `llm.spending` and `llm.provider_traces`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, records: Sequence[BookedCall], traces: Sequence[ProviderTrace]) -> None:
        """Write records, each once, in one statement that does not wait for the disk."""
        await self._db.hot(_ADD, (Jsonb([_row(one) for one in records]), Jsonb([_trace_row(one) for one in traces])))

    async def list_calls(self, actor: Actor, page: Page, wanted: ModelCallFilter) -> list[ModelCall]:
        """Return one page of calls. Raises CursorNotFound."""
        mine = _u.organization_id == actor.organization_id
        query = sa.select(tables.usage).where(mine, *_wanted(wanted))
        keyset = Keyset(at=_u.created_at, id=_u.id, scope=mine)
        async with self._db.connect() as conn:
            return [_call(row) for row in await fetch_page(conn, query, page, keyset)]

    async def list_sums(
        self, actor: Actor, wanted: ModelCallFilter, groups: Sequence[UsageGroupBy.ValueType], most: int
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
            first = [] if groups[0] is UsageGroupBy.USAGE_GROUP_BY_DAY else [cost.desc().nulls_last()]
            query = query.order_by(*first, *places)
        async with self._db.connect() as conn:
            rows = (await conn.execute(query.limit(most))).all()
        names = [*(GROUP_KEYS[group] for group in groups), *_SUMS]
        return [UsageGroup(**dict(zip(names, row, strict=True))) for row in rows]

    async def find_trace(self, actor: Actor, step_id: str) -> ProviderTrace | None:
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


def _wanted(wanted: ModelCallFilter) -> list[sa.ColumnElement[bool]]:
    named = ("agent_id", "run_id", "step_id", "user_id", "model")
    found: list[sa.ColumnElement[bool]] = [_u[name] == getattr(wanted, name) for name in named if getattr(wanted, name)]
    if (start := optional_time(wanted, "start_at")) is not None:
        found.append(_u.created_at >= start)
    if (end := optional_time(wanted, "end_at")) is not None:
        found.append(_u.created_at < end)
    return found


def _row(booked: BookedCall) -> dict[str, Any]:
    call = booked.call
    used, took = call.usage, call.duration
    return {
        "id": call.id,
        "organization_id": booked.organization_id,
        "user_id": call.user_id,
        "created_at": time_of(call.created_at).isoformat(),
        "agent_id": call.agent_id,
        "run_id": call.run_id,
        "step_id": call.step_id,
        "purpose": purpose_word(call.purpose),
        "model": call.model,
        "provider_type": call.provider_type,
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "cached_input_tokens": used.cached_input_tokens,
        "cache_write_tokens": used.cache_write_tokens,
        "reasoning_tokens": used.reasoning_tokens,
        "source": call.usage_source,
        "cost_microdollars": call.cost_microdollars if call.HasField("cost_microdollars") else None,
        "duration_ms": took.seconds * 1_000 + took.nanos // 1_000_000,
        "outcome": call.outcome,
    }


def _call(row: sa.Row[Any]) -> ModelCall:
    return ModelCall(
        id=row.id,
        created_at=stamp_of(row.created_at),
        user_id=row.user_id,
        agent_id=row.agent_id or None,
        run_id=row.run_id or None,
        step_id=row.step_id or None,
        purpose=purpose_of(row.purpose),
        model=row.model,
        provider_type=row.provider_type,
        usage=TokenUsage(**{name: getattr(row, name) for name in _TOKENS}),
        usage_source=TokenCountSource.ValueType(row.source),
        cost_microdollars=row.cost_microdollars,
        duration=duration_of(row.duration_ms * 1_000_000),
        outcome=row.outcome,
    )


def _trace_row(trace: ProviderTrace) -> dict[str, Any]:
    return {
        "id": trace.id,
        "organization_id": trace.org_id,
        "user_id": trace.user_id,
        "created_at": time_of(trace.created_at).isoformat(),
        "agent_id": trace.agent_id,
        "run_id": trace.run_id,
        "step_id": trace.step_id,
        "purpose": purpose_word(trace.call_type),
        "model": trace.model,
        "provider_type": trace.provider_type,
        "request_json": trace.request_json,
        "response_json": trace.response_json,
    }


def _trace(row: sa.Row[Any]) -> ProviderTrace:
    return ProviderTrace(
        id=row.id,
        created_at=stamp_of(row.created_at),
        request_json=row.request_json,
        response_json=row.response_json,
        step_id=row.step_id or None,
        agent_id=row.agent_id or None,
        run_id=row.run_id or None,
        call_type=purpose_of(row.purpose),
        model=row.model,
        org_id=row.organization_id,
        user_id=row.user_id,
        provider_type=row.provider_type,
    )
