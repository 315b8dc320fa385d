"""Archives: stores of passages that agents write to and search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, InvalidArgument, ModelNotFound
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_memory.domain.embeddings import Embedder


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive. The fields stand in the order of the table's columns."""

    id: str
    name: str
    description: str | None
    embedder: str
    dimensions: int | None
    metadata: str
    owner_agent_id: str | None
    passage_count: int
    created_by_id: str | None
    last_updated_by_id: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class NewArchive:
    """An archive to make."""

    name: str
    description: str | None = None
    embedder: str = ""
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class ArchiveEmbedding:
    """How far the passages of an archive are embedded. The fields stand in the order of the statement's columns."""

    archive_id: str
    embedder: str
    dimensions: int | None
    passage_count: int
    embedded_count: int
    failure_reason: str = ""
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Reembedding:
    """An archive to embed anew. Without a dimension the first vector tells."""

    archive_id: str
    embedder: str
    dimensions: int | None
    now: datetime


class ArchiveStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, archive: Archive, *, request_hash: bytes = b"") -> Archive:
        """Store a new archive; return the one that has the id already, if one has.

        Raises:
            IdempotencyConflict: another request made that one.
        """
        ...

    async def get(self, actor: Actor, archive_id: str) -> Archive:
        """Return one archive. Raises ArchiveNotFound."""
        ...

    async def find_of_agent(self, actor: Actor, agent_id: str) -> Archive | None:
        """Return an agent's archive, if it has one. Raises AgentNotFound."""
        ...

    async def list_archives(self, actor: Actor, page: Page, *, name: str, agent_id: str) -> list[Archive]:
        """Return a page of archives. Raises CursorNotFound."""
        ...

    async def update(self, actor: Actor, archive_id: str, changes: Mapping[str, Any]) -> Archive:
        """Change some fields. Raises ArchiveNotFound."""
        ...

    async def delete(self, actor: Actor, archive_id: str) -> None:
        """Remove an archive and its passages. Raises ArchiveNotFound."""
        ...

    async def attach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Let an agent use an archive. Raises AgentNotFound, ArchiveNotFound, ArchiveTaken."""
        ...

    async def detach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Take an archive from an agent. Raises AgentNotFound, ArchiveNotFound."""
        ...

    async def list_agent_ids(self, actor: Actor, archive_id: str) -> list[str]:
        """Return the ids of the agents that use an archive. Raises ArchiveNotFound."""
        ...

    async def get_embedder(self, actor: Actor, *, archive_id: str = "", agent_id: str = "") -> str:
        """Return what embeds an archive, or the archive that an agent has or will have; empty when none is known."""
        ...

    async def get_embedding(self, actor: Actor, archive_id: str) -> ArchiveEmbedding:
        """Return how far an archive is embedded. Raises ArchiveNotFound."""
        ...

    async def reembed(self, actor: Actor, order: Reembedding) -> None:
        """Let all passages wait for vectors of this embedder. Raises ArchiveNotFound."""
        ...


class Archives:
    """Operations on archives."""

    def __init__(self, store: ArchiveStore, embedder: Embedder, clock: Clock) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock

    async def create(
        self, actor: Actor, new: NewArchive, *, request_id: str = "", request_hash: bytes = b""
    ) -> Archive:
        """Make an archive; a repeat of the request id returns the one made before.

        Raises:
            ModelNotFound: no provider offers the embedder.
            IdempotencyConflict: another request had its key.
        """
        embedder, dimensions = await self._resolve(new)
        now = self._clock.now()
        archive = Archive(
            id=derived_id("archive", actor.organization_id, request_id) if request_id else new_id("archive"),
            name=new.name,
            description=new.description,
            embedder=embedder,
            dimensions=dimensions,
            metadata=new.metadata,
            owner_agent_id=None,
            passage_count=0,
            created_by_id=actor.user_id,
            last_updated_by_id=actor.user_id,
            created_at=now,
            updated_at=now,
        )
        return await self._store.create(actor, archive, request_hash=request_hash)

    async def update(self, actor: Actor, archive_id: str, changes: Mapping[str, Any]) -> Archive:
        """Change some fields of an archive. Raises ArchiveNotFound, InvalidArgument."""
        if changes.get("name", "?") == "":
            raise InvalidArgument("an archive needs a name", field="archive.name")
        written = {**changes, "last_updated_by_id": actor.user_id, "updated_at": self._clock.now()}
        return await self._store.update(actor, archive_id, written)

    async def reembed(self, actor: Actor, archive_id: str, embedder: str = "") -> ArchiveEmbedding:
        """Embed an archive anew, in the background; without an embedder with the one that it has.

        Raises:
            ArchiveNotFound: the organization has no such archive.
            ModelNotFound: no provider offers the embedder.
        """
        archive = await self._store.get(actor, archive_id)
        resolved, dimensions = await self._resolve(NewArchive(archive.name, embedder=embedder or archive.embedder))
        await self._store.reembed(actor, Reembedding(archive_id, resolved, dimensions, self._clock.now()))
        return await self._store.get_embedding(actor, archive_id)

    async def _resolve(self, new: NewArchive) -> tuple[str, int | None]:
        """Ask the embedder for its full name and dimension; without an answer the first passage tells."""
        try:
            vectors = await self._embedder.embed(new.embedder, [new.name])
        except ModelNotFound:
            raise
        except AppError:
            return new.embedder, None
        return vectors.model, len(vectors.values[0])
