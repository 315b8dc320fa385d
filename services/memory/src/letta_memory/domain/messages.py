"""The history of conversations: lists and search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from letta.llm.v1.embedding_service_pb2 import EmbedResponse
from letta_common.actor import Actor
from letta_common.errors import AppError
from letta_common.values.paging import Page
from letta_memory.domain.embeddings import Embedder

MEANING, WORDS, BOTH = 1, 2, 3
"""How a search compares, as the contract numbers it."""


@dataclass(frozen=True, slots=True)
class MessageScope:
    """Whose messages: of a conversation of an agent, of a run, of a step, or of all when everything is empty."""

    agent_id: str = ""
    conversation_id: str = ""
    run_id: str = ""
    step_id: str = ""


@dataclass(frozen=True, slots=True)
class MessageFilter:
    """Which messages to list. Types are bits; 0 means any."""

    types: int = 0
    group_id: str = ""
    include_errors: bool = True


@dataclass(frozen=True, slots=True)
class MessageQuery:
    """What to look for. An empty text asks for the newest."""

    text: str
    limit: int
    mode: int = BOTH
    agent_id: str = ""
    conversation_id: str = ""
    roles: tuple[int, ...] = ()
    types: int = 0
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class MessageHit:
    """A message that was found; the ranks count from 1."""

    score: float
    word_rank: int | None
    meaning_rank: int | None
    id: str
    agent_id: str
    conversation_id: str
    created_at: datetime
    body: bytes


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

    async def search(self, actor: Actor, query: MessageQuery, question: EmbedResponse | None) -> list[MessageHit]:
        """Return what fits best."""
        ...


class Messages:
    """Reads the history of conversations."""

    def __init__(self, store: MessageStore, embedder: Embedder | None = None) -> None:
        self._store = store
        self._embedder = embedder

    async def search(self, actor: Actor, query: MessageQuery) -> list[MessageHit]:
        """Return the messages that fit best."""
        return await self._store.search(actor, query, await self._question(query))

    async def _question(self, query: MessageQuery) -> EmbedResponse | None:
        """Embed the question, where messages are embedded; without an embedder words alone decide."""
        if self._embedder is None or not query.text or query.mode == WORDS:
            return None
        try:
            return await self._embedder.embed("", [query.text])
        except AppError:
            return None
