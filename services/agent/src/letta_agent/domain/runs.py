"""Runs as callers see them: sent, streamed, begun, followed, cancelled, listed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from letta.agent.v1 import agent_pb2, run_pb2
from letta_agent.domain.compactions import CompactionResult
from letta_agent.domain.feeds import CLAIM_RANGE, Event
from letta_agent.domain.inputs import Input, digest, read_input
from letta_agent.domain.jobs import (
    Admission,
    Held,
    Job,
    NewRun,
    Outcome,
    RunFilter,
    RunRecord,
    RunRequest,
    RunStatus,
    RunStore,
    StepFilter,
    StepRecord,
    StopReason,
    StoredInput,
)
from letta_agent.domain.peers import LettaMessage, MemoryPeer
from letta_agent.domain.runner import ActiveRun, Runner, statistics
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import (
    BY_REASON,
    AgentNotFound,
    AppError,
    ConversationBusy,
    ConversationNotFound,
    IdempotencyConflict,
    InternalError,
    NoPendingApproval,
    PendingApproval,
    RunNotActive,
)
from letta_common.ids import new_id
from letta_common.letta_messages import type_of
from letta_common.paging import Page

CompactionSettings = agent_pb2.CompactionSettings
POLL_SECONDS = 0.1
BATCH = 100
_INPUT_TYPES = frozenset({"user_message", "system_message", "approval_response_message"})
_READMISSIONS = 3
_EPOCH = datetime.fromtimestamp(0, UTC)


@dataclass(frozen=True, slots=True)
class Send:
    """Messages to an agent, in one of its conversations."""

    agent_id: str
    conversation_id: str
    request: RunRequest
    request_id: str = ""
    run_type: str = "send_message"
    record: bool = False
    """Others may want to follow the run: keep its events."""
    compaction: CompactionSettings | None = None
    """The run only makes the context smaller, in this way."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a run came to."""

    run_id: str
    messages: Sequence[LettaMessage]
    stop_reason: StopReason.ValueType
    usage: run_pb2.UsageStatistics


@dataclass(frozen=True, slots=True)
class Follow:
    """How to follow a run."""

    after: int = 0
    poll_seconds: float = POLL_SECONDS
    batch: int = BATCH


@dataclass(frozen=True, slots=True)
class Admitted:
    """A run that was admitted, or the one that its key names."""

    run_id: str
    active: ActiveRun | None = field(default=None)


class Runs:
    """Operations on runs."""

    def __init__(self, store: RunStore, runner: Runner, memory: MemoryPeer, clock: Clock) -> None:
        self._store = store
        self._runner = runner
        self._memory = memory
        self._clock = clock

    async def send(self, actor: Actor, send: Send, signed: bytes) -> Answer:
        """Send messages and wait for the end of the turn. The run goes on when the caller goes away.

        Raises:
            ConversationBusy: another run holds the conversation.
            PendingApproval: tool calls wait for an answer.
            AppError: what the run failed with.
        """
        admitted = await self.admit(actor, send, signed)
        return await self.answer(actor, admitted)

    async def admit(self, actor: Actor, send: Send, signed: bytes) -> Admitted:
        """Admit a run and begin it here, or find the one that the same request began before."""
        self._runner.check_room(actor.organization_id)
        run = self._new_run(send)
        on_busy = send.request.on_busy
        for attempt in range(1_000_000):
            admission = await self._store.admit(actor, run, self._runner.lease)
            if admission.outcome is not Outcome.BUSY:
                return self._admitted(actor, send, run, admission, signed)
            if on_busy == run_pb2.ON_BUSY_INTERRUPT and admission.run_id and attempt == 0:
                await self._interrupt(actor, admission.run_id)
            waits = on_busy in (run_pb2.ON_BUSY_WAIT, run_pb2.ON_BUSY_INTERRUPT)
            if not waits and (admission.run_id or attempt >= _READMISSIONS):
                break
            await self._free(admission.run_id)
        busy = admission.run_id
        raise ConversationBusy(f"run {busy} holds the conversation; wait for it or cancel it", run_id=busy)

    async def compact(self, actor: Actor, send: Send, signed: bytes) -> CompactionResult:
        """Make a context smaller and say what it came to.

        Raises:
            NothingToCompact: it would not become smaller.
            ConversationBusy, PendingApproval: a run holds the conversation, or tool calls wait.
        """
        answer = await self.send(actor, send, signed)
        told = next(message.summary_message for message in answer.messages if message.HasField("summary_message"))
        stats = told.compaction_stats
        opening = 1  # the system prompt, which compaction does not count
        before, after = stats.messages_count_before + opening, stats.messages_count_after + opening
        return CompactionResult(answer.run_id, told.summary, before, after)

    async def answer(self, actor: Actor, admitted: Admitted) -> Answer:
        """Wait for the end of a run and return what it came to. Raises what it failed with."""
        active, run_id = admitted.active, admitted.run_id
        if active is not None and not active.job.claims:
            return await self._heard(active)
        record = await self._store.get(actor, run_id)
        while record.active:
            await asyncio.sleep(POLL_SECONDS)
            record = await self._store.get(actor, run_id)
        if record.status == RunStatus.RUN_STATUS_FAILED:
            raise error_of(record)
        messages = await self._told(record)
        return Answer(run_id, messages, record.stop_reason, usage_of_record(record))  # type: ignore[arg-type]

    async def follow(self, actor: Actor, run_id: str, follow: Follow) -> AsyncIterator[Event]:
        """Yield the events of a run after a position, to its end. Raises RunNotFound and what the run failed with."""
        active = self._runner.find(run_id)
        if active is not None and follow.after >= active.job.claims * CLAIM_RANGE:
            async for event in active.feed.follow(follow.after):
                yield event
            return
        async for event in self._replay(actor, run_id, follow):
            yield event

    async def get(self, actor: Actor, run_id: str) -> RunRecord:
        """Return one run. Raises RunNotFound."""
        return await self._store.get(actor, run_id)

    async def find(self, actor: Actor, filters: RunFilter, page: Page) -> list[RunRecord]:
        """Return a page of runs."""
        return await self._store.runs(actor, filters, page)

    async def find_by_otid(self, actor: Actor, conversation_id: str, otid: str) -> str:
        """Return the run that a message of this otid began. Raises RunNotFound."""
        return await self._store.find_by_key(actor, conversation_id, otid)

    async def cancel(self, actor: Actor, run_id: str) -> RunRecord:
        """End a run; return it as it is then. Raises RunNotFound, and RunNotActive when it had ended."""
        record = await self._store.get(actor, run_id)
        if not record.active:
            raise RunNotActive(f"run {run_id} has ended", run_id=run_id)
        record = await self._store.request_cancel(actor, run_id)
        active = self._runner.find(run_id)
        if active is not None and self._runner.cancel(run_id) and active.task is not None:
            await asyncio.wait([active.task], timeout=5)
            return await self._store.get(actor, run_id)
        return record

    async def delete(self, actor: Actor, run_id: str) -> None:
        """Remove a run that has ended. Raises RunNotFound and ConversationBusy."""
        if not await self._store.delete(actor, run_id):
            raise ConversationBusy(f"run {run_id} is going on; cancel it first", run_id=run_id)

    async def steps(self, actor: Actor, filters: StepFilter, page: Page) -> list[StepRecord]:
        """Return a page of steps."""
        return await self._store.steps(actor, filters, page)

    async def step(self, actor: Actor, step_id: str) -> StepRecord:
        """Return one step. Raises StepNotFound."""
        return await self._store.step(actor, step_id)

    async def set_feedback(self, actor: Actor, step_id: str, feedback: int, tags: Sequence[str]) -> StepRecord:
        """Store what a person thinks of a step. Raises StepNotFound."""
        return await self._store.set_feedback(actor, step_id, feedback, tags)

    def leave(self, run_id: str) -> None:
        """End a run that nobody listens to any more and that should not go on alone."""
        self._runner.cancel(run_id)

    def _new_run(self, send: Send) -> NewRun:
        if send.compaction is None:
            given, way = read_input(send.request, self._clock.now()), b""
        else:
            given, way = Input(StoredInput(compaction_settings=send.compaction)), _digestible(send.compaction)
        return NewRun(
            id=new_id("run"),
            agent_id=send.agent_id,
            conversation_id=send.conversation_id,
            key=send.request_id or given.otid,
            request_hash=digest(send.agent_id, send.conversation_id, send.request, way),
            request=send.request.SerializeToString(),
            input=given.messages.SerializeToString(),
            background=send.request.background or send.run_type == "send_message_async",
            run_type=send.run_type,
            enqueue=send.request.on_busy == run_pb2.ON_BUSY_ENQUEUE,
            approved_calls=given.approved_calls,
        )

    def _admitted(self, actor: Actor, send: Send, run: NewRun, admission: Admission, signed: bytes) -> Admitted:
        outcome = admission.outcome
        if outcome is Outcome.CLAIMED:
            job = _job(actor, send, run, admission)
            return Admitted(run.id, self._runner.begin(job, signed=signed, record=send.record or run.background))
        if outcome is Outcome.QUEUED:
            self._runner.look_for_work()
            return Admitted(run.id)
        if outcome is Outcome.KNOWN and admission.request_hash == run.request_hash:
            return Admitted(admission.run_id, self._runner.find(admission.run_id))
        raise _refusal(send, admission)

    async def _heard(self, active: ActiveRun) -> Answer:
        stop, usage = StopReason.STOP_REASON_UNSPECIFIED, run_pb2.UsageStatistics(message_type="usage_statistics")
        async for event in active.feed.follow():
            if event.HasField("stop_reason"):
                stop = event.stop_reason.stop_reason
            elif event.HasField("usage_statistics"):
                usage = event.usage_statistics
        return Answer(active.job.held.run_id, active.feed.messages(), stop, usage)

    async def _replay(self, actor: Actor, run_id: str, follow: Follow) -> AsyncIterator[Event]:
        """Yield stored events, then those that come, looking for them; without any, those that the messages tell."""
        position, stopped = follow.after, False
        while True:
            record = await self._store.get(actor, run_id)
            stored = await self._store.events(actor, run_id, position, follow.batch)
            for item in stored:
                event = Event.FromString(item.event)
                position, stopped = item.seq_id, stopped or event.HasField("stop_reason")
                yield event
            if stored:
                continue
            if not record.active:
                break
            await asyncio.sleep(follow.poll_seconds)
        async for event in self._ending(record, position, stopped=stopped):
            yield event
        if record.status == RunStatus.RUN_STATUS_FAILED:
            raise error_of(record)

    async def _ending(self, record: RunRecord, position: int, *, stopped: bool) -> AsyncIterator[Event]:
        if stopped:
            return
        events = [Event(message=message) for message in await self._told(record)] if position == 0 else []
        stop = run_pb2.StopReasonMessage(message_type="stop_reason", stop_reason=record.stop_reason)  # type: ignore[arg-type]
        events.append(Event(stop_reason=stop))
        if record.status == RunStatus.RUN_STATUS_COMPLETED:
            events.append(Event(usage_statistics=usage_of_record(record)))
        for event in events:
            position += 1
            event.seq_id = position
            yield event

    async def _told(self, record: RunRecord) -> list[LettaMessage]:
        request = RunRequest.FromString(record.request)
        wanted = set(request.include_return_message_types)
        told = []
        for message in await self._memory.run_messages(record.id):
            kind = type_of(message)
            if kind == "summary_message" and not request.include_compaction_messages:
                continue
            if (not wanted or kind in wanted) and (kind not in _INPUT_TYPES or message.step_id):
                message.run_id = record.id
                told.append(message)
        return told

    async def _interrupt(self, actor: Actor, run_id: str) -> None:
        try:
            await self.cancel(actor, run_id)
        except RunNotActive:
            return

    async def _free(self, run_id: str) -> None:
        """Wait a moment for the run that holds a conversation."""
        active = self._runner.find(run_id)
        if active is not None and active.task is not None:
            await asyncio.wait([active.task], timeout=1)
        else:
            self._runner.look_for_work()
            await asyncio.sleep(POLL_SECONDS / 2)


def _digestible(settings: CompactionSettings) -> bytes:
    return settings.SerializeToString(deterministic=True)


def _job(actor: Actor, send: Send, run: NewRun, admission: Admission) -> Job:
    assert admission.definition is not None  # noqa: S101  (a claimed run has one)
    return Job(
        held=Held(actor.organization_id, run.agent_id, run.conversation_id, run.id, admission.fence),
        actor=actor,
        definition=admission.definition,
        request=send.request,
        input=StoredInput.FromString(run.input),
        background=run.background,
        run_type=run.run_type,
    )


def _refusal(send: Send, admission: Admission) -> AppError:
    outcome, pending = admission.outcome, admission.pending
    waiting = ", ".join(pending.call_ids) if pending else ""
    if outcome is Outcome.NO_AGENT:
        return AgentNotFound(f"Agent with ID {send.agent_id} not found", agent_id=send.agent_id)
    if outcome is Outcome.NO_CONVERSATION:
        conversation_id = send.conversation_id
        return ConversationNotFound(f"conversation {conversation_id} not found", conversation_id=conversation_id)
    if outcome is Outcome.PENDING and pending:
        text = "tool calls wait for approval: answer them before you send another message"
        return PendingApproval(text, pending_request_id=pending.message_id, tool_call_ids=waiting)
    if outcome is Outcome.NOT_PENDING:
        answered = ", ".join(read_input(send.request, _EPOCH).approved_calls or ())
        told = f"these calls wait: [{waiting}]" if waiting else "no calls wait"
        return NoPendingApproval(f"the input answers the calls [{answered}], but {told}", pending_call_ids=waiting)
    return IdempotencyConflict("another request was sent with this key", run_id=admission.run_id)


def error_of(record: RunRecord) -> AppError:
    """Return what a run failed with."""
    told = json.loads(record.error) if record.error else {}
    kind = BY_REASON.get(str(told.get("error_type", "")).upper(), InternalError)
    return kind(told.get("message") or "the run failed", run_id=record.id)


def usage_of_record(record: RunRecord) -> run_pb2.UsageStatistics:
    """Return what a run used, as clients see it."""
    return statistics(
        prompt=record.prompt_tokens,
        completion=record.completion_tokens,
        steps=record.step_count,
        cached=record.cached_input_tokens,
        written=record.cache_write_tokens,
        reasoning=record.reasoning_tokens,
        context=record.context_tokens,
    )
