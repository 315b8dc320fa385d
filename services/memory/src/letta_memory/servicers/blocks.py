"""BlockService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import block_service_pb2 as pb
from letta.memory.v1 import block_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.blocks import BlockFilter, Blocks, BlockStore
from letta_memory.servicers.packing import block_changes, pack_block, unpack_block

Call = grpc.aio.ServicerContext[Any, Any]


class BlockServicer(block_service_pb2_grpc.BlockServiceServicer):
    """Serves blocks."""

    def __init__(self, blocks: Blocks, store: BlockStore, digests: Digests) -> None:
        self._blocks = blocks
        self._store = store
        self._digests = digests

    async def CreateBlock(self, request: pb.CreateBlockRequest, context: Call) -> pb.CreateBlockResponse:
        block = unpack_block(request.block)
        made = await self._blocks.create(
            current_actor(), block, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreateBlockResponse(block=pack_block(made))

    async def GetBlock(self, request: pb.GetBlockRequest, context: Call) -> pb.GetBlockResponse:
        return pb.GetBlockResponse(block=pack_block(await self._store.get(current_actor(), request.block_id)))

    async def ListBlocks(self, request: pb.ListBlocksRequest, context: Call) -> pb.ListBlocksResponse:
        wanted = BlockFilter(
            label=request.label,
            name=request.name,
            tags=tuple(request.tags),
            match_all_tags=request.match_all_tags,
            templates_only=request.templates_only,
            project_id=request.project_id,
            label_search=request.label_search,
            description_search=request.description_search,
            value_search=request.value_search,
            agents_over=request.connected_to_agents_count_gt
            if request.HasField("connected_to_agents_count_gt")
            else None,
            agents_under=request.connected_to_agents_count_lt
            if request.HasField("connected_to_agents_count_lt")
            else None,
            agents_equal=tuple(request.connected_to_agents_count_eq),
        )
        found = await self._store.list_blocks(current_actor(), wanted, Page.of(request))
        return pb.ListBlocksResponse(blocks=[pack_block(block) for block in found])

    async def CountBlocks(self, request: pb.CountBlocksRequest, context: Call) -> pb.CountBlocksResponse:
        wanted = BlockFilter(
            label=request.label,
            name=request.name,
            tags=tuple(request.tags),
            match_all_tags=request.match_all_tags,
            templates_only=request.templates_only,
            project_id=request.project_id,
        )
        return pb.CountBlocksResponse(count=await self._store.count(current_actor(), wanted))

    async def UpdateBlock(self, request: pb.UpdateBlockRequest, context: Call) -> pb.UpdateBlockResponse:
        changes = block_changes(request.block, request.update_mask)
        block = await self._blocks.update(current_actor(), request.block_id, changes, etag=request.block.etag)
        return pb.UpdateBlockResponse(block=pack_block(block))

    async def DeleteBlock(self, request: pb.DeleteBlockRequest, context: Call) -> pb.DeleteBlockResponse:
        await self._store.delete(current_actor(), request.block_id)
        return pb.DeleteBlockResponse()

    async def ListAgentBlocks(self, request: pb.ListAgentBlocksRequest, context: Call) -> pb.ListAgentBlocksResponse:
        found = await self._store.list_of_agent(current_actor(), request.agent_id, Page.of(request))
        return pb.ListAgentBlocksResponse(blocks=[pack_block(block) for block in found])

    async def GetAgentBlock(self, request: pb.GetAgentBlockRequest, context: Call) -> pb.GetAgentBlockResponse:
        block = await self._store.get_of_agent(current_actor(), request.agent_id, request.block_label)
        return pb.GetAgentBlockResponse(block=pack_block(block))

    async def UpdateAgentBlock(self, request: pb.UpdateAgentBlockRequest, context: Call) -> pb.UpdateAgentBlockResponse:
        changes = block_changes(request.block, request.update_mask)
        block = await self._blocks.update_of_agent(
            current_actor(), request.agent_id, request.block_label, changes, etag=request.block.etag
        )
        return pb.UpdateAgentBlockResponse(block=pack_block(block))

    async def ListBlockAgentIds(
        self, request: pb.ListBlockAgentIdsRequest, context: Call
    ) -> pb.ListBlockAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.block_id)
        return pb.ListBlockAgentIdsResponse(agent_ids=found)
