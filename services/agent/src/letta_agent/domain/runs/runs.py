"""Runs as callers see them: sent, streamed, begun, followed, cancelled, listed."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from letta.agent.v1 import agent_pb2, run_pb2
from letta.agent.v1.run_service_pb2 import SendMessageResponse
from letta_agent.domain.context.approvals import unanswered
from letta_agent.domain.journal.feed import CLAIM_RANGE, Event
from letta_agent.domain.journal.inputs import MANNERS, answers_in, read_input
from letta_agent.domain.journal.records import (
    Admission,
    AdmissionOutcome,
    ListRunsRequest,
    NewRun,
    Overdue,
    RunJob,
    RunKey,
    RunRecord,
    RunRequest,
    RunStatus,
    RunStore,
    StopReason,
    StoredInput,
)
from letta_agent.domain.loop.compaction_run import CompactionResult
from letta_agent.domain.peers.memory import LettaMessage, MemoryPeer
from letta_agent.domain.runs.runner import ActiveRun, Runner, statistics
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
    RunNotActive,
)
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_messages.rendering import names_of, type_of

CompactionSettings = agent_pb2.CompactionSettings
POLL_SECONDS = 0.1  # what another replica does is seen through the database; this is the delay it may have
BATCH = 100  # events of one look, few enough to be sent on before the next
_INPUT_TYPES = frozenset({"user_message", "system_message", "approval_response_message"})
_READMISSIONS = 4  # the conversation may change hands each time; whoever interrupts needs two at least
_CANCEL_SECONDS = 5.0  # a tool that does not stop is not waited for
_LONGEST_POLL = 1.0  # a run may wait for long, and this replica is woken by its own runs anyway
_FOLLOWED_MS = 10_000
"""How long a follower is expected to be there after it said so."""
_WAITS = frozenset({run_pb2.ON_BUSY_WAIT, run_pb2.ON_BUSY_ENQUEUE})
_ALL = Page(limit=1_000, ascending=True)
_OVERDUE = "No answer came in time."
_log = structlog.get_logger("letta.agent.runs")


@dataclass(frozen=True, slots=True)
class SendCommand:
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
    waits: bool = False
    """It waits for its turn, and only its caller waits for it."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What happens to sends that find the conversation taken."""

    most_waiting: int = 100
    """Most runs that wait for their turn in a conversation."""
    denies: bool = False
    """A message denies the calls that wait for approval; else it is refused."""


class Runs:
    """Operations on runs."""

    def __init__(
        self,
        store: RunStore,
        runner: Runner,
        memory: MemoryPeer,
        clock: Clock,
        *,
        digests: Digests,
        options: RunOptions | None = None,
    ) -> None:
        self._options = options or RunOptions()
        self._digests = digests
        self._leaving: set[asyncio.Task[None]] = set()
        self._store = store
        self._runner = runner
        self._memory = memory
        self._clock = clock

    async def send(self, actor: Actor, send: SendCommand, signed: bytes) -> SendMessageResponse:
        """Send messages and wait for the end of the turn.

        The run goes on when the caller goes away, unless it waits for its turn and nobody else knows of it.

        Raises:
            ConversationBusy: another run holds the conversation.
            PendingApproval: tool calls wait for an answer.
            AppError: what the run failed with.
        """
        admitted = await self.admit(actor, send, signed)
        try:
            return await self.answer(actor, admitted)
        except asyncio.CancelledError:
            # Nobody else knows of a run that its caller alone waits for, so nobody would read its answer.
            if admitted.waits:
                self._depart(self._store.cancel_waiting(actor, admitted.run_id))
            raise

    async def admit(self, actor: Actor, send: SendCommand, signed: bytes) -> Admitted:
        """Admit a run and begin it here, or find the one that the same request began before."""
        self._runner.check_room(actor.organization_id)
        run = self._new_run(send)
        for _ in range(_READMISSIONS):
            admission = await self._store.admit(actor, run, self._runner.lease)
            busy = admission.run_id
            if admission.outcome is not AdmissionOutcome.BUSY:
                return self._admitted(actor, send, run, admission, signed)
            # Busy without a run is a moment between two owners: it is tried again.
            if busy and send.request.on_busy != run_pb2.ON_BUSY_INTERRUPT:
                break
            if busy:
                await self._interrupt(actor, busy)
                # The interrupted run ends in its own time, so this one waits behind it.
                run = replace(run, most_waiting=self._options.most_waiting)
        raise ConversationBusy(f"run {busy} holds the conversation; wait for it or cancel it", run_id=busy)

    async def compact(self, actor: Actor, send: SendCommand, signed: bytes) -> CompactionResult:
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

    async def answer(self, actor: Actor, admitted: Admitted) -> SendMessageResponse:
        """Wait for the end of a run and return what it came to. Raises what it failed with."""
        run_id = admitted.run_id
        active = admitted.active or await self._begun(actor, run_id)
        # A run that was taken over has told its first part elsewhere; memory has all of it.
        if active is not None and not active.job.claims:
            return await self._heard(active)
        record = await self._store.get(actor, run_id)
        while record.active:
            await asyncio.sleep(POLL_SECONDS)
            record = await self._store.get(actor, run_id)
        if record.status == RunStatus.RUN_STATUS_FAILED:
            raise error_of(record)
        messages = await self._told(record)
        return _answer(run_id, messages, record.stop_reason, usage_of_record(record))  # type: ignore[arg-type]

    async def follow(self, actor: Actor, run_id: str, follow: Follow) -> AsyncIterator[Event]:
        """Yield the events of a run after a position, to its end. Raises RunNotFound and what the run failed with."""
        active = self._runner.find(run_id) or await self._begun(actor, run_id)
        # Positions below this owner's range were told by a former one and are read from the database.
        if active is not None and follow.after >= active.job.claims * CLAIM_RANGE:
            async for event in active.feed.follow(follow.after):
                yield event
            return
        async for event in self._replay(actor, run_id, follow):
            yield event

    async def cancel(self, actor: Actor, run_id: str) -> RunRecord:
        """End a run, or deny the calls that it left waiting for approval; return it as it is then.

        Raises RunNotFound, and RunNotActive when it had ended and nothing of it waits.
        """
        record = await self._store.get(actor, run_id)
        if record.active:
            record = await self._store.request_cancel(actor, run_id)
            return await self._end_of(actor, run_id) if self._runner.cancel(run_id) else record
        if not await self._store.reopen(actor, run_id):
            raise RunNotActive(f"run {run_id} has ended", run_id=run_id)
        await self._runner.take_reopened(actor.organization_id)
        return await self._end_of(actor, run_id)

    async def _end_of(self, actor: Actor, run_id: str) -> RunRecord:
        """Wait for the end of a run that is being cancelled, here or elsewhere; return the run as it is then."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        while (record := await self._store.get(actor, run_id)).active:
            left, active = deadline - time.monotonic(), self._runner.find(run_id)
            if left <= 0:
                break
            if active is not None and active.task is not None:
                await asyncio.wait([active.task], timeout=left)
            else:  # another look for work has claimed a run that was reopened, maybe another replica's
                await asyncio.sleep(POLL_SECONDS)
        return record

    async def cancellable(self, actor: Actor, *, agent_id: str = "", conversation_id: str = "") -> list[str]:
        """Return the runs of an agent, or in a conversation, that go on or whose calls wait for approval."""
        wanted = ListRunsRequest(agent_id=agent_id, conversation_id=conversation_id, active=True)
        active = [record.id for record in await self._store.list_runs(actor, wanted, _ALL)]
        waiting = await self._store.list_waiting(actor, agent_id=agent_id, conversation_id=conversation_id)
        return list(dict.fromkeys((*active[::-1], *waiting)))

    async def delete(self, actor: Actor, run_id: str) -> None:
        """Remove a run that has ended, denying calls that it left waiting. Raises RunNotFound and ConversationBusy."""
        # Its waiting calls go with it: nobody could answer them any more.
        if not (await self._store.get(actor, run_id)).active:
            with suppress(RunNotActive):
                await self.cancel(actor, run_id)
        if not await self._store.delete(actor, run_id):
            raise ConversationBusy(f"run {run_id} is going on; cancel it first", run_id=run_id)

    def leave(self, actor: Actor, run_id: str) -> None:
        """End a run that nobody listens to any more and that should not go on alone."""
        # The run is another replica's, which looks for wishes.
        if not self._runner.cancel(run_id):
            self._depart(self._store.request_cancel(actor, run_id))

    async def answer_overdue(self, overdue: Overdue, *, approve: bool) -> None:
        """Answer a request for approval that nobody answered in time, and let the agent go on."""
        answer = run_pb2.ApprovalCreate(approval_request_id=overdue.message_id, approve=approve, reason=_OVERDUE)
        asked = run_pb2.RunRequest(messages=[run_pb2.InputMessage(approval=answer)], background=True)
        send = SendCommand(overdue.agent_id, overdue.conversation_id, asked, run_type="approval_timeout", record=True)
        with suppress(NoPendingApproval, ConversationBusy):  # somebody was quicker
            await self.admit(overdue.actor, send, b"")

    def _depart(self, work: Coroutine[Any, Any, object]) -> None:
        """Do what a caller who went away leaves to be done."""

        async def depart() -> None:
            try:
                await work
            except AppError as error:
                _log.warning("a run that nobody waits for goes on", reason=error.reason)

        # The loop keeps only weak references to tasks, so this set holds them until they end.
        task = asyncio.create_task(depart())
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _begun(self, actor: Actor, run_id: str) -> ActiveRun | None:
        """Wait until a run has begun; return it if this replica works on it."""
        pause = POLL_SECONDS
        while True:
            record = await self._store.get(actor, run_id)
            active = self._runner.find(run_id)
            if active is not None or record.status != RunStatus.RUN_STATUS_CREATED:
                return active
            await self._runner.begun(pause)
            pause = min(pause * 1.5, _LONGEST_POLL)

    def _new_run(self, send: SendCommand) -> NewRun:
        if send.compaction is None:
            given = read_input(send.request, self._clock.now())
        else:
            given = StoredInput(compaction_settings=send.compaction)
        answers = answers_in(given)
        return NewRun(
            id=new_id("run"),
            agent_id=send.agent_id,
            conversation_id=send.conversation_id,
            # V1 clients may send an otid with a message; a repeat has the same.
            key=send.request_id or (given.messages[0].otid if given.messages else ""),
            request_hash=self._digest(send),
            request=send.request.SerializeToString(),
            input=given.SerializeToString(),
            background=send.request.background or send.run_type == "send_message_async",
            run_type=send.run_type,
            most_waiting=self._options.most_waiting if send.request.on_busy in _WAITS else 0,
            approved_calls=None if answers is None else tuple(dict.fromkeys(call for call, _ in answers)),
            answers=None if answers is None else tuple(map("=".join, answers)),
            denies=self._options.denies and send.compaction is None,
        )

    def _digest(self, send: SendCommand) -> bytes:
        way = () if send.compaction is None else (send.compaction,)
        return self._digests.of(send.request, send.agent_id, send.conversation_id, *way, without=MANNERS)

    def _admitted(self, actor: Actor, send: SendCommand, run: NewRun, admission: Admission, signed: bytes) -> Admitted:
        outcome = admission.outcome
        if outcome is AdmissionOutcome.CLAIMED:
            job = _job(actor, send, run, admission)
            return Admitted(run.id, self._runner.begin(job, signed=signed, record=send.record or run.background))
        if outcome is AdmissionOutcome.QUEUED:
            # The conversation may be free, with others before this run; only a look at the queue begins them then.
            self._runner.look_for_work()
            return Admitted(run.id, waits=send.request.on_busy != run_pb2.ON_BUSY_ENQUEUE)
        same = outcome is AdmissionOutcome.KNOWN and admission.request_hash == run.request_hash
        if same or outcome is AdmissionOutcome.ANSWERED:
            return Admitted(admission.run_id, self._runner.find(admission.run_id))
        raise _refusal(run, admission)

    async def _heard(self, active: ActiveRun) -> SendMessageResponse:
        stop, usage = StopReason.STOP_REASON_UNSPECIFIED, run_pb2.UsageStatistics()
        async for event in active.feed.follow():
            if event.HasField("stop_reason"):
                stop = event.stop_reason.stop_reason
            elif event.HasField("usage_statistics"):
                usage = event.usage_statistics
        return _answer(active.job.held.run_id, active.feed.messages(), stop, usage)

    async def _replay(self, actor: Actor, run_id: str, follow: Follow) -> AsyncIterator[Event]:
        """Yield stored events, then those that come, looking for them; without any, those that the messages tell."""
        position, stopped, noted = follow.after, False, 0
        while True:
            record = await self._store.get(actor, run_id)
            # Said again at half its time, so that the owner goes on hurrying without a gap.
            if record.active and noted <= self._clock.monotonic_ns():
                await self._store.note_follower(actor, run_id, _FOLLOWED_MS)
                noted = self._clock.monotonic_ns() + _FOLLOWED_MS * 1_000_000 // 2
            stored = await self._store.list_events(actor, run_id, position, follow.batch)
            for item in stored:
                event = Event.FromString(item.event)
                position, stopped = item.seq_id, stopped or event.HasField("stop_reason")
                yield event
            # There may be more, and the record read above is older than these events.
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
        # Behind a position the follower has read some messages, and nothing tells which.
        events = [Event(message=message) for message in await self._told(record)] if position == 0 else []
        stop = run_pb2.StopReasonMessage(stop_reason=record.stop_reason)  # type: ignore[arg-type]
        events.append(Event(stop_reason=stop))
        if record.status == RunStatus.RUN_STATUS_COMPLETED:
            events.append(Event(usage_statistics=usage_of_record(record)))
        for event in events:
            position += 1
            event.seq_id = position
            yield event

    async def _told(self, record: RunRecord) -> list[LettaMessage]:
        request = RunRequest.FromString(record.request)
        wanted = names_of(request.include_return_message_types)
        told = []
        for message in await self._memory.run_messages(record.id):
            kind = type_of(message)
            # Only who asked for the messages of compaction reads them, as in the stream.
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


def _answer(
    run_id: str,
    messages: Sequence[LettaMessage],
    stop: StopReason.ValueType,
    usage: run_pb2.UsageStatistics,
) -> SendMessageResponse:
    reason = run_pb2.StopReasonMessage(stop_reason=stop)
    answer = SendMessageResponse(run_id=run_id, messages=messages, stop_reason=reason, usage=usage)
    for message in answer.messages:
        message.ClearField("seq_id")  # positions are a matter of streams
    return answer


def _job(actor: Actor, send: SendCommand, run: NewRun, admission: Admission) -> RunJob:
    assert admission.definition is not None  # noqa: S101  (a claimed run has one)
    return RunJob(
        held=RunKey(actor.organization_id, run.agent_id, run.conversation_id, run.id, admission.fence),
        actor=actor,
        definition=admission.definition,
        request=send.request,
        # The former run's input is in the conversation already.
        input=StoredInput() if admission.resumes else StoredInput.FromString(run.input),
        background=run.background,
        run_type=run.run_type,
        waiting=admission.pending,
    )


def _refusal(run: NewRun, admission: Admission) -> AppError:
    outcome, pending = admission.outcome, admission.pending
    waiting = ", ".join(pending.call_ids) if pending else ""
    if outcome is AdmissionOutcome.NO_AGENT:
        return AgentNotFound(f"Agent with ID {run.agent_id} not found", agent_id=run.agent_id)
    if outcome is AdmissionOutcome.NO_CONVERSATION:
        missing = run.conversation_id
        return ConversationNotFound(f"conversation {missing} not found", conversation_id=missing)
    if outcome is AdmissionOutcome.PENDING and pending:
        return unanswered(pending)
    if outcome is AdmissionOutcome.FULL:
        text = f"run {admission.run_id} holds the conversation, and as many messages wait for their turn as may"
        return ConversationBusy(text, run_id=admission.run_id)
    if outcome is AdmissionOutcome.NOT_PENDING:
        answered = ", ".join(run.approved_calls or ())
        told = f"these calls wait: [{waiting}]" if waiting else "no calls wait"
        return NoPendingApproval(f"the input answers the calls [{answered}], but {told}", pending_call_ids=waiting)
    return IdempotencyConflict("another request was sent with this key", run_id=admission.run_id)


def error_of(record: RunRecord) -> AppError:
    """Return what a run failed with."""
    told = json.loads(record.error) if record.error else {}
    kind = BY_REASON.get(str(told.get("error_type", "")).upper(), InternalError)
    return kind(told.get("message") or "the run failed", **{**told.get("details", {}), "run_id": record.id})


def usage_of_record(record: RunRecord) -> run_pb2.UsageStatistics:
    """Return what a run used, as clients see it."""
    return statistics(record.usage, steps=record.step_count, context=record.context_tokens)
