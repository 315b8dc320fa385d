"""Agents: made, changed and removed in steps that may be repeated, since their memory lives in another service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import structlog

from letta.agent.v1 import stored_pb2
from letta.common.v1 import message_pb2
from letta.memory.v1 import context_service_pb2 as memory_pb2
from letta_agent.domain.agents.folders import FILE_TOOLS, LIMITS, FolderTools, attachment, file_blocks, limits_of
from letta_agent.domain.agents.kinds import BASE_TOOLS, FORGETFUL, MULTI_AGENT_TOOLS, require_kind
from letta_agent.domain.agents.model_choice import clear_embedding, set_embedding, set_model
from letta_agent.domain.agents.names import random_name
from letta_agent.domain.agents.records import (
    ALL_PARTS,
    Agent,
    AgentDraft,
    AgentInclude,
    AgentPeers,
    AgentStore,
    Change,
    CountAgentsRequest,
    ListAgentsRequest,
    Parts,
    Stage,
    StoredAgent,
    Variable,
)
from letta_agent.domain.agents.tool_rules import add_approvals, add_base_rules, set_approval
from letta_agent.domain.context.system_prompt import compile_system, default_system, facts_of
from letta_agent.domain.journal.passports import Passport
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_agent.domain.peers.memory import Block, Message
from letta_agent.domain.peers.models import ContentPart
from letta_agent.domain.peers.secrets import SecretPeer
from letta_agent.domain.peers.tools import Tool
from letta_agent.domain.toolcalls.rules import ToolRules
from letta_common.actor import Actor, acting_as
from letta_common.clock import Clock
from letta_common.codes import Code
from letta_common.errors import AgentNotFound, AppError, ConversationBusy, Fenced, StaleEtag, ToolNotFound
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.repeats import require_same

StoredCreation = stored_pb2.StoredCreation
_ROLE = message_pb2.MessageRole
_COMPILED = frozenset({"system", "tool_rules", "block_ids", "folder_ids", "timezone"}) | LIMITS
"""With these the system prompt changes, also as it is stored."""
_ATTEMPTS = 5  # how often a change reads again because another one was faster
_log = structlog.get_logger("letta.agent.agents")

DEFAULT_LIMIT = 100_000  # characters of a block, as the contract says: the first prompt shows it before memory has it
_DESCRIPTIONS = {
    "persona": "Who you are: your name, your manner and what guides you.",
    "human": "Who you talk to: name, facts, preferences, and what you have agreed on.",
}


class Agents:
    """Operations on agents."""

    def __init__(self, store: AgentStore, peers: AgentPeers, secrets: SecretPeer, clock: Clock) -> None:
        self._store = store
        self._memory = peers.memory
        self._models = peers.models
        self._tools = peers.tools
        self._secrets = secrets
        self._clock = clock
        self._folder_tools = FolderTools(store, peers, clock)

    async def create(self, actor: Actor, draft: AgentDraft) -> Agent:
        """Make an agent with its memory.

        Raises:
            ModelNotFound, ToolNotFound, BlockNotFound, FolderNotFound: what it should use does not exist.
            IdempotencyConflict: another request had its key.
        """
        # Before anything is stored, so that an unknown tool leaves nothing behind.
        tools = await self._resolve(draft)
        agent, creation = await self._drafted(actor, draft, tools)
        if not await self._store.create(actor, agent):
            agent = await self._store.get_by_request(actor, draft.request_id)
            require_same(agent.request_hash, draft.request_hash)
            if agent.stage is Stage.READY:
                return await self.get(actor, agent.id, ALL_PARTS)
            # The first attempt's content: ids in it differ from those drafted now, and memory may have them already.
            creation = StoredCreation.FromString(agent.creation)
        memory = await self._provision(actor, agent, creation)
        return self._shown(actor, agent, ALL_PARTS, memory, tools)

    async def require_unused(self, actor: Actor, draft: AgentDraft) -> None:
        """Raise IdempotencyConflict if another request had the key of a draft."""
        try:
            known = await self._store.get_by_request(actor, draft.request_id)
        except AgentNotFound:
            return
        require_same(known.request_hash, draft.request_hash)

    async def get(self, actor: Actor, agent_id: str, parts: Parts) -> Agent:
        """Return one agent. Raises AgentNotFound."""
        [shown] = await self._show(actor, [await self._store.get(actor, agent_id)], parts)
        return shown

    async def find(self, actor: Actor, wanted: ListAgentsRequest, page: Page) -> list[Agent]:
        """Return a page of agents. Raises BlockNotFound, ArchiveNotFound or IdentityNotFound."""
        among = await self._memory.agents_with(wanted)
        return await self._show(actor, await self._store.list_agents(actor, wanted, page, among), wanted.include)

    async def count(self, actor: Actor, wanted: CountAgentsRequest) -> int:
        """Count agents. Raises IdentityNotFound."""
        return await self._store.count(actor, wanted, await self._memory.agents_with(wanted))

    async def update(self, actor: Actor, agent_id: str, change: Change) -> Agent:
        """Change an agent. Raises AgentNotFound, StaleEtag, and what it should use may not exist."""
        given = change.given
        for attempt in range(_ATTEMPTS):
            agent = await self._store.get(actor, agent_id)
            if given.etag and given.etag != str(agent.version):
                raise StaleEtag(f"agent {agent_id} changed", agent_id=agent_id)
            if added := [tool_id for tool_id in given.tool_ids if tool_id not in agent.tool_ids]:
                await self._tools.resolve(added)
            changed = await self._changed(actor, agent, change)
            if await self._store.update(actor, changed, expected=agent.version):
                break
            if attempt == _ATTEMPTS - 1:
                raise StaleEtag(f"agent {agent_id} changed while it was being changed", agent_id=agent_id)
        if "embedding" in change.named:
            await self._memory.set_embedding(agent_id, changed.state.embedding)
        if "block_ids" in change.named:
            await self._set_blocks(agent_id, given.block_ids)
        if LIMITS & change.named:
            await self._memory.set_file_limits(limits_of(changed.state))
        if "folder_ids" in change.named:
            await self._set_folders(actor, agent_id, given.folder_ids)
        if "identity_ids" in change.named:
            await self._memory.set_identities(agent_id, given.identity_ids)
        if _COMPILED & change.named:
            await self.recompile(actor, agent_id, agent_id)
        return await self.get(actor, agent_id, ALL_PARTS)

    async def delete(self, actor: Actor, agent_id: str) -> None:
        """Remove an agent and what belongs to it alone. Raises AgentNotFound."""
        # First, so that nobody is admitted while memory is removed; a crash leaves the rest to the sweep.
        await self._store.begin_removal(actor, agent_id)
        await self._memory.deprovision(agent_id)
        await self._store.delete(actor, agent_id)

    async def attach_block(self, actor: Actor, agent_id: str, block_id: str) -> Agent:
        """Attach a block. Raises AgentNotFound, BlockNotFound and BlockLabelTaken."""
        agent = await self._store.get(actor, agent_id)
        await self._memory.attach_block(agent_id, block_id)
        return (await self._show(actor, [agent], ALL_PARTS))[0]

    async def detach_block(self, actor: Actor, agent_id: str, block_id: str) -> Agent:
        """Detach a block. Raises AgentNotFound."""
        agent = await self._store.get(actor, agent_id)
        await self._memory.detach_block(agent_id, block_id)
        return (await self._show(actor, [agent], ALL_PARTS))[0]

    async def attach_folder(self, actor: Actor, agent_id: str, folder_id: str) -> Agent:
        """Attach a folder, and the tools that read files. Raises AgentNotFound and FolderNotFound."""
        agent = await self._store.get(actor, agent_id)
        await self._memory.attach_folder(attachment(agent.state, folder_id))
        # After the folder: a crash in between leaves it without tools, which a repeat mends.
        await self._folder_tools.fit(actor, agent_id)
        return await self.get(actor, agent_id, ALL_PARTS)

    async def detach_folder(self, actor: Actor, agent_id: str, folder_id: str) -> Agent:
        """Detach a folder, and with the last one the tools that read files. Raises AgentNotFound and FolderNotFound."""
        await self._store.get(actor, agent_id)
        await self._memory.detach_folder(agent_id, folder_id)
        await self._folder_tools.settle(actor)
        return await self.get(actor, agent_id, ALL_PARTS)

    async def delete_folder(self, actor: Actor, folder_id: str) -> None:
        """Remove a folder; agents whose last one it was lose the tools that read files. Raises FolderNotFound."""
        await self._memory.delete_folder(folder_id)
        await self._folder_tools.settle(actor)

    async def attach_tool(self, actor: Actor, agent_id: str, tool_id: str) -> Agent:
        """Attach a tool; one that usually waits for approval gets the rule. Raises AgentNotFound and ToolNotFound."""
        [tool] = await self._tools.resolve((tool_id,))
        agent = await self._store.get(actor, agent_id)
        if tool_id in agent.tool_ids:
            return (await self._show(actor, [agent], ALL_PARTS))[0]
        kept = Agent(tool_ids=(*agent.tool_ids, tool_id))
        change = Change(lambda state: add_approvals(state, (tool,)), kept, frozenset({"tool_ids"}))
        return await self.update(actor, agent_id, change)

    async def detach_tool(self, actor: Actor, agent_id: str, tool_id: str) -> Agent:
        """Detach a tool. Raises AgentNotFound."""
        agent = await self._store.get(actor, agent_id)
        kept = Agent(tool_ids=[kept for kept in agent.tool_ids if kept != tool_id])
        return await self.update(actor, agent_id, Change(lambda _: None, kept, frozenset({"tool_ids"})))

    async def tools(self, actor: Actor, agent_id: str) -> list[Tool]:
        """Return the tools of an agent, newest attachment first. Raises AgentNotFound."""
        agent = await self._store.get(actor, agent_id)
        return list((await self._tools.attached(agent.tool_ids)).tools[::-1]) if agent.tool_ids else []

    async def set_approval(self, actor: Actor, agent_id: str, tool_name: str, *, required: bool) -> Agent:
        """Say whether calls of a tool wait for approval. Raises AgentNotFound and ToolNotFound."""
        names = [tool.name for tool in await self.tools(actor, agent_id)]
        if tool_name not in names:
            raise ToolNotFound(f"agent {agent_id} has no tool {tool_name}", tool_name=tool_name)
        return await self.update(
            actor, agent_id, Change(lambda state: set_approval(state, tool_name, required=required))
        )

    async def first_message(self, actor: Actor, agent_id: str) -> Message:
        """Return the message that a new conversation of an agent begins with. Raises AgentNotFound."""
        agent = await self._store.get(actor, agent_id)
        memories = await self._memory.memories([agent_id], blocks=True)
        return self._first_message(agent.state, memories.get(agent_id, memory_pb2.AgentMemory()).blocks)

    async def reset(self, actor: Actor, agent_id: str) -> Agent:
        """Forget the messages of the default conversation. Raises AgentNotFound and ConversationBusy."""
        first = await self.first_message(actor, agent_id)
        fence = await self._seized(actor, agent_id)
        try:
            await self._memory.reset(_beginning(agent_id, fence, first))
        except Fenced as error:
            fence = await self._seized(actor, agent_id, above=int(error.metadata.get("fence") or 0))
            await self._memory.reset(_beginning(agent_id, fence, first))
        # Under the fence: a run admitted meanwhile has raised it and keeps what it waits for.
        await self._store.forget(actor, agent_id, fence)
        return await self.get(actor, agent_id, ALL_PARTS)

    async def _seized(self, actor: Actor, agent_id: str, *, above: int = 0) -> int:
        """Return a fence above those of all runs so far. Raises ConversationBusy."""
        hold = await self._store.seize(actor, agent_id, agent_id, above=above)
        if hold.busy:
            text = f"run {hold.run_id} holds the conversation; wait for it or cancel it"
            raise ConversationBusy(text, run_id=hold.run_id)
        return hold.fence

    async def recompile(self, actor: Actor, agent_id: str, conversation_id: str, *, dry: bool = False) -> str:
        """Make the system prompt of a conversation anew, store it unless told not to, and return it.

        Raises:
            AgentNotFound, ConversationNotFound: there is no such conversation.
        """
        agent = await self._store.get(actor, agent_id)
        context = await self._memory.context(agent_id, conversation_id)
        state = agent.state
        facts = facts_of(self._clock.now(), state.timezone, context.message_count, context.passage_count)
        rules = ToolRules(state.tool_rules).described()
        directories = context.directories if context.HasField("directories") else None
        prompt = compile_system(
            state,
            context.blocks,
            directories=directories,
            conversation_id=conversation_id,
            facts=facts,
            rules=rules,
        )
        if not dry:
            await self._memory.set_system(agent_id, conversation_id, prompt)
        return prompt

    async def finish_half_done(self, credentials: CredentialPeer, before: datetime) -> int:
        """Finish what a crash left half made or half removed; return how much there was."""
        # Few at a time: each asks other services, and the next sweep takes the rest.
        left = await self._store.list_unfinished(before, 20)
        for actor, agent in left:
            passport = Passport(credentials, self._clock, actor, derived_id("run", "sweep", agent.id))
            try:
                with acting_as(await passport.signed()):
                    await self._finish(actor, agent)
            except AppError as error:
                _log.warning("agent still half done", agent_id=agent.id, reason=error.reason, message=error.message)
        await self._folder_tools.settle_all(credentials)
        return len(left)

    async def _finish(self, actor: Actor, agent: StoredAgent) -> None:
        if agent.stage is Stage.REMOVING:
            await self._memory.deprovision(agent.id)
            await self._store.delete(actor, agent.id)
        else:
            await self._provision(actor, agent, StoredCreation.FromString(agent.creation))

    async def _resolve(self, draft: AgentDraft) -> list[Tool]:
        kind = draft.state.agent_type
        require_kind(kind)
        names = [*draft.tools, *(BASE_TOOLS.get(kind, ()) if draft.base_tools else ())]
        names += MULTI_AGENT_TOOLS if draft.multi_agent_tools else ()
        names += FILE_TOOLS if draft.folder_ids else ()
        if not names and not draft.tool_ids:
            return []
        return await self._tools.resolve(draft.tool_ids, tuple(dict.fromkeys(names)))

    async def _drafted(
        self, actor: Actor, draft: AgentDraft, tools: Sequence[Tool]
    ) -> tuple[StoredAgent, StoredCreation]:
        state, now = draft.state, self._clock.now()
        state.id = new_id("agent")
        state.name = state.name or random_name()
        state.system = state.system or default_system(state.agent_type)
        state.created_by_id = state.last_updated_by_id = actor.user_id
        state.created_at.FromDatetime(now)
        state.updated_at.FromDatetime(now)
        set_model(state, await self._models.model(draft.model), window=draft.window)
        if draft.embedding:
            set_embedding(state, await self._models.embedding_model(draft.embedding))
        state.message_buffer_autoclear |= state.agent_type in FORGETFUL
        if draft.base_rules:
            add_base_rules(state, tools)
        add_approvals(state, tools)
        blocks = [_new_block(block) for block in draft.new_blocks]
        first = self._first_message(state, blocks)
        creation = StoredCreation(
            new_blocks=blocks,
            block_ids=draft.block_ids,
            messages=[first, *draft.messages],
            folder_ids=draft.folder_ids,
            identity_ids=draft.identity_ids,
        )
        agent = StoredAgent(
            id=state.id,
            state=state,
            tool_ids=tuple(dict.fromkeys(tool.id for tool in tools)),
            secrets=self._sealed(actor, state.id, draft.secrets),
            stage=Stage.MAKING,
            creation=creation.SerializeToString(),
            request_id=draft.request_id,
            request_hash=draft.request_hash,
            created_by=actor.user_id,
        )
        return agent, creation

    async def _provision(self, actor: Actor, agent: StoredAgent, creation: StoredCreation) -> memory_pb2.AgentMemory:
        try:
            memory = await self._memory.provision(
                agent.id,
                agent.state.name,
                creation.new_blocks,
                creation.block_ids,
                creation.messages,
                embedding=agent.state.embedding,
            )
            for folder_id in creation.folder_ids:
                await self._memory.attach_folder(attachment(agent.state, folder_id))
            if creation.identity_ids:
                await self._memory.set_identities(agent.id, creation.identity_ids)
            if creation.folder_ids or creation.identity_ids:
                [memory] = (
                    await self._memory.memories([agent.id], blocks=True, folders=True, identities=True)
                ).values()
        except AppError as error:
            # What no repeat would mend is taken back; after all else the sweep goes on with what is stored.
            if error.code in {Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.ALREADY_EXISTS, Code.FAILED_PRECONDITION}:
                await self._store.begin_removal(actor, agent.id)
                await self._memory.deprovision(agent.id)
                await self._store.delete(actor, agent.id)
            raise
        await self._store.finish(actor, agent.id)
        return memory

    async def _changed(self, actor: Actor, agent: StoredAgent, change: Change) -> StoredAgent:
        state = Agent()
        state.CopyFrom(agent.state)
        change.edit(state)
        given, window = change.given, change.given.context_window_limit
        if "model" in change.named or window:
            set_model(state, await self._models.model(given.model or state.model), window=window)
        if "embedding" in change.named:
            clear_embedding(state)
            if given.embedding:
                set_embedding(state, await self._models.embedding_model(given.embedding))
        state.last_updated_by_id = actor.user_id
        state.updated_at.FromDatetime(self._clock.now())
        secrets, tool_ids = agent.secrets, agent.tool_ids
        if "secret_values" in change.named:
            secrets = self._sealed(actor, agent.id, given.secret_values)
        if "tool_ids" in change.named:
            tool_ids = tuple(dict.fromkeys(given.tool_ids))
        return replace(agent, state=state, secrets=secrets, tool_ids=tool_ids, version=agent.version + 1)

    async def _set_blocks(self, agent_id: str, wanted: Sequence[str]) -> None:
        memories = await self._memory.memories([agent_id], blocks=True)
        have = {block.id for block in memories.get(agent_id, memory_pb2.AgentMemory()).blocks}
        # Detached first, since a wanted block may have the label of one that goes.
        for block_id in have - set(wanted):
            await self._memory.detach_block(agent_id, block_id)
        for block_id in wanted:
            if block_id not in have:
                await self._memory.attach_block(agent_id, block_id)

    async def _set_folders(self, actor: Actor, agent_id: str, wanted: Sequence[str]) -> None:
        memories = await self._memory.memories([agent_id], blocks=False, folders=True)
        have = {folder.id for folder in memories.get(agent_id, memory_pb2.AgentMemory()).folders}
        # Attached first, so that the tools which come with the first one do not go with the last one in between.
        for folder_id in wanted:
            if folder_id not in have:
                await self.attach_folder(actor, agent_id, folder_id)
        for folder_id in have - {*wanted}:
            await self.detach_folder(actor, agent_id, folder_id)

    def _sealed(self, actor: Actor, agent_id: str, secrets: Mapping[str, str]) -> bytes:
        if not secrets:
            return b""
        now = self._clock.now()
        variables = []
        for key, value in secrets.items():
            variable = Variable(id=new_id("agent-env"), key=key, value=value, agent_id=agent_id)
            variable.organization_id, variable.created_by_id = actor.organization_id, actor.user_id
            variable.created_at.FromDatetime(now)
            variable.updated_at.FromDatetime(now)
            variables.append(variable)
        return self._secrets.seal(actor.organization_id, agent_id, variables)

    def _first_message(self, state: Agent, blocks: Sequence[Block]) -> Message:
        now = self._clock.now()
        text = compile_system(state, blocks, facts=facts_of(now, state.timezone, 0, 0))
        message = Message(id=new_id("message"), role=_ROLE.MESSAGE_ROLE_SYSTEM)
        message.parts.append(ContentPart(text=message_pb2.TextContent(text=text)))
        message.created_at.FromDatetime(now)
        return message

    async def _show(self, actor: Actor, agents: Sequence[StoredAgent], parts: Parts) -> list[Agent]:
        if not agents:
            return []
        blocks = AgentInclude.AGENT_INCLUDE_BLOCKS in parts
        # To older clients the files that a single agent sees are a part of its memory, as its blocks are.
        folders = AgentInclude.AGENT_INCLUDE_SOURCES in parts or (blocks and len(agents) == 1)
        identities = AgentInclude.AGENT_INCLUDE_IDENTITIES in parts
        memories = await self._memory.memories(
            [agent.id for agent in agents], blocks=blocks, folders=folders, identities=identities
        )
        tools: dict[str, Tool] = {}
        ids = tuple(dict.fromkeys(tool for agent in agents for tool in agent.tool_ids))
        if ids and AgentInclude.AGENT_INCLUDE_TOOLS in parts:
            tools = {tool.id: tool for tool in (await self._tools.attached(ids)).tools}
        return [
            self._shown(
                actor,
                agent,
                parts,
                memories.get(agent.id, memory_pb2.AgentMemory()),
                [tools[tool_id] for tool_id in agent.tool_ids if tool_id in tools],
            )
            for agent in agents
        ]

    def _shown(
        self,
        actor: Actor,
        agent: StoredAgent,
        parts: Parts,
        memory: memory_pb2.AgentMemory,
        tools: Sequence[Tool],
    ) -> Agent:
        """Return an agent as clients see it."""
        shown = Agent()
        shown.CopyFrom(agent.state)
        shown.etag = str(agent.version)
        shown.message_ids.extend(memory.message_ids)
        if AgentInclude.AGENT_INCLUDE_BLOCKS in parts:
            shown.blocks.extend(memory.blocks)
        if AgentInclude.AGENT_INCLUDE_SOURCES in parts:
            shown.folders.extend(memory.folders)
        shown.identities.extend(memory.identities)
        shown.identity_ids.extend(identity.id for identity in memory.identities)
        shown.compat.memory.file_blocks.extend(file_blocks(memory.directories))
        if AgentInclude.AGENT_INCLUDE_TOOLS in parts:
            shown.tools.extend(tools)
        if AgentInclude.AGENT_INCLUDE_SECRETS in parts and agent.secrets:
            shown.secrets.extend(self._secrets.open(actor.organization_id, agent.id, agent.secrets))
        if AgentInclude.AGENT_INCLUDE_TAGS not in parts:
            shown.ClearField("tags")
        if AgentInclude.AGENT_INCLUDE_PENDING_APPROVAL in parts and agent.approval:
            shown.pending_approval.ParseFromString(agent.approval)
        return shown


def _new_block(given: Block) -> Block:
    block = Block()
    block.CopyFrom(given)
    block.ClearField("id")
    block.limit = block.limit or DEFAULT_LIMIT
    if not block.description and block.label in _DESCRIPTIONS:
        block.description = _DESCRIPTIONS[block.label]
    return block


def _beginning(agent_id: str, fence: int, first: Message) -> memory_pb2.ResetConversationRequest:
    """Ask for a default conversation that begins anew."""
    return memory_pb2.ResetConversationRequest(
        agent_id=agent_id, conversation_id=agent_id, messages=[first], fence=fence
    )
