"""Executions in PostgreSQL: the intent in one statement before the call, outcomes in batches after it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from letta_common.actor import Actor
from letta_common.errors import DatabaseUnavailable
from letta_common.process.periodic import Periodic
from letta_postgres.db import Database
from letta_postgres.statements import call
from letta_tools.domain.executions.executions import Intent, Standing

_BEGIN = "select * from " + call(
    "tools.begin_execution", "organization_id", "key", "hash", "tool_id", "agent_id", "lease", "again"
)
_FINISH = """
update tools.executions e set finished_at = now(), result = done.result
from unnest(%s::text[], %s::text[], %s::bytea[]) as done (organization_id, idempotency_key, result)
where e.organization_id = done.organization_id and e.idempotency_key = done.idempotency_key and e.finished_at is null
"""
_ABANDON = "delete from tools.executions where organization_id = %s and idempotency_key = %s and finished_at is null"
_SWEEP = """
delete from tools.executions where ctid = any(array(
  select ctid from tools.executions where started_at < now() - %s::interval limit 5000))
"""
_BATCH = 200
_GATHER_SECONDS = 0.01
_RETRY_SECONDS = 1.0
_MOST_PENDING = 10_000
_SWEEP_SECONDS = 3600.0
_log = structlog.get_logger("letta.tools")


class SqlExecutionStore:
    """Calls by key."""

    def __init__(self, db: Database, *, keep: timedelta = timedelta(days=7)) -> None:
        self._db = db
        self._keep = keep
        self._pending: dict[tuple[str, str], bytes] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sweeps = Periodic("old executions", self.sweep, _SWEEP_SECONDS)

    async def begin(self, actor: Actor, intent: Intent) -> Standing:
        """Note the intent, durably, or say where the earlier call stands."""
        values = {
            "organization_id": actor.organization_id,
            "key": intent.key,
            "hash": intent.fingerprint,
            "tool_id": intent.tool_id,
            "agent_id": intent.agent_id,
            "lease": timedelta(seconds=intent.lease_seconds),
            "again": intent.again,
        }
        [(begun, fingerprint, outcome, is_running)] = await self._db.hot(_BEGIN, values)
        pending = self._pending.get((actor.organization_id, intent.key))
        if pending is not None:
            return Standing(False, fingerprint, pending)
        return Standing(begun, fingerprint, outcome, is_running)

    def finish(self, actor: Actor, key: str, outcome: bytes) -> None:
        """Keep the outcome; it is written with others a moment later."""
        self._pending[actor.organization_id, key] = outcome
        if len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._wake.set()

    async def abandon(self, actor: Actor, key: str) -> None:
        """Forget an intent whose call was not begun."""
        await self._db.hot(_ABANDON, (actor.organization_id, key))

    async def start(self) -> None:
        """Begin to write outcomes and to remove old ones."""
        self._task = asyncio.create_task(self._write_always())
        self._sweeps.start()

    async def close(self) -> None:
        """Write what is left and end."""
        await self._sweeps.stop()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        while self._pending:
            await self.flush()

    async def flush(self) -> None:
        """Write one batch of outcomes."""
        batch = dict(list(self._pending.items())[:_BATCH])
        keys = list(batch)
        columns = ([place[0] for place in keys], [place[1] for place in keys], list(batch.values()))
        await self._db.hot(_FINISH, columns)
        for place in keys:
            if self._pending.get(place) is batch[place]:
                del self._pending[place]

    async def sweep(self) -> None:
        """Remove calls that no one will repeat any more."""
        await self._db.hot(_SWEEP, (self._keep,))

    async def _write_always(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await asyncio.sleep(_GATHER_SECONDS)
            while self._pending:
                try:
                    await self.flush()
                except DatabaseUnavailable as error:
                    _log.warning("outcomes cannot be written now", pending=len(self._pending), error=error.message)
                    await asyncio.sleep(_RETRY_SECONDS)
