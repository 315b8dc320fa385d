"""Passages: texts in archives, found by their words and by their meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cachetools import LRUCache

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_memory.domain.archives import ArchiveStore
from letta_memory.domain.embeddings import Embedder, Vector

MAX_MEMORY_TOKENS = 8192
_CHARACTERS_PER_TOKEN = 4
_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage. The fields stand in the order of PASSAGE_COLUMNS."""

    id: str
    archive_id: str
    text: str
    tags: tuple[str, ...]
    metadata: str
    created_by_id: str | None
    last_updated_by_id: str | None
    created_at: datetime
    updated_at: datetime
    embedding: tuple[float, ...] | None
    embedder: str


@dataclass(frozen=True, slots=True)
class NewPassage:
    """A passage to write."""

    text: str
    tags: tuple[str, ...] = ()
    metadata: str = "{}"
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class PassageDraft:
    """A passage about to be stored."""

    id: str
    text: str
    tags: tuple[str, ...]
    metadata: str
    created_at: datetime
    vector: Vector | None
    request_hash: bytes = b""
    """What tells the request from another one with its key."""


@dataclass(frozen=True, slots=True)
class PassageScope:
    """Where passages are: in an archive, or in the one of an agent."""

    archive_id: str = ""
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class PassageQuery:
    """What to look for. An empty text asks for the newest."""

    text: str
    limit: int
    tags: tuple[str, ...] = ()
    match_all_tags: bool = False
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueryVector:
    """A query's vector and the model that made it."""

    vector: Vector | None = None
    embedder: str = ""


@dataclass(frozen=True, slots=True)
class PassageHit:
    """A passage that was found; the ranks count from 1."""

    passage: Passage
    score: float
    word_rank: int | None = None
    meaning_rank: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """Passages as they are stored, and the embedder of their archive."""

    passages: tuple[Passage, ...]
    embedder: str


class PassageStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(
        self, actor: Actor, place: PassageScope, drafts: Sequence[PassageDraft], *, embedder: str, now: datetime
    ) -> Written:
        """Store passages once for each id; make an agent's archive.

        Raises:
            ArchiveNotFound, AgentNotFound: the organization has no such place.
            IdempotencyConflict: another request made passages with these ids.
        """
        ...

    async def delete(self, actor: Actor, archive_id: str, passage_id: str) -> None:
        """Remove a passage. Raises ArchiveNotFound, PassageNotFound."""
        ...

    async def list_passages(self, actor: Actor, archive_id: str, page: Page, *, containing: str) -> list[Passage]:
        """Return a page of passages. Raises CursorNotFound."""
        ...

    async def search(
        self, actor: Actor, archive_id: str, query: PassageQuery, question: QueryVector
    ) -> list[PassageHit]:
        """Return what fits best."""
        ...


class Passages:
    """Operations on passages."""

    def __init__(self, store: PassageStore, archives: ArchiveStore, embedder: Embedder, clock: Clock) -> None:
        self._store = store
        self._archives = archives
        self._embedder = embedder
        self._clock = clock
        # Which embedder an archive was last seen to use, so that a write needs no look first.
        self._embedders: LRUCache[tuple[str, PassageScope], str] = LRUCache(_REMEMBERED)

    async def create(
        self,
        actor: Actor,
        archive_id: str,
        new: Sequence[NewPassage],
        *,
        request_id: str = "",
        request_hash: bytes = b"",
    ) -> tuple[Passage, ...]:
        """Write passages to an archive, all or none. Raises ArchiveNotFound, IdempotencyConflict."""
        return await self._write(actor, PassageScope(archive_id=archive_id), new, request_id, request_hash)

    async def remember(
        self, actor: Actor, agent_id: str, new: NewPassage, *, request_id: str = "", request_hash: bytes = b""
    ) -> tuple[Passage, ...]:
        """Write to an agent's archive, which the first passage makes.

        Raises:
            AgentNotFound: the organization has no such agent.
            InvalidArgument: the text is too long.
            IdempotencyConflict: another request had its key.
        """
        if len(new.text) > MAX_MEMORY_TOKENS * _CHARACTERS_PER_TOKEN:
            raise InvalidArgument(
                f"a memory has at most {MAX_MEMORY_TOKENS} tokens, about "
                f"{MAX_MEMORY_TOKENS * _CHARACTERS_PER_TOKEN} characters; split it",
                field="text",
            )
        return await self._write(actor, PassageScope(agent_id=agent_id), [new], request_id, request_hash)

    async def forget(self, actor: Actor, agent_id: str, passage_id: str) -> None:
        """Remove a passage from an agent's archive. Raises AgentNotFound, PassageNotFound."""
        archive = await self._archives.find_of_agent(actor, agent_id)
        await self._store.delete(actor, archive.id if archive else "", passage_id)

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page, *, containing: str = "") -> list[Passage]:
        """Return a page of an agent's passages. Raises AgentNotFound, CursorNotFound."""
        archive = await self._archives.find_of_agent(actor, agent_id)
        if archive is None:
            return page.slice([], key=lambda passage: (passage.created_at, passage.id))
        return await self._store.list_passages(actor, archive.id, page, containing=containing)

    async def search(self, actor: Actor, place: PassageScope, query: PassageQuery) -> list[PassageHit]:
        """Return the passages that fit best. Raises ArchiveNotFound, AgentNotFound, InvalidArgument."""
        if place.archive_id:
            archive = await self._archives.get(actor, place.archive_id)
        elif place.agent_id:
            found = await self._archives.find_of_agent(actor, place.agent_id)
            if found is None:
                return []
            archive = found
        else:
            raise InvalidArgument("name an archive or an agent to search", field="archive_id")
        question = await self._question(query.text, archive.embedder)
        return await self._store.search(actor, archive.id, query, question)

    async def _write(
        self, actor: Actor, place: PassageScope, new: Sequence[NewPassage], request_id: str, request_hash: bytes
    ) -> tuple[Passage, ...]:
        """Embed with what the archive was last seen to use; when it uses another, the texts wait for the indexer."""
        now = self._clock.now()
        model = self._embedders.get((actor.organization_id, place)) or await self._archives.get_embedder(
            actor, archive_id=place.archive_id, agent_id=place.agent_id
        )
        vectors: Sequence[Vector | None] = [None] * len(new)
        try:
            embedded = await self._embedder.embed(model, [passage.text for passage in new])
            model, vectors = embedded.model, embedded.values
        except AppError:
            model = ""
        drafts = [
            PassageDraft(
                id=self._id(actor, place, request_id, number),
                text=passage.text.replace("\0", ""),
                tags=passage.tags,
                metadata=passage.metadata or "{}",
                created_at=passage.created_at or now,
                vector=vector,
                request_hash=request_hash if request_id else b"",
            )
            for number, (passage, vector) in enumerate(zip(new, vectors, strict=True))
        ]
        written = await self._store.create(actor, place, drafts, embedder=model, now=now)
        self._embedders[actor.organization_id, place] = written.embedder
        return written.passages

    def _id(self, actor: Actor, place: PassageScope, request_id: str, number: int) -> str:
        if not request_id:
            return new_id("passage")
        target = place.archive_id or place.agent_id
        return derived_id("passage", actor.organization_id, target, request_id, str(number))

    async def _question(self, text: str, embedder: str) -> QueryVector:
        if not text or not embedder:
            return QueryVector()
        try:
            vectors = await self._embedder.embed(embedder, [text])
        except AppError:
            return QueryVector()
        return QueryVector(vectors.values[0], vectors.model)
