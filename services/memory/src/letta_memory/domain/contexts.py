"""The context of a conversation: read once a run, written once a step, behind a fence."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import IntEnum
from typing import Protocol

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
from letta_memory.domain.blocks import Block, described, fitting, too_long
from letta_memory.domain.edits import BlockEdit, Create

FLAG_ERROR = 1
FLAG_AUTOMATED = 2
ROLE_SYSTEM = 1


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append: the serialized message, and what is filtered or searched."""

    id: str
    role: int
    types: int
    created_at: datetime
    body: bytes
    flags: int = 0
    run_id: str = ""
    step_id: str = ""
    group_id: str = ""
    search: str = ""


@dataclass(frozen=True, slots=True)
class RunOwner:
    """Who asks for a context: a run and its fence."""

    agent_id: str
    conversation_id: str
    run_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Context:
    """Everything the loop needs to know of a conversation."""

    blocks: tuple[Block, ...]
    messages: tuple[bytes, ...]
    last_step: int | None
    stop_reason: int
    message_count: int
    passage_count: int


@dataclass(frozen=True, slots=True)
class Opening:
    """The first message of a conversation."""

    id: str
    role: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Reset:
    """What a conversation is to begin anew with; no messages: with the first one it has."""

    agent_id: str
    conversation_id: str
    messages: tuple[NewMessage, ...] = ()
    fence: int = 0
    """Fence of the caller; 0: whatever it is."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step to commit. A window of None leaves the window as it is."""

    index: int
    messages: Sequence[NewMessage]
    stop_reason: int = 0
    known_blocks: Mapping[str, int] = field(default_factory=dict)
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Window:
    """A new window: its summary, and the oldest message that stays, or an empty string when no earlier one does."""

    summary: NewMessage | None
    first_kept_id: str = ""
    cleared: bool = False
    """Not even the messages of this step stay."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a committed step answers."""

    changed: tuple[Block, ...]
    detached: tuple[str, ...]
    repeated: bool


@dataclass(frozen=True, slots=True)
class Edited:
    """A block after an edit."""

    block: Block
    repeated: bool


@dataclass(frozen=True, slots=True)
class AgentMemory:
    """What an agent keeps in memory."""

    agent_id: str
    blocks: tuple[Block, ...]
    message_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NewAgent:
    """The memory of an agent to make."""

    agent_id: str
    name: str
    new_blocks: tuple[Block, ...]
    block_ids: tuple[str, ...]
    messages: tuple[NewMessage, ...]
    embedder: str = ""


@dataclass(frozen=True, slots=True)
class NewConversation:
    """The memory of a conversation to make."""

    agent_id: str
    conversation_id: str
    messages: tuple[NewMessage, ...] = ()
    isolated_labels: tuple[str, ...] = ()


class Status(IntEnum):
    """What a hot statement says of itself."""

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

    async def begin_step(self, actor: Actor, owner: RunOwner, messages: Sequence[NewMessage]) -> Context:
        """Raise the fence, append the input once, read the context. Raises ConversationNotFound, Fenced."""
        ...

    async def withdraw_input(self, actor: Actor, owner: RunOwner) -> bool:
        """Remove the input of a run without committed steps; say whether there was any.

        Raises:
            ConversationNotFound: the agent has no such conversation.
            Fenced: a newer owner came first.
        """
        ...

    async def commit_step(self, actor: Actor, owner: RunOwner, step: Step) -> Committed:
        """Append a step's messages once. Raises ConversationNotFound, Fenced, MessageNotFound."""
        ...

    async def edit_block(self, actor: Actor, edit: BlockEdit, *, new_id: str, now: datetime) -> Edited:
        """Make an edit once. Raises what `refusal` makes of a status, and BlockLabelTaken."""
        ...

    async def provision_agent(self, actor: Actor, agent: NewAgent) -> AgentMemory:
        """Make an agent's memory unless it exists. Raises BlockNotFound, BlockLabelTaken."""
        ...

    async def set_embedder(self, actor: Actor, agent_id: str, embedder: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew. Raises AgentNotFound."""
        ...

    async def deprovision_agent(self, actor: Actor, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        ...

    async def provision_conversation(self, actor: Actor, conversation: NewConversation) -> tuple[list[str], list[str]]:
        """Make a conversation unless it exists; return isolated block ids and message ids. Raises AgentNotFound."""
        ...

    async def deprovision_conversation(self, actor: Actor, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation and its messages."""
        ...

    async def reset_conversation(self, actor: Actor, reset: Reset) -> None:
        """Forget the messages and begin with these, or with the first one. Raises ConversationNotFound, Fenced."""
        ...

    async def get(self, actor: Actor, agent_id: str, conversation_id: str) -> Context:
        """Return the context, changing nothing. Raises ConversationNotFound."""
        ...

    async def find_opening(self, actor: Actor, agent_id: str, conversation_id: str) -> Opening | None:
        """Return the first message of a conversation, if it has one. Raises ConversationNotFound."""
        ...

    async def update_body(self, actor: Actor, conversation_id: str, message_id: str, body: bytes) -> None:
        """Write another body of a message that search does not read."""
        ...

    async def list_memories(self, actor: Actor, agent_ids: Sequence[str], *, blocks: bool) -> list[AgentMemory]:
        """Return what these agents keep, in the order asked for; those without memory are left out."""
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

    async def edit_block(self, actor: Actor, edit: BlockEdit) -> Edited:
        """Make the edit of a memory tool, once.

        Raises:
            BlockNotFound, BlockReadOnly, BlockLimitExceeded, BlockLabelTaken: the block cannot take it.
            EditNoMatch, EditNotUnique, EditLineOutOfRange: the edit does not fit the text.
            IdempotencyConflict: the key was used for another edit.
            Fenced: a newer owner came first.
        """
        new_id = derived_id("block", actor.organization_id, edit.key) if isinstance(edit.edit, Create) else ""
        return await self._store.edit_block(actor, edit, new_id=new_id, now=self._clock.now())

    async def provision_agent(self, actor: Actor, agent: NewAgent) -> AgentMemory:
        """Make the memory of an agent. A repeat changes nothing.

        Raises:
            BlockNotFound: a block to attach does not exist.
            BlockLabelTaken: two blocks have one label.
        """
        now = self._clock.now()
        made = tuple(
            replace(
                described(fitting(block)),
                id=derived_id("block", actor.organization_id, agent.agent_id, block.label),
                created_by_id=actor.user_id,
                last_updated_by_id=actor.user_id,
                created_at=now,
                updated_at=now,
            )
            for block in agent.new_blocks
        )
        return await self._store.provision_agent(actor, replace(agent, new_blocks=made))

    async def set_system(
        self, actor: Actor, agent_id: str, conversation_id: str, edit: Callable[[bytes], bytes]
    ) -> str:
        """Change the system prompt that opens a conversation; return its id, or nothing when none does.

        Raises:
            ConversationNotFound: the agent has no such conversation.
        """
        first = await self._store.find_opening(actor, agent_id, conversation_id)
        if first is None or first.role != ROLE_SYSTEM:
            return ""
        await self._store.update_body(actor, conversation_id, first.id, edit(first.body))
        return first.id


def owner_refusal(status: Status, agent_id: str, conversation_id: str, *, fence: int) -> AppError:
    """Return the error of a call that the conversation refuses."""
    if status is Status.FENCED:
        return Fenced("a newer owner holds the conversation; stop this run", fence=str(fence))
    return ConversationNotFound(
        f"agent {agent_id} has no conversation {conversation_id}", conversation_id=conversation_id, agent_id=agent_id
    )


def refusal(status: Status, edit: BlockEdit, notes: Sequence[str], *, fence: int = 0) -> AppError:  # noqa: PLR0911
    """Return the error of an edit that cannot be made."""
    label, listed = edit.label, ", ".join(notes)
    match status:
        case Status.OTHER_EDIT:
            return IdempotencyConflict(f"the key {edit.key} was used for another edit", idempotency_key=edit.key)
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
            return owner_refusal(status, edit.agent_id, edit.conversation_id, fence=fence)
