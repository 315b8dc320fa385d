"""What a run reads of memory and writes there, under the fence of its owner."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from letta.common.v1.usage_pb2 import StopReason
from letta.memory.v1 import context_service_pb2 as pb
from letta_agent.domain.context.working import WorkingContext
from letta_agent.domain.journal.feed import Feed
from letta_agent.domain.journal.records import RunStore
from letta_agent.domain.peers.memory import MemoryPeer, Message
from letta_common.errors import Fenced


class RunMemory:
    """The memory of one run. Its key is the feed's, so that both write under the same fence."""

    def __init__(self, memory: MemoryPeer, store: RunStore, feed: Feed) -> None:
        self._memory = memory
        self._store = store
        self._feed = feed

    async def begin(self, messages: Sequence[Message]) -> pb.BeginStepResponse:
        """Append the input and return the context. Raises Fenced.

        When memory has seen a higher fence although the lease is ours, the conversation is claimed once more, above it.
        """
        held = self._feed.held
        request = pb.BeginStepRequest(
            agent_id=held.agent_id,
            conversation_id=held.conversation_id,
            run_id=held.run_id,
            fence=held.fence,
            input=messages,
        )
        try:
            return await self._memory.begin_step(held.organization_id, request)
        # Memory can know a higher fence than the queue, for instance when the queue was restored from a backup.
        except Fenced as error:
            fence = await self._store.raise_fence(held, int(error.metadata.get("fence") or 0))
            # The lease is no longer ours, so the higher fence is another owner's.
            if fence is None:
                raise
        # In the feed, so that renewals and the closing use the new fence as well.
        self._feed.held = replace(held, fence=fence)
        request.fence = fence
        return await self._memory.begin_step(held.organization_id, request)

    async def withdraw(self) -> bool:
        """Take back the input of a run without committed steps; say whether there was any. Raises Fenced."""
        held = self._feed.held
        request = pb.WithdrawInputRequest(
            agent_id=held.agent_id, conversation_id=held.conversation_id, run_id=held.run_id, fence=held.fence
        )
        return (await self._memory.withdraw_input(request)).withdrawn

    async def commit(
        self,
        index: int,
        messages: Iterable[Message],
        stop: StopReason.ValueType,
        known: WorkingContext,
        window: pb.Window | None,
    ) -> pb.CommitStepResponse:
        """Append the messages of a step once; return what is newer than what is known of the context. Raises Fenced."""
        held = self._feed.held
        request = pb.CommitStepRequest(
            agent_id=held.agent_id,
            conversation_id=held.conversation_id,
            run_id=held.run_id,
            fence=held.fence,
            step_index=index,
            messages=messages,
            stop_reason=stop,
            known_blocks=known.versions(),
            known_directories_version=known.directories_version,
            window=window,
        )
        return await self._memory.commit_step(request)
