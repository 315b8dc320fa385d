"""Runs in PostgreSQL. The statements of the message path are functions of the database, one round trip each."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from operator import attrgetter
from typing import Any

import sqlalchemy as sa

from letta_agent.domain.journal.records import (
    ACTIVE,
    TOKENS,
    Admission,
    AdmissionOutcome,
    HeldCalls,
    LeaseTerms,
    ListRunsRequest,
    ListStepsRequest,
    NewRun,
    RunEnd,
    RunKey,
    RunRecord,
    RunStatus,
    Step,
    StepMetrics,
    StepSummary,
    StopReason,
    StoredEvent,
    StoredStep,
    TokenUsage,
)
from letta_agent.domain.journal.steps import metrics_of, shown_step
from letta_agent.store.definitions import definition_of
from letta_agent.store.tables import queue, run_events, run_steps, runs
from letta_common.actor import Actor
from letta_common.errors import Fenced, RunNotFound, StepNotFound
from letta_common.values.paging import Page
from letta_postgres.db import Database
from letta_postgres.keyset import Keyset, fetch_page
from letta_postgres.statements import call

_ADMIT = "select * from " + call(
    "agent.admit_run",
    "organization_id",
    "agent_id",
    "conversation_id",
    "run_id",
    "key",
    "request_hash",
    "user_id",
    "scopes",
    "request",
    "input",
    "background",
    "run_type",
    "most_waiting",
    "approved",
    "answers",
    "denies",
    "owner",
    "lease_ms",
)
_WARN = "update agent.run_steps set warnings = %s where organization_id = %s and run_id = %s and step_index = %s"
_CHECKPOINT = "select " + call(
    "agent.checkpoint_step",
    "organization_id",
    "conversation_id",
    "run_id",
    "fence",
    "step_index",
    "id",
    "agent_id",
    "output",
)
_STEP_ARRAYS = {
    "index": attrgetter("step_index"),
    "id": attrgetter("id"),
    "model": attrgetter("model"),
    "provider": attrgetter("provider_type"),
    "window": attrgetter("context_window"),
    "prompt": attrgetter("usage.prompt_tokens"),
    "completion": attrgetter("usage.completion_tokens"),
    "cached": attrgetter("usage.cached_input_tokens"),
    "written": attrgetter("usage.cache_write_tokens"),
    "reasoning": attrgetter("usage.reasoning_tokens"),
    "stop": attrgetter("stop_reason"),
    "step_status": attrgetter("status"),
    "started": attrgetter("started_ns"),
    "step_ns": attrgetter("step_ns"),
    "llm_started": attrgetter("llm_started_ns"),
    "llm_ns": attrgetter("llm_ns"),
    "tool_ns": attrgetter("tool_ns"),
}
"""Parameters of agent.close_run with one element a step, and what of the step it is."""
_CLOSE = "select " + call(
    "agent.close_run",
    "organization_id",
    "agent_id",
    "conversation_id",
    "run_id",
    "fence",
    "status",
    "stop_reason",
    "error",
    "context_tokens",
    "ttft_ns",
    "approval_message_id",
    "approval_call_ids",
    "approval_message",
    "keeps_approval",
    "keeps_input",
    *_STEP_ARRAYS,
    "tool_steps",
    "tools",
)
_CHECKPOINTS = (
    "select step_index, output from agent.run_steps where organization_id = %s and run_id = %s and output is not null"
)
# One above memory's fence, since an equal one would let the former owner write as well.
_RAISE_FENCE = (
    "update agent.conversation_queue set fence = greatest(fence, %s) + 1 "
    "where organization_id = %s and conversation_id = %s and run_id = %s and fence = %s returning fence"
)
# Statuses 1 and 2 are CREATED and RUNNING.
_CANCEL = (
    "update agent.runs set cancel_requested = true where organization_id = %s and id = %s and status in (1, 2) "
    "returning status"
)
# The queue's row is locked first, as admission and claims do, so that nobody claims the run meanwhile.
_CANCEL_WAITING = (
    "with thread as (select q.organization_id, q.conversation_id from agent.conversation_queue q join agent.runs r "
    "on r.organization_id = q.organization_id and r.conversation_id = q.conversation_id "
    "where r.organization_id = %s and r.id = %s for update of q), "
    "ended as (update agent.runs r set status = 5, stop_reason = 10, cancel_requested = true, queued = false, "
    "completed_at = clock_timestamp() from thread t where r.organization_id = t.organization_id and r.id = %s "
    "and r.status = 1 returning r.organization_id, r.conversation_id) "
    "update agent.conversation_queue q set pending = greatest(q.pending - 1, 0) from ended e "
    "where q.organization_id = e.organization_id and q.conversation_id = e.conversation_id returning 1"
)
_REOPEN = "select agent.reopen_run(%s, %s)"
_EVENTS = (
    "select organization_id, run_id, seq_id, event from agent.run_events "
    "where organization_id = %s and run_id = %s and seq_id > %s order by seq_id limit %s"
)
_FOLLOW = (
    "with quick as (select set_config('synchronous_commit', 'off', true)) "
    "update agent.runs r set followed_until = clock_timestamp() + u.time from quick, "
    "(select %s::integer * interval '1 ms' as time) u where r.organization_id = %s and r.id = %s "
    "and r.status in (1, 2) and (r.followed_until is null or r.followed_until < clock_timestamp() + u.time / 2)"
)
"""Of many followers, few write."""
_ASKING = sa.and_(
    runs.c.organization_id == queue.c.organization_id,
    runs.c.agent_id == queue.c.agent_id,
    runs.c.conversation_id == queue.c.conversation_id,
    runs.c.stop_reason == int(StopReason.STOP_REASON_REQUIRES_APPROVAL),
    runs.c.completed_at >= queue.c.approval_since,
    queue.c.run_id.is_(None),
)
"""A run stopped for the approval that its conversation waits for."""
_RUN_NAMES, _SUMMARY_NAMES = (
    tuple(name for name in kind.__dataclass_fields__ if name != "usage") for kind in (RunRecord, StepSummary)
)
"""What is stored of a run and of a step by the same name, tokens excepted."""
_RUN_COLUMNS = [runs.c[name] for name in (*_RUN_NAMES, *TOKENS)]
_STEP_COLUMNS = [
    run_steps.c[name] for name in (*_SUMMARY_NAMES, *TOKENS, "run_id", "agent_id", "created_at", "feedback", "tags")
]


class SqlRunStore:
    """Runs of organizations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def admit(self, actor: Actor, run: NewRun, lease: LeaseTerms) -> Admission:
        """Admit a run and claim its conversation, or say why not."""
        values = {
            "organization_id": actor.organization_id,
            "agent_id": run.agent_id,
            "conversation_id": run.conversation_id,
            "run_id": run.id,
            "key": run.key or None,
            "request_hash": run.request_hash,
            "user_id": actor.user_id,
            "scopes": sorted(actor.scopes),
            "request": run.request,
            "input": run.input,
            "background": run.background,
            "run_type": run.run_type,
            "most_waiting": run.most_waiting,
            "approved": None if run.approved_calls is None else list(run.approved_calls),
            "answers": None if run.answers is None else list(run.answers),
            "denies": run.denies,
            "owner": lease.owner,
            "lease_ms": lease.milliseconds,
        }
        [row] = await self._db.hot(_ADMIT, values)
        return _admission(row)

    async def checkpoint(self, held: RunKey, step_index: int, step: StoredStep) -> None:
        """Keep what the model made of a step. Raises Fenced."""
        values = {
            "organization_id": held.organization_id,
            "conversation_id": held.conversation_id,
            "run_id": held.run_id,
            "fence": held.fence,
            "step_index": step_index,
            "id": step.step_id,
            "agent_id": held.agent_id,
            "output": step.SerializeToString(),
        }
        [[done]] = await self._db.hot(_CHECKPOINT, values)
        if not done:
            raise Fenced(f"run {held.run_id} has another owner", run_id=held.run_id)

    async def get_checkpoints(self, held: RunKey) -> dict[int, StoredStep]:
        """Return what is kept of a run's steps, by index."""
        rows = await self._db.hot(_CHECKPOINTS, (held.organization_id, held.run_id))
        return {index: StoredStep.FromString(output) for index, output in rows}

    async def close(self, held: RunKey, end: RunEnd) -> bool:
        """End a run and free its conversation; say whether another run waits for it."""
        pending = end.pending or HeldCalls("", ())
        values = {
            "organization_id": held.organization_id,
            "agent_id": held.agent_id,
            "conversation_id": held.conversation_id,
            "run_id": held.run_id,
            "fence": held.fence,
            "status": end.status,
            "stop_reason": end.stop_reason,
            "error": end.error,
            "context_tokens": end.context_tokens,
            "ttft_ns": end.ttft_ns,
            "approval_message_id": pending.message_id or None,
            "approval_call_ids": list(pending.call_ids) or None,
            "approval_message": pending.shown or None,
            "keeps_approval": end.keeps_approval,
            "keeps_input": end.keeps_input,
            **_columns(end.steps),
        }
        [[waiting]] = await self._db.hot(_CLOSE, values)
        # Apart from close_run, whose signature the former release calls too; few steps have warnings.
        for step in end.steps:
            if step.warnings and waiting >= 0:
                await self._db.hot(_WARN, (list(step.warnings), held.organization_id, held.run_id, step.step_index))
        return bool(waiting > 0)

    async def raise_fence(self, held: RunKey, above: int) -> int | None:
        """Claim a conversation that is still held again, above a fence; None when it is lost."""
        key = (held.organization_id, held.conversation_id, held.run_id, held.fence)
        rows = await self._db.hot(_RAISE_FENCE, (above, *key))
        return rows[0][0] if rows else None

    async def request_cancel(self, actor: Actor, run_id: str) -> RunRecord:
        """Ask the owner of a run to end it; a run that nobody has begun ends at once. Raises RunNotFound."""
        rows = await self._db.hot(_CANCEL, (actor.organization_id, run_id))
        # Nobody works on it yet, so it ends here and not only when its turn has come.
        if rows and rows[0][0] == RunStatus.RUN_STATUS_CREATED:
            await self.cancel_waiting(actor, run_id)
        return await self.get(actor, run_id)

    async def cancel_waiting(self, actor: Actor, run_id: str) -> bool:
        """End a run that nobody has begun; say whether it was one."""
        return bool(await self._db.hot(_CANCEL_WAITING, (actor.organization_id, run_id, run_id)))

    async def reopen(self, actor: Actor, run_id: str) -> bool:
        """Give a run whose request for approval waits back to the queue, to be cancelled; say whether it was one."""
        [[reopened]] = await self._db.hot(_REOPEN, (actor.organization_id, run_id))
        return bool(reopened)

    async def list_waiting(self, actor: Actor, *, agent_id: str = "", conversation_id: str = "") -> list[str]:
        """Return the runs whose requests for approval wait, of an agent or in a conversation."""
        asking = sa.select(queue.c.conversation_id, runs.c.id).join_from(queue, runs, _ASKING)
        query = asking.where(self._mine(actor))
        for column, value in ((queue.c.agent_id, agent_id), (queue.c.conversation_id, conversation_id)):
            query = query.where(column == value) if value else query
        async with self._db.connect() as conn:
            # In order of age, so that of runs in one conversation the newest is kept.
            newest = {row[0]: row[1] for row in await conn.execute(query.order_by(runs.c.created_at, runs.c.id))}
        return list(newest.values())

    async def get(self, actor: Actor, run_id: str) -> RunRecord:
        """Return one run. Raises RunNotFound."""
        async with self._db.connect() as conn:
            query = sa.select(*_RUN_COLUMNS).where(self._mine(actor), runs.c.id == run_id)
            row = (await conn.execute(query)).first()
        if row is None:
            raise _no_run(run_id)
        return _run(row)

    async def list_runs(self, actor: Actor, wanted: ListRunsRequest, page: Page) -> list[RunRecord]:
        """Return a page of runs."""
        query = sa.select(*_RUN_COLUMNS).where(self._mine(actor))
        if agents := [*filter(None, (wanted.agent_id, *wanted.agent_ids))]:
            query = query.where(runs.c.agent_id.in_(agents))
        if wanted.conversation_id:
            query = query.where(runs.c.conversation_id == wanted.conversation_id)
        if statuses := ACTIVE if wanted.active else wanted.statuses:
            query = query.where(runs.c.status.in_(statuses))
        if wanted.stop_reason:
            query = query.where(runs.c.stop_reason == wanted.stop_reason)
        if wanted.HasField("background"):
            query = query.where(runs.c.background == wanted.background)
        keyset = Keyset(at=runs.c.created_at, id=runs.c.id, scope=self._mine(actor), large=(runs.c.request,))
        async with self._db.connect() as conn:
            return [_run(row) for row in await fetch_page(conn, query, page, keyset)]

    async def delete(self, actor: Actor, run_id: str) -> bool:
        """Remove a run that has ended, its steps and events; say whether it had. Raises RunNotFound."""
        ended = sa.and_(self._mine(actor), runs.c.id == run_id, runs.c.status.not_in(ACTIVE))
        async with self._db.begin() as conn:
            done = await conn.execute(sa.delete(runs).where(ended))
            if done.rowcount:
                for table in (run_steps, run_events):
                    mine = table.c.organization_id == actor.organization_id
                    await conn.execute(sa.delete(table).where(mine, table.c.run_id == run_id))
                return True
        await self.get(actor, run_id)
        return False

    async def get_by_key(self, actor: Actor, conversation_id: str, key: str) -> str:
        """Return the run that was admitted under this key. Raises RunNotFound."""
        query = sa.select(runs.c.id).where(
            self._mine(actor), runs.c.conversation_id == conversation_id, runs.c.idempotency_key == key
        )
        async with self._db.connect() as conn:
            found: str | None = (await conn.execute(query)).scalar_one_or_none()
        if found is None:
            raise RunNotFound("no run was begun with this key", key=key)
        return found

    async def list_steps(self, actor: Actor, wanted: ListStepsRequest, page: Page) -> list[Step]:
        """Return a page of steps."""
        mine = run_steps.c.organization_id == actor.organization_id
        query = sa.select(*_STEP_COLUMNS).where(mine, *_step_conditions(wanted))
        keyset = Keyset(at=run_steps.c.created_at, id=run_steps.c.id, scope=mine)
        async with self._db.connect() as conn:
            return [_step(actor, row) for row in await fetch_page(conn, query, page, keyset)]

    async def get_step(self, actor: Actor, step_id: str) -> Step:
        """Return one step. Raises StepNotFound."""
        return _step(actor, await self._step_row(actor, step_id))

    async def get_step_metrics(self, actor: Actor, step_id: str) -> StepMetrics:
        """Return how long the parts of a step took. Raises StepNotFound."""
        row = await self._step_row(actor, step_id)
        return metrics_of(_step(actor, row), row.llm_started_ns)

    async def set_feedback(self, actor: Actor, step_id: str, feedback: int, tags: Sequence[str]) -> Step:
        """Store what a person thinks of a step. Raises StepNotFound."""
        before = await self.get_step(actor, step_id)
        labels = list(dict.fromkeys((*before.tags, *tags)))
        mine = run_steps.c.organization_id == actor.organization_id
        async with self._db.begin() as conn:
            change = sa.update(run_steps).where(mine, run_steps.c.id == step_id)
            await conn.execute(change.values(feedback=feedback, tags=labels))
        return await self.get_step(actor, step_id)

    async def list_events(self, actor: Actor, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Return events of a run after a position, in order."""
        return [StoredEvent(*row) for row in await self._db.hot(_EVENTS, (actor.organization_id, run_id, after, limit))]

    async def note_follower(self, actor: Actor, run_id: str, milliseconds: int) -> None:
        """Let whoever works on a run know, for so long, that somebody elsewhere waits for its events."""
        await self._db.hot(_FOLLOW, (milliseconds, actor.organization_id, run_id))

    async def _step_row(self, actor: Actor, step_id: str) -> sa.Row[Any]:
        mine = run_steps.c.organization_id == actor.organization_id
        async with self._db.connect() as conn:
            row = (await conn.execute(sa.select(*_STEP_COLUMNS).where(mine, run_steps.c.id == step_id))).first()
        if row is None:
            raise StepNotFound(f"step {step_id} does not exist", step_id=step_id)
        return row

    def _mine(self, actor: Actor) -> sa.ColumnElement[bool]:
        return runs.c.organization_id == actor.organization_id


def _step_conditions(wanted: ListStepsRequest) -> list[sa.ColumnElement[bool]]:
    # Status 1 is PENDING: a checkpoint of a step that still goes on is no step that clients may see.
    steps, found = run_steps.c, [run_steps.c.status != 1]
    for column, value in ((steps.agent_id, wanted.agent_id), (steps.run_id, wanted.run_id)):
        if value:
            found.append(column == value)
    if wanted.model:
        # Steps are stored with the handle `provider/model`; V1 clients filter by the model's name too.
        found.append(sa.or_(steps.model == wanted.model, steps.model.endswith(f"/{wanted.model}", autoescape=True)))
    if wanted.HasField("start_date"):
        found.append(steps.created_at >= wanted.start_date.ToDatetime(tzinfo=UTC))
    if wanted.HasField("end_date"):
        found.append(steps.created_at <= wanted.end_date.ToDatetime(tzinfo=UTC))
    if wanted.feedback:
        found.append(steps.feedback == wanted.feedback)
    if wanted.HasField("has_feedback"):
        found.append((steps.feedback != 0) == wanted.has_feedback)
    if wanted.tags:
        found.append(steps.tags.overlap(list(wanted.tags)))
    return found


def _columns(steps: Sequence[StepSummary]) -> dict[str, list[Any]]:
    """Return the steps by column, and the tools that they used, each with its step."""
    used = [(step.step_index, tool) for step in steps for tool in step.tools_used]
    by_name = {name: [get(step) for step in steps] for name, get in _STEP_ARRAYS.items()}
    return {**by_name, "tool_steps": [index for index, _ in used], "tools": [tool for _, tool in used]}


def _usage(counts: Sequence[int]) -> TokenUsage:
    return TokenUsage(**dict(zip(TOKENS, counts, strict=True)))


def _run(row: sa.Row[Any]) -> RunRecord:
    named, counts = row[: len(_RUN_NAMES)], row[len(_RUN_NAMES) :]
    return RunRecord(**dict(zip(_RUN_NAMES, named, strict=True)), usage=_usage(counts))


def _step(actor: Actor, row: sa.Row[Any]) -> Step:
    count, end = len(_SUMMARY_NAMES), len(_SUMMARY_NAMES) + len(TOKENS)
    named = dict(zip(_SUMMARY_NAMES, row[:count], strict=True))
    named |= {"tools_used": tuple(named["tools_used"]), "warnings": tuple(named["warnings"])}
    run_id, agent_id, created_at, feedback, tags = row[end:]
    step = shown_step(StepSummary(**named, usage=_usage(row[count:end])), run_id)
    step.organization_id, step.agent_id, step.feedback = actor.organization_id, agent_id, feedback
    step.tags.extend(tags)
    step.created_at.FromDatetime(created_at)
    return step


def _admission(row: tuple[Any, ...]) -> Admission:
    outcome, run_id, fence, request_hash, definition, conversation, secrets, tools, tokens = row[:9]
    message_id, calls, shown, resumes = row[9:]
    found = AdmissionOutcome(outcome)
    return Admission(
        outcome=found,
        run_id=run_id or "",
        fence=fence or 0,
        definition=definition_of(definition, conversation, secrets, tools, tokens) if definition else None,
        request_hash=request_hash or b"",
        pending=HeldCalls(message_id, tuple(calls or ()), shown or b"") if message_id else None,
        resumes=bool(resumes),
    )


def _no_run(run_id: str) -> RunNotFound:
    return RunNotFound(f"run {run_id} does not exist", run_id=run_id)
