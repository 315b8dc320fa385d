"""What the loop of a run works with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from letta_agent.domain.context.compactor import Compactor
from letta_agent.domain.journal.records import RunStore
from letta_agent.domain.peers.memory import MemoryPeer
from letta_agent.domain.peers.models import ModelPeer
from letta_agent.domain.peers.secrets import SecretPeer
from letta_agent.domain.toolcalls.executor import Caller
from letta_agent.domain.toolcalls.toolsets import Toolsets
from letta_common.clock import Clock

First = TypeVar("First")
Second = TypeVar("Second")


@dataclass(frozen=True, slots=True)
class LoopDeps:
    """What the loop works with, the same for all runs."""

    store: RunStore
    memory: MemoryPeer
    models: ModelPeer
    toolsets: Toolsets
    caller: Caller
    compactor: Compactor
    secrets: SecretPeer
    clock: Clock
    denies: bool = False
    """A message to a conversation whose calls wait for approval denies them."""


async def beside(first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]) -> tuple[First, Second]:
    """Wait for two questions at once, so that the second takes no time of its own; it ends when the first one fails."""
    other = asyncio.create_task(second)
    try:
        return await first, await other
    finally:
        other.cancel()  # does nothing to a task that has ended
