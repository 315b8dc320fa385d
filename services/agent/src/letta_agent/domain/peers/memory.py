"""What the rules need of the memory service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from letta.common.v1 import letta_message_pb2, message_pb2, usage_pb2
from letta.memory.v1 import block_pb2

StopReason = usage_pb2.StopReason


Message = message_pb2.Message


LettaMessage = letta_message_pb2.LettaMessage


Block = block_pb2.Block


@dataclass(frozen=True, slots=True)
class RunKey:
    """A conversation and the fence under which its owner writes."""

    agent_id: str
    conversation_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class StartedContext:
    """The context of a conversation at the beginning of a run or of a take-over."""

    blocks: tuple[Block, ...]
    messages: tuple[bytes, ...]
    last_step: int | None = None
    stop_reason: StopReason.ValueType = StopReason.STOP_REASON_UNSPECIFIED
    message_count: int = 0
    passage_count: int = 0


@dataclass(frozen=True, slots=True)
class CompactedWindow:
    """A context made smaller: the summary that stands for what was evicted, and the oldest message kept."""

    summary: Message | None = None
    first_kept_message_id: str = ""
    cleared: bool = False
    """Nothing stays but the first message of the conversation."""


@dataclass(frozen=True, slots=True)
class StepCommit:
    """The messages of one step, to be appended once."""

    run_id: str
    step_index: int
    messages: tuple[Message, ...]
    stop_reason: StopReason.ValueType
    known_blocks: Mapping[str, int]
    window: CompactedWindow | None = None


@dataclass(frozen=True, slots=True)
class CommitReceipt:
    """Answer to a commit: what is new about the agent's blocks."""

    changed_blocks: tuple[Block, ...] = ()
    detached_block_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AgentMemorySpec:
    """What an agent keeps in memory."""

    blocks: tuple[Block, ...] = ()
    message_ids: tuple[str, ...] = ()


class EditKind(Enum):
    """Kinds of edits that the memory tools make."""

    APPEND = "append"
    REPLACE = "replace"
    INSERT = "insert"
    RETHINK = "rethink"
    CREATE = "create"
    DELETE = "delete"
    RENAME = "rename"


@dataclass(frozen=True, slots=True)
class Edit:
    """An edit of a block by a memory tool. `text` is the new text, `old_text` what it replaces."""

    kind: EditKind
    label: str
    text: str = ""
    old_text: str = ""
    line: int = -1
    all_occurrences: bool = False
    description: str | None = None
    new_label: str = ""


@dataclass(frozen=True, slots=True)
class Search:
    """What a search tool asks for. Empty fields do not filter."""

    query: str = ""
    limit: int = 0
    tags: tuple[str, ...] = ()
    match_all_tags: bool = False
    roles: tuple[str, ...] = ()
    start: str = ""
    end: str = ""
    timezone: str = ""
    """Of the times that name none; empty: UTC."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One result of a search."""

    id: str
    text: str
    created_at: str
    role: str = ""
    tags: tuple[str, ...] = ()


class MemoryPeer(Protocol):
    """The memory service."""

    async def provision(
        self,
        agent_id: str,
        name: str,
        new_blocks: Sequence[Block],
        block_ids: Sequence[str],
        messages: Sequence[Message],
        *,
        embedding: str = "",
    ) -> AgentMemorySpec:
        """Make the memory of an agent; a repeat changes nothing. Raises BlockNotFound."""
        ...

    async def set_embedding(self, agent_id: str, embedding: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew."""
        ...

    async def deprovision(self, agent_id: str) -> None:
        """Remove what belongs to an agent alone; a repeat changes nothing."""
        ...

    async def provision_conversation(
        self, agent_id: str, conversation_id: str, messages: Sequence[Message], isolated_labels: Sequence[str]
    ) -> tuple[str, ...]:
        """Make the memory of a further conversation; return the copies of blocks made. Raises BlockNotFound."""
        ...

    async def deprovision_conversation(self, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation; a repeat changes nothing."""
        ...

    async def begin_step(self, thread: RunKey, run_id: str, messages: Sequence[Message]) -> StartedContext:
        """Raise the fence, append the input once, return the context. Raises Fenced."""
        ...

    async def withdraw_input(self, thread: RunKey, run_id: str) -> bool:
        """Take back the input of a run without committed steps; say whether there was any. Raises Fenced."""
        ...

    async def commit_step(self, thread: RunKey, step: StepCommit) -> CommitReceipt:
        """Append the messages of a step once. Raises Fenced."""
        ...

    async def edit_block(self, thread: RunKey, key: str, edit: Edit) -> Block:
        """Edit a block once for each key. Raises the errors of blocks and edits, and Fenced."""
        ...

    async def insert_passage(self, thread: RunKey, key: str, text: str, tags: Sequence[str]) -> None:
        """Store a text in the agent's archive, once for each key."""
        ...

    async def search_passages(self, agent_id: str, search: Search) -> list[SearchHit]:
        """Search the agent's archive, best first."""
        ...

    async def search_messages(self, thread: RunKey, search: Search) -> list[SearchHit]:
        """Search the messages of the agent, best first."""
        ...

    async def run_messages(self, run_id: str) -> list[LettaMessage]:
        """Return what a client sees of the messages that a run made, input excepted, in order."""
        ...

    async def memories(self, agent_ids: Sequence[str], *, blocks: bool) -> dict[str, AgentMemorySpec]:
        """Return what agents keep in memory."""
        ...

    async def reset(self, thread: RunKey, messages: Sequence[Message]) -> None:
        """Forget the messages of a conversation and begin anew with these. Raises Fenced."""
        ...

    async def context(self, agent_id: str, conversation_id: str) -> StartedContext:
        """Return the context of a conversation, changing nothing. Raises ConversationNotFound."""
        ...

    async def set_system(self, agent_id: str, conversation_id: str, text: str) -> None:
        """Replace the system prompt that opens a conversation. Raises ConversationNotFound."""
        ...

    async def attach_block(self, agent_id: str, block_id: str) -> None:
        """Attach a block. Raises BlockNotFound and BlockLabelTaken."""
        ...

    async def detach_block(self, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        ...
