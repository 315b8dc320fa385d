"""Passages: texts in archives, found by their words and by their meaning."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from cachetools import LRUCache

from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1.archive_pb2 import Archive
from letta.memory.v1.passage_pb2 import Passage
from letta.memory.v1.passage_service_pb2 import (
    CreateArchivalMemoryRequest,
    NewPassage,
    PassageSearchResult,
    SearchPassagesRequest,
)
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of, time_of
from letta_memory.domain.archival.uses import PassageUses
from letta_memory.domain.archives import ArchiveStore
from letta_memory.domain.embeddings import Embedder

MAX_MEMORY_TOKENS = 8192
_CHARACTERS_PER_TOKEN = 4  # about; models differ, and counting would need the tokenizer of each
_REMEMBERED = 10_000  # archives; one that is forgotten costs its next write a statement more


@dataclass(frozen=True, slots=True)
class PassageScope:
    """Where passages are: in an archive, or in the one of an agent."""

    archive_id: str = ""
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write came to."""

    rows: Sequence[Passage]
    repeats: Sequence[int]
    """Places, from 0, of those that stood already: the archive skips texts that it has."""
    embedder: str
    """What embeds the archive."""


class PassageStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(
        self,
        actor: Actor,
        place: PassageScope,
        passages: Sequence[Passage],
        *,
        embedder: str,
        request_hash: bytes,
        now: datetime,
    ) -> WriteResult:
        """Store passages once for each id; make an agent's archive.

        Raises:
            ArchiveNotFound, AgentNotFound: the organization has no such place.
            IdempotencyConflict: another request made passages with these ids.
        """
        ...

    async def delete(self, actor: Actor, archive_id: str, passage_id: str) -> None:
        """Remove a passage. Raises ArchiveNotFound, PassageNotFound."""
        ...

    async def list_passages(
        self, actor: Actor, archive_id: str, page: Page, *, containing: str, now: datetime
    ) -> list[Passage]:
        """Return a page of the passages that an archive keeps. Raises CursorNotFound."""
        ...

    async def first_of_agent(self, actor: Actor, agent_id: str, page: Page, *, now: datetime) -> list[Passage]:
        """Return the first page of an agent's passages; none also where there is no such agent."""
        ...

    async def list_of_folder(self, actor: Actor, folder_id: str, page: Page) -> list[Passage]:
        """Return a page of the chunks of a folder's files. Raises FolderNotFound, CursorNotFound."""
        ...

    async def search(
        self,
        actor: Actor,
        archive_ids: Sequence[str],
        query: SearchPassagesRequest,
        questions: Sequence[EmbedResponse],
        *,
        embeddings: bool,
        now: datetime,
    ) -> list[PassageSearchResult]:
        """Return what fits best: the newest where the query is empty, and by words alone without its vectors."""
        ...


class Passages:
    """Operations on passages."""

    def __init__(
        self, store: PassageStore, archives: ArchiveStore, embedder: Embedder, clock: Clock, uses: PassageUses
    ) -> None:
        self._store = store
        self._archives = archives
        self._embedder = embedder
        self._clock = clock
        self._uses = uses
        # Which embedder an archive was last seen to use, so that a write needs no look first.
        self._embedders: LRUCache[tuple[str, PassageScope], str] = LRUCache(_REMEMBERED)

    async def create(
        self, actor: Actor, archive_id: str, new: Sequence[NewPassage], *, request_id: str, request_hash: bytes
    ) -> WriteResult:
        """Write passages to an archive, all or none. Raises ArchiveNotFound, IdempotencyConflict."""
        return await self._write(actor, PassageScope(archive_id=archive_id), new, request_id, request_hash)

    async def remember(self, actor: Actor, request: CreateArchivalMemoryRequest, request_hash: bytes) -> WriteResult:
        """Write to an agent's archive, which the first passage makes.

        Raises:
            AgentNotFound: the organization has no such agent.
            InvalidArgument: the text is too long.
            IdempotencyConflict: another request had its key.
        """
        if len(request.text) > MAX_MEMORY_TOKENS * _CHARACTERS_PER_TOKEN:
            raise InvalidArgument(
                f"a memory has at most {MAX_MEMORY_TOKENS} tokens, about "
                f"{MAX_MEMORY_TOKENS * _CHARACTERS_PER_TOKEN} characters; split it",
                field="text",
            )
        created_at = request.created_at if request.HasField("created_at") else None
        origin = request.origin if request.HasField("origin") else None
        new = NewPassage(text=request.text, tags=request.tags, created_at=created_at, origin=origin)
        return await self._write(
            actor, PassageScope(agent_id=request.agent_id), [new], request.request_id, request_hash
        )

    async def forget(self, actor: Actor, agent_id: str, passage_id: str) -> None:
        """Remove a passage from an agent's archive. Raises AgentNotFound, PassageNotFound."""
        archive = await self._archives.find_of_agent(actor, agent_id)
        await self._store.delete(actor, archive.id if archive else "", passage_id)

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page, *, containing: str = "") -> list[Passage]:
        """Return a page of an agent's passages. Raises AgentNotFound, CursorNotFound."""
        now = self._clock.now()
        first = not (containing or page.before or page.after)
        if first and (found := await self._store.first_of_agent(actor, agent_id, page, now=now)):
            self._uses.note(found)
            return found
        archive = await self._archives.find_of_agent(actor, agent_id)
        if archive is None:
            # Also without passages, so that a cursor that nobody gave out is refused.
            return page.slice([], key=lambda passage: (time_of(passage.created_at), passage.id))
        listed = await self._store.list_passages(actor, archive.id, page, containing=containing, now=now)
        if archive.HasField("unused_after"):
            self._uses.note(listed)
        return listed

    async def search(
        self, actor: Actor, query: SearchPassagesRequest, *, embeddings: bool = True
    ) -> list[PassageSearchResult]:
        """Return the passages that fit best. Raises ArchiveNotFound, AgentNotFound, InvalidArgument."""
        archives = await self._searched(actor, query)
        if not archives:
            return []
        embedders = sorted(
            {handle for each in archives for handle in (each.embedding_config.handle, *each.former_embeddings)}
        )
        asked = await asyncio.gather(*(self._question(query.query, embedder) for embedder in embedders))
        questions = [question for question in asked if question]
        ids = [archive.id for archive in archives]
        now = self._clock.now()
        hits = await self._store.search(actor, ids, query, questions, embeddings=embeddings, now=now)
        if any(archive.HasField("unused_after") for archive in archives):
            self._uses.note(hit.passage for hit in hits)
        return hits

    async def _searched(self, actor: Actor, query: SearchPassagesRequest) -> list[Archive]:
        """Return the archives that a search names; none where it names an agent without one."""
        named = {*query.archive_ids, query.archive_id} - {""}
        if named or query.folder_ids:
            return await self._archives.get_several(actor, sorted(named), query.folder_ids)
        if query.agent_id:
            found = await self._archives.find_of_agent(actor, query.agent_id)
            return [found] if found else []
        raise InvalidArgument("name archives, folders or an agent to search", field="archive_id")

    async def _write(
        self, actor: Actor, place: PassageScope, new: Sequence[NewPassage], request_id: str, request_hash: bytes
    ) -> WriteResult:
        """Embed with what the archive was last seen to use; when it uses another, the texts wait for the indexer."""
        now = self._clock.now()
        model = self._embedders.get((actor.organization_id, place)) or await self._archives.get_embedder(
            actor, archive_id=place.archive_id, agent_id=place.agent_id
        )
        try:
            embedded = await self._embedder.embed(model, [passage.text for passage in new])
        except AppError:
            # A write never fails for want of an embedder: the texts wait for the indexer and words find them.
            embedded = EmbedResponse(embeddings=[Embedding()] * len(new))
        passages = [
            Passage(
                id=self._id(actor, place, request_id, number),
                text=passage.text.replace("\0", ""),
                tags=passage.tags,
                metadata=passage.metadata or "{}",
                created_at=passage.created_at if passage.HasField("created_at") else stamp_of(now),
                embedding=vector.values,
                origin=passage.origin if passage.HasField("origin") else None,
            )
            for number, (passage, vector) in enumerate(zip(new, embedded.embeddings, strict=True))
        ]
        # Without a request id the ids are new, so there is nothing to compare with.
        told = request_hash if request_id else b""
        written = await self._store.create(actor, place, passages, embedder=embedded.model, request_hash=told, now=now)
        self._embedders[actor.organization_id, place] = written.embedder
        self._uses.note(written.rows[number] for number in written.repeats)
        return written

    def _id(self, actor: Actor, place: PassageScope, request_id: str, number: int) -> str:
        if not request_id:
            return new_id("passage")
        target = place.archive_id or place.agent_id
        return derived_id("passage", actor.organization_id, target, request_id, str(number))

    async def _question(self, text: str, embedder: str) -> EmbedResponse | None:
        if not text or not embedder:
            return None
        try:
            return await self._embedder.embed(embedder, [text])
        except AppError:
            return None
