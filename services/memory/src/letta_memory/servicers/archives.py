"""ArchiveService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import archive_pb2, archive_service_pb2_grpc
from letta.memory.v1 import archive_service_pb2 as pb
from letta_common.actor import current_actor
from letta_common.values.masks import changed_values
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.archives import ArchiveEmbedding, Archives, ArchiveStore, NewArchive
from letta_memory.servicers.packing import pack_archive

Call = grpc.aio.ServicerContext[Any, Any]
_State = archive_pb2.ArchiveEmbeddingState


class ArchiveServicer(archive_service_pb2_grpc.ArchiveServiceServicer):
    """Serves archives."""

    def __init__(self, archives: Archives, store: ArchiveStore, digests: Digests) -> None:
        self._archives = archives
        self._store = store
        self._digests = digests

    async def CreateArchive(self, request: pb.CreateArchiveRequest, context: Call) -> pb.CreateArchiveResponse:
        new = NewArchive(
            name=request.name,
            description=request.description if request.HasField("description") else None,
            embedder=request.embedding or request.embedding_config.handle,
            metadata=request.metadata,
        )
        actor = current_actor()
        archive = await self._archives.create(
            actor, new, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreateArchiveResponse(archive=pack_archive(archive, actor.organization_id))

    async def GetArchive(self, request: pb.GetArchiveRequest, context: Call) -> pb.GetArchiveResponse:
        actor = current_actor()
        archive = await self._store.get(actor, request.archive_id)
        return pb.GetArchiveResponse(archive=pack_archive(archive, actor.organization_id))

    async def ListArchives(self, request: pb.ListArchivesRequest, context: Call) -> pb.ListArchivesResponse:
        actor = current_actor()
        page = Page.of(request)
        found = await self._store.list_archives(actor, page, name=request.name, agent_id=request.agent_id)
        return pb.ListArchivesResponse(archives=[pack_archive(archive, actor.organization_id) for archive in found])

    async def UpdateArchive(self, request: pb.UpdateArchiveRequest, context: Call) -> pb.UpdateArchiveResponse:
        actor = current_actor()
        changes = changed_values(request.archive, request.update_mask)
        archive = await self._archives.update(actor, request.archive_id, changes)
        return pb.UpdateArchiveResponse(archive=pack_archive(archive, actor.organization_id))

    async def DeleteArchive(self, request: pb.DeleteArchiveRequest, context: Call) -> pb.DeleteArchiveResponse:
        await self._store.delete(current_actor(), request.archive_id)
        return pb.DeleteArchiveResponse()

    async def AttachArchive(self, request: pb.AttachArchiveRequest, context: Call) -> pb.AttachArchiveResponse:
        await self._store.attach(current_actor(), request.agent_id, request.archive_id)
        return pb.AttachArchiveResponse()

    async def DetachArchive(self, request: pb.DetachArchiveRequest, context: Call) -> pb.DetachArchiveResponse:
        await self._store.detach(current_actor(), request.agent_id, request.archive_id)
        return pb.DetachArchiveResponse()

    async def GetArchiveEmbedding(
        self, request: pb.GetArchiveEmbeddingRequest, context: Call
    ) -> pb.GetArchiveEmbeddingResponse:
        found = await self._store.get_embedding(current_actor(), request.archive_id)
        return pb.GetArchiveEmbeddingResponse(embedding=_pack_embedding(found))

    async def ReembedArchive(self, request: pb.ReembedArchiveRequest, context: Call) -> pb.ReembedArchiveResponse:
        begun = await self._archives.reembed(current_actor(), request.archive_id, request.embedding)
        return pb.ReembedArchiveResponse(embedding=_pack_embedding(begun))

    async def ListArchiveAgentIds(
        self, request: pb.ListArchiveAgentIdsRequest, context: Call
    ) -> pb.ListArchiveAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.archive_id)
        return pb.ListArchiveAgentIdsResponse(agent_ids=found)


def _pack_embedding(found: ArchiveEmbedding) -> archive_pb2.ArchiveEmbedding:
    state, told = _State.ARCHIVE_EMBEDDING_STATE_UP_TO_DATE, ("", "")
    if found.embedded_count < found.passage_count:
        state, told = _State.ARCHIVE_EMBEDDING_STATE_EMBEDDING, (found.failure_reason, found.failure)
        if found.failure_reason:
            state = _State.ARCHIVE_EMBEDDING_STATE_FAILING
    return archive_pb2.ArchiveEmbedding(
        archive_id=found.archive_id,
        embedding=found.embedder,
        embedding_dim=found.dimensions or 0,
        state=state,
        passage_count=found.passage_count,
        embedded_count=found.embedded_count,
        error_reason=told[0],
        error=told[1],
    )
