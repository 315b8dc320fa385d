"""What the in-memory stores share: the rows of the tables, in dictionaries."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from letta_agent.domain.agents.conversations import StoredConversation
from letta_agent.domain.agents.records import Stage, StoredAgent
from letta_agent.domain.journal.records import (
    Definition,
    HeldCalls,
    NewRun,
    RunRecord,
    Step,
    StoredEvent,
    StoredStep,
)
from letta_agent.store.definitions import definition_of
from letta_common.actor import Actor

_LONG_AGO = datetime.min.replace(tzinfo=UTC)
Key = tuple[str, str]
"""Organization and id."""


@dataclass(slots=True)
class QueueRow:
    """A row of the conversation queue."""

    agent_id: str = ""
    run_id: str = ""
    owner: str = ""
    fence: int = 0
    until: datetime = _LONG_AGO
    """When the lease ends, or ended."""
    pending: int = 0
    tokens: int = 0
    approval: HeldCalls | None = None
    approval_since: datetime | None = None
    failed_hash: bytes = b""
    last_run_completion: datetime | None = None
    last_run_duration_ms: int = 0
    last_stop_reason: int = 0
    last_message_at: datetime | None = None


@dataclass(slots=True)
class Run:
    """A row of the runs, with its steps."""

    record: RunRecord
    actor: Actor
    new: NewRun
    kept: dict[int, StoredStep] = field(default_factory=dict)
    steps: dict[int, tuple[Step, int]] = field(default_factory=dict)
    """Steps by index, each with when its model was asked."""
    followed: datetime = _LONG_AGO


@dataclass(slots=True)
class FakeState:
    """Everything the agent service keeps."""

    agents: dict[Key, StoredAgent] = field(default_factory=dict)
    conversations: dict[Key, StoredConversation] = field(default_factory=dict)
    threads: dict[Key, QueueRow] = field(default_factory=dict)
    runs: dict[Key, Run] = field(default_factory=dict)
    events: dict[Key, dict[int, tuple[datetime, StoredEvent]]] = field(default_factory=dict)

    def ready(self, organization_id: str, agent_id: str) -> StoredAgent | None:
        """Return an agent that is ready."""
        agent = self.agents.get((organization_id, agent_id))
        return agent if agent is not None and agent.stage is Stage.READY else None

    def open(self, organization_id: str, agent_id: str, conversation_id: str) -> bool:
        """Say whether an agent that is ready has this conversation."""
        if self.ready(organization_id, agent_id) is None:
            return False
        if conversation_id == agent_id:
            return True
        stored = self.conversations.get((organization_id, conversation_id))
        ready = stored is not None and stored.stage is Stage.READY
        return ready and stored is not None and stored.conversation.agent_id == agent_id

    def definition(self, organization_id: str, agent_id: str, conversation_id: str) -> Definition:
        """Return what a run needs to know of its agent."""
        agent = self.agents[organization_id, agent_id]
        stored = self.conversations.get((organization_id, conversation_id))
        own = stored.conversation.SerializeToString() if stored is not None else None
        thread = self.threads.get((organization_id, conversation_id), QueueRow())
        return definition_of(agent.state.SerializeToString(), own, agent.secrets, agent.tool_ids, thread.tokens)
