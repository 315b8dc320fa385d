"""The books in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta_common.actor import Actor
from letta_common.db import Database
from letta_llm_gateway.domain.usage import Attribution, Trace, UsageRecord
from letta_llm_gateway.store.tables import traces, usage

_AT_ONCE = 1000


class SqlUsageStore:
    """Keeps the books in `llm.usage` and `llm.provider_traces`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, records: Sequence[UsageRecord], written: Sequence[Trace]) -> None:
        """Write records, each once, without waiting for the disk."""
        async with self._db.begin() as conn:
            await conn.execute(sa.text("set local synchronous_commit = off"))
            if records:
                await conn.execute(insert(usage).on_conflict_do_nothing(), [_row(record) for record in records])
            if written:
                await conn.execute(insert(traces).on_conflict_do_nothing(), [_row(trace) for trace in written])

    async def spent(self, actor: Actor, since: datetime) -> int:
        """Return what the organization's generations have cost, in millionths of a dollar."""
        query = sa.select(sa.func.coalesce(sa.func.sum(usage.c.cost_microdollars), 0)).where(
            usage.c.organization_id == actor.organization_id, usage.c.created_at >= since
        )
        async with self._db.connect() as conn:
            return int((await conn.execute(query)).scalar_one())

    async def trace_of_step(self, actor: Actor, step_id: str) -> Trace | None:
        """Return the newest trace of a step."""
        query = (
            sa.select(traces)
            .where(traces.c.organization_id == actor.organization_id, traces.c.step_id == step_id)
            .order_by(traces.c.created_at.desc(), traces.c.id.desc())
            .limit(1)
        )
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return None if row is None else _trace(row)

    async def forget_traces(self, before: datetime) -> int:
        """Delete traces that are older, of every organization: a statement of the system."""
        old = sa.select(traces.c.organization_id, traces.c.id).where(traces.c.created_at < before).limit(_AT_ONCE)
        statement = sa.delete(traces).where(sa.tuple_(traces.c.organization_id, traces.c.id).in_(old))
        async with self._db.begin() as conn:
            return (await conn.execute(statement)).rowcount


def _row(booked: UsageRecord | Trace) -> dict[str, Any]:
    values = asdict(booked)
    attribution: dict[str, str] = values.pop("attribution")
    return {**values, **attribution}


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
