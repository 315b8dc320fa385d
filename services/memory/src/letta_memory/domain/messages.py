"""The history of conversations: lists and search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from letta.common.v1 import letta_message_pb2, message_pb2
from letta.llm.v1.embedding_service_pb2 import EmbedResponse
from letta.memory.v1.message_service_pb2 import SearchMode, SearchStoredMessagesRequest, StoredMessageResult
from letta_common.actor import Actor
from letta_common.errors import AppError
from letta_common.values.paging import Page
from letta_memory.domain.embeddings import Embedder
from letta_messages.rendering import SEND_MESSAGE

SEARCH_LIMIT = 8_000
"""Characters of a message that search reads."""

_Role = message_pb2.MessageRole
_KINDS = letta_message_pb2.LettaMessage.DESCRIPTOR.oneofs_by_name["message"].fields
# Bits are stored: a new kind goes to the end of the oneof, or old rows change their meaning.
TYPE_BITS: dict[str, int] = {kind.name: 1 << place for place, kind in enumerate(_KINDS)}
"""Bit of each `message_type` in the column `types`."""
_ROLE_BITS: dict[int, int] = {
    _Role.MESSAGE_ROLE_SYSTEM: TYPE_BITS["system_message"],
    _Role.MESSAGE_ROLE_USER: TYPE_BITS["user_message"],
    _Role.MESSAGE_ROLE_TOOL: TYPE_BITS["tool_return_message"],
    # Lists show a summary as a message of the user, so both filters find it.
    _Role.MESSAGE_ROLE_SUMMARY: TYPE_BITS["summary_message"] | TYPE_BITS["user_message"],
}
_PART_BITS = {
    "text": TYPE_BITS["assistant_message"],
    "reasoning": TYPE_BITS["reasoning_message"],
    "summarized_reasoning": TYPE_BITS["reasoning_message"],
    "redacted_reasoning": TYPE_BITS["hidden_reasoning_message"],
    "omitted_reasoning": TYPE_BITS["hidden_reasoning_message"],
}
FLAG_ERROR, FLAG_AUTOMATED, FLAG_COPY = 1, 2, 4
"""Bits of the column `flags`. A copy is what a fork has of its source, which lists over conversations show once."""


@dataclass(frozen=True, slots=True)
class MessageScope:
    """Whose messages: of a conversation, an agent, a run, a step, or of all when everything is empty."""

    agent_id: str = ""
    conversation_id: str = ""
    run_id: str = ""
    step_id: str = ""

    @property
    def everywhere(self) -> bool:
        """Say whether it spans conversations, whose positions cannot be compared."""
        return not (self.conversation_id or self.run_id or self.step_id)


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages to list. Types are bits; 0 means any."""

    types: int = 0
    group_id: str = ""
    include_errors: bool = True


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that was found, and whose it is."""

    found: StoredMessageResult
    agent_id: str


class MessageStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization. Messages are serialized."""

    async def get(self, actor: Actor, message_id: str) -> bytes:
        """Return one message. Raises MessageNotFound."""
        ...

    async def list_messages(
        self, actor: Actor, scope: MessageScope, wanted: MessageFilter, page: Page
    ) -> Sequence[bytes]:
        """Return a page of messages. Raises AgentNotFound, ConversationNotFound, CursorNotFound."""
        ...

    async def search(
        self, actor: Actor, query: SearchStoredMessagesRequest, question: EmbedResponse | None, *, types: int
    ) -> list[MessageHit]:
        """Return what fits best: the newest where the query is empty; of any types when there are no bits."""
        ...


class Messages:
    """Reads the history of conversations."""

    def __init__(self, store: MessageStore, embedder: Embedder | None = None) -> None:
        self._store = store
        self._embedder = embedder

    async def search(self, actor: Actor, query: SearchStoredMessagesRequest, *, types: int = 0) -> list[MessageHit]:
        """Return the messages that fit best."""
        return await self._store.search(actor, query, await self._question(query), types=types)

    async def _question(self, query: SearchStoredMessagesRequest) -> EmbedResponse | None:
        """Embed the question, where messages are embedded; without an embedder words alone decide."""
        if self._embedder is None or not query.query or query.search_mode == SearchMode.SEARCH_MODE_FTS:
            return None
        try:
            return await self._embedder.embed("", [query.query])
        except AppError:
            return None


def flags_of(message: message_pb2.Message) -> int:
    """Return the bits of what lists leave out."""
    return (FLAG_ERROR if message.is_err else 0) | (FLAG_AUTOMATED if message.is_automated else 0)


def types_of(message: message_pb2.Message) -> int:
    """Return the bits of the message types that clients see of a message."""
    bits = _ROLE_BITS.get(message.role)
    if bits is not None:
        return bits
    if message.approvals:
        return TYPE_BITS["approval_response_message"]
    bits = 0
    asks = message.role == _Role.MESSAGE_ROLE_APPROVAL
    for part in message.parts:
        if part.HasField("tool_call"):
            # Clients read a call of send_message as what the agent says, so both filters find it.
            said = not asks and part.tool_call.name == SEND_MESSAGE[0]
            bits |= TYPE_BITS["approval_request_message" if asks else "tool_call_message"]
            bits |= TYPE_BITS["assistant_message"] if said else 0
        else:
            bits |= _PART_BITS.get(part.WhichOneof("part") or "", 0)
    return bits


def search_text(message: message_pb2.Message) -> str:
    """Return what search reads of a message: nothing of instructions and of notices by the system."""
    if message.role == _Role.MESSAGE_ROLE_SYSTEM or message.is_automated:
        return ""
    texts = []
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "text":
            texts.append(part.text.text)
        elif kind == "tool_call":
            texts.append(f"{part.tool_call.name} {part.tool_call.input}")
        elif kind == "tool_return":
            texts.append(part.tool_return.content)
    said = "\n".join(texts)
    if message.name and message.role == _Role.MESSAGE_ROLE_USER:
        said = f"{message.name}: {said}"
    # Postgres takes no NUL in a text.
    return said[:SEARCH_LIMIT].replace("\0", "")
