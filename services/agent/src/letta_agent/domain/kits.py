"""What the loop of a run works with."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from letta_agent.domain.calls import Caller
from letta_agent.domain.compaction import Compactor
from letta_agent.domain.jobs import RunStore
from letta_agent.domain.peers import MemoryPeer, ModelPeer
from letta_agent.domain.toolsets import Toolsets
from letta_common.clock import Clock

First = TypeVar("First")
Second = TypeVar("Second")


class SecretBox(Protocol):
    """Opens the encrypted environment variables of an agent."""

    def environment(self, organization_id: str, agent_id: str, sealed: bytes) -> Mapping[str, str]:
        """Return the variables by name."""
        ...


@dataclass(frozen=True, slots=True)
class Tools:
    """What the loop works with, the same for all runs."""

    store: RunStore
    memory: MemoryPeer
    models: ModelPeer
    toolsets: Toolsets
    caller: Caller
    compactor: Compactor
    secrets: SecretBox
    clock: Clock
    denies: bool = False
    """A message to a conversation whose calls wait for approval denies them."""


async def beside(first: Coroutine[Any, Any, First], second: Coroutine[Any, Any, Second]) -> tuple[First, Second]:
    """Wait for two questions at once, so that the second takes no time of its own; it ends when the first one fails."""
    other = asyncio.create_task(second)
    try:
        return await first, await other
    finally:
        other.cancel()
