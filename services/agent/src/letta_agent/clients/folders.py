"""Folders, files and blocks of the memory service. Requests and answers pass as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc.aio

from letta.common.v1 import sort_order_pb2
from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1 import (
    agent_file_service_pb2,
    agent_file_service_pb2_grpc,
    block_service_pb2,
    block_service_pb2_grpc,
    file_service_pb2,
    file_service_pb2_grpc,
    folder_service_pb2,
    folder_service_pb2_grpc,
)
from letta_agent.domain.peers.folders import AgentFile, CreateFolderRequest, File

TIMEOUT = 30.0
_PAGE = 100  # files of one answer, so that their texts fit into it
_MOST = 1_000  # the most that a page may have
_PIECE = 1 << 20  # bytes of a text in one message


class FolderClient:
    """Folders over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._agent_files = agent_file_service_pb2_grpc.AgentFileServiceStub(channel)
        self._blocks = block_service_pb2_grpc.BlockServiceStub(channel)
        self._files = file_service_pb2_grpc.FileServiceStub(channel)
        self._folders = folder_service_pb2_grpc.FolderServiceStub(channel)

    async def create(self, request: CreateFolderRequest) -> str:
        """Make a folder; return its id."""
        return (await self._folders.CreateFolder(request, timeout=TIMEOUT)).folder.id

    async def delete(self, folder_id: str) -> None:
        """Remove a folder with its files."""
        await self._folders.DeleteFolder(folder_service_pb2.DeleteFolderRequest(folder_id=folder_id), timeout=TIMEOUT)

    async def put_text(self, folder_id: str, name: str, text: str, request_id: str) -> None:
        """Put a text into a folder as a file, once for each key."""
        await self._files.UploadFile(_pieces(folder_id, name, text.encode(), request_id), timeout=TIMEOUT)

    async def texts(self, folder_id: str) -> Sequence[File]:
        """Return the files of a folder with their texts, oldest first."""
        found: list[File] = []
        while True:
            request = file_service_pb2.ListFilesRequest(
                folder_id=folder_id,
                after=found[-1].id if found else "",
                limit=_PAGE,
                order=sort_order_pb2.SORT_ORDER_ASC,
                include_content=True,
            )
            page = (await self._files.ListFiles(request, timeout=TIMEOUT)).files
            found.extend(page)
            # A page may be shorter than asked for, where the texts are long.
            if not page:
                return found

    async def of_agent(self, agent_id: str) -> Sequence[AgentFile]:
        """Return the files of an agent as it has them."""
        request = agent_file_service_pb2.ListAgentFilesRequest(agent_id=agent_id, limit=_MOST)
        return (await self._agent_files.ListAgentFiles(request, timeout=TIMEOUT)).files

    async def delete_block(self, block_id: str) -> None:
        """Remove a block."""
        await self._blocks.DeleteBlock(block_service_pb2.DeleteBlockRequest(block_id=block_id), timeout=TIMEOUT)


def _pieces(folder_id: str, name: str, data: bytes, request_id: str) -> Iterator[file_service_pb2.UploadFileRequest]:
    for start in range(0, len(data) or 1, _PIECE):
        file = UploadedFile(
            file_name=name, content_type="text/plain", content=data[start : start + _PIECE], size=len(data)
        )
        yield file_service_pb2.UploadFileRequest(folder_id=folder_id, file=file, request_id=request_id)
