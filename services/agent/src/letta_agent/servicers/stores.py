"""What servicers read from and write to directly, where nothing is decided."""

from __future__ import annotations

from dataclasses import dataclass

from letta_agent.domain.agents.conversations import ConversationStore
from letta_agent.domain.agents.records import AgentStore
from letta_agent.domain.journal.records import RunStore


@dataclass(frozen=True, slots=True)
class AgentStores:
    """The stores of the agent service."""

    agents: AgentStore
    conversations: ConversationStore
    runs: RunStore
