"""ArchiveService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.memory.v1 import archive_service_pb2 as pb
from letta.memory.v1 import archive_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.archival.transfers import Transfers, TransferStore
from letta_memory.domain.archives import Archives, ArchiveStore
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class ArchiveServicer(archive_service_pb2_grpc.ArchiveServiceServicer):
    """Serves archives."""

    def __init__(
        self,
        archives: Archives,
        store: ArchiveStore,
        transfers: Transfers,
        transfer_store: TransferStore,
        digests: Digests,
    ) -> None:
        self._archives = archives
        self._store = store
        self._transfers = transfers
        self._transfer_store = transfer_store
        self._digests = digests

    async def CreateArchive(self, request: pb.CreateArchiveRequest, context: Call) -> pb.CreateArchiveResponse:
        archive = await self._archives.create(current_actor(), request, self._digests.of(request))
        return pb.CreateArchiveResponse(archive=archive)

    async def GetArchive(self, request: pb.GetArchiveRequest, context: Call) -> pb.GetArchiveResponse:
        archive = await self._store.get(current_actor(), request.archive_id)
        return pb.GetArchiveResponse(archive=archive)

    async def ListArchives(self, request: pb.ListArchivesRequest, context: Call) -> pb.ListArchivesResponse:
        page = Page.of(request)
        found = await self._store.list_archives(current_actor(), page, name=request.name, agent_id=request.agent_id)
        return pb.ListArchivesResponse(archives=found)

    async def UpdateArchive(self, request: pb.UpdateArchiveRequest, context: Call) -> pb.UpdateArchiveResponse:
        changes = changed_values(request.archive, request.update_mask)
        archive = await self._archives.update(current_actor(), request.archive_id, changes)
        return pb.UpdateArchiveResponse(archive=archive)

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
        return pb.GetArchiveEmbeddingResponse(embedding=found)

    async def ReembedArchive(self, request: pb.ReembedArchiveRequest, context: Call) -> pb.ReembedArchiveResponse:
        begun = await self._archives.reembed(current_actor(), request.archive_id, request.embedding)
        return pb.ReembedArchiveResponse(embedding=begun)

    async def ExportPassages(
        self, request: pb.ExportPassagesRequest, context: Call
    ) -> AsyncIterator[pb.ExportPassagesResponse]:
        async with aclosing(self._transfers.export(current_actor(), request)) as source:  # type: ignore[type-var]
            async for records in source:
                yield pb.ExportPassagesResponse(passages=records)

    async def ImportPassages(
        self, request_iterator: AsyncIterator[pb.ImportPassagesRequest], context: Call
    ) -> pb.ImportPassagesResponse:
        done = await self._transfers.take(current_actor(), request_iterator)
        return pb.ImportPassagesResponse(received_count=done.received, written_count=done.written)

    async def GetPassageImport(self, request: pb.GetPassageImportRequest, context: Call) -> pb.GetPassageImportResponse:
        found = await self._transfer_store.get_import(current_actor(), request.archive_id, request.import_id)
        return pb.GetPassageImportResponse(received_count=found.received, written_count=found.written)

    async def GetEmbeddingStorage(
        self, request: pb.GetEmbeddingStorageRequest, context: Call
    ) -> pb.GetEmbeddingStorageResponse:
        taken = await self._store.get_vector_bytes(current_actor())
        return pb.GetEmbeddingStorageResponse(gigabytes=taken / 1_000_000_000)

    async def ListArchiveAgentIds(
        self, request: pb.ListArchiveAgentIdsRequest, context: Call
    ) -> pb.ListArchiveAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.archive_id)
        return pb.ListArchiveAgentIdsResponse(agent_ids=found)
