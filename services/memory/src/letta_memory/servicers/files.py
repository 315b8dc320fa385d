"""FileService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import file_service_pb2 as pb
from letta.memory.v1 import file_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_memory.domain.files import Files

Call = grpc.aio.ServicerContext[Any, Any]


class FileServicer(file_service_pb2_grpc.FileServiceServicer):
    """Serves the files of folders."""

    def __init__(self, files: Files) -> None:
        self._files = files

    async def GetFile(self, request: pb.GetFileRequest, context: Call) -> pb.GetFileResponse:
        file = await self._files.get(
            current_actor(), request.folder_id, request.file_id, content=request.include_content
        )
        return pb.GetFileResponse(file=file)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Call) -> pb.ListFilesResponse:
        found = await self._files.list_files(
            current_actor(), request.folder_id, Page.of(request), content=request.include_content
        )
        return pb.ListFilesResponse(files=found)

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Call) -> pb.DeleteFileResponse:
        await self._files.delete(current_actor(), request.folder_id, request.file_id)
        return pb.DeleteFileResponse()
