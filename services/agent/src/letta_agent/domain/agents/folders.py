"""The folders of agents: how much of their files an agent sees, and the tools that come and go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from letta.compat.v1.agent_pb2 import FileBlock
from letta.memory.v1.agent_file_service_pb2 import AttachFolderRequest, SetFileLimitsRequest
from letta_agent.domain.agents.records import Agent, AgentPeers, AgentStore, StoredAgent
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_agent.domain.peers.memory import Directories, FolderLoss
from letta_common.actor import Actor, acting_as
from letta_common.clock import Clock
from letta_common.errors import AgentNotFound, AppError, StaleEtag
from letta_common.values.ids import derived_id

FILE_TOOLS = ("open_files", "grep_files", "semantic_search_files")
_ATTEMPTS = 10  # how often an agent is read again because another one was faster
_log = structlog.get_logger("letta.agent.folders")
FILES_OPEN, VIEW_CHARS = 10, 25_000
"""Limits of agents that were told none, as the contract says."""
LIMITS = frozenset({"max_files_open", "per_file_view_window_char_limit"})
"""Fields of an agent that limit what it sees of files."""


def limits_of(state: Agent) -> SetFileLimitsRequest:
    """Return how many files an agent may have open, and how much it sees of each."""
    told = {name: getattr(state, name) for name in LIMITS if state.HasField(name)}  # type: ignore[arg-type]
    return SetFileLimitsRequest(
        agent_id=state.id,
        max_files_open=told.get("max_files_open", FILES_OPEN),
        view_char_limit=told.get("per_file_view_window_char_limit", VIEW_CHARS),
    )


def attachment(state: Agent, folder_id: str) -> AttachFolderRequest:
    """Return what memory is asked so that an agent gets a folder."""
    limits = limits_of(state)
    return AttachFolderRequest(
        agent_id=state.id,
        folder_id=folder_id,
        max_files_open=limits.max_files_open,
        view_char_limit=limits.view_char_limit,
    )


class FolderTools:
    """Sees to it that agents have the tools that read files while they have folders.

    Memory has the folders and this service the tools, so a loss is kept in memory until the tools are gone: neither a
    crash in between nor somebody who attaches a folder meanwhile leaves an agent with what does not fit.
    """

    def __init__(self, store: AgentStore, peers: AgentPeers, clock: Clock) -> None:
        self._store = store
        self._memory = peers.memory
        self._tools = peers.tools
        self._clock = clock

    async def fit(self, actor: Actor, agent_id: str) -> None:
        """Give the tools to an agent with folders, and take them from one without. Raises AgentNotFound, StaleEtag."""
        reading = tuple(tool.id for tool in await self._tools.resolve((), FILE_TOOLS))
        for _ in range(_ATTEMPTS):
            agent = await self._store.get(actor, agent_id)
            # Asked again after each write, so that of two that write at once the late one sees the folders as they are.
            memories = await self._memory.memories([agent_id], blocks=False, folders=True)
            has_folders = agent_id in memories and bool(memories[agent_id].folders)
            if has_folders:
                wanted = tuple(dict.fromkeys((*agent.tool_ids, *reading)))
            else:
                wanted = tuple(tool_id for tool_id in agent.tool_ids if tool_id not in reading)
            if wanted == agent.tool_ids:
                return
            await self._store.update(actor, self._changed(actor, agent, wanted), expected=agent.version)
        raise StaleEtag(f"agent {agent_id} changed while it was being changed", agent_id=agent_id)

    async def settle(self, actor: Actor) -> None:
        """Take the tools from the agents of an organization that lost their last folder."""
        after = 0
        while losses := await self._memory.folder_losses(actor.organization_id, after):
            after = losses[-1].position
            settled = [loss.position for loss in losses if await self._settled(actor, loss.agent_id)]
            await self._memory.forget_folder_losses(settled)

    async def settle_all(self, credentials: CredentialPeer) -> None:
        """Do so for all organizations, with what a crash left."""
        after = 0
        while losses := await self._losses_of_all(after):
            after = losses[-1].position
            for loss in losses:
                await self._settle_left(credentials, loss)

    async def _losses_of_all(self, after: int) -> Sequence[FolderLoss]:
        with acting_as(b""):
            return await self._memory.folder_losses("", after)

    async def _settle_left(self, credentials: CredentialPeer, loss: FolderLoss) -> None:
        try:
            agent = await self._store.get(Actor(loss.organization_id, ""), loss.agent_id)
            actor = Actor(loss.organization_id, agent.created_by)
            passport = Passport(credentials, self._clock, actor, derived_id("run", "sweep", agent.id))
            with acting_as(await passport.signed()):
                await self.fit(actor, agent.id)
                await self._memory.forget_folder_losses([loss.position])
        except AgentNotFound:
            return
        except AppError as error:
            _log.warning(
                "agent still has tools without folders",
                agent_id=loss.agent_id,
                reason=error.reason,
                message=error.message,
            )

    async def _settled(self, actor: Actor, agent_id: str) -> bool:
        """Fit an agent; one that is not there yet, or is being removed, is left for later."""
        try:
            await self.fit(actor, agent_id)
        except AgentNotFound:
            return False
        return True

    def _changed(self, actor: Actor, agent: StoredAgent, tool_ids: tuple[str, ...]) -> StoredAgent:
        state = Agent()
        state.CopyFrom(agent.state)
        state.last_updated_by_id = actor.user_id
        state.updated_at.FromDatetime(self._clock.now())
        return replace(agent, state=state, tool_ids=tool_ids, version=agent.version + 1)


def file_blocks(directories: Directories) -> list[FileBlock]:
    """Return the files of an agent as older clients read them."""
    return [
        FileBlock(
            value=file.view,
            limit=directories.view_char_limit,
            label=file.name,
            id=file.id,
            file_id=file.file_id,
            source_id=file.folder_id,
            is_open=file.HasField("view"),
            last_accessed_at=file.last_accessed_at if file.HasField("last_accessed_at") else None,
        )
        for directory in directories.directories
        for file in directory.files
    ]
