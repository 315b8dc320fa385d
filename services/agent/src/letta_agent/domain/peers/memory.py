"""What the rules need of the memory service."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from letta.agent.v1.agent_service_pb2 import CountAgentsRequest, ListAgentsRequest
from letta.common.v1 import letta_message_pb2, message_pb2
from letta.memory.v1 import agent_file_pb2, agent_file_service_pb2, block_pb2, message_service_pb2, passage_service_pb2
from letta.memory.v1 import context_service_pb2 as pb

Block = block_pb2.Block
Directories = agent_file_pb2.Directories
FolderLoss = agent_file_service_pb2.FolderLoss
LettaMessage = letta_message_pb2.LettaMessage
Message = message_pb2.Message


class MemoryPeer(Protocol):
    """The memory service."""

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
        """Make the memory of an agent; a repeat changes nothing. Raises BlockNotFound."""
        ...

    async def set_embedding(self, agent_id: str, embedding: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew."""
        ...

    async def deprovision(self, agent_id: str) -> None:
        """Remove what belongs to an agent alone; a repeat changes nothing."""
        ...

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
        """Make the memory of a further conversation; return the copies of blocks made.

        It begins with the context of its source, if it has one, up to a message if one is named.

        Raises:
            BlockNotFound: the agent has no block of a label.
            ConversationNotFound, MessageNotFound: the source is none, or has no such message in context.
        """
        ...

    async def deprovision_conversation(self, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation; a repeat changes nothing."""
        ...

    async def begin_step(self, organization_id: str, request: pb.BeginStepRequest) -> pb.BeginStepResponse:
        """Raise the fence, append the input once, return the context. Raises Fenced."""
        ...

    async def withdraw_input(self, request: pb.WithdrawInputRequest) -> pb.WithdrawInputResponse:
        """Take back the input of a run without committed steps; say whether there was any. Raises Fenced."""
        ...

    async def commit_step(self, request: pb.CommitStepRequest) -> pb.CommitStepResponse:
        """Append the messages of a step once. Raises Fenced."""
        ...

    async def edit_block(self, request: pb.EditBlockRequest) -> pb.EditBlockResponse:
        """Edit a block once for each key. Raises the errors of blocks and edits, and Fenced."""
        ...

    async def insert_passage(self, request: passage_service_pb2.CreateArchivalMemoryRequest) -> None:
        """Store a text in the agent's archive, once for each key."""
        ...

    async def search_passages(
        self, request: passage_service_pb2.SearchArchivalMemoryRequest
    ) -> passage_service_pb2.SearchArchivalMemoryResponse:
        """Search the agent's archive, best first."""
        ...

    async def search_messages(
        self, request: message_service_pb2.SearchStoredMessagesRequest
    ) -> message_service_pb2.SearchStoredMessagesResponse:
        """Search the messages of the agent, best first."""
        ...

    async def run_messages(self, run_id: str) -> Sequence[LettaMessage]:
        """Return what a client sees of the messages that a run made, input excepted, in order."""
        ...

    async def memories(
        self, agent_ids: Sequence[str], *, blocks: bool, folders: bool = False, identities: bool = False
    ) -> dict[str, pb.AgentMemory]:
        """Return what agents keep in memory; with their folders also what a single one sees of files."""
        ...

    async def agents_with(self, wanted: ListAgentsRequest | CountAgentsRequest) -> Collection[str] | None:
        """Return the agents that have what a list names of memory, None where it names nothing of it.

        Raises:
            BlockNotFound, ArchiveNotFound, IdentityNotFound: there is no such thing.
        """
        ...

    async def set_identities(self, agent_id: str, identity_ids: Sequence[str]) -> None:
        """Set all the identities that an agent belongs to. Raises IdentityNotFound."""
        ...

    async def reset(self, request: pb.ResetConversationRequest) -> None:
        """Forget the messages of a conversation and begin anew with these. Raises Fenced."""
        ...

    async def context(self, agent_id: str, conversation_id: str) -> pb.GetContextResponse:
        """Return the context of a conversation, changing nothing. Raises ConversationNotFound."""
        ...

    async def set_system(self, agent_id: str, conversation_id: str, text: str) -> None:
        """Replace the system prompt that opens a conversation. Raises ConversationNotFound."""
        ...

    async def attach_block(self, agent_id: str, block_id: str) -> None:
        """Attach a block. Raises BlockNotFound and BlockLabelTaken."""
        ...

    async def detach_block(self, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        ...

    async def attach_folder(self, request: agent_file_service_pb2.AttachFolderRequest) -> None:
        """Attach a folder; a repeat changes nothing. Raises FolderNotFound."""
        ...

    async def detach_folder(self, agent_id: str, folder_id: str) -> None:
        """Detach a folder; a repeat changes nothing. Raises FolderNotFound."""
        ...

    async def delete_folder(self, folder_id: str) -> None:
        """Remove a folder, and take it from its agents. Raises FolderNotFound."""
        ...

    async def folder_losses(self, organization_id: str, after: int) -> Sequence[FolderLoss]:
        """Return some of the agents that lost their last folder, of an organization or all, after a position."""
        ...

    async def forget_folder_losses(self, positions: Sequence[int]) -> None:
        """Forget that agents lost their last folder."""
        ...

    async def set_file_limits(self, request: agent_file_service_pb2.SetFileLimitsRequest) -> None:
        """Set how many files an agent may have open, and how much it sees of each."""
        ...

    async def open_files(
        self, request: agent_file_service_pb2.OpenFilesRequest
    ) -> agent_file_service_pb2.OpenFilesResponse:
        """Open files, all or none, once for each key. Raises FileNotFound, InvalidArgument and Fenced."""
        ...

    async def grep_files(
        self, request: agent_file_service_pb2.GrepFilesRequest
    ) -> agent_file_service_pb2.GrepFilesResponse:
        """Find lines of an agent's files. Raises InvalidArgument and RateLimited."""
        ...

    async def search_files(
        self, request: agent_file_service_pb2.SearchFilesRequest
    ) -> agent_file_service_pb2.SearchFilesResponse:
        """Search the chunks of an agent's files, best first."""
        ...
