"""FileService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from letta.memory.v1 import file_service_pb2 as pb
from letta.memory.v1 import file_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_memory.domain.files import Files
from letta_memory.domain.uploads import Uploads, UploadStore, upload_id

Call = grpc.aio.ServicerContext[Any, Any]


class FileServicer(file_service_pb2_grpc.FileServiceServicer):
    """Serves the files of folders."""

    def __init__(self, files: Files, uploads: Uploads, store: UploadStore) -> None:
        self._files = files
        self._uploads = uploads
        self._store = store

    async def UploadFile(
        self, request_iterator: AsyncIterator[pb.UploadFileRequest], context: Call
    ) -> pb.UploadFileResponse:
        return pb.UploadFileResponse(file=await self._uploads.take(current_actor(), request_iterator))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Call) -> pb.GetUploadResponse:
        actor = current_actor()
        file_id = upload_id(actor, request.folder_id, request.request_id)
        return await self._store.get_upload(actor, request.folder_id, file_id)

    async def GetFileStorage(self, request: pb.GetFileStorageRequest, context: Call) -> pb.GetFileStorageResponse:
        return await self._store.get_storage(current_actor())

    async def GetFile(self, request: pb.GetFileRequest, context: Call) -> pb.GetFileResponse:
        file = await self._files.get(
            current_actor(), request.folder_id, request.file_id, content=request.include_content
        )
        return pb.GetFileResponse(file=file)

    async def DownloadFile(
        self, request: pb.DownloadFileRequest, context: Call
    ) -> AsyncIterator[pb.DownloadFileResponse]:
        async for part in self._uploads.parts_of(current_actor(), request.folder_id, request.file_id):
            yield pb.DownloadFileResponse(content=part)

    async def ListFiles(self, request: pb.ListFilesRequest, context: Call) -> pb.ListFilesResponse:
        found = await self._files.list_files(
            current_actor(), request.folder_id, Page.of(request), content=request.include_content
        )
        return pb.ListFilesResponse(files=found)

    async def DeleteFile(self, request: pb.DeleteFileRequest, context: Call) -> pb.DeleteFileResponse:
        await self._files.delete(current_actor(), request.folder_id, request.file_id)
        return pb.DeleteFileResponse()
