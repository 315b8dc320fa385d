"""Executions in PostgreSQL: the intent in one statement before the call, outcomes in batches after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from letta_common.actor import Actor
from letta_common.process.batches import BatchOptions, BatchWriter
from letta_common.process.periodic import Next, Periodic
from letta_postgres.db import Database
from letta_postgres.statements import call
from letta_tools.domain.executions.executions import CallLease, Intent, Standing

_BEGIN = "select * from " + call(
    "tools.begin_execution", "organization_id", "key", "hash", "tool_id", "agent_id", "lease", "again"
)
# The first outcome stays: a lost call may have run again elsewhere and written its own.
_FINISH = """
update tools.executions e set finished_at = now(), result = done.result
from unnest(%s::text[], %s::text[], %s::bytea[]) as done (organization_id, idempotency_key, result)
where e.organization_id = done.organization_id and e.idempotency_key = done.idempotency_key and e.finished_at is null
"""
_RENEW = """
update tools.executions e set lease_until = now() + make_interval(secs => held.seconds)
from unnest(%s::text[], %s::text[], %s::float8[]) as held (organization_id, idempotency_key, seconds)
where e.organization_id = held.organization_id and e.idempotency_key = held.idempotency_key and e.finished_at is null
"""
_ABANDON = "delete from tools.executions where organization_id = %s and idempotency_key = %s and finished_at is null"
# A bounded piece at a time, so that one statement never holds locks for long; `delete` has no limit of its own.
_SWEEP = """
delete from tools.executions where ctid = any(array(
  select ctid from tools.executions where started_at < now() - %s::interval limit %s)) returning 1
"""
_BATCH = 200
# Nobody waits for the write: the answer is on its way already.
_GATHER_SECONDS = 0.01
_MOST_PENDING = 10_000
_SWEEP_SECONDS = 3600.0
_SWEPT_AT_ONCE = 5000
_Outcome = tuple[tuple[str, str], bytes]
"""Organization and key of a call, and what came of it."""


class SqlExecutionStore:
    """Calls by key."""

    def __init__(
        self, db: Database, *, keep: timedelta = timedelta(days=7), swept_at_once: int = _SWEPT_AT_ONCE
    ) -> None:
        self._db = db
        self._keep = keep
        self._swept_at_once = swept_at_once
        self._pending: dict[tuple[str, str], bytes] = {}
        options = BatchOptions(_GATHER_SECONDS, _BATCH, _MOST_PENDING)
        self._writer: BatchWriter[_Outcome] = BatchWriter("outcomes", self._write, options, lost=self._forget)
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
        # A call whose outcome is not written yet looks lost in the table.
        pending = self._pending.get((actor.organization_id, intent.key))
        if pending is not None:
            return Standing(False, fingerprint, pending)
        return Standing(begun, fingerprint, outcome, is_running)

    async def renew(self, leases: Sequence[CallLease]) -> None:
        """Have the leases of calls that run begin anew, in one statement."""
        columns = zip(*((lease.organization_id, lease.key, lease.seconds) for lease in leases), strict=True)
        await self._db.hot(_RENEW, tuple(map(list, columns)))

    def finish(self, actor: Actor, key: str, outcome: bytes) -> None:
        """Keep the outcome; it is written with others a moment later."""
        row = (actor.organization_id, key), outcome
        self._pending[row[0]] = outcome
        self._writer.put(row)

    async def abandon(self, actor: Actor, key: str) -> None:
        """Forget an intent whose call was not begun."""
        await self._db.hot(_ABANDON, (actor.organization_id, key))

    async def start(self) -> None:
        """Begin to write outcomes and to remove old ones."""
        self._writer.start()
        self._sweeps.start()

    async def close(self) -> None:
        """Write what is left and end."""
        await self._sweeps.stop()
        await self._writer.close()

    async def _write(self, rows: list[_Outcome]) -> None:
        batch = dict(rows)  # one statement must not change a row twice
        columns = ([place[0] for place in batch], [place[1] for place in batch], list(batch.values()))
        await self._db.hot(_FINISH, columns)
        for row in rows:
            self._forget(row)

    def _forget(self, row: _Outcome) -> None:
        place, outcome = row
        if self._pending.get(place) is outcome:  # and not one that came meanwhile
            del self._pending[place]

    async def sweep(self) -> Next:
        """Remove calls that no one will repeat any more, some at a time; say whether there may be more."""
        gone = await self._db.hot(_SWEEP, (self._keep, self._swept_at_once))
        return Next.AT_ONCE if len(gone) == self._swept_at_once else Next.AFTER_A_PAUSE
