"""The context of a conversation: read once a run, written once a step, behind a fence."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum
from typing import Protocol

from letta.common.v1.message_pb2 import ContentPart, Message, MessageRole, TextContent
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import (
    AppError,
    BlockNotFound,
    BlockReadOnly,
    ConversationNotFound,
    EditLineOutOfRange,
    EditNoMatch,
    EditNotUnique,
    Fenced,
    IdempotencyConflict,
)
from letta_common.values.ids import derived_id
from letta_memory.domain.blocks import new_block, too_long


class Status(IntEnum):
    """What a hot statement says of itself."""

    # The SQL functions write these numbers, and the release before this one reads them during a roll.
    DONE = 0
    NO_CONVERSATION = 1
    FENCED = 2
    OTHER_EDIT = 3
    NO_BLOCK = 4
    READ_ONLY = 5
    TOO_LONG = 6
    NO_MATCH = 7
    NOT_UNIQUE = 8
    NO_LINE = 9


class ContextStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def begin_step(self, actor: Actor, request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        """Raise the fence, append the input once, read the context. Raises ConversationNotFound, Fenced."""
        ...

    async def withdraw_input(self, actor: Actor, request: pb.WithdrawInputRequest) -> bool:
        """Remove the input of a run without committed steps; say whether there was any.

        Raises:
            ConversationNotFound: the agent has no such conversation.
            Fenced: a newer owner came first.
        """
        ...

    async def commit_step(self, actor: Actor, request: pb.CommitStepRequest) -> pb.CommitStepResponse:
        """Append a step's messages once. Raises ConversationNotFound, Fenced, MessageNotFound."""
        ...

    async def edit_block(
        self, actor: Actor, request: pb.EditBlockRequest, *, new_id: str, now: datetime
    ) -> pb.EditBlockResponse:
        """Make an edit once. Raises what `refusal` makes of a status, and BlockLabelTaken."""
        ...

    async def provision_agent(
        self, actor: Actor, request: pb.ProvisionAgentRequest, blocks: Sequence[Block]
    ) -> pb.AgentMemory:
        """Make an agent's memory, with these new blocks, unless it exists. Raises BlockNotFound, BlockLabelTaken."""
        ...

    async def set_embedder(self, actor: Actor, agent_id: str, embedder: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew. Raises AgentNotFound."""
        ...

    async def deprovision_agent(self, actor: Actor, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        ...

    async def provision_conversation(
        self, actor: Actor, request: pb.ProvisionConversationRequest
    ) -> pb.ProvisionConversationResponse:
        """Make a conversation unless it exists. Raises AgentNotFound."""
        ...

    async def deprovision_conversation(self, actor: Actor, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation and its messages."""
        ...

    async def reset_conversation(self, actor: Actor, request: pb.ResetConversationRequest) -> None:
        """Forget the messages and begin with these, or with the first one. Raises ConversationNotFound, Fenced."""
        ...

    async def get(self, actor: Actor, agent_id: str, conversation_id: str) -> pb.GetContextResponse:
        """Return the context, changing nothing. Raises ConversationNotFound."""
        ...

    async def find_opening(self, actor: Actor, agent_id: str, conversation_id: str) -> Message | None:
        """Return the first message of a conversation, if it has one. Raises ConversationNotFound."""
        ...

    async def update_message(self, actor: Actor, conversation_id: str, message: Message) -> None:
        """Write a message that search does not read in the place of what it was."""
        ...

    async def list_memories(self, actor: Actor, request: pb.ListAgentMemoriesRequest) -> list[pb.AgentMemory]:
        """Return what agents keep, in the order asked for; those without memory are left out."""
        ...

    async def attach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Attach a block. Raises AgentNotFound, BlockNotFound, BlockLabelTaken."""
        ...

    async def detach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Detach a block. Raises AgentNotFound."""
        ...


class Contexts:
    """What the agent loop asks of memory."""

    def __init__(self, store: ContextStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def edit_block(self, actor: Actor, request: pb.EditBlockRequest) -> pb.EditBlockResponse:
        """Make the edit of a memory tool, once.

        Raises:
            BlockNotFound, BlockReadOnly, BlockLimitExceeded, BlockLabelTaken: the block cannot take it.
            EditNoMatch, EditNotUnique, EditLineOutOfRange: the edit does not fit the text.
            IdempotencyConflict: the key was used for another edit.
            Fenced: a newer owner came first.
        """
        makes = request.HasField("create")
        # Derived from the key, so that two attempts at once cannot make two blocks.
        new_id = derived_id("block", actor.organization_id, request.idempotency_key) if makes else ""
        return await self._store.edit_block(actor, request, new_id=new_id, now=self._clock.now())

    async def provision_agent(self, actor: Actor, request: pb.ProvisionAgentRequest) -> pb.AgentMemory:
        """Make the memory of an agent. A repeat changes nothing.

        Raises:
            BlockNotFound: a block to attach does not exist.
            BlockLabelTaken: two blocks have one label.
        """
        now, org = self._clock.now(), actor.organization_id
        blocks = [
            # Derived ids, so that a repeat finds these blocks and makes no others.
            new_block(actor, derived_id("block", org, request.agent_id, block.label), block, now)
            for block in request.new_blocks
        ]
        return await self._store.provision_agent(actor, request, blocks)

    async def set_system(self, actor: Actor, agent_id: str, conversation_id: str, text: str) -> str:
        """Change the system prompt that opens a conversation; return its id, or nothing when none does.

        Raises:
            ConversationNotFound: the agent has no such conversation.
        """
        first = await self._store.find_opening(actor, agent_id, conversation_id)
        if first is None or first.role != MessageRole.MESSAGE_ROLE_SYSTEM:
            return ""
        del first.parts[:]
        first.parts.append(ContentPart(text=TextContent(text=text)))
        await self._store.update_message(actor, conversation_id, first)
        return first.id


def digest(request: pb.EditBlockRequest) -> bytes:
    """Return what tells an edit from another one under the same key, whichever run makes it."""
    edit = pb.EditBlockRequest()
    edit.CopyFrom(request)
    # A replica that takes the run over repeats the edit under a higher fence, and it is the same edit.
    for field in ("conversation_id", "fence", "idempotency_key"):
        edit.ClearField(field)
    # Half of the digest: it only tells edits under one key apart, and each row of the history has it.
    return hashlib.sha256(edit.SerializeToString(deterministic=True)).digest()[:16]


def owner_refusal(status: Status, agent_id: str, conversation_id: str, *, fence: int) -> AppError:
    """Return the error of a call that the conversation refuses."""
    if status is Status.FENCED:
        return Fenced("a newer owner holds the conversation; stop this run", fence=str(fence))
    return ConversationNotFound(
        f"agent {agent_id} has no conversation {conversation_id}", conversation_id=conversation_id, agent_id=agent_id
    )


def refusal(status: Status, request: pb.EditBlockRequest, notes: Sequence[str], *, fence: int = 0) -> AppError:  # noqa: PLR0911
    """Return the error of an edit that cannot be made."""
    label, listed = request.label, ", ".join(notes)
    match status:
        case Status.OTHER_EDIT:
            key = request.idempotency_key
            return IdempotencyConflict(f"the key {key} was used for another edit", idempotency_key=key)
        case Status.NO_BLOCK:
            text = f"the agent has no block '{label}'; its blocks are: {listed or 'none'}"
            return BlockNotFound(text, label=label, labels=listed)
        case Status.READ_ONLY:
            return BlockReadOnly(f"the block '{label}' is read-only", label=label)
        case Status.TOO_LONG:
            return too_long(label, notes[0], notes[1])
        case Status.NO_MATCH:
            return EditNoMatch(f"the text to replace does not occur in the block '{label}'", label=label)
        case Status.NOT_UNIQUE:
            text = f"the text to replace occurs in several places of the block '{label}', in lines {listed}"
            return EditNotUnique(text, label=label, lines=listed)
        case Status.NO_LINE:
            text = f"the block '{label}' has lines 0 to {notes[0]}; use -1 for its end"
            return EditLineOutOfRange(text, label=label, lines=notes[0])
        case _:
            return owner_refusal(status, request.agent_id, request.conversation_id, fence=fence)
