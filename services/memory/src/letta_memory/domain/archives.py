"""Archives: stores of passages that agents write to and search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from letta.memory.v1.archive_pb2 import Archive, ArchiveEmbedding, ArchiveEmbeddingState, EmbeddingConfig
from letta.memory.v1.archive_service_pb2 import CreateArchiveRequest
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_memory.domain.embeddings import Embedder, resolve_embedder


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

    async def get_several(
        self, actor: Actor, archive_ids: Sequence[str], folder_ids: Sequence[str] = ()
    ) -> list[Archive]:
        """Return these archives, and those of these folders.

        Raises:
            ArchiveNotFound, FolderNotFound: one of them is not there.
        """
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

    async def get_vector_bytes(self, actor: Actor) -> int:
        """Return how many bytes the vectors of all archives and folders take."""
        ...

    async def reembed(self, actor: Actor, archive_id: str, config: EmbeddingConfig | None, now: datetime) -> None:
        """Let all passages wait for vectors of this embedder; without a dimension the first vector tells.

        Raises:
            ArchiveNotFound: the organization has no such archive.
        """
        ...


class Archives:
    """Operations on archives."""

    def __init__(self, store: ArchiveStore, embedder: Embedder, clock: Clock) -> None:
        self._store = store
        self._embedder = embedder
        self._clock = clock

    async def create(self, actor: Actor, request: CreateArchiveRequest, request_hash: bytes) -> Archive:
        """Make an archive; a repeat of the request id returns the one made before.

        Raises:
            ModelNotFound: no provider offers the embedder.
            IdempotencyConflict: another request had its key.
        """
        now, request_id = stamp_of(self._clock.now()), request.request_id
        archive = Archive(
            id=derived_id("archive", actor.organization_id, request_id) if request_id else new_id("archive"),
            organization_id=actor.organization_id,
            name=request.name,
            description=request.description if request.HasField("description") else None,
            embedding_config=await resolve_embedder(
                self._embedder, request.embedding or request.compat.embedding_config.handle, request.name
            ),
            metadata=request.metadata,
            max_age=request.max_age if request.HasField("max_age") else None,
            max_passages=request.max_passages if request.HasField("max_passages") else None,
            unused_after=request.unused_after if request.HasField("unused_after") else None,
            deduplication=request.deduplication if request.HasField("deduplication") else None,
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
        config = await resolve_embedder(self._embedder, embedder or archive.embedding_config.handle, archive.name)
        await self._store.reembed(actor, archive_id, config, self._clock.now())
        return await self._store.get_embedding(actor, archive_id)


def with_state(found: ArchiveEmbedding) -> ArchiveEmbedding:
    """Say of an archive how far it is; why not further is told only while passages wait."""
    if found.embedded_count >= found.passage_count:
        found.state = ArchiveEmbeddingState.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE
        found.error_reason = found.error = ""
    elif found.error_reason:
        found.state = ArchiveEmbeddingState.ARCHIVE_EMBEDDING_STATE_FAILING
    else:
        found.state = ArchiveEmbeddingState.ARCHIVE_EMBEDDING_STATE_EMBEDDING
    return found
