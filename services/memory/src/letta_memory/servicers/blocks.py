"""BlockService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import block_service_pb2 as pb
from letta.memory.v1 import block_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.blocks import Blocks, BlockStore
from letta_rpc.masks import changed_paths

Call = grpc.aio.ServicerContext[Any, Any]


class BlockServicer(block_service_pb2_grpc.BlockServiceServicer):
    """Serves blocks."""

    def __init__(self, blocks: Blocks, store: BlockStore, digests: Digests) -> None:
        self._blocks = blocks
        self._store = store
        self._digests = digests

    async def CreateBlock(self, request: pb.CreateBlockRequest, context: Call) -> pb.CreateBlockResponse:
        made = await self._blocks.create(
            current_actor(), request.block, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreateBlockResponse(block=made)

    async def GetBlock(self, request: pb.GetBlockRequest, context: Call) -> pb.GetBlockResponse:
        return pb.GetBlockResponse(block=await self._store.get(current_actor(), request.block_id))

    async def ListBlocks(self, request: pb.ListBlocksRequest, context: Call) -> pb.ListBlocksResponse:
        return pb.ListBlocksResponse(blocks=await self._store.list_blocks(current_actor(), request, Page.of(request)))

    async def CountBlocks(self, request: pb.CountBlocksRequest, context: Call) -> pb.CountBlocksResponse:
        return pb.CountBlocksResponse(count=await self._store.count(current_actor(), request))

    async def UpdateBlock(self, request: pb.UpdateBlockRequest, context: Call) -> pb.UpdateBlockResponse:
        paths = changed_paths(request.block, request.update_mask)
        block = await self._blocks.update(current_actor(), request.block_id, request.block, paths)
        return pb.UpdateBlockResponse(block=block)

    async def DeleteBlock(self, request: pb.DeleteBlockRequest, context: Call) -> pb.DeleteBlockResponse:
        await self._store.delete(current_actor(), request.block_id, request.etag)
        return pb.DeleteBlockResponse()

    async def ListAgentBlocks(self, request: pb.ListAgentBlocksRequest, context: Call) -> pb.ListAgentBlocksResponse:
        found = await self._store.list_of_agent(current_actor(), request.agent_id, Page.of(request))
        return pb.ListAgentBlocksResponse(blocks=found)

    async def GetAgentBlock(self, request: pb.GetAgentBlockRequest, context: Call) -> pb.GetAgentBlockResponse:
        block = await self._store.get_of_agent(current_actor(), request.agent_id, request.block_label)
        return pb.GetAgentBlockResponse(block=block)

    async def UpdateAgentBlock(self, request: pb.UpdateAgentBlockRequest, context: Call) -> pb.UpdateAgentBlockResponse:
        paths = changed_paths(request.block, request.update_mask)
        block = await self._blocks.update_of_agent(
            current_actor(), request.agent_id, request.block_label, request.block, paths
        )
        return pb.UpdateAgentBlockResponse(block=block)

    async def ListBlockAgentIds(
        self, request: pb.ListBlockAgentIdsRequest, context: Call
    ) -> pb.ListBlockAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.block_id)
        return pb.ListBlockAgentIdsResponse(agent_ids=found)
