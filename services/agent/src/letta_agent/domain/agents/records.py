"""Agents as storage keeps them, and what the rules need of storage."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from letta.agent.v1 import agent_pb2, agent_service_pb2
from letta.common.v1 import agent_type_pb2
from letta_agent.domain.peers.memory import Block, MemoryPeer, Message
from letta_agent.domain.peers.models import ModelPeer
from letta_agent.domain.peers.tools import ToolPeer
from letta_common.actor import Actor
from letta_common.values.paging import Page

Agent = agent_pb2.Agent
AgentType = agent_type_pb2.AgentType
Variable = agent_pb2.AgentEnvironmentVariable
AgentInclude = agent_service_pb2.AgentInclude
CountAgentsRequest = agent_service_pb2.CountAgentsRequest
ListAgentsRequest = agent_service_pb2.ListAgentsRequest

Parts = Collection[AgentInclude.ValueType]
"""What an answer about agents carries besides the agents."""
ALL_PARTS: Parts = tuple(AgentInclude.values())


class Stage(IntEnum):
    """Where an agent or a conversation is between its first and its last step."""

    MAKING = 0
    READY = 1
    REMOVING = 2


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent as storage keeps it."""

    id: str
    state: Agent
    tool_ids: tuple[str, ...] = ()
    secrets: bytes = b""
    version: int = 1
    stage: Stage = Stage.READY
    creation: bytes = b""
    request_id: str = ""
    request_hash: bytes = b""
    created_by: str = ""
    approval: bytes = b""
    """The request for approval that waits, as clients see it, serialized."""


@dataclass(frozen=True, slots=True)
class AgentDraft:
    """An agent that is to be made."""

    state: Agent
    model: str = ""
    window: int = 0
    embedding: str = ""
    new_blocks: tuple[Block, ...] = ()
    block_ids: tuple[str, ...] = ()
    folder_ids: tuple[str, ...] = ()
    identity_ids: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    tool_ids: tuple[str, ...] = ()
    base_tools: bool = True
    base_rules: bool = True
    multi_agent_tools: bool = False
    messages: tuple[Message, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)
    request_id: str = ""
    request_hash: bytes = b""
    """What tells the request from another one with its key."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to change of an agent."""

    edit: Callable[[Agent], None]
    """Changes what the definition says; the rest is decided from what was given."""
    given: Agent = field(default_factory=Agent)
    named: frozenset[str] = frozenset()
    """Fields of `given` that change also when they are empty."""


@dataclass(frozen=True, slots=True)
class AgentPeers:
    """The services that agents are made of."""

    memory: MemoryPeer
    models: ModelPeer
    tools: ToolPeer


@dataclass(frozen=True, slots=True)
class ConversationLock:
    """By whom a conversation is held, and under which fence."""

    run_id: str = ""
    fence: int = 1
    pending: int = 0
    """Runs that wait for it."""

    @property
    def busy(self) -> bool:
        """Say whether a run holds the conversation or waits for it."""
        return bool(self.run_id) or self.pending > 0


class AgentStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, agent: StoredAgent) -> bool:
        """Store a new agent; False when one was stored for the same request."""
        ...

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredAgent:
        """Return the agent that a request made, finished or not. Raises AgentNotFound."""
        ...

    async def get(self, actor: Actor, agent_id: str) -> StoredAgent:
        """Return one agent that is ready. Raises AgentNotFound."""
        ...

    async def hold(self, actor: Actor, conversation_id: str) -> ConversationLock:
        """Return the run that holds a conversation, if there is one, and the newest fence."""
        ...

    async def seize(self, actor: Actor, agent_id: str, conversation_id: str, *, above: int = 0) -> ConversationLock:
        """Raise the fence of a conversation above this one; one that is busy stays as it is.

        Whoever is admitted later has a higher fence still.
        """
        ...

    async def forget(self, actor: Actor, conversation_id: str, fence: int) -> None:
        """Forget what waits for approval, and the size of the context, unless the fence has risen since."""
        ...

    async def list_agents(
        self, actor: Actor, wanted: ListAgentsRequest, page: Page, among: Collection[str] | None = None
    ) -> list[StoredAgent]:
        """Return a page of agents that are ready, of those with these ids where they are given."""
        ...

    async def list_tags(self, actor: Actor, page: Page, *, containing: str) -> list[str]:
        """Return a page of the labels of agents, each once; `before` and `after` are labels, known or not."""
        ...

    async def count(self, actor: Actor, wanted: CountAgentsRequest, among: Collection[str] | None = None) -> int:
        """Count agents that are ready, of those with these ids where they are given."""
        ...

    async def finish(self, actor: Actor, agent_id: str) -> None:
        """Mark an agent as ready."""
        ...

    async def update(self, actor: Actor, agent: StoredAgent, *, expected: int) -> bool:
        """Write definition, secrets and tools if the stored version is still `expected`; say whether it was."""
        ...

    async def begin_removal(self, actor: Actor, agent_id: str) -> None:
        """Take an agent out of every list. Raises AgentNotFound."""
        ...

    async def delete(self, actor: Actor, agent_id: str) -> None:
        """Remove an agent with its conversations and runs."""
        ...

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredAgent]]:
        """Return agents of all organizations that were left half made or half removed."""
        ...
