"""AgentFileService: which agents lost their last folder, until somebody has seen to it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from letta.memory.v1 import agent_file_service_pb2 as pb
from letta.memory.v1 import context_service_pb2, folder_service_pb2


class Shelf:
    """An agent, and the folders that it is given."""

    def __init__(self, memory: Any, agent_id: str) -> None:
        self.memory, self.agent_id = memory, agent_id

    async def folder(self) -> str:
        """Make a folder and give it to the agent."""
        request = folder_service_pb2.CreateFolderRequest(name=f"docs-{uuid4()}")
        folder_id = str((await self.memory.folders.CreateFolder(request, timeout=10)).folder.id)
        await self.attach(folder_id)
        return folder_id

    async def attach(self, folder_id: str) -> None:
        request = pb.AttachFolderRequest(agent_id=self.agent_id, folder_id=folder_id, max_files_open=5)
        await self.memory.agent_files.AttachFolder(request, timeout=10)

    async def detach(self, folder_id: str) -> None:
        request = pb.DetachFolderRequest(agent_id=self.agent_id, folder_id=folder_id)
        await self.memory.agent_files.DetachFolder(request, timeout=10)

    async def delete(self, folder_id: str) -> None:
        await self.memory.folders.DeleteFolder(folder_service_pb2.DeleteFolderRequest(folder_id=folder_id), timeout=10)

    async def losses(self, after: int = 0, organization_id: str = "org-a") -> list[pb.FolderLoss]:
        """Return the times that the agent lost its last folder."""
        request = pb.ListFolderLossesRequest(organization_id=organization_id, after=after)
        answer = await self.memory.agent_files.ListFolderLosses(request, timeout=10)
        return [loss for loss in answer.losses if loss.agent_id == self.agent_id]

    async def forget(self, *losses: pb.FolderLoss) -> None:
        request = pb.ForgetFolderLossesRequest(positions=[loss.position for loss in losses])
        await self.memory.agent_files.ForgetFolderLosses(request, timeout=10)


@pytest.fixture
async def shelf(memory: Any) -> Shelf:
    return Shelf(memory, await memory.agent())


async def test_that_the_last_folder_is_gone_is_kept_until_it_is_forgotten(shelf: Shelf) -> None:
    one, other = await shelf.folder(), await shelf.folder()
    await shelf.detach(one)
    assert await shelf.losses() == []
    await shelf.delete(other)
    [first] = await shelf.losses()
    assert await shelf.losses(organization_id="") == [first]
    assert (first.organization_id, await shelf.losses(after=first.position)) == ("org-a", [])
    assert await shelf.losses(organization_id="org-b") == []
    await shelf.attach(one)
    await shelf.detach(one)
    assert len(await shelf.losses()) == 2
    with shelf.memory.actor(shelf.memory.BOB):
        await shelf.forget(first)
    assert len(await shelf.losses()) == 2
    await shelf.forget(first)
    [second] = await shelf.losses()
    assert second.position > first.position
    await shelf.forget(first, second)
    assert await shelf.losses() == []


async def test_of_folders_that_go_at_once_one_is_the_last(shelf: Shelf) -> None:
    ids = [await shelf.folder() for _ in range(6)]
    await asyncio.gather(*(shelf.delete(each) for each in ids[:3]), *(shelf.detach(each) for each in ids[3:]))
    assert len(await shelf.losses()) == 1


async def test_an_agent_that_is_removed_lost_nothing(shelf: Shelf) -> None:
    await shelf.folder()
    gone = context_service_pb2.DeprovisionAgentRequest(agent_id=shelf.agent_id)
    await shelf.memory.contexts.DeprovisionAgent(gone, timeout=10)
    assert await shelf.losses() == []
