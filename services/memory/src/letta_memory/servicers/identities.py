"""IdentityService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import identity_service_pb2 as pb
from letta.memory.v1 import identity_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.blocks import BlockStore
from letta_memory.domain.identities import Identities, IdentityStore, Links
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class IdentityServicer(identity_service_pb2_grpc.IdentityServiceServicer):
    """Serves identities."""

    def __init__(self, identities: Identities, store: IdentityStore, blocks: BlockStore, digests: Digests) -> None:
        self._identities = identities
        self._store = store
        self._blocks = blocks
        self._digests = digests

    async def CreateIdentity(self, request: pb.CreateIdentityRequest, context: Call) -> pb.CreateIdentityResponse:
        made = await self._identities.create(current_actor(), request, self._digests.of(request))
        return pb.CreateIdentityResponse(identity=made)

    async def UpsertIdentity(self, request: pb.UpsertIdentityRequest, context: Call) -> pb.UpsertIdentityResponse:
        return pb.UpsertIdentityResponse(identity=await self._identities.upsert(current_actor(), request))

    async def GetIdentity(self, request: pb.GetIdentityRequest, context: Call) -> pb.GetIdentityResponse:
        return pb.GetIdentityResponse(identity=await self._store.get(current_actor(), request.identity_id))

    async def ListIdentities(self, request: pb.ListIdentitiesRequest, context: Call) -> pb.ListIdentitiesResponse:
        found = await self._store.list_identities(current_actor(), request, Page.of(request))
        return pb.ListIdentitiesResponse(identities=found)

    async def CountIdentities(self, request: pb.CountIdentitiesRequest, context: Call) -> pb.CountIdentitiesResponse:
        return pb.CountIdentitiesResponse(count=await self._store.count(current_actor()))

    async def UpdateIdentity(self, request: pb.UpdateIdentityRequest, context: Call) -> pb.UpdateIdentityResponse:
        changes = changed_values(request.identity, request.update_mask)
        return pb.UpdateIdentityResponse(identity=await self._identities.update(current_actor(), request, changes))

    async def SetIdentityProperties(
        self, request: pb.SetIdentityPropertiesRequest, context: Call
    ) -> pb.SetIdentityPropertiesResponse:
        changed = await self._identities.set_properties(current_actor(), request.identity_id, request.properties)
        return pb.SetIdentityPropertiesResponse(identity=changed)

    async def DeleteIdentity(self, request: pb.DeleteIdentityRequest, context: Call) -> pb.DeleteIdentityResponse:
        await self._store.delete(current_actor(), request.identity_id)
        return pb.DeleteIdentityResponse()

    async def ListIdentityBlocks(
        self, request: pb.ListIdentityBlocksRequest, context: Call
    ) -> pb.ListIdentityBlocksResponse:
        found = await self._store.list_blocks(current_actor(), request.identity_id, Page.of(request))
        return pb.ListIdentityBlocksResponse(blocks=found)

    async def AttachIdentity(self, request: pb.AttachIdentityRequest, context: Call) -> pb.AttachIdentityResponse:
        await self._store.attach(current_actor(), request.identity_id, Links(agent_ids=[request.agent_id]))
        return pb.AttachIdentityResponse()

    async def DetachIdentity(self, request: pb.DetachIdentityRequest, context: Call) -> pb.DetachIdentityResponse:
        await self._store.detach(current_actor(), request.identity_id, Links(agent_ids=[request.agent_id]))
        return pb.DetachIdentityResponse()

    async def AttachBlockIdentity(
        self, request: pb.AttachBlockIdentityRequest, context: Call
    ) -> pb.AttachBlockIdentityResponse:
        await self._store.attach(current_actor(), request.identity_id, Links(block_ids=[request.block_id]))
        return pb.AttachBlockIdentityResponse(block=await self._blocks.get(current_actor(), request.block_id))

    async def DetachBlockIdentity(
        self, request: pb.DetachBlockIdentityRequest, context: Call
    ) -> pb.DetachBlockIdentityResponse:
        await self._store.detach(current_actor(), request.identity_id, Links(block_ids=[request.block_id]))
        return pb.DetachBlockIdentityResponse(block=await self._blocks.get(current_actor(), request.block_id))

    async def SetAgentIdentities(
        self, request: pb.SetAgentIdentitiesRequest, context: Call
    ) -> pb.SetAgentIdentitiesResponse:
        await self._store.set_of_agent(current_actor(), request.agent_id, request.identity_ids)
        return pb.SetAgentIdentitiesResponse()

    async def ListIdentityAgentIds(
        self, request: pb.ListIdentityAgentIdsRequest, context: Call
    ) -> pb.ListIdentityAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.identity_id, request.identifier_keys)
        return pb.ListIdentityAgentIdsResponse(agent_ids=found)
