"""Agents and conversations in memory: the twins of the tables, for tests, held to the same contract."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from letta.agent.v1.agent_service_pb2 import AgentOrderBy
from letta.agent.v1.conversation_service_pb2 import ConversationOrderBy
from letta_agent.domain.agents.conversations import Conversation, ListConversationsRequest, StoredConversation
from letta_agent.domain.agents.records import (
    Agent,
    ConversationLock,
    CountAgentsRequest,
    ListAgentsRequest,
    Stage,
    StoredAgent,
)
from letta_agent.domain.journal.records import RunStatus, StopReason
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ConversationNotFound
from letta_common.values.paging import Page
from tests.fakes.agent.state import FakeState, QueueRow

_NEVER = datetime.min.replace(tzinfo=UTC)


class FakeAgents:
    """AgentStore in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def create(self, actor: Actor, agent: StoredAgent) -> bool:
        """Store a new agent; False when one was stored for the same request."""
        if agent.request_id and any(found.request_id == agent.request_id for found in self._mine(actor)):
            return False
        self._put(actor, agent)
        return True

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredAgent:
        """Return the agent that a request made, finished or not. Raises AgentNotFound."""
        for agent in self._mine(actor):
            if agent.request_id == request_id:
                return self._shown(actor, agent)
        raise _no_agent(request_id)

    async def get(self, actor: Actor, agent_id: str) -> StoredAgent:
        """Return one agent that is ready. Raises AgentNotFound."""
        agent = self._state.ready(actor.organization_id, agent_id)
        if agent is None:
            raise _no_agent(agent_id)
        return self._shown(actor, agent)

    async def hold(self, actor: Actor, conversation_id: str) -> ConversationLock:
        """Return the run that holds a conversation, if there is one, and the newest fence."""
        thread = self._state.threads.get((actor.organization_id, conversation_id))
        return (
            ConversationLock(thread.run_id, max(1, thread.fence), thread.pending)
            if thread is not None
            else ConversationLock()
        )

    async def seize(self, actor: Actor, agent_id: str, conversation_id: str, *, above: int = 0) -> ConversationLock:
        """Raise the fence of a conversation above this one; one that is busy stays as it is."""
        thread = self._state.threads.setdefault((actor.organization_id, conversation_id), QueueRow(agent_id))
        hold = ConversationLock(thread.run_id, thread.fence, thread.pending)
        if hold.busy:
            return hold
        thread.fence = max(thread.fence, above) + 1
        return replace(hold, fence=thread.fence)

    async def forget(self, actor: Actor, conversation_id: str, fence: int) -> None:
        """Forget what waits for approval, and the size of the context, unless the fence has risen since."""
        thread = self._state.threads.get((actor.organization_id, conversation_id))
        if thread is not None and thread.fence == fence:
            thread.approval, thread.tokens = None, 0
            thread.approval_since, thread.failed_hash = None, b""

    async def list_agents(
        self, actor: Actor, filters: ListAgentsRequest, page: Page, among: Collection[str] | None = None
    ) -> list[StoredAgent]:
        """Return a page of agents that are ready, of those with these ids where they are given."""
        wanted = [agent for agent in self._wanted(actor, filters) if among is None or agent.id in among]
        found = [self._shown(actor, agent) for agent in wanted]
        return page.slice(found, key=lambda agent: (_place(agent, filters.order_by), agent.id))

    async def list_tags(self, actor: Actor, page: Page, *, containing: str) -> list[str]:
        """Return a page of the labels of agents, each once."""
        ready = [agent for agent in self._mine(actor) if agent.stage is Stage.READY]
        kept = sorted({tag for agent in ready for tag in agent.state.tags if containing.lower() in tag.lower()})
        for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending)):
            kept = [tag for tag in kept if not cursor or (tag != cursor and (tag > cursor) is later)]
        kept = kept if page.ascending else kept[::-1]
        return kept[-page.limit :] if page.backwards else kept[: page.limit]

    async def count(self, actor: Actor, wanted: CountAgentsRequest, among: Collection[str] | None = None) -> int:
        """Count agents that are ready, of those with these ids where they are given."""
        return len([agent for agent in self._wanted(actor, wanted) if among is None or agent.id in among])

    async def finish(self, actor: Actor, agent_id: str) -> None:
        """Mark an agent as ready."""
        agent = self._state.agents.get((actor.organization_id, agent_id))
        if agent is not None and agent.stage is Stage.MAKING:
            self._put(actor, replace(agent, stage=Stage.READY, creation=b""))

    async def update(self, actor: Actor, agent: StoredAgent, *, expected: int) -> bool:
        """Write definition, secrets and tools if the stored version is still `expected`; say whether it was."""
        known = self._state.agents.get((actor.organization_id, agent.id))
        if known is None or known.version != expected:
            return False
        changed = replace(
            known, state=agent.state, secrets=agent.secrets, tool_ids=agent.tool_ids, version=agent.version
        )
        self._put(actor, changed)
        return True

    async def begin_removal(self, actor: Actor, agent_id: str) -> None:
        """Take an agent out of every list. Raises AgentNotFound."""
        agent = self._state.agents.get((actor.organization_id, agent_id))
        if agent is None or agent.stage is Stage.REMOVING:
            raise _no_agent(agent_id)
        self._put(actor, replace(agent, stage=Stage.REMOVING, request_id=""))

    async def delete(self, actor: Actor, agent_id: str) -> None:
        """Remove an agent with its conversations and runs."""
        org, state = actor.organization_id, self._state
        for key in [key for key, run in state.runs.items() if key[0] == org and run.new.agent_id == agent_id]:
            del state.runs[key]
            state.events.pop(key, None)
        for key in [key for key, thread in state.threads.items() if key[0] == org and thread.agent_id == agent_id]:
            del state.threads[key]
        for key, stored in list(state.conversations.items()):
            if key[0] == org and stored.conversation.agent_id == agent_id:
                del state.conversations[key]
        state.agents.pop((org, agent_id), None)

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredAgent]]:
        """Return agents of all organizations that were left half made or half removed."""
        left = []
        for (organization_id, _), agent in self._state.agents.items():
            actor = Actor(organization_id, agent.created_by)
            if agent.stage is not Stage.READY and agent.state.updated_at.ToDatetime(tzinfo=UTC) < before:
                left.append((actor, self._shown(actor, agent)))
        return left[:limit]

    def _wanted(self, actor: Actor, filters: ListAgentsRequest | CountAgentsRequest) -> list[StoredAgent]:
        def stop(agent: StoredAgent) -> int:
            return self._thread(actor, agent.id).last_stop_reason

        return [
            agent
            for agent in self._mine(actor)
            if agent.stage is Stage.READY
            and _matches(agent, filters)
            and (not filters.last_stop_reason or stop(agent) == filters.last_stop_reason)
        ]

    def _mine(self, actor: Actor) -> list[StoredAgent]:
        return [agent for (owner, _), agent in self._state.agents.items() if owner == actor.organization_id]

    def _put(self, actor: Actor, agent: StoredAgent) -> None:
        self._state.agents[actor.organization_id, agent.id] = replace(agent, state=_copy(agent.state))

    def _thread(self, actor: Actor, conversation_id: str) -> QueueRow:
        return self._state.threads.get((actor.organization_id, conversation_id), QueueRow())

    def _shown(self, actor: Actor, agent: StoredAgent) -> StoredAgent:
        thread, state = self._thread(actor, agent.id), _copy(agent.state)
        if thread.last_run_completion is not None:
            state.last_run_completion.FromDatetime(thread.last_run_completion)
            state.last_run_duration.FromMilliseconds(thread.last_run_duration_ms)
            state.last_stop_reason = thread.last_stop_reason  # type: ignore[assignment]
        return replace(agent, state=state, approval=thread.approval.shown if thread.approval else b"")


class FakeConversations:
    """ConversationStore in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def create(self, actor: Actor, stored: StoredConversation) -> bool:
        """Store a new conversation; False when one was stored for the same request."""
        if stored.request_id and any(known.request_id == stored.request_id for known in self._mine(actor)):
            return False
        kept = _copy_conversation(stored.conversation)
        del kept.isolated_block_ids[:]
        self._state.conversations[actor.organization_id, kept.id] = replace(stored, conversation=kept)
        return True

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredConversation:
        """Return the conversation that a request made. Raises ConversationNotFound."""
        for stored in self._mine(actor):
            if stored.request_id == request_id:
                return replace(stored, conversation=self._shown(actor, stored))
        raise _no_conversation(request_id)

    async def get(self, actor: Actor, conversation_id: str) -> Conversation:
        """Return one conversation that is ready. Raises ConversationNotFound."""
        return self._shown(actor, self._at(actor, conversation_id, Stage.READY))

    async def list_conversations(
        self, actor: Actor, filters: ListConversationsRequest, page: Page
    ) -> list[Conversation]:
        """Return a page of conversations that are ready."""
        found = [
            self._shown(actor, stored)
            for stored in self._mine(actor)
            if stored.stage is Stage.READY
            and (not filters.agent_id or stored.conversation.agent_id == filters.agent_id)
            and filters.summary_search.lower() in stored.conversation.summary.lower()
        ]
        return page.slice(found, key=lambda made: (self._place(actor, made, filters.order_by), made.id))

    async def update(self, actor: Actor, conversation: Conversation) -> None:
        """Write a conversation that is ready. Raises ConversationNotFound."""
        known = self._at(actor, conversation.id, Stage.READY)
        kept = _copy_conversation(conversation)
        del kept.isolated_block_ids[:]
        kept.isolated_block_ids.extend(known.conversation.isolated_block_ids)
        self._put(actor, replace(known, conversation=kept))

    async def finish(self, actor: Actor, conversation_id: str, isolated_block_ids: Sequence[str]) -> None:
        """Mark a conversation as ready."""
        known = self._at(actor, conversation_id, Stage.MAKING)
        kept = _copy_conversation(known.conversation)
        kept.isolated_block_ids.extend(isolated_block_ids)
        self._put(actor, replace(known, conversation=kept, stage=Stage.READY))

    async def begin_removal(self, actor: Actor, conversation_id: str) -> None:
        """Take a conversation out of every list. Raises ConversationNotFound."""
        known = self._at(actor, conversation_id, Stage.READY)
        self._put(actor, replace(known, stage=Stage.REMOVING, request_id=""))

    async def delete(self, actor: Actor, conversation_id: str) -> None:
        """Remove a conversation; runs in it that have not ended are cancelled."""
        org = actor.organization_id
        for (owner, _), run in self._state.runs.items():
            if owner == org and run.record.conversation_id == conversation_id and run.record.active:
                run.record = replace(
                    run.record,
                    status=RunStatus.RUN_STATUS_CANCELLED,
                    stop_reason=StopReason.STOP_REASON_CANCELLED,
                    cancel_requested=True,
                    completed_at=datetime.now(UTC),
                )
        self._state.threads.pop((org, conversation_id), None)
        self._state.conversations.pop((org, conversation_id), None)

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredConversation]]:
        """Return conversations of all organizations that were left half made or half removed."""
        return [
            (Actor(organization_id, stored.conversation.created_by_id), stored)
            for (organization_id, _), stored in self._state.conversations.items()
            if stored.stage is not Stage.READY and stored.conversation.updated_at.ToDatetime(tzinfo=UTC) < before
        ][:limit]

    def _mine(self, actor: Actor) -> list[StoredConversation]:
        return [stored for (owner, _), stored in self._state.conversations.items() if owner == actor.organization_id]

    def _at(self, actor: Actor, conversation_id: str, stage: Stage) -> StoredConversation:
        stored = self._state.conversations.get((actor.organization_id, conversation_id))
        if stored is None or stored.stage is not stage:
            raise _no_conversation(conversation_id)
        return stored

    def _put(self, actor: Actor, stored: StoredConversation) -> None:
        self._state.conversations[actor.organization_id, stored.conversation.id] = stored

    def _shown(self, actor: Actor, stored: StoredConversation) -> Conversation:
        shown = _copy_conversation(stored.conversation)
        thread = self._state.threads.get((actor.organization_id, shown.id))
        if thread is not None and thread.last_message_at is not None:
            shown.last_message_at.FromDatetime(thread.last_message_at)
        return shown

    def _place(self, actor: Actor, made: Conversation, order: ConversationOrderBy.ValueType) -> datetime:
        order_by = _by(ConversationOrderBy.Name(order))
        if order_by == "created_at":
            return made.created_at.ToDatetime(tzinfo=UTC)
        thread = self._state.threads.get((actor.organization_id, made.id), QueueRow())
        return getattr(thread, order_by) or _NEVER


def _by(name: str) -> str:
    return name.rpartition("_ORDER_BY_")[2].lower().replace("unspecified", "created_at")


def _matches(agent: StoredAgent, filters: ListAgentsRequest | CountAgentsRequest) -> bool:
    state, wanted = agent.state, set(filters.tags)
    exact: dict[str, Any] = {
        name: getattr(filters, name) for name in ("name", "project_id", "template_id", "base_template_id")
    }
    held = wanted & set(state.tags)
    return (
        not state.hidden
        and all(not value or getattr(state, name) == value for name, value in exact.items())
        and (not filters.created_by_id or agent.created_by == filters.created_by_id)
        and (not wanted or (held == wanted if filters.match_all_tags else bool(held)))
        and filters.query_text.lower() in state.name.lower()
    )


def _place(agent: StoredAgent, order: AgentOrderBy.ValueType) -> datetime:
    order_by = _by(AgentOrderBy.Name(order))
    return _NEVER if not agent.state.HasField(order_by) else getattr(agent.state, order_by).ToDatetime(tzinfo=UTC)  # type: ignore[arg-type]


def _copy(state: Agent) -> Agent:
    copied = Agent()
    copied.CopyFrom(state)
    return copied


def _copy_conversation(conversation: Conversation) -> Conversation:
    copied = Conversation()
    copied.CopyFrom(conversation)
    return copied


def _no_agent(agent_id: str) -> AgentNotFound:
    return AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)


def _no_conversation(conversation_id: str) -> ConversationNotFound:
    return ConversationNotFound(f"conversation {conversation_id} not found", conversation_id=conversation_id)
