"""Conversations: further threads of an agent, each with a context of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import structlog

from letta.agent.v1 import conversation_pb2, conversation_service_pb2
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.records import Stage
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_agent.domain.peers.memory import MemoryPeer, Message
from letta_agent.domain.peers.models import ModelPeer
from letta_common.actor import Actor, acting_as
from letta_common.clock import Clock
from letta_common.codes import Code
from letta_common.errors import AgentNotFound, AppError, ConversationNotFound, InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same

Conversation = conversation_pb2.Conversation
ListConversationsRequest = conversation_service_pb2.ListConversationsRequest
DEFAULT = "default"
_log = structlog.get_logger("letta.agent.conversations")


@dataclass(frozen=True, slots=True)
class StoredConversation:
    """A conversation as storage keeps it."""

    conversation: Conversation
    isolated_labels: tuple[str, ...] = ()
    request_id: str = ""
    stage: Stage = Stage.READY
    request_hash: bytes = b""


class ConversationStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, stored: StoredConversation) -> bool:
        """Store a new conversation; False when one was stored for the same request."""
        ...

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredConversation:
        """Return the conversation that a request made. Raises ConversationNotFound."""
        ...

    async def get(self, actor: Actor, conversation_id: str) -> Conversation:
        """Return one conversation that is ready. Raises ConversationNotFound."""
        ...

    async def list_conversations(
        self, actor: Actor, wanted: ListConversationsRequest, page: Page
    ) -> list[Conversation]:
        """Return a page of conversations that are ready."""
        ...

    async def update(self, actor: Actor, conversation: Conversation) -> None:
        """Write a conversation that is ready. Raises ConversationNotFound."""
        ...

    async def finish(self, actor: Actor, conversation_id: str, isolated_block_ids: Sequence[str]) -> None:
        """Mark a conversation as ready."""
        ...

    async def begin_removal(self, actor: Actor, conversation_id: str) -> None:
        """Take a conversation out of every list. Raises ConversationNotFound."""
        ...

    async def delete(self, actor: Actor, conversation_id: str) -> None:
        """Remove a conversation; runs in it that have not ended are cancelled."""
        ...

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredConversation]]:
        """Return conversations of all organizations that were left half made or half removed."""
        ...


class Conversations:
    """Operations on conversations."""

    def __init__(
        self, store: ConversationStore, memory: MemoryPeer, agents: Agents, models: ModelPeer, clock: Clock
    ) -> None:
        self._store = store
        self._memory = memory
        self._agents = agents
        self._models = models
        self._clock = clock

    async def create(
        self,
        actor: Actor,
        draft: Conversation,
        *,
        isolated_labels: Sequence[str] = (),
        request_id: str = "",
        request_hash: bytes = b"",
    ) -> Conversation:
        """Make a conversation. Raises AgentNotFound, ModelNotFound, BlockNotFound and IdempotencyConflict."""
        if draft.model:
            draft.model = (await self._models.model(draft.model)).handle
        return await self._make(actor, draft, tuple(isolated_labels), request_id, request_hash)

    async def fork(
        self,
        actor: Actor,
        conversation_id: str,
        agent_id: str,
        last_message_id: str,
        *,
        request_id: str = "",
        request_hash: bytes = b"",
    ) -> Conversation:
        """Make a conversation that begins with the context of another one, up to a message if one is named.

        Raises:
            AgentNotFound, ConversationNotFound, MessageNotFound, IdempotencyConflict: as the contract says.
        """
        agent_id, source_id = await self.thread(actor, conversation_id, agent_id)
        draft = Conversation(agent_id=agent_id, forked_from_id=source_id)
        if last_message_id:
            draft.forked_at_message_id = last_message_id
        if source_id != agent_id:
            source = await self._store.get(actor, source_id)
            if source.HasField("summary"):
                draft.summary = source.summary
            if source.HasField("model"):
                draft.model = source.model
            if source.HasField("model_settings"):
                draft.model_settings.CopyFrom(source.model_settings)
        return await self._make(actor, draft, (), request_id, request_hash)

    async def _make(
        self, actor: Actor, draft: Conversation, isolated_labels: tuple[str, ...], request_id: str, request_hash: bytes
    ) -> Conversation:
        first = await self._agents.first_message(actor, draft.agent_id)
        now = self._clock.now()
        draft.id = new_id("conv")
        draft.created_by_id = draft.last_updated_by_id = actor.user_id
        draft.created_at.FromDatetime(now)
        draft.updated_at.FromDatetime(now)
        stored = StoredConversation(draft, isolated_labels, request_id, Stage.MAKING, request_hash)
        if not await self._store.create(actor, stored):
            stored = await self._store.get_by_request(actor, request_id)
            require_same(stored.request_hash, request_hash)
            if stored.stage is Stage.READY:
                return stored.conversation
        return await self._provision(actor, stored, first)

    async def update(self, actor: Actor, conversation_id: str, edit: Callable[[Conversation], None]) -> Conversation:
        """Change a conversation. Raises ConversationNotFound and ModelNotFound."""
        conversation = await self._store.get(actor, conversation_id)
        edit(conversation)
        if conversation.model:
            conversation.model = (await self._models.model(conversation.model)).handle
        conversation.last_updated_by_id = actor.user_id
        conversation.updated_at.FromDatetime(self._clock.now())
        await self._store.update(actor, conversation)
        return conversation

    async def delete(self, actor: Actor, conversation_id: str) -> None:
        """Remove a conversation and its messages. Raises ConversationNotFound."""
        conversation = await self._store.get(actor, conversation_id)
        # First, so that nobody is admitted while memory is removed; a crash leaves the rest to the sweep.
        await self._store.begin_removal(actor, conversation_id)
        await self._memory.deprovision_conversation(conversation.agent_id, conversation_id)
        await self._store.delete(actor, conversation_id)

    async def recompile(self, actor: Actor, conversation_id: str, agent_id: str, *, dry: bool) -> str:
        """Make the system prompt of a conversation anew, store it unless told not to, and return it.

        Raises:
            AgentNotFound, ConversationNotFound: there is no such conversation.
        """
        agent_id, conversation_id = await self.thread(actor, conversation_id, agent_id)
        return await self._agents.recompile(actor, agent_id, conversation_id, dry=dry)

    async def thread(self, actor: Actor, conversation_id: str, agent_id: str) -> tuple[str, str]:
        """Return the agent and the conversation that a caller's words name. Raises ConversationNotFound."""
        if conversation_id == DEFAULT:
            if not agent_id:
                raise InvalidArgument("the conversation `default` needs an agent_id", field="agent_id")
            return agent_id, agent_id
        # The default conversation has the agent's id, and V1 clients may name it so.
        if conversation_id.startswith("agent-"):
            return conversation_id, conversation_id
        if not conversation_id.startswith("conv-"):
            text = f"conversation {conversation_id} not found"
            raise ConversationNotFound(text, conversation_id=conversation_id)
        return (await self._store.get(actor, conversation_id)).agent_id, conversation_id

    async def finish_half_done(self, credentials: CredentialPeer, before: datetime) -> int:
        """Finish what a crash left half made or half removed; return how much there was."""
        # Few at a time: each asks other services, and the next sweep takes the rest.
        left = await self._store.list_unfinished(before, 20)
        for actor, stored in left:
            conversation_id = stored.conversation.id
            passport = Passport(credentials, self._clock, actor, derived_id("run", "sweep", conversation_id))
            try:
                with acting_as(await passport.signed()):
                    await self._finish(actor, stored)
            except AppError as error:
                _log.warning("conversation still half done", conversation_id=conversation_id, reason=error.reason)
        return len(left)

    async def _finish(self, actor: Actor, stored: StoredConversation) -> None:
        conversation = stored.conversation
        if stored.stage is Stage.MAKING:
            try:
                first = await self._agents.first_message(actor, conversation.agent_id)
                await self._provision(actor, stored, first)
            # The agent was removed meanwhile, so there is nothing left to finish.
            except AgentNotFound:
                await self._store.delete(actor, conversation.id)
            return
        await self._memory.deprovision_conversation(conversation.agent_id, conversation.id)
        await self._store.delete(actor, conversation.id)

    async def _provision(self, actor: Actor, stored: StoredConversation, first: Message) -> Conversation:
        draft = stored.conversation
        try:
            made = await self._memory.provision_conversation(
                draft.agent_id,
                draft.id,
                [first],
                stored.isolated_labels,
                source_id=draft.forked_from_id,
                last_message_id=draft.forked_at_message_id,
            )
        except AppError as error:
            # A block to isolate does not exist, or what to begin with: no repeat would mend that.
            if error.code is Code.NOT_FOUND:
                await self._store.delete(actor, draft.id)
            raise
        if draft.forked_from_id and made:
            # Its blocks hold something else than those of the agent, of which the first message tells.
            await self._agents.recompile(actor, draft.agent_id, draft.id)
        await self._store.finish(actor, draft.id, made)
        draft.isolated_block_ids.extend(made)
        return draft
