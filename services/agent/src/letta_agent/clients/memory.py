"""The memory service. Requests and answers pass as they are; here is how long and how often each is tried."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import grpc.aio

from letta.agent.v1.agent_service_pb2 import CountAgentsRequest, ListAgentsRequest
from letta.common.v1 import sort_order_pb2
from letta.memory.v1 import (
    agent_file_service_pb2,
    agent_file_service_pb2_grpc,
    archive_service_pb2,
    archive_service_pb2_grpc,
    block_service_pb2,
    block_service_pb2_grpc,
    context_service_pb2_grpc,
    folder_service_pb2,
    folder_service_pb2_grpc,
    identity_service_pb2,
    identity_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    passage_service_pb2,
    passage_service_pb2_grpc,
)
from letta.memory.v1 import context_service_pb2 as pb
from letta_agent.clients.held_contexts import HeldContexts
from letta_agent.clients.patience import AWAY, patiently
from letta_agent.domain.peers.memory import Block, FolderLoss, LettaMessage, Message

TIMEOUT = 15.0  # covers the 5 s that memory gives an embedder while a passage is written
GREP_TIMEOUT = 75.0  # covers the 30 s that a search waits for its turn, and the 30 s that it may take
_MOST = 1_000  # the most that a page may have: a run of the usual 50 steps has far fewer


class MemoryClient:
    """Memory over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._archives = archive_service_pb2_grpc.ArchiveServiceStub(channel)
        self._blocks = block_service_pb2_grpc.BlockServiceStub(channel)
        self._contexts = context_service_pb2_grpc.ContextServiceStub(channel)
        self._messages = message_service_pb2_grpc.MessageServiceStub(channel)
        self._passages = passage_service_pb2_grpc.PassageServiceStub(channel)
        self._files = agent_file_service_pb2_grpc.AgentFileServiceStub(channel)
        self._folders = folder_service_pb2_grpc.FolderServiceStub(channel)
        self._identities = identity_service_pb2_grpc.IdentityServiceStub(channel)
        self._held = HeldContexts()

    async def provision(
        self,
        agent_id: str,
        name: str,
        new_blocks: Sequence[Block],
        block_ids: Sequence[str],
        messages: Sequence[Message],
        *,
        embedding: str = "",
    ) -> pb.AgentMemory:
        """Make the memory of an agent."""
        request = pb.ProvisionAgentRequest(
            agent_id=agent_id,
            agent_name=name,
            new_blocks=new_blocks,
            block_ids=block_ids,
            messages=messages,
            embedding=embedding,
        )
        answer = await self._contexts.ProvisionAgent(request, timeout=TIMEOUT)
        return answer.memory

    async def set_embedding(self, agent_id: str, embedding: str) -> None:
        """Set what embeds an agent's archive."""
        request = pb.SetAgentEmbeddingRequest(agent_id=agent_id, embedding=embedding)
        await self._contexts.SetAgentEmbedding(request, timeout=TIMEOUT)

    async def deprovision(self, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        await self._contexts.DeprovisionAgent(pb.DeprovisionAgentRequest(agent_id=agent_id), timeout=TIMEOUT)

    async def provision_conversation(
        self,
        agent_id: str,
        conversation_id: str,
        messages: Sequence[Message],
        isolated_labels: Sequence[str],
        *,
        source_id: str,
        last_message_id: str,
    ) -> tuple[str, ...]:
        """Make the memory of a further conversation; return the copies of blocks made."""
        request = pb.ProvisionConversationRequest(
            agent_id=agent_id,
            conversation_id=conversation_id,
            messages=messages,
            isolated_block_labels=isolated_labels,
            source_conversation_id=source_id or None,
            last_message_id=last_message_id or None,
        )
        answer = await self._contexts.ProvisionConversation(request, timeout=TIMEOUT)
        return tuple(answer.isolated_block_ids)

    async def deprovision_conversation(self, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation."""
        request = pb.DeprovisionConversationRequest(agent_id=agent_id, conversation_id=conversation_id)
        await self._contexts.DeprovisionConversation(request, timeout=TIMEOUT)

    async def begin_step(self, organization_id: str, request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        """Raise the fence, append the input once, return the context."""
        ask = self._contexts.BeginStep
        return await self._held.begin(organization_id, request, lambda asked: ask(asked, timeout=TIMEOUT))

    async def withdraw_input(self, request: pb.WithdrawInputRequest) -> pb.WithdrawInputResponse:
        """Take back the input of a run without committed steps; say whether there was any."""
        return await patiently(lambda: self._contexts.WithdrawInput(request, timeout=TIMEOUT), what="WithdrawInput")

    async def commit_step(self, request: pb.CommitStepRequest) -> pb.CommitStepResponse:
        """Append the messages of a step once."""
        return await patiently(lambda: self._contexts.CommitStep(request, timeout=TIMEOUT), what="CommitStep")

    async def edit_block(self, request: pb.EditBlockRequest) -> pb.EditBlockResponse:
        """Edit a block once for each key."""
        return await patiently(lambda: self._contexts.EditBlock(request, timeout=TIMEOUT), what="EditBlock")

    async def insert_passage(self, request: passage_service_pb2.CreateArchivalMemoryRequest) -> None:
        """Store a text in the agent's archive, once for each key."""
        await patiently(
            lambda: self._passages.CreateArchivalMemory(request, timeout=TIMEOUT), what="CreateArchivalMemory"
        )

    async def search_passages(
        self, request: passage_service_pb2.SearchArchivalMemoryRequest
    ) -> passage_service_pb2.SearchArchivalMemoryResponse:
        """Search the agent's archive, best first."""
        return await patiently(
            lambda: self._passages.SearchArchivalMemory(request, timeout=TIMEOUT), what="SearchArchivalMemory"
        )

    async def search_messages(
        self, request: message_service_pb2.SearchStoredMessagesRequest
    ) -> message_service_pb2.SearchStoredMessagesResponse:
        """Search the messages of the agent, best first."""
        return await patiently(
            lambda: self._messages.SearchStoredMessages(request, timeout=TIMEOUT), what="SearchStoredMessages"
        )

    async def run_messages(self, run_id: str) -> Sequence[LettaMessage]:
        """Return what a client sees of the messages of a run, in order."""
        request = message_service_pb2.ListRunMessagesRequest(
            run_id=run_id, limit=_MOST, order=sort_order_pb2.SORT_ORDER_ASC, include_summaries=True
        )
        return (await self._messages.ListRunMessages(request, timeout=TIMEOUT)).messages

    async def memories(
        self, agent_ids: Sequence[str], *, blocks: bool, folders: bool = False, identities: bool = False
    ) -> dict[str, pb.AgentMemory]:
        """Return what agents keep in memory; with their folders also what a single one sees of files."""
        request = pb.ListAgentMemoriesRequest(
            agent_ids=agent_ids,
            without_blocks=not blocks,
            with_folders=folders,
            with_identities=identities,
            with_directories=folders and len(agent_ids) == 1,
        )
        answer = await self._contexts.ListAgentMemories(request, timeout=TIMEOUT)
        return {memory.agent_id: memory for memory in answer.memories}

    async def agents_with(self, wanted: ListAgentsRequest | CountAgentsRequest) -> Collection[str] | None:
        """Return the agents that have what a list names of memory, None where it names nothing of it."""
        found: list[Collection[str]] = []
        if isinstance(wanted, ListAgentsRequest) and wanted.block_id:
            block = block_service_pb2.ListBlockAgentIdsRequest(block_id=wanted.block_id)
            found.append((await self._blocks.ListBlockAgentIds(block, timeout=TIMEOUT)).agent_ids)
        if isinstance(wanted, ListAgentsRequest) and wanted.archive_id:
            archive = archive_service_pb2.ListArchiveAgentIdsRequest(archive_id=wanted.archive_id)
            found.append((await self._archives.ListArchiveAgentIds(archive, timeout=TIMEOUT)).agent_ids)
        if wanted.identity_id or wanted.identifier_keys:
            owner = identity_service_pb2.ListIdentityAgentIdsRequest(
                identity_id=wanted.identity_id or None, identifier_keys=wanted.identifier_keys
            )
            found.append((await self._identities.ListIdentityAgentIds(owner, timeout=TIMEOUT)).agent_ids)
        return set(found[0]).intersection(*found[1:]) if found else None

    async def set_identities(self, agent_id: str, identity_ids: Sequence[str]) -> None:
        """Set all the identities that an agent belongs to."""
        request = identity_service_pb2.SetAgentIdentitiesRequest(agent_id=agent_id, identity_ids=identity_ids)
        await self._identities.SetAgentIdentities(request, timeout=TIMEOUT)

    async def reset(self, request: pb.ResetConversationRequest) -> None:
        """Forget the messages of a conversation and begin anew with these."""
        await self._contexts.ResetConversation(request, timeout=TIMEOUT)

    async def context(self, agent_id: str, conversation_id: str) -> pb.GetContextResponse:
        """Return the context of a conversation, changing nothing."""
        request = pb.GetContextRequest(agent_id=agent_id, conversation_id=conversation_id)
        return await self._contexts.GetContext(request, timeout=TIMEOUT)

    async def set_system(self, agent_id: str, conversation_id: str, text: str) -> None:
        """Replace the system prompt that opens a conversation."""
        request = pb.SetSystemMessageRequest(agent_id=agent_id, conversation_id=conversation_id, text=text)
        await self._contexts.SetSystemMessage(request, timeout=TIMEOUT)

    async def attach_block(self, agent_id: str, block_id: str) -> None:
        """Attach a block."""
        request = pb.AttachBlockRequest(agent_id=agent_id, block_id=block_id)
        await self._contexts.AttachBlock(request, timeout=TIMEOUT)

    async def detach_block(self, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        request = pb.DetachBlockRequest(agent_id=agent_id, block_id=block_id)
        await self._contexts.DetachBlock(request, timeout=TIMEOUT)

    async def attach_folder(self, request: agent_file_service_pb2.AttachFolderRequest) -> None:
        """Attach a folder."""
        await self._files.AttachFolder(request, timeout=TIMEOUT)

    async def detach_folder(self, agent_id: str, folder_id: str) -> None:
        """Detach a folder."""
        request = agent_file_service_pb2.DetachFolderRequest(agent_id=agent_id, folder_id=folder_id)
        await self._files.DetachFolder(request, timeout=TIMEOUT)

    async def delete_folder(self, folder_id: str) -> None:
        """Remove a folder, and take it from its agents."""
        await self._folders.DeleteFolder(folder_service_pb2.DeleteFolderRequest(folder_id=folder_id), timeout=TIMEOUT)

    async def folder_losses(self, organization_id: str, after: int) -> Sequence[FolderLoss]:
        """Return some of the agents that lost their last folder, of an organization or all, after a position."""
        request = agent_file_service_pb2.ListFolderLossesRequest(organization_id=organization_id, after=after)
        return (await self._files.ListFolderLosses(request, timeout=TIMEOUT)).losses

    async def forget_folder_losses(self, positions: Sequence[int]) -> None:
        """Forget that agents lost their last folder."""
        request = agent_file_service_pb2.ForgetFolderLossesRequest(positions=positions)
        await self._files.ForgetFolderLosses(request, timeout=TIMEOUT)

    async def set_file_limits(self, request: agent_file_service_pb2.SetFileLimitsRequest) -> None:
        """Set how many files an agent may have open, and how much it sees of each."""
        await self._files.SetFileLimits(request, timeout=TIMEOUT)

    async def open_files(
        self, request: agent_file_service_pb2.OpenFilesRequest
    ) -> agent_file_service_pb2.OpenFilesResponse:
        """Open files, all or none, once for each key."""
        return await patiently(lambda: self._files.OpenFiles(request, timeout=TIMEOUT), what="OpenFiles")

    async def grep_files(
        self, request: agent_file_service_pb2.GrepFilesRequest
    ) -> agent_file_service_pb2.GrepFilesResponse:
        """Find lines of an agent's files."""
        return await patiently(
            # A search that used up its time would use it up again.
            lambda: self._files.GrepFiles(request, timeout=GREP_TIMEOUT),
            over=AWAY,
            what="GrepFiles",
        )

    async def search_files(
        self, request: agent_file_service_pb2.SearchFilesRequest
    ) -> agent_file_service_pb2.SearchFilesResponse:
        """Search the chunks of an agent's files, best first."""
        return await patiently(lambda: self._files.SearchFiles(request, timeout=TIMEOUT), what="SearchFiles")
