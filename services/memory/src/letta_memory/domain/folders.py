"""Folders: named places for files that agents can be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from letta.memory.v1.archive_pb2 import EmbeddingConfig
from letta.memory.v1.folder_pb2 import Folder
from letta.memory.v1.folder_service_pb2 import CreateFolderRequest, GetFolderStatisticsResponse
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_memory.domain.archives import ArchiveStore
from letta_memory.domain.embeddings import Embedder, resolve_embedder

DEFAULT_CHUNK_SIZE = 300  # tokens, as the contract says
_MOST_CHUNK_SIZE = 8192


class FolderStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def create(self, actor: Actor, folder: Folder, *, chunk_size: int, request_hash: bytes = b"") -> Folder:
        """Store a new folder with its archive; return the one that has the id already, if one has.

        Raises:
            AlreadyExists: another folder has its name.
            IdempotencyConflict: another request made the one that has its id.
        """
        ...

    async def get(self, actor: Actor, folder_id: str) -> Folder:
        """Return one folder. Raises FolderNotFound."""
        ...

    async def list_folders(self, actor: Actor, page: Page, *, name: str) -> list[Folder]:
        """Return a page of folders. Raises CursorNotFound."""
        ...

    async def count(self, actor: Actor) -> int:
        """Return how many folders there are."""
        ...

    async def get_id(self, actor: Actor, name: str) -> str:
        """Return the id of the folder of this name. Raises FolderNotFound."""
        ...

    async def get_statistics(self, actor: Actor, *, detailed: bool) -> GetFolderStatisticsResponse:
        """Return how many folders and files there are, and how large they are."""
        ...

    async def update(self, actor: Actor, folder_id: str, changes: Mapping[str, Any]) -> Folder:
        """Change some fields. Raises FolderNotFound, AlreadyExists."""
        ...

    async def delete(self, actor: Actor, folder_id: str) -> None:
        """Take a folder away from everybody; what it holds is removed later. Raises FolderNotFound."""
        ...

    async def list_agent_ids(self, actor: Actor, folder_id: str, page: Page) -> list[str]:
        """Return a page of the ids of the agents that have a folder. Raises FolderNotFound, CursorNotFound."""
        ...


class Folders:
    """Operations on folders."""

    def __init__(self, store: FolderStore, archives: ArchiveStore, embedder: Embedder, clock: Clock) -> None:
        self._store = store
        self._archives = archives
        self._embedder = embedder
        self._clock = clock

    async def create(self, actor: Actor, request: CreateFolderRequest, request_hash: bytes) -> Folder:
        """Make a folder; a repeat of the request id returns the one made before.

        Raises:
            AlreadyExists: the organization has a folder of this name.
            ModelNotFound: no provider offers the embedder.
            IdempotencyConflict: another request had its key.
        """
        now, request_id, older = stamp_of(self._clock.now()), request.request_id, request.compat.embedding_config
        size = request.embedding_chunk_size or older.embedding_chunk_size or DEFAULT_CHUNK_SIZE
        config = await resolve_embedder(self._embedder, request.embedding or older.handle, request.name)
        if config is not None:
            config.embedding_chunk_size = size
        folder = Folder(
            id=derived_id("source", actor.organization_id, request_id) if request_id else new_id("source"),
            organization_id=actor.organization_id,
            name=request.name,
            description=request.description if request.HasField("description") else None,
            instructions=request.instructions if request.HasField("instructions") else None,
            metadata=request.metadata,
            embedding_config=config,
            created_by_id=actor.user_id,
            last_updated_by_id=actor.user_id,
            created_at=now,
            updated_at=now,
        )
        return await self._store.create(actor, folder, chunk_size=size, request_hash=request_hash)

    async def update(self, actor: Actor, folder_id: str, changes: Mapping[str, Any]) -> Folder:
        """Change some fields of a folder; with another embedder its chunks are embedded anew.

        Raises:
            FolderNotFound, AlreadyExists, InvalidArgument: it is not there, or cannot have the new name.
            ModelNotFound: no provider offers the embedder.
        """
        if changes.get("name", "?") == "":
            raise InvalidArgument("a folder needs a name", field="folder.name")
        now = self._clock.now()
        written = {**changes, "last_updated_by_id": actor.user_id, "updated_at": now}
        asked: EmbeddingConfig | None = written.pop("embedding_config", None)
        if asked is None:
            return await self._store.update(actor, folder_id, written)
        present = await self._store.get(actor, folder_id)
        if not 0 <= asked.embedding_chunk_size <= _MOST_CHUNK_SIZE:
            raise InvalidArgument(
                f"a chunk has at most {_MOST_CHUNK_SIZE} tokens", field="folder.embedding_config.embedding_chunk_size"
            )
        if asked.embedding_chunk_size:
            written["chunk_size"] = asked.embedding_chunk_size
        anew = bool(asked.handle) and asked.handle != present.embedding_config.handle
        config = await resolve_embedder(self._embedder, asked.handle, present.name) if anew else None
        folder = await self._store.update(actor, folder_id, written)
        if not anew:
            return folder
        await self._archives.reembed(actor, folder_id, config, now)
        return await self._store.get(actor, folder_id)
