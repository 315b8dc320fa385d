"""AgentFileService."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc.aio

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1 import agent_file_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.clock import Clock
from letta_common.values.paging import Page
from letta_memory.domain.reading.agent_files import AgentFiles, AgentFileStore, FileLimits, FolderLossStore, file_cursor

Call = grpc.aio.ServicerContext[Any, Any]


class AgentFileServicer(agent_file_service_pb2_grpc.AgentFileServiceServicer):
    """Serves what agents see of files."""

    def __init__(self, agent_files: AgentFiles, store: AgentFileStore, losses: FolderLossStore, clock: Clock) -> None:
        self._agent_files = agent_files
        self._store = store
        self._losses = losses
        self._clock = clock

    async def AttachFolder(self, request: pb.AttachFolderRequest, context: Call) -> pb.AttachFolderResponse:
        limits = _limits(request)
        await self._store.attach_folder(current_actor(), request.agent_id, request.folder_id, limits)
        return pb.AttachFolderResponse()

    async def DetachFolder(self, request: pb.DetachFolderRequest, context: Call) -> pb.DetachFolderResponse:
        await self._store.detach_folder(current_actor(), request.agent_id, request.folder_id)
        return pb.DetachFolderResponse()

    async def ListFolderLosses(self, request: pb.ListFolderLossesRequest, context: Call) -> pb.ListFolderLossesResponse:
        return pb.ListFolderLossesResponse(
            losses=await self._losses.list_losses(request.organization_id, request.after)
        )

    async def ForgetFolderLosses(
        self, request: pb.ForgetFolderLossesRequest, context: Call
    ) -> pb.ForgetFolderLossesResponse:
        await self._losses.forget_losses(current_actor(), request.positions)
        return pb.ForgetFolderLossesResponse()

    async def SetFileLimits(self, request: pb.SetFileLimitsRequest, context: Call) -> pb.SetFileLimitsResponse:
        await self._store.set_limits(current_actor(), request.agent_id, _limits(request))
        return pb.SetFileLimitsResponse()

    async def ListAgentFolders(self, request: pb.ListAgentFoldersRequest, context: Call) -> pb.ListAgentFoldersResponse:
        found = await self._store.list_folders(current_actor(), request.agent_id, Page.of(request))
        return pb.ListAgentFoldersResponse(folders=found)

    async def ListAgentFiles(self, request: pb.ListAgentFilesRequest, context: Call) -> pb.ListAgentFilesResponse:
        request.after = file_cursor(request.after or request.cursor)
        request.before = file_cursor(request.before)
        page = Page.of(request)
        is_open = request.is_open if request.HasField("is_open") else None
        # One more than is shown, which tells whether more follow.
        found = await self._store.list_files(
            current_actor(), request.agent_id, replace(page, limit=page.limit + 1), is_open=is_open
        )
        shown = (found[-page.limit :] if page.backwards else found[: page.limit]) if len(found) > page.limit else found
        answer = pb.ListAgentFilesResponse(files=shown, has_more=len(found) > page.limit)
        if shown:
            answer.next_cursor = shown[-1].id
        return answer

    async def OpenFile(self, request: pb.OpenFileRequest, context: Call) -> pb.OpenFileResponse:
        closed = await self._store.open_file(current_actor(), request.agent_id, request.file_id, self._clock.now())
        return pb.OpenFileResponse(closed_file_names=closed)

    async def CloseFile(self, request: pb.CloseFileRequest, context: Call) -> pb.CloseFileResponse:
        await self._store.close_file(current_actor(), request.agent_id, request.file_id)
        return pb.CloseFileResponse(message=f"File id={request.file_id} successfully closed")

    async def CloseAllFiles(self, request: pb.CloseAllFilesRequest, context: Call) -> pb.CloseAllFilesResponse:
        closed = await self._store.close_files(current_actor(), request.agent_id)
        return pb.CloseAllFilesResponse(closed_file_names=closed)

    async def OpenFiles(self, request: pb.OpenFilesRequest, context: Call) -> pb.OpenFilesResponse:
        return await self._store.open_files(current_actor(), request, self._clock.now())

    async def GrepFiles(self, request: pb.GrepFilesRequest, context: Call) -> pb.GrepFilesResponse:
        return await self._agent_files.grep(current_actor(), request)

    async def SearchFiles(self, request: pb.SearchFilesRequest, context: Call) -> pb.SearchFilesResponse:
        return pb.SearchFilesResponse(results=await self._agent_files.search(current_actor(), request))


def _limits(request: pb.AttachFolderRequest | pb.SetFileLimitsRequest) -> FileLimits:
    return FileLimits(request.max_files_open, request.view_char_limit)
