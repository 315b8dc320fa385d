"""What documents of agents need of the memory service's folders, files and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from letta.memory.v1 import agent_file_pb2, file_pb2, folder_service_pb2

AgentFile = agent_file_pb2.AgentFile
CreateFolderRequest = folder_service_pb2.CreateFolderRequest
File = file_pb2.File


class FolderPeer(Protocol):
    """The memory service."""

    async def create(self, request: CreateFolderRequest) -> str:
        """Make a folder; return its id. Raises AlreadyExists when its name is taken."""
        ...

    async def delete(self, folder_id: str) -> None:
        """Remove a folder with its files. Raises FolderNotFound."""
        ...

    async def put_text(self, folder_id: str, name: str, text: str, request_id: str) -> None:
        """Put a text into a folder as a file, once for each key; it is read in the background."""
        ...

    async def texts(self, folder_id: str) -> Sequence[File]:
        """Return the files of a folder with their texts, oldest first. Raises FolderNotFound."""
        ...

    async def of_agent(self, agent_id: str) -> Sequence[AgentFile]:
        """Return the files of an agent as it has them."""
        ...

    async def delete_block(self, block_id: str) -> None:
        """Remove a block. Raises BlockNotFound."""
        ...
