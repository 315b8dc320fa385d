"""The runs that this replica works on: begun, kept alive, cancelled, closed, taken over from replicas that died."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import structlog

from letta.agent.v1 import agent_pb2, run_pb2
from letta.common.v1 import agent_type_pb2
from letta_agent.domain.journal.event_writer import EventWriter
from letta_agent.domain.journal.feed import Feed
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.journal.records import (
    TOKENS,
    FreeSlots,
    LeaseTerms,
    QueueStore,
    RunEnd,
    RunJob,
    RunKey,
    RunStatus,
    StopReason,
    TokenUsage,
)
from letta_agent.domain.loop.compaction_run import COMPACTION, CompactionLoop
from letta_agent.domain.loop.deps import LoopDeps
from letta_agent.domain.loop.loop import Loop
from letta_agent.domain.loop.step_messages import CANCELLED as STEP_CANCELLED
from letta_agent.domain.loop.step_messages import FAILED as STEP_FAILED
from letta_agent.domain.loop.strategies.base import Strategy
from letta_agent.domain.loop.strategies.heartbeat import HeartbeatStrategy
from letta_agent.domain.loop.strategies.letta import LettaStrategy
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_common.errors import (
    AppError,
    ContextWindowExceeded,
    Fenced,
    InternalError,
    LLMInsufficientCredits,
    LLMInvalidResponse,
    Overloaded,
    RateLimited,
    RunAbandoned,
    ServiceUnavailable,
)
from letta_common.fair_slots import FairSlots, Shares
from letta_common.process.periodic import Periodic, stop_all
from letta_messages.rendering import names_of

WISHES_POLL_SECONDS = 0.2  # a cancel through another replica takes no longer; the statement answers with little
RETRY_SECONDS = "5"  # as text, because errors carry texts
_CLAIMS = 32  # most runs of one claim, so that other replicas get some of a long queue
_CROWD = 4
"""How many times its slots a replica holds runs, those that wait for a slot included."""
_LLM = "LLM_"
_log = structlog.get_logger("letta.agent.runs")


@dataclass(frozen=True, slots=True)
class RunnerOptions:
    """How a replica works on runs."""

    owner: str
    lease_ms: int = 10_000
    dispatch_seconds: float = 1.0
    slots: int = 256
    """Most runs at once."""
    slots_of_one: int = 64
    """Most runs of one organization at once."""
    waiting_of_one: int = 256
    """Most runs of one organization that wait here for a slot."""
    takeovers: int = 5
    """How often a run may be taken over before it is given up."""


@dataclass(slots=True)
class ActiveRun:
    """A run that this replica works on."""

    job: RunJob
    feed: Feed
    task: asyncio.Task[None] | None = None
    """Works on the run, closes it and tells its end; never cancelled but by a replica that stops."""
    work: asyncio.Task[RunEnd] | None = None
    """The part that may be cancelled at any time."""
    cancelled: bool = False
    lost: bool = False

    def stop(self) -> None:
        """Stop working; a run that has not begun does not begin."""
        if self.work is not None:
            self.work.cancel()

    @property
    def held(self) -> RunKey:
        """Return what this replica holds; the fence may have risen since the run began."""
        return self.feed.held


class Runner:
    """Works on runs, each in a task of its own that outlives the request which asked for it."""

    def __init__(
        self,
        tools: LoopDeps,
        queue: QueueStore,
        credentials: CredentialPeer,
        writer: EventWriter,
        options: RunnerOptions,
    ) -> None:
        self.options = options
        self.lease = LeaseTerms(options.owner, options.lease_ms)
        self._tools = tools
        self._queue = queue
        self._credentials = credentials
        self._writer = writer
        self._active: dict[str, ActiveRun] = {}
        self._counts: Counter[str] = Counter()
        # No bound on waiting here: check_room refuses before a run is stored, a stored one must not be refused.
        self._slots = FairSlots(Shares(options.slots, options.slots_of_one, waiting=sys.maxsize), "runs")
        self._queue_looks = Periodic("dispatch", self.dispatch, options.dispatch_seconds)
        self._background = (
            # A third of the lease in seconds, so that a renewal may fail without the lease running out.
            Periodic("renew", self.renew, options.lease_ms / 3000),
            Periodic("look_for_wishes", self.look_for_wishes, WISHES_POLL_SECONDS),
            self._queue_looks,
        )
        self._news = asyncio.Event()
        self._closing = False

    @property
    def count(self) -> int:
        """Return how many runs are worked on."""
        return len(self._active)

    @property
    def full(self) -> bool:
        """Say whether no run that waits in the database should be claimed now."""
        return self._closing or self._crowd() >= self.options.slots

    def check_room(self, organization_id: str) -> None:
        """Raise Overloaded when this replica takes no run, RateLimited when it takes none of the organization."""
        options = self.options
        # Before admission: what is stored cannot be refused any more.
        if self._closing or len(self._active) >= options.slots * _CROWD:
            text = "this replica works on as many runs as it may; try again"
            raise Overloaded(text, retry_after=RETRY_SECONDS)
        if self._counts[organization_id] >= options.slots_of_one + options.waiting_of_one:
            text = f"{self._counts[organization_id]} runs of the organization go on or wait; try again when some ended"
            raise RateLimited(text, retry_after=RETRY_SECONDS)

    def _crowd(self) -> int:
        """Count the runs in hand that have a slot or come next, no more of an organization than it may have."""
        if len(self._active) >= self.options.slots * _CROWD:
            return len(self._active)
        return sum(min(count, self.options.slots_of_one) for count in self._counts.values())

    def _room(self) -> FreeSlots:
        """Return what may be claimed now: of each organization as many runs as it has free slots."""
        of_one = self.options.slots_of_one
        left = {organization_id: max(of_one - count, 0) for organization_id, count in self._counts.items()}
        return FreeSlots(min(_CLAIMS, self.options.slots - self._crowd()), of_one, left)

    def find(self, run_id: str) -> ActiveRun | None:
        """Return a run that this replica works on."""
        return self._active.get(run_id)

    def begin(self, job: RunJob, *, signed: bytes = b"", record: bool = True) -> ActiveRun:
        """Begin to work on a run. `record` keeps its events for listeners of other replicas."""
        feed = Feed(
            job.held,
            claims=job.claims,
            kinds=names_of(job.request.include_return_message_types),
            record=self._writer.record if record else None,
        )
        active = ActiveRun(job, feed)
        passport = Passport(self._credentials, self._tools.clock, job.actor, job.held.run_id, signed=signed)
        self._active[job.held.run_id] = active
        self._counts[job.held.organization_id] += 1
        active.task = asyncio.create_task(self._work(active, passport), name=job.held.run_id)
        # Also when the task is cancelled before its first line, which no `finally` inside would notice.
        active.task.add_done_callback(lambda _: self._ended(active))
        # A new event each time, so that who waits is woken once and nobody has to clear it.
        news, self._news = self._news, asyncio.Event()
        news.set()
        return active

    async def begun(self, seconds: float) -> None:
        """Wait until a run begins here, for some seconds at most."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), seconds)

    def cancel(self, run_id: str) -> bool:
        """End a run of this replica; say whether there was one."""
        active = self._active.get(run_id)
        if active is None:
            return False
        active.cancelled = True
        active.stop()
        return True

    def look_for_work(self) -> None:
        """Look at the queue at once instead of at the next turn."""
        self._queue_looks.wake()

    async def start(self) -> None:
        """Begin the background work."""
        for work in self._background:
            work.start()

    async def close(self, grace: float = 10.0) -> None:
        """Finish the runs in hand, for as long as the grace lasts; others take over what is left."""
        self._closing = True
        tasks = [active.task for active in self._active.values() if active.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        # Runs that did not end in time stay claimed until their lease runs out; another replica goes on.
        for task in tasks:
            task.cancel()
        await asyncio.gather(stop_all(self._background), *tasks, return_exceptions=True)

    async def renew(self) -> None:
        """Renew the leases of all runs in hand; stop those that were lost."""
        held = {run_id: active.held for run_id, active in self._active.items()}
        if not held:
            return
        renewed = await self._queue.renew(tuple(held.values()), self.lease)
        for run_id, was in held.items():
            active = self._active.get(run_id)
            # The fence may have risen while the statement ran: a run with a newer key has lost nothing.
            if run_id not in renewed.kept and active is not None and active.held is was:
                active.lost = True
                active.stop()

    async def look_for_wishes(self) -> None:
        """End the runs that somebody asked to end through another replica; hurry for those that listen there."""
        held = tuple(active.held for active in self._active.values())
        if not held:
            return
        wishes = await self._queue.list_wishes(held)
        for run_id, active in self._active.items():
            if run_id in wishes.followed and not active.feed.followed:
                self._writer.hasten(0)  # what was recorded before anybody listened is due at once
            active.feed.followed = run_id in wishes.followed
        for run_id in wishes.cancelled:
            self.cancel(run_id)

    async def dispatch(self) -> None:
        """Take over runs whose replica went away, and begin those that waited."""
        while not self.full:
            jobs = await self._queue.claim_due(self.lease, self._room())
            self._take(jobs)
            if not jobs:
                return

    async def take_reopened(self, organization_id: str) -> None:
        """Take over a run that was reopened to be ended: it is the first of its organization and needs no slot."""
        if self._closing:
            return
        self._take(await self._queue.claim_due(self.lease, FreeSlots(1, 0, {organization_id: 1})))

    def _take(self, jobs: Sequence[RunJob]) -> None:
        for job in jobs:
            # A lease that ran out here can be claimed by its own replica, whose run still goes on.
            if job.held.run_id in self._active:
                continue
            self.begin(job)
            # The wish was written for a replica that died before it saw it.
            if job.cancel_requested:
                self.cancel(job.held.run_id)

    async def _work(self, active: ActiveRun, passport: Passport) -> None:
        """Work on a run, close it, and tell its end. Whatever happens, the feed ends."""
        end, error = await self._outcome(active, passport)
        if end is not None:
            await self._close(active, end)
            self._tell(active.feed, end, error)
        self._forget(active)
        active.feed.end(error)

    def _ended(self, active: ActiveRun) -> None:
        """Forget a run whose task has ended; one that was cut short is another replica's."""
        self._forget(active)
        active.feed.end(ServiceUnavailable("the replica stops; another one takes the run over"))

    def _forget(self, active: ActiveRun) -> None:
        organization_id = active.job.held.organization_id
        if self._active.get(active.job.held.run_id) is not active:
            return
        del self._active[active.job.held.run_id]
        self._counts[organization_id] -= 1
        if self._counts[organization_id] == self.options.slots_of_one - 1:
            self.look_for_work()  # of an organization that the last look left out
        if not self._counts[organization_id]:
            del self._counts[organization_id]

    async def _outcome(self, active: ActiveRun, passport: Passport) -> tuple[RunEnd | None, AppError | None]:
        kind = CompactionLoop if active.job.run_type == COMPACTION else Loop
        loop = kind(self._tools, active.job, active.feed, passport, strategy_of(active.job.definition.state))
        run_id = active.job.held.run_id
        try:
            # The run may have been stopped before its work had a task that could be cancelled.
            if active.cancelled or active.lost:
                raise asyncio.CancelledError  # noqa: TRY301
            active.work = asyncio.create_task(self._in_turn(active.job, loop))
            return await active.work, None
        except asyncio.CancelledError:
            if active.lost:
                return None, Fenced("the lease was lost; another replica has the run", run_id=run_id)
            # The replica stops: nothing is written, so that another one takes the run over as it is.
            if not active.cancelled:
                raise
            return await self._cancelled(active, loop), None
        except Fenced as error:
            _log.info("run is another replica's", run_id=run_id)
            return None, error
        except AppError as error:
            known = error
        except Exception as fault:
            _log.exception("run failed", run_id=run_id)
            known = InternalError("the run failed; the log has the cause under the run's id")
            known.__cause__ = fault
        # Made anew, since callers find the run by the error: its id is part of what they read.
        failed = type(known)(known.message, **{**known.metadata, "run_id": run_id})
        return await self._failed(active, loop, failed), failed

    async def _cancelled(self, active: ActiveRun, loop: Loop) -> RunEnd:
        """Return how a cancelled run ended, with nothing left open in its conversation."""
        stop, kept = StopReason.STOP_REASON_CANCELLED, False
        try:
            # Vendors refuse a history in which a call has no answer, so none may stay behind.
            await loop.deny()
        except AppError as error:
            kept = active.job.waiting is not None
            _log.warning("calls of a cancelled run stay open", run_id=active.job.held.run_id, reason=error.reason)
        steps = loop.broken(STEP_CANCELLED, stop)
        return RunEnd(RunStatus.RUN_STATUS_CANCELLED, stop, steps, keeps_approval=kept)

    async def _failed(self, active: ActiveRun, loop: Loop, error: AppError) -> RunEnd:
        """Return how a run failed. What it was sent does not stay in the conversation when nothing came of it."""
        try:
            withdrawn = await loop.withdraw()
        except AppError as fault:
            withdrawn = False
            _log.warning("input of a failed run stays", run_id=active.job.held.run_id, reason=fault.reason)
        # What the run was to answer still waits, unless its answer was committed.
        waits = active.job.waiting is not None and (withdrawn or not loop.committed)
        return replace(failure(error, loop), keeps_approval=waits, keeps_input=not withdrawn)

    async def _in_turn(self, job: RunJob, loop: Loop) -> RunEnd:
        """Work on a run once its organization has a slot for it."""
        # Slots are shared between organizations, so that the runs of one do not hold up all others.
        async with self._slots.hold(job.held.organization_id):
            return await self._worked(job, loop)

    async def _worked(self, job: RunJob, loop: Loop) -> RunEnd:
        """Work on a run and return its end.

        A run that was taken over as often as `takeovers` allows may have been decided before its replica died, so the
        next replica only reads whether it was, and the one after that gives it up. Raises RunAbandoned.
        """
        spent = job.claims - self.options.takeovers
        if spent <= 0:
            return await loop.work()
        # Only reading, because working on the run may be what its replicas died of.
        end = await loop.conclude() if spent == 1 else None
        if end is not None:
            return end
        _log.error("run given up", run_id=job.held.run_id, agent_id=job.held.agent_id, takeovers=job.claims - 1)
        text = f"the replica that worked on the run died {job.claims} times; it is not taken over again"
        raise RunAbandoned(text, takeovers=str(job.claims))

    async def _close(self, active: ActiveRun, end: RunEnd) -> None:
        """Close the run; if that fails, its lease runs out and whoever takes it over finds it decided.

        What it told is written first: who follows it elsewhere takes what is there when the run ends for all of it.
        """
        if active.feed.recorded:
            await self._writer.flush()
        try:
            # A replica that stops lets the statement end, so that no run that is all but closed waits for a take-over.
            if await asyncio.shield(self._tools.store.close(active.held, end)):
                self.look_for_work()
        except AppError as error:
            _log.warning("run not closed yet", run_id=active.held.run_id, reason=error.reason)

    def _tell(self, feed: Feed, end: RunEnd, error: AppError | None) -> None:
        feed.stop(end.stop_reason)
        # As in a stream that is replayed, only a run that was completed tells its usage.
        if error is None and end.status != RunStatus.RUN_STATUS_CANCELLED:
            feed.usage(usage_of(end))


def strategy_of(state: agent_pb2.Agent) -> Strategy:
    """Return how agents of this kind differ."""
    return _STRATEGIES.get(state.agent_type, LettaStrategy())


_STRATEGIES: Mapping[agent_type_pb2.AgentType.ValueType, Strategy] = dict.fromkeys(
    (
        agent_type_pb2.AGENT_TYPE_MEMGPT_AGENT,
        agent_type_pb2.AGENT_TYPE_MEMGPT_V2_AGENT,
        agent_type_pb2.AGENT_TYPE_REACT_AGENT,
        agent_type_pb2.AGENT_TYPE_WORKFLOW_AGENT,
    ),
    HeartbeatStrategy(),
)


def failure(error: AppError, loop: Loop) -> RunEnd:
    """Return how a run that failed ended."""
    if isinstance(error, LLMInvalidResponse):
        stop = StopReason.STOP_REASON_INVALID_LLM_RESPONSE
    elif isinstance(error, LLMInsufficientCredits):
        stop = StopReason.STOP_REASON_INSUFFICIENT_CREDITS
    elif isinstance(error, ContextWindowExceeded):
        stop = StopReason.STOP_REASON_CONTEXT_WINDOW_OVERFLOW_IN_SYSTEM_PROMPT
    elif error.reason.startswith(_LLM):
        stop = StopReason.STOP_REASON_LLM_API_ERROR
    else:
        stop = StopReason.STOP_REASON_ERROR
    told: dict[str, Any] = {
        "error_type": error.reason.lower(),
        "message": error.message,
        "run_id": error.metadata.get("run_id", ""),
    }
    if more := {name: value for name, value in error.metadata.items() if name != "run_id"}:
        told["details"] = more
    return RunEnd(RunStatus.RUN_STATUS_FAILED, stop, loop.broken(STEP_FAILED, stop), error=json.dumps(told))


def usage_of(end: RunEnd) -> run_pb2.UsageStatistics:
    """Return what a run used, as clients see it."""
    used = [step.usage for step in end.steps]
    spent = used[0] if len(used) == 1 else TokenUsage(**{name: sum(getattr(u, name) for u in used) for name in TOKENS})
    return statistics(spent, steps=len(used), context=end.context_tokens)


def statistics(usage: TokenUsage, *, steps: int, context: int) -> run_pb2.UsageStatistics:
    """Return what a run used, as clients see it."""
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    return run_pb2.UsageStatistics(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        step_count=steps,
        cached_input_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        context_tokens=context,
    )


__all__ = ["ActiveRun", "Runner", "RunnerOptions", "statistics", "strategy_of", "usage_of"]
