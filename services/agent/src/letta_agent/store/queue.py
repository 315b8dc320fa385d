"""The statements that span organizations: leases, take-over, events. Each carries the organization of every row."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from letta_agent.domain.journal.records import (
    FreeSlots,
    HeldCalls,
    LeaseTerms,
    Overdue,
    Renewed,
    RunJob,
    RunKey,
    RunRequest,
    StoredEvent,
    StoredInput,
    Wishes,
)
from letta_agent.store.definitions import definition_of
from letta_common.actor import Actor
from letta_postgres.db import Database
from letta_postgres.statements import call

_RENEW = "select " + call(
    "agent.renew_leases", "owner", "lease_ms", "organization_ids", "conversation_ids", "run_ids", "fences"
)
# Only runs of which something is wished come back, so that the look every 200 ms is cheap.
_WISHES = (
    "select r.id, r.cancel_requested, coalesce(r.followed_until > clock_timestamp(), false) "
    "from unnest(%s::text[], %s::text[]) as h(organization_id, id) "
    "join agent.runs r on r.organization_id = h.organization_id and r.id = h.id "
    "where r.cancel_requested or r.followed_until > clock_timestamp()"
)
_CLAIM = "select * from " + call(
    "agent.claim_due_runs", "owner", "lease_ms", "limit", "of_one", "organization_ids", "left"
)
# Events are written without waiting for the disk: a crash of the database loses what messages can tell again.
_APPEND = (
    "with quick as (select set_config('synchronous_commit', 'off', true)) "
    "insert into agent.run_events (organization_id, run_id, seq_id, event) "
    "select u.* from quick, unnest(%s::text[], %s::text[], %s::bigint[], %s::bytea[]) as u(o, r, s, e) "
    "on conflict (organization_id, run_id, seq_id) do nothing"
)
# By row address, because DELETE knows no LIMIT.
_FORGET = (
    "delete from agent.run_events where ctid = any(array("
    "select ctid from agent.run_events where created_at < %s limit %s)) returning 1"
)
_OVERDUE = (
    "select distinct on (q.organization_id, q.conversation_id) r.organization_id, r.user_id, r.scopes, q.agent_id, "
    "q.conversation_id, q.approval_message_id from agent.conversation_queue q join agent.runs r "
    "on r.organization_id = q.organization_id and r.agent_id = q.agent_id and r.conversation_id = q.conversation_id "
    "and r.stop_reason = 12 and r.completed_at >= q.approval_since "  # StopReason.REQUIRES_APPROVAL
    "where q.approval_since < %s and q.run_id is null order by q.organization_id, q.conversation_id limit %s"
)
_ORPHANS = (
    "with gone as (delete from agent.conversation_queue q where (q.organization_id, q.conversation_id) in ("
    "select o.organization_id, o.conversation_id from agent.conversation_queue o "
    "where (o.run_id is not null or o.pending > 0) and o.lease_until < %s and not exists ("
    "select from agent.agents a where a.organization_id = o.organization_id and a.id = o.agent_id) limit %s) "
    "returning q.organization_id, q.agent_id), ended as (delete from agent.runs r using gone g "
    "where r.organization_id = g.organization_id and r.agent_id = g.agent_id) select count(*) from gone"
)


class SqlQueueStore:
    """The background work of a replica."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def renew(self, held: Sequence[RunKey], lease: LeaseTerms) -> Renewed:
        """Renew the leases of conversations."""
        values = {
            "owner": lease.owner,
            "lease_ms": lease.milliseconds,
            "organization_ids": [h.organization_id for h in held],
            "conversation_ids": [h.conversation_id for h in held],
            "run_ids": [h.run_id for h in held],
            "fences": [h.fence for h in held],
        }
        rows = await self._db.hot(_RENEW, values)
        return Renewed(frozenset(row[0] for row in rows))

    async def list_wishes(self, held: Sequence[RunKey]) -> Wishes:
        """Return what other replicas ask of the runs."""
        rows = await self._db.hot(_WISHES, ([h.organization_id for h in held], [h.run_id for h in held]))
        cancelled = frozenset(run_id for run_id, wanted, _ in rows if wanted)
        return Wishes(cancelled, frozenset(run_id for run_id, _, wanted in rows if wanted))

    async def claim_due(self, lease: LeaseTerms, room: FreeSlots) -> list[RunJob]:
        """Claim conversations whose lease has expired in the middle of a run, or that a run waits for."""
        values = {
            "owner": lease.owner,
            "lease_ms": lease.milliseconds,
            "limit": room.runs,
            "of_one": room.of_one,
            "organization_ids": list(room.left),
            "left": list(room.left.values()),
        }
        return [_job(row) for row in await self._db.hot(_CLAIM, values)]

    async def list_overdue(self, before: datetime, limit: int) -> list[Overdue]:
        """Return requests for approval that wait since before a time."""
        rows = await self._db.hot(_OVERDUE, (before, limit))
        return [
            Overdue(Actor(organization_id, user_id, frozenset(scopes)), agent_id, conversation_id, message_id)
            for organization_id, user_id, scopes, agent_id, conversation_id, message_id in rows
        ]

    async def append_events(self, events: Sequence[StoredEvent]) -> None:
        """Store events."""
        await self._db.hot(
            _APPEND,
            (
                [e.organization_id for e in events],
                [e.run_id for e in events],
                [e.seq_id for e in events],
                [e.event for e in events],
            ),
        )

    async def forget_orphans(self, before: datetime, limit: int) -> int:
        """Remove runs admitted while their agent was being removed, whose lease is over; return how many."""
        return int((await self._db.hot(_ORPHANS, (before, limit)))[0][0])

    async def forget_events(self, before: datetime, limit: int) -> int:
        """Remove old events; return how many."""
        return len(await self._db.hot(_FORGET, (before, limit)))


def _job(row: tuple[Any, ...]) -> RunJob:
    organization_id, agent_id, conversation_id, run_id, fence, user_id, scopes = row[:7]
    definition, conversation, secrets, tools, tokens, request, given = row[7:14]
    claims, background, run_type, cancel_requested, message_id, calls, shown = row[14:]
    return RunJob(
        held=RunKey(organization_id, agent_id, conversation_id, run_id, fence),
        actor=Actor(organization_id, user_id, frozenset(scopes)),
        definition=definition_of(definition, conversation, secrets, tools, tokens),
        request=RunRequest.FromString(request),
        input=StoredInput.FromString(given),
        claims=claims,
        background=background,
        run_type=run_type,
        cancel_requested=cancel_requested,
        waiting=HeldCalls(message_id, tuple(calls), shown or b"") if message_id else None,
    )
