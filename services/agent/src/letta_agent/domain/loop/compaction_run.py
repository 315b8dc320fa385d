"""Runs that do nothing but make a context smaller: asked for by people, durable and repeatable like all others."""

from __future__ import annotations

from dataclasses import dataclass

from letta.common.v1.message_pb2 import COMPACTION_TRIGGER_MANUAL
from letta.memory.v1.context_service_pb2 import Window
from letta_agent.domain.journal.feed import Feed
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.journal.records import Agent, RunEnd, RunJob, StopReason, StoredStep
from letta_agent.domain.loop.deps import LoopDeps
from letta_agent.domain.loop.loop import Loop
from letta_agent.domain.loop.step_messages import summary_of
from letta_agent.domain.loop.strategies.base import Strategy
from letta_common.errors import NothingToCompact
from letta_common.values.ids import new_id

COMPACTION = "compaction"
"""Type of these runs."""
_DONE = StopReason.STOP_REASON_END_TURN


@dataclass(frozen=True, slots=True)
class CompactionResult:
    """What a compaction came to, in messages in context."""

    run_id: str
    summary: str
    before: int
    after: int


class CompactionLoop(Loop):
    """Works on a run that makes a context smaller: one step, one commit."""

    def __init__(self, tools: LoopDeps, job: RunJob, feed: Feed, passport: Passport, strategy: Strategy) -> None:
        super().__init__(tools, job, feed, passport, strategy)
        # A copy: the definition belongs to the job, and these settings to this run alone.
        self._state = Agent()
        self._state.CopyFrom(job.definition.state)
        self._state.compaction_settings.MergeFrom(job.input.compaction_settings)

    async def work(self) -> RunEnd:
        """Compact and commit. Raises NothingToCompact, the errors of its peers, and Fenced."""
        begun = await self._begin()
        # A former owner has committed the one step that such a run has.
        if begun.HasField("last_step"):
            return self._end(begun.last_step.stop_reason)
        clock = self._tools.clock
        began = clock.monotonic_ns()
        step = StoredStep(step_id=new_id("step"), started_ns=int(clock.now().timestamp() * 1e9))
        self._open = (0, step, began)
        before = len(self._context.messages)
        async with self._acting():
            overhead = len(self._system().encode()) + self._toolset.size
            shrunk = await self._compact(step, overhead, 0, trigger=COMPACTION_TRIGGER_MANUAL)
            if not shrunk or len(self._context.messages) >= before:
                text = (
                    f"the {before} messages in context would not become fewer; let more be said, or use the mode `all`"
                )
                raise NothingToCompact(text, messages=str(before))
            window = Window(summary=step.summary, first_kept_message_id=step.first_kept_message_id)
            await self._commit(0, [], _DONE, window)
        took = clock.monotonic_ns() - began
        self._summaries.append(summary_of(step, 0, stop=_DONE, step_ns=took, tool_ns=0))
        # The size is unknown until a vendor counts the new context.
        self._open, self._context_tokens = None, 0
        return self._end(_DONE)
