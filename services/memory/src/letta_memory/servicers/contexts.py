"""ContextService: what the agent loop needs of memory."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1 import context_service_pb2_grpc
from letta_common.actor import current_actor
from letta_memory.domain.contexts import Contexts, ContextStore

Call = grpc.aio.ServicerContext[Any, Any]


class ContextServicer(context_service_pb2_grpc.ContextServiceServicer):
    """Serves the agent loop."""

    def __init__(self, contexts: Contexts, store: ContextStore) -> None:
        self._contexts = contexts
        self._store = store

    async def ProvisionAgent(self, request: pb.ProvisionAgentRequest, context: Call) -> pb.ProvisionAgentResponse:
        memory = await self._contexts.provision_agent(current_actor(), request)
        return pb.ProvisionAgentResponse(memory=memory)

    async def SetAgentEmbedding(
        self, request: pb.SetAgentEmbeddingRequest, context: Call
    ) -> pb.SetAgentEmbeddingResponse:
        await self._store.set_embedder(current_actor(), request.agent_id, request.embedding)
        return pb.SetAgentEmbeddingResponse()

    async def DeprovisionAgent(self, request: pb.DeprovisionAgentRequest, context: Call) -> pb.DeprovisionAgentResponse:
        await self._store.deprovision_agent(current_actor(), request.agent_id)
        return pb.DeprovisionAgentResponse()

    async def ProvisionConversation(
        self, request: pb.ProvisionConversationRequest, context: Call
    ) -> pb.ProvisionConversationResponse:
        return await self._store.provision_conversation(current_actor(), request)

    async def DeprovisionConversation(
        self, request: pb.DeprovisionConversationRequest, context: Call
    ) -> pb.DeprovisionConversationResponse:
        await self._store.deprovision_conversation(current_actor(), request.agent_id, request.conversation_id)
        return pb.DeprovisionConversationResponse()

    async def BeginStep(self, request: pb.BeginStepRequest, context: Call) -> pb.BeginStepResponse:
        return await self._store.begin_step(current_actor(), request)

    async def WithdrawInput(self, request: pb.WithdrawInputRequest, context: Call) -> pb.WithdrawInputResponse:
        withdrawn = await self._store.withdraw_input(current_actor(), request)
        return pb.WithdrawInputResponse(withdrawn=withdrawn)

    async def CommitStep(self, request: pb.CommitStepRequest, context: Call) -> pb.CommitStepResponse:
        return await self._store.commit_step(current_actor(), request)

    async def EditBlock(self, request: pb.EditBlockRequest, context: Call) -> pb.EditBlockResponse:
        return await self._contexts.edit_block(current_actor(), request)

    async def ResetConversation(
        self, request: pb.ResetConversationRequest, context: Call
    ) -> pb.ResetConversationResponse:
        await self._store.reset_conversation(current_actor(), request)
        return pb.ResetConversationResponse()

    async def GetContext(self, request: pb.GetContextRequest, context: Call) -> pb.GetContextResponse:
        return await self._store.get(current_actor(), request.agent_id, request.conversation_id)

    async def SetSystemMessage(self, request: pb.SetSystemMessageRequest, context: Call) -> pb.SetSystemMessageResponse:
        message_id = await self._contexts.set_system(
            current_actor(), request.agent_id, request.conversation_id, request.text
        )
        return pb.SetSystemMessageResponse(message_id=message_id)

    async def ListAgentMemories(
        self, request: pb.ListAgentMemoriesRequest, context: Call
    ) -> pb.ListAgentMemoriesResponse:
        memories = await self._store.list_memories(current_actor(), request)
        return pb.ListAgentMemoriesResponse(memories=memories)

    async def AttachBlock(self, request: pb.AttachBlockRequest, context: Call) -> pb.AttachBlockResponse:
        await self._store.attach_block(current_actor(), request.agent_id, request.block_id)
        return pb.AttachBlockResponse()

    async def DetachBlock(self, request: pb.DetachBlockRequest, context: Call) -> pb.DetachBlockResponse:
        await self._store.detach_block(current_actor(), request.agent_id, request.block_id)
        return pb.DetachBlockResponse()
