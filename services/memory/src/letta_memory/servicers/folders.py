"""FolderService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import folder_service_pb2 as pb
from letta.memory.v1 import folder_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_memory.domain.folders import Folders, FolderStore
from letta_memory.domain.passages import PassageStore
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class FolderServicer(folder_service_pb2_grpc.FolderServiceServicer):
    """Serves folders."""

    def __init__(self, folders: Folders, store: FolderStore, passages: PassageStore, digests: Digests) -> None:
        self._folders = folders
        self._store = store
        self._passages = passages
        self._digests = digests

    async def CreateFolder(self, request: pb.CreateFolderRequest, context: Call) -> pb.CreateFolderResponse:
        folder = await self._folders.create(current_actor(), request, self._digests.of(request))
        return pb.CreateFolderResponse(folder=folder)

    async def GetFolder(self, request: pb.GetFolderRequest, context: Call) -> pb.GetFolderResponse:
        return pb.GetFolderResponse(folder=await self._store.get(current_actor(), request.folder_id))

    async def GetFolderId(self, request: pb.GetFolderIdRequest, context: Call) -> pb.GetFolderIdResponse:
        return pb.GetFolderIdResponse(folder_id=await self._store.get_id(current_actor(), request.folder_name))

    async def ListFolders(self, request: pb.ListFoldersRequest, context: Call) -> pb.ListFoldersResponse:
        found = await self._store.list_folders(current_actor(), Page.of(request), name=request.name)
        return pb.ListFoldersResponse(folders=found)

    async def CountFolders(self, request: pb.CountFoldersRequest, context: Call) -> pb.CountFoldersResponse:
        return pb.CountFoldersResponse(count=await self._store.count(current_actor()))

    async def GetFolderStatistics(
        self, request: pb.GetFolderStatisticsRequest, context: Call
    ) -> pb.GetFolderStatisticsResponse:
        return await self._store.get_statistics(current_actor(), detailed=request.include_files)

    async def UpdateFolder(self, request: pb.UpdateFolderRequest, context: Call) -> pb.UpdateFolderResponse:
        changes = changed_values(request.folder, request.update_mask)
        folder = await self._folders.update(current_actor(), request.folder_id, changes)
        return pb.UpdateFolderResponse(folder=folder)

    async def DeleteFolder(self, request: pb.DeleteFolderRequest, context: Call) -> pb.DeleteFolderResponse:
        await self._store.delete(current_actor(), request.folder_id)
        return pb.DeleteFolderResponse()

    async def ListFolderAgentIds(
        self, request: pb.ListFolderAgentIdsRequest, context: Call
    ) -> pb.ListFolderAgentIdsResponse:
        found = await self._store.list_agent_ids(current_actor(), request.folder_id, Page.of(request))
        return pb.ListFolderAgentIdsResponse(agent_ids=found)

    async def ListFolderPassages(
        self, request: pb.ListFolderPassagesRequest, context: Call
    ) -> pb.ListFolderPassagesResponse:
        found = await self._passages.list_of_folder(current_actor(), request.folder_id, Page.of(request))
        return pb.ListFolderPassagesResponse(passages=found)
