"""Makes the agents of a document: all of them, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from letta.tools.v1 import tool_pb2
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.kinds import require_kind
from letta_agent.domain.agents.records import AgentDraft, AgentPeers
from letta_agent.domain.peers.folders import CreateFolderRequest, FolderPeer
from letta_agent.domain.peers.memory import Block
from letta_agent.domain.peers.tools import Tool
from letta_common.actor import Actor, acting_as, current_request
from letta_common.errors import AlreadyExists, AppError, ToolNameTaken

_NAMES = 100  # names tried for a folder before it is given up
_log = structlog.get_logger("letta.agent.bundles")


@dataclass(frozen=True, slots=True)
class NewFolder:
    """A folder of a document."""

    request: CreateFolderRequest
    texts: Sequence[tuple[str, str]] = ()
    """Names and texts of its files."""


@dataclass(frozen=True, slots=True)
class NewAgent:
    """An agent of a document, and what it has of the rest of the document, by the ids that are used there."""

    id: str
    draft: AgentDraft
    tool_ids: Sequence[str] = ()
    block_ids: Sequence[str] = ()
    folder_ids: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AgentDocument:
    """What is to be made, by the ids of the document."""

    agents: Sequence[NewAgent]
    blocks: Mapping[str, Block] = field(default_factory=dict)
    folders: Mapping[str, NewFolder] = field(default_factory=dict)
    tools: Mapping[str, Tool] = field(default_factory=dict)
    """Tools that come with the document."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Names of the tools that this deployment is to have."""
    overwrite: bool = True
    """Tools of these names that are there already are overwritten."""
    request_id: str = ""
    """Key of the request: a repeat goes on with what the first one made."""


@dataclass(slots=True)
class Made:
    """What was made so far."""

    agent_ids: list[str] = field(default_factory=list)
    omitted: list[str] = field(default_factory=list)
    tool_by_id: dict[str, str] = field(default_factory=dict)
    folder_by_id: dict[str, str] = field(default_factory=dict)
    block_by_id: dict[str, str] = field(default_factory=dict)
    """What has the id here that the document gives another one."""
    own_blocks: list[str] = field(default_factory=list)
    """Blocks that the document has within an agent."""


class Importer:
    """Makes agents of documents."""

    def __init__(self, agents: Agents, peers: AgentPeers, folders: FolderPeer) -> None:
        self._agents = agents
        self._models = peers.models
        self._tools = peers.tools
        self._folders = folders

    async def make(self, actor: Actor, document: AgentDocument) -> Made:
        """Make the agents.

        Raises:
            ModelNotFound: an agent's model is unknown here.
            ToolNameTaken: a tool of this deployment, not a custom one, has the name of one of the document.
            ToolSourceInvalid: the source of a tool cannot be read.
        """
        made = Made()
        await self._check(actor, document)
        await self._add_tools(document, made)
        try:
            for folder_id, folder in document.folders.items():
                await self._add_folder(folder_id, folder, _key(document.request_id, folder_id), made)
            for agent in document.agents:
                await self._add_agent(actor, agent, document.blocks, made)
        except BaseException:
            # With a key it may be what an earlier request made, and the next one goes on with it.
            if not document.request_id:
                # The time of the request may be over.
                with acting_as(current_request().signed_actor):
                    await self._take_back(actor, made)
            raise
        return made

    async def _check(self, actor: Actor, document: AgentDocument) -> None:
        """Refuse what cannot be made before anything is."""
        for agent in document.agents:
            require_kind(agent.draft.state.agent_type)
            if document.request_id:
                await self._agents.require_unused(actor, agent.draft)
        for model in dict.fromkeys(agent.draft.model for agent in document.agents):
            await self._models.model(model)
        for embedding in dict.fromkeys(agent.draft.embedding for agent in document.agents):
            if embedding:
                await self._models.embedding_model(embedding)

    async def _add_tools(self, document: AgentDocument, made: Made) -> None:
        wanted = {tool_id: tool.name for tool_id, tool in document.tools.items()} | {**document.names}
        there = {tool.name: tool for tool in await self._tools.find(tuple(dict.fromkeys(wanted.values())))}
        for tool in document.tools.values():
            known = there.get(tool.name)
            if known is not None and known.tool_type != tool_pb2.TOOL_TYPE_CUSTOM:
                text = f"`{tool.name}` is a tool of this deployment; rename the one of the document"
                raise ToolNameTaken(text, name=tool.name)
        for tool_id, name in document.names.items():
            if name in there:
                made.tool_by_id[tool_id] = there[name].id
            else:
                made.omitted.append(f"tool {name}: there is none of this name here; add it, and attach it")
        for tool_id, tool in document.tools.items():
            known = None if document.overwrite else there.get(tool.name)
            made.tool_by_id[tool_id] = known.id if known else (await self._tools.put(tool)).id

    async def _add_folder(self, known_as: str, folder: NewFolder, key: str, made: Made) -> None:
        folder_id = await self._named(folder.request, key)
        made.folder_by_id[known_as] = folder_id
        for place, (name, text) in enumerate(folder.texts):
            await self._folders.put_text(folder_id, name, text, _key(key, str(place)))

    async def _named(self, request: CreateFolderRequest, key: str) -> str:
        """Make a folder under its name, or under the next one that is free."""
        name = request.name
        for number in range(1, _NAMES):
            # A name of its own is a request of its own, or a repeat would be taken for another one.
            request.request_id = _key(key, str(number))
            try:
                return await self._folders.create(request)
            except AlreadyExists:
                request.name = f"{name[:240]} ({number + 1})"
        return await self._folders.create(request)

    async def _add_agent(self, actor: Actor, agent: NewAgent, blocks: Mapping[str, Block], made: Made) -> None:
        new = {block_id: blocks[block_id] for block_id in agent.block_ids if block_id not in made.block_by_id}
        draft = replace(
            agent.draft,
            tool_ids=tuple(made.tool_by_id[tool_id] for tool_id in agent.tool_ids if tool_id in made.tool_by_id),
            block_ids=tuple(made.block_by_id[block_id] for block_id in agent.block_ids if block_id in made.block_by_id),
            folder_ids=tuple(made.folder_by_id[folder_id] for folder_id in agent.folder_ids),
            new_blocks=(*agent.draft.new_blocks, *new.values()),
        )
        shown = await self._agents.create(actor, draft)
        made.agent_ids.append(shown.id)
        ids = {block.label: block.id for block in shown.blocks}
        made.block_by_id |= {block_id: ids[block.label] for block_id, block in new.items()}
        made.own_blocks += [ids[block.label] for block in agent.draft.new_blocks]

    async def _take_back(self, actor: Actor, made: Made) -> None:
        """Remove what was made; what cannot be removed is left and told in the log."""
        removals = [self._agents.delete(actor, agent_id) for agent_id in made.agent_ids]
        removals += [
            self._folders.delete_block(block_id) for block_id in (*made.block_by_id.values(), *made.own_blocks)
        ]
        removals += [self._folders.delete(folder_id) for folder_id in made.folder_by_id.values()]
        for removal in removals:
            try:
                await removal
            except AppError as error:
                _log.warning("part of a failed import is left", reason=error.reason, message=error.message)


def _key(request_id: str, of: str) -> str:
    """Return the key of a part of a request; none where the request has none."""
    return f"{request_id}/{of}" if request_id else ""
