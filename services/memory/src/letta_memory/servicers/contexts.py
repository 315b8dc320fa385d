"""ContextService: what the agent loop needs of memory."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.common.v1 import usage_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1 import context_service_pb2_grpc
from letta_common.actor import current_actor
from letta_memory.domain.contexts import (
    AgentMemory,
    Contexts,
    ContextStore,
    NewAgent,
    NewConversation,
    Reset,
    RunOwner,
    Step,
    Window,
)
from letta_memory.domain.edits import Append, BlockEdit, Create, Delete, Edit, Insert, Rename, Replace, Rethink
from letta_memory.servicers.packing import new_message, new_messages, pack_block, unpack_block, with_text

Call = grpc.aio.ServicerContext[Any, Any]


class ContextServicer(context_service_pb2_grpc.ContextServiceServicer):
    """Serves the agent loop."""

    def __init__(self, contexts: Contexts, store: ContextStore) -> None:
        self._contexts = contexts
        self._store = store

    async def ProvisionAgent(self, request: pb.ProvisionAgentRequest, context: Call) -> pb.ProvisionAgentResponse:
        agent = NewAgent(
            agent_id=request.agent_id,
            name=request.agent_name,
            new_blocks=tuple(unpack_block(block) for block in request.new_blocks),
            block_ids=tuple(request.block_ids),
            messages=new_messages(request.messages),
            embedder=request.embedding,
        )
        memory = await self._contexts.provision_agent(current_actor(), agent)
        return pb.ProvisionAgentResponse(memory=_pack_memory(memory))

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
        conversation = NewConversation(
            agent_id=request.agent_id,
            conversation_id=request.conversation_id,
            messages=new_messages(request.messages),
            isolated_labels=tuple(request.isolated_block_labels),
        )
        blocks, messages = await self._store.provision_conversation(current_actor(), conversation)
        return pb.ProvisionConversationResponse(isolated_block_ids=blocks, message_ids=messages)

    async def DeprovisionConversation(
        self, request: pb.DeprovisionConversationRequest, context: Call
    ) -> pb.DeprovisionConversationResponse:
        await self._store.deprovision_conversation(current_actor(), request.agent_id, request.conversation_id)
        return pb.DeprovisionConversationResponse()

    async def BeginStep(self, request: pb.BeginStepRequest, context: Call) -> pb.BeginStepResponse:
        begun = await self._store.begin_step(current_actor(), _owner(request), new_messages(request.input))
        last = None
        if begun.last_step is not None:
            reason = usage_pb2.StopReason.ValueType(begun.stop_reason)
            last = pb.CommittedStep(step_index=begun.last_step, stop_reason=reason)
        return pb.BeginStepResponse(
            blocks=[pack_block(block) for block in begun.blocks],
            messages=begun.messages,
            last_step=last,
            message_count=begun.message_count,
            passage_count=begun.passage_count,
        )

    async def WithdrawInput(self, request: pb.WithdrawInputRequest, context: Call) -> pb.WithdrawInputResponse:
        withdrawn = await self._store.withdraw_input(current_actor(), _owner(request))
        return pb.WithdrawInputResponse(withdrawn=withdrawn)

    async def CommitStep(self, request: pb.CommitStepRequest, context: Call) -> pb.CommitStepResponse:
        step = Step(
            index=request.step_index,
            messages=new_messages(request.messages),
            stop_reason=request.stop_reason,
            known_blocks={known.block_id: known.version for known in request.known_blocks},
            window=_window(request.window) if request.HasField("window") else None,
        )
        done = await self._store.commit_step(current_actor(), _owner(request), step)
        return pb.CommitStepResponse(
            changed_blocks=[pack_block(block) for block in done.changed],
            detached_block_ids=done.detached,
            repeated_step=done.repeated,
        )

    async def EditBlock(self, request: pb.EditBlockRequest, context: Call) -> pb.EditBlockResponse:
        edit = BlockEdit(
            agent_id=request.agent_id,
            conversation_id=request.conversation_id,
            fence=request.fence,
            key=request.idempotency_key,
            label=request.label,
            edit=_edit(request),
        )
        edited = await self._contexts.edit_block(current_actor(), edit)
        return pb.EditBlockResponse(block=pack_block(edited.block), repeated_edit=edited.repeated)

    async def ResetConversation(
        self, request: pb.ResetConversationRequest, context: Call
    ) -> pb.ResetConversationResponse:
        reset = Reset(request.agent_id, request.conversation_id, new_messages(request.messages), request.fence)
        await self._store.reset_conversation(current_actor(), reset)
        return pb.ResetConversationResponse()

    async def GetContext(self, request: pb.GetContextRequest, context: Call) -> pb.GetContextResponse:
        found = await self._store.get(current_actor(), request.agent_id, request.conversation_id)
        return pb.GetContextResponse(
            blocks=[pack_block(block) for block in found.blocks],
            messages=found.messages,
            message_count=found.message_count,
            passage_count=found.passage_count,
        )

    async def SetSystemMessage(self, request: pb.SetSystemMessageRequest, context: Call) -> pb.SetSystemMessageResponse:
        message_id = await self._contexts.set_system(
            current_actor(), request.agent_id, request.conversation_id, lambda body: with_text(body, request.text)
        )
        return pb.SetSystemMessageResponse(message_id=message_id)

    async def ListAgentMemories(
        self, request: pb.ListAgentMemoriesRequest, context: Call
    ) -> pb.ListAgentMemoriesResponse:
        wanted = not request.without_blocks
        memories = await self._store.list_memories(current_actor(), request.agent_ids, blocks=wanted)
        return pb.ListAgentMemoriesResponse(memories=[_pack_memory(memory) for memory in memories])

    async def AttachBlock(self, request: pb.AttachBlockRequest, context: Call) -> pb.AttachBlockResponse:
        await self._store.attach_block(current_actor(), request.agent_id, request.block_id)
        return pb.AttachBlockResponse()

    async def DetachBlock(self, request: pb.DetachBlockRequest, context: Call) -> pb.DetachBlockResponse:
        await self._store.detach_block(current_actor(), request.agent_id, request.block_id)
        return pb.DetachBlockResponse()


def _owner(request: pb.BeginStepRequest | pb.CommitStepRequest | pb.WithdrawInputRequest) -> RunOwner:
    return RunOwner(request.agent_id, request.conversation_id, request.run_id, request.fence)


def _window(window: pb.Window) -> Window:
    summary = new_message(window.summary) if window.HasField("summary") else None
    cleared = window.cleared and summary is None
    return Window(summary=summary, first_kept_id=window.first_kept_message_id, cleared=cleared)


def _pack_memory(memory: AgentMemory) -> pb.AgentMemory:
    return pb.AgentMemory(
        agent_id=memory.agent_id, blocks=[pack_block(block) for block in memory.blocks], message_ids=memory.message_ids
    )


def _edit(request: pb.EditBlockRequest) -> Edit:  # noqa: PLR0911
    match request.WhichOneof("edit"):
        case "append":
            return Append(request.append.content)
        case "replace":
            change = request.replace
            return Replace(change.old_text, change.new_text, change.all_occurrences)
        case "insert":
            return Insert(request.insert.text, request.insert.line)
        case "rethink":
            return Rethink(request.rethink.value)
        case "create":
            return Create(request.create.value, request.create.description)
        case "rename":
            rename = request.rename
            return Rename(rename.label, rename.description if rename.HasField("description") else None)
        case _:
            return Delete()
