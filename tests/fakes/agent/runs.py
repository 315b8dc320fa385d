"""Runs in memory: the twin of the tables, for tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from letta_agent.domain.journal.records import (
    TOKENS,
    Admission,
    AdmissionOutcome,
    FreeSlots,
    LeaseTerms,
    ListRunsRequest,
    ListStepsRequest,
    NewRun,
    Overdue,
    Renewed,
    RunEnd,
    RunJob,
    RunKey,
    RunRecord,
    RunRequest,
    RunStatus,
    Step,
    StepMetrics,
    StepSummary,
    StopReason,
    StoredEvent,
    StoredInput,
    StoredStep,
    TokenUsage,
    Wishes,
)
from letta_agent.domain.journal.steps import metrics_of, shown_step
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import Fenced, RunNotFound, StepNotFound
from letta_common.values.paging import Page
from tests.fakes.agent.state import FakeState, QueueRow, Run


class FakeRuns:
    """RunStore and QueueStore in memory."""

    def __init__(self, clock: Clock, state: FakeState | None = None) -> None:
        self._clock = clock
        self.state = state if state is not None else FakeState()
        self._threads, self._runs, self._events = self.state.threads, self.state.runs, self.state.events

    async def admit(self, actor: Actor, run: NewRun, lease: LeaseTerms) -> Admission:
        """Admit a run and claim its conversation, or say why not."""
        organization_id = actor.organization_id
        known = self._known(organization_id, run)
        if known is not None:
            return Admission(AdmissionOutcome.KNOWN, known.new.id, request_hash=known.new.request_hash)
        if self.state.ready(organization_id, run.agent_id) is None:
            return Admission(AdmissionOutcome.NO_AGENT)
        if not self.state.open(organization_id, run.agent_id, run.conversation_id):
            return Admission(AdmissionOutcome.NO_CONVERSATION)
        thread = self._threads.get((organization_id, run.conversation_id), QueueRow(run.agent_id))
        resumes = self._resumes(run, thread)
        if self._busy(run, thread, resumes):
            return self._refused(actor, run, thread)
        self._threads[organization_id, run.conversation_id] = thread
        thread.run_id, thread.owner, thread.fence = run.id, lease.owner, thread.fence + 1
        thread.until, thread.last_message_at = self._until(lease), self._clock.now()
        self._store(actor, replace(run, input=b"") if resumes else run, RunStatus.RUN_STATUS_RUNNING)
        given = self.state.definition(organization_id, run.agent_id, run.conversation_id)
        waiting = None if resumes else thread.approval
        return Admission(AdmissionOutcome.CLAIMED, run.id, thread.fence, given, pending=waiting, resumes=resumes)

    async def checkpoint(self, held: RunKey, step_index: int, step: StoredStep) -> None:
        """Keep what the model made of a step. Raises Fenced."""
        if self._held(held) is None:
            raise Fenced(f"run {held.run_id} has another owner", run_id=held.run_id)
        kept = StoredStep.FromString(step.SerializeToString())
        self._runs[held.organization_id, held.run_id].kept.setdefault(step_index, kept)

    async def get_checkpoints(self, held: RunKey) -> dict[int, StoredStep]:
        """Return what is kept of a run's steps, by index."""
        return dict(self._runs[held.organization_id, held.run_id].kept)

    async def close(self, held: RunKey, end: RunEnd) -> bool:
        """End a run and free its conversation; say whether another run waits for it."""
        thread = self._held(held)
        if thread is None:
            return False
        thread.run_id, thread.owner, thread.until = "", "", self._clock.now()
        run = self._runs[held.organization_id, held.run_id]
        now = self._clock.now()
        thread.tokens, thread.failed_hash = end.context_tokens, run.new.request_hash if end.keeps_input else b""
        if not end.keeps_approval:
            known = thread.approval.message_id if thread.approval else ""
            if end.pending is None or end.pending.message_id != known:
                thread.approval_since = now if end.pending else None
            thread.approval = end.pending
        run.kept.clear()
        for step in end.steps:
            shown = shown_step(_with_error(step, end), held.run_id)
            shown.organization_id, shown.agent_id = held.organization_id, held.agent_id
            shown.created_at.FromDatetime(now)
            run.steps[step.step_index] = (shown, step.llm_started_ns)
        thread.last_run_completion, thread.last_stop_reason = now, end.stop_reason
        thread.last_run_duration_ms = int((now - run.record.created_at).total_seconds() * 1_000)
        run.record = replace(
            run.record,
            status=end.status,
            stop_reason=end.stop_reason,
            error=end.error,
            completed_at=now,
            ttft_ns=max(run.record.ttft_ns, end.ttft_ns),
            context_tokens=end.context_tokens,
            step_count=max(run.record.step_count, len(end.steps)),
            usage=_spent(run.record.usage, [step.usage for step in end.steps]),
        )
        return thread.pending > 0

    async def raise_fence(self, held: RunKey, above: int) -> int | None:
        """Claim a conversation that is still held again, above a fence; None when it is lost."""
        thread = self._held(held)
        if thread is None:
            return None
        thread.fence = max(thread.fence, above) + 1
        return thread.fence

    async def request_cancel(self, actor: Actor, run_id: str) -> RunRecord:
        """Ask the owner of a run to end it; a run that nobody has begun ends at once. Raises RunNotFound."""
        run = self._find(actor, run_id)
        if run.record.active:
            run.record = replace(run.record, cancel_requested=True)
        await self.cancel_waiting(actor, run_id)
        return run.record

    async def cancel_waiting(self, actor: Actor, run_id: str) -> bool:
        """End a run that nobody has begun; say whether it was one."""
        run = self._find(actor, run_id)
        if run.record.status != RunStatus.RUN_STATUS_CREATED:
            return False
        thread = self._threads[actor.organization_id, run.record.conversation_id]
        thread.pending = max(thread.pending - 1, 0)
        run.record = replace(
            run.record,
            status=RunStatus.RUN_STATUS_CANCELLED,
            stop_reason=StopReason.STOP_REASON_CANCELLED,
            completed_at=self._clock.now(),
            cancel_requested=True,
        )
        return True

    async def reopen(self, actor: Actor, run_id: str) -> bool:
        """Give a run whose request for approval waits back to the queue, to be cancelled; say whether it was one."""
        if run_id not in self._asking(actor.organization_id).values():
            return False
        run = self._find(actor, run_id)
        thread = self._threads[actor.organization_id, run.record.conversation_id]
        thread.run_id, thread.owner, thread.until = run_id, "", datetime.fromtimestamp(0, UTC)
        running = RunStatus.RUN_STATUS_RUNNING
        run.record = replace(run.record, status=running, cancel_requested=True, completed_at=None)
        return True

    async def list_waiting(self, actor: Actor, *, agent_id: str = "", conversation_id: str = "") -> list[str]:
        """Return the runs whose requests for approval wait, of an agent or in a conversation."""
        found = (self._find(actor, run_id).record for run_id in self._asking(actor.organization_id).values())
        return [r.id for r in found if agent_id in {"", r.agent_id} and conversation_id in {"", r.conversation_id}]

    async def list_overdue(self, before: datetime, limit: int) -> list[Overdue]:
        """Return requests for approval that wait since before a time."""
        found = []
        for (organization_id, conversation_id), thread in self._threads.items():
            run_id = self._asking(organization_id).get(conversation_id)
            if run_id and thread.approval and thread.approval_since and thread.approval_since < before:
                actor = self._runs[organization_id, run_id].actor
                found.append(Overdue(actor, thread.agent_id, conversation_id, thread.approval.message_id))
        return found[:limit]

    async def get(self, actor: Actor, run_id: str) -> RunRecord:
        """Return one run. Raises RunNotFound."""
        return self._find(actor, run_id).record

    async def list_runs(self, actor: Actor, filters: ListRunsRequest, page: Page) -> list[RunRecord]:
        """Return a page of runs."""
        mine = [
            run.record for (organization_id, _), run in self._runs.items() if organization_id == actor.organization_id
        ]
        return page.slice([r for r in mine if _wanted(r, filters)], key=lambda r: (r.created_at, r.id))

    async def delete(self, actor: Actor, run_id: str) -> bool:
        """Remove a run that has ended, its steps and events; say whether it had. Raises RunNotFound."""
        if self._find(actor, run_id).record.active:
            return False
        del self._runs[actor.organization_id, run_id]
        self._events.pop((actor.organization_id, run_id), None)
        return True

    async def get_by_key(self, actor: Actor, conversation_id: str, key: str) -> str:
        """Return the run that was admitted under this key. Raises RunNotFound."""
        for (organization_id, run_id), run in self._runs.items():
            if organization_id == actor.organization_id and (run.new.conversation_id, run.new.key) == (
                conversation_id,
                key,
            ):
                return run_id
        raise RunNotFound("no run was begun with this key", key=key)

    async def list_steps(self, actor: Actor, filters: ListStepsRequest, page: Page) -> list[Step]:
        """Return a page of steps."""
        found = [step for step in self._steps(actor) if _wanted_step(step, filters)]
        return page.slice(found, key=lambda step: (step.created_at.ToDatetime(tzinfo=UTC), step.id))

    async def get_step(self, actor: Actor, step_id: str) -> Step:
        """Return one step. Raises StepNotFound."""
        for step in self._steps(actor):
            if step.id == step_id:
                return step
        raise StepNotFound(f"step {step_id} does not exist", step_id=step_id)

    async def get_step_metrics(self, actor: Actor, step_id: str) -> StepMetrics:
        """Return how long the parts of a step took. Raises StepNotFound."""
        step = await self.get_step(actor, step_id)
        return metrics_of(step, self._find(actor, step.run_id).steps[step.step_index][1])

    async def set_feedback(self, actor: Actor, step_id: str, feedback: int, tags: Sequence[str]) -> Step:
        """Store what a person thinks of a step. Raises StepNotFound."""
        before = await self.get_step(actor, step_id)
        before.feedback = feedback  # type: ignore[assignment]
        before.tags.extend(tag for tag in dict.fromkeys(tags) if tag not in before.tags)
        return before

    async def list_events(self, actor: Actor, run_id: str, after: int, limit: int) -> list[StoredEvent]:
        """Return events of a run after a position, in order."""
        kept = self._events.get((actor.organization_id, run_id), {})
        return [kept[seq_id][1] for seq_id in sorted(kept) if seq_id > after][:limit]

    async def note_follower(self, actor: Actor, run_id: str, milliseconds: int) -> None:
        """Let whoever works on a run know, for so long, that somebody elsewhere waits for its events."""
        run = self._runs.get((actor.organization_id, run_id))
        if run is not None and run.record.active:
            run.followed = max(run.followed, self._clock.now() + timedelta(milliseconds=milliseconds))

    async def renew(self, held: Sequence[RunKey], lease: LeaseTerms) -> Renewed:
        """Renew the leases of conversations."""
        kept = set()
        for item in held:
            thread = self._held(item)
            if thread is not None and thread.owner == lease.owner:
                thread.until = self._until(lease)
                kept.add(item.run_id)
        return Renewed(frozenset(kept))

    async def list_wishes(self, held: Sequence[RunKey]) -> Wishes:
        """Return what other replicas ask of the runs."""
        known = [(h.run_id, self._runs.get((h.organization_id, h.run_id))) for h in held]
        cancelled = frozenset(run_id for run_id, run in known if run is not None and run.record.cancel_requested)
        now = self._clock.now()
        return Wishes(cancelled, frozenset(run_id for run_id, run in known if run is not None and run.followed > now))

    async def claim_due(self, lease: LeaseTerms, room: FreeSlots) -> list[RunJob]:
        """Claim conversations whose lease has expired in the middle of a run, or that a run waits for."""
        jobs: list[RunJob] = []
        due = self._due(room)
        for organization_id, threads in due.items():
            most = min(room.of(organization_id), max(room.runs // len(due), 1), room.runs - len(jobs))
            can = ((key, t) for key, t in threads if self.state.open(organization_id, t.agent_id, key))
            for conversation_id, thread in islice(can, most):
                run = self._next(organization_id, conversation_id, thread)
                thread.fence += 1
                if run is None:
                    thread.pending = 0
                    continue
                thread.run_id, thread.owner, thread.until = run.new.id, lease.owner, self._until(lease)
                jobs.append(replace(self._job(run, thread), waiting=thread.approval))
        return jobs

    async def append_events(self, events: Sequence[StoredEvent]) -> None:
        """Store events."""
        for event in events:
            kept = self._events.setdefault((event.organization_id, event.run_id), {})
            kept.setdefault(event.seq_id, (self._clock.now(), event))

    async def forget_orphans(self, before: datetime, limit: int) -> int:
        """Remove runs admitted while their agent was being removed, whose lease is over; return how many."""
        gone = [
            (org, conversation_id)
            for (org, conversation_id), thread in self._threads.items()
            if (thread.run_id or thread.pending)
            and thread.until < before
            and (org, thread.agent_id) not in self.state.agents
        ][:limit]
        for org, conversation_id in gone:
            agent_id = self._threads.pop((org, conversation_id)).agent_id
            for key in [key for key, run in self._runs.items() if key[0] == org and run.new.agent_id == agent_id]:
                del self._runs[key]
        return len(gone)

    async def forget_events(self, before: datetime, limit: int) -> int:
        """Remove old events; return how many."""
        old = [(kept, seq) for kept in self._events.values() for seq, (stored, _) in kept.items() if stored < before]
        for kept, seq in old[:limit]:
            del kept[seq]
        return len(old[:limit])

    def _due(self, room: FreeSlots) -> dict[str, list[tuple[str, QueueRow]]]:
        """Return the conversations with work and no live lease by organization, both in the order they became due."""
        now = self._clock.now()
        due = [(key, t) for key, t in self._threads.items() if (t.run_id or t.pending) and t.until <= now]
        found: dict[str, list[tuple[str, QueueRow]]] = {}
        for (organization_id, conversation_id), thread in sorted(due, key=lambda each: each[1].until):
            if room.of(organization_id) > 0:
                found.setdefault(organization_id, []).append((conversation_id, thread))
        return dict(sorted(found.items(), key=lambda each: -room.of(each[0])))

    def _next(self, organization_id: str, conversation_id: str, thread: QueueRow) -> Run | None:
        if thread.run_id:
            run = self._runs[organization_id, thread.run_id]
            run.record = replace(run.record, claims=run.record.claims + 1)
            return run
        for (owner, _), run in self._runs.items():
            waits = run.record.status == RunStatus.RUN_STATUS_CREATED
            if waits and (owner, run.new.conversation_id) == (organization_id, conversation_id):
                thread.pending = max(thread.pending - 1, 0)
                run.record = replace(run.record, status=RunStatus.RUN_STATUS_RUNNING, started_at=self._clock.now())
                return run
        return None

    def _job(self, run: Run, thread: QueueRow) -> RunJob:
        organization_id, new = run.actor.organization_id, run.new
        return RunJob(
            held=RunKey(organization_id, new.agent_id, new.conversation_id, new.id, thread.fence),
            actor=run.actor,
            definition=self.state.definition(organization_id, new.agent_id, new.conversation_id),
            request=RunRequest.FromString(new.request),
            input=StoredInput.FromString(new.input),
            claims=run.record.claims,
            background=new.background,
            run_type=new.run_type,
            cancel_requested=run.record.cancel_requested,
        )

    def _asking(self, organization_id: str) -> dict[str, str]:
        """Return by conversation the newest run that stopped for what waits there."""
        found: dict[str, str] = {}
        for (owner, run_id), run in self._runs.items():
            thread = self._threads.get((owner, run.record.conversation_id))
            since, ended = thread.approval_since if thread else None, run.record.completed_at
            stopped = run.record.stop_reason == StopReason.STOP_REASON_REQUIRES_APPROVAL
            waits = stopped and thread is not None and not thread.run_id and since and ended and ended >= since
            if waits and owner == organization_id:
                found[run.record.conversation_id] = run_id
        return found

    def _busy(self, run: NewRun, thread: QueueRow, resumes: bool) -> bool:
        return bool(thread.run_id) or not _admits(run, thread, resumes=resumes)

    def _resumes(self, run: NewRun, thread: QueueRow) -> bool:
        ended = thread.last_run_completion
        fresh = ended is not None and ended > self._clock.now() - timedelta(minutes=10)
        return fresh and not run.key and thread.failed_hash == run.request_hash

    def _refused(self, actor: Actor, run: NewRun, thread: QueueRow) -> Admission:
        if run.answers is not None:
            before = [known for known in self._mine(actor) if known.new.answers == run.answers]
            same = [known for known in before if known.new.conversation_id == run.conversation_id]
            if same:
                return Admission(AdmissionOutcome.ANSWERED, same[-1].new.id, request_hash=same[-1].new.request_hash)
        if not thread.run_id and (run.approved_calls is not None or thread.approval or not thread.pending):
            outcome = AdmissionOutcome.NOT_PENDING if run.approved_calls is not None else AdmissionOutcome.PENDING
            return Admission(outcome, pending=thread.approval)
        if thread.pending >= run.most_waiting:
            return Admission(AdmissionOutcome.FULL if run.most_waiting else AdmissionOutcome.BUSY, thread.run_id)
        thread.pending += 1
        self._store(actor, run, RunStatus.RUN_STATUS_CREATED)
        return Admission(AdmissionOutcome.QUEUED, run.id)

    def _store(self, actor: Actor, run: NewRun, status: RunStatus.ValueType) -> None:
        now = self._clock.now()
        begun = now if status == RunStatus.RUN_STATUS_RUNNING else None
        zeros: dict[str, Any] = dict.fromkeys(("ttft_ns", "step_count", "context_tokens", "claims"), 0)
        record = RunRecord(
            id=run.id,
            agent_id=run.agent_id,
            conversation_id=run.conversation_id,
            status=status,
            stop_reason=0,
            background=run.background,
            run_type=run.run_type,
            request=run.request,
            error="",
            created_at=now,
            started_at=begun,
            completed_at=None,
            cancel_requested=False,
            usage=TokenUsage(),
            **zeros,
        )
        self._runs[actor.organization_id, run.id] = Run(record, actor, run)

    def _known(self, organization_id: str, run: NewRun) -> Run | None:
        for (owner, _), known in self._runs.items():
            same = (known.new.conversation_id, known.new.key) == (run.conversation_id, run.key)
            if run.key and same and owner == organization_id:
                return known
        return None

    def _held(self, held: RunKey) -> QueueRow | None:
        thread = self._threads.get((held.organization_id, held.conversation_id))
        if thread is None or (thread.run_id, thread.fence) != (held.run_id, held.fence):
            return None
        return thread

    def _find(self, actor: Actor, run_id: str) -> Run:
        run = self._runs.get((actor.organization_id, run_id))
        if run is None:
            raise RunNotFound(f"run {run_id} does not exist", run_id=run_id)
        return run

    def _steps(self, actor: Actor) -> list[Step]:
        return [step for run in self._mine(actor) for step, _ in run.steps.values()]

    def _mine(self, actor: Actor) -> list[Run]:
        return [run for (owner, _), run in self._runs.items() if owner == actor.organization_id]

    def _until(self, lease: LeaseTerms) -> datetime:
        return self._clock.now() + timedelta(milliseconds=lease.milliseconds)


_FAILED = 3


def _spent(before: TokenUsage, steps: Sequence[TokenUsage]) -> TokenUsage:
    return TokenUsage(**{n: max(getattr(before, n), sum(getattr(step, n) for step in steps)) for n in TOKENS})


def _with_error(step: StepSummary, end: RunEnd) -> StepSummary:
    if step.status != _FAILED or not end.error:
        return step
    told = json.loads(end.error)
    return replace(step, error_type=told.get("error_type", ""), error_message=told.get("message", ""))


def _admits(run: NewRun, thread: QueueRow, *, resumes: bool) -> bool:
    if thread.approval is None:
        return not thread.pending and (run.approved_calls is None or resumes)
    if run.approved_calls is None:
        return run.denies and not thread.pending
    return bool({*thread.approval.call_ids, thread.approval.message_id} & set(run.approved_calls))


def _wanted(record: RunRecord, filters: ListRunsRequest) -> bool:
    return (
        (not (filters.agent_id or filters.agent_ids) or record.agent_id in {filters.agent_id, *filters.agent_ids})
        and (not filters.conversation_id or record.conversation_id == filters.conversation_id)
        and (not filters.statuses or record.status in filters.statuses)
        and (not filters.active or record.active)
        and (not filters.stop_reason or record.stop_reason == filters.stop_reason)
        and (not filters.HasField("background") or record.background == filters.background)
    )


def _wanted_step(step: Step, filters: ListStepsRequest) -> bool:
    at = step.created_at.ToNanoseconds()
    return (
        (not filters.agent_id or step.agent_id == filters.agent_id)
        and (not filters.run_id or step.run_id == filters.run_id)
        and (not filters.model or filters.model in {step.model, step.model_handle})
        and (not filters.feedback or step.feedback == filters.feedback)
        and (not filters.HasField("has_feedback") or bool(step.feedback) == filters.has_feedback)
        and (not filters.tags or bool(set(filters.tags) & set(step.tags)))
        and (not filters.HasField("start_date") or at >= filters.start_date.ToNanoseconds())
        and (not filters.HasField("end_date") or at <= filters.end_date.ToNanoseconds())
    )
