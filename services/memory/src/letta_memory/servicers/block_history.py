"""BlockHistoryService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.memory.v1 import block_history_service_pb2 as pb
from letta.memory.v1 import block_history_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_memory.domain.block_history.revisions import BlockHistory, BlockHistoryStore
from letta_memory.domain.block_history.watches import BlockWatches

Call = grpc.aio.ServicerContext[Any, Any]


class BlockHistoryServicer(block_history_service_pb2_grpc.BlockHistoryServiceServicer):
    """Serves revisions of blocks."""

    def __init__(self, history: BlockHistory, watches: BlockWatches, store: BlockHistoryStore) -> None:
        self._history = history
        self._watches = watches
        self._store = store

    async def ListBlockRevisions(
        self, request: pb.ListBlockRevisionsRequest, context: Call
    ) -> pb.ListBlockRevisionsResponse:
        found = await self._store.list_revisions(current_actor(), request.block_id, Page.of(request))
        return pb.ListBlockRevisionsResponse(revisions=found)

    async def GetBlockRevision(self, request: pb.GetBlockRevisionRequest, context: Call) -> pb.GetBlockRevisionResponse:
        revision = await self._store.get_revision(current_actor(), request.block_id, request.version)
        return pb.GetBlockRevisionResponse(revision=revision)

    async def DiffBlockRevisions(
        self, request: pb.DiffBlockRevisionsRequest, context: Call
    ) -> pb.DiffBlockRevisionsResponse:
        return await self._history.diff(current_actor(), request.block_id, request.from_version, request.to_version)

    async def RestoreBlock(self, request: pb.RestoreBlockRequest, context: Call) -> pb.RestoreBlockResponse:
        block = await self._history.restore(current_actor(), request.block_id, request.version, request.etag)
        return pb.RestoreBlockResponse(block=block)

    async def UndoBlock(self, request: pb.UndoBlockRequest, context: Call) -> pb.UndoBlockResponse:
        return pb.UndoBlockResponse(block=await self._history.undo(current_actor(), request.block_id, request.etag))

    async def RedoBlock(self, request: pb.RedoBlockRequest, context: Call) -> pb.RedoBlockResponse:
        return pb.RedoBlockResponse(block=await self._history.redo(current_actor(), request.block_id, request.etag))

    async def WatchBlocks(self, request: pb.WatchBlocksRequest, context: Call) -> AsyncIterator[pb.WatchBlocksResponse]:
        events = self._watches.watch(current_actor(), request.agent_id, request.position)
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                yield event
