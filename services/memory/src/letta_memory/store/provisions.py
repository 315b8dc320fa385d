"""Making and removing the memory of agents and conversations: transactions that may be repeated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import psycopg
import sqlalchemy as sa

from letta.common.v1.message_pb2 import Message
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.folder_pb2 import Folder
from letta_common.actor import Actor
from letta_common.errors import (
    AgentNotFound,
    AppError,
    BlockLabelTaken,
    BlockNotFound,
    IdempotencyConflict,
    InvalidArgument,
    MessageNotFound,
)
from letta_common.values.ids import derived_id
from letta_common.values.times import time_of
from letta_memory.domain.contexts import Status, owner_refusal
from letta_memory.domain.messages import FLAG_COPY, flags_of, search_text, types_of
from letta_memory.domain.search.index import LateConversations
from letta_memory.store.files.folders import folder_of, folder_query
from letta_memory.store.forks import KEEP_SUMMARY, context_copies, own_labels
from letta_memory.store.identities import identities_of_agents, identity_of
from letta_memory.store.reading.directories import directories_of
from letta_memory.store.rows import BLOCK_COLUMNS, MEMORY_ROW, block_of, block_values, memories_of
from letta_memory.store.tables import folder_agents, folders
from letta_postgres.connections import Connection
from letta_postgres.db import Database, UniqueViolation, retry
from letta_postgres.statements import Row, call

_BLOCK_NAMES = BLOCK_COLUMNS.split(", ")
_INSERT_BLOCK = sa.text(
    f"insert into memory.blocks (organization_id, {BLOCK_COLUMNS}, request_hash) "
    f"values (:org, {', '.join(f':{name}' for name in _BLOCK_NAMES)}, :request_hash) on conflict do nothing"
)
_INSERT_HISTORY = sa.text(
    "insert into memory.block_history "
    "(organization_id, block_id, version, label, value, description, written_by_id, created_at) "
    "select organization_id, id, version, label, value, description, last_updated_by_id, updated_at from memory.blocks "
    "where organization_id = :org and id = :id on conflict do nothing"
)
_LINK = sa.text(
    "insert into memory.agent_blocks (organization_id, agent_id, block_id, label) "
    "select organization_id, :agent, id, label from memory.blocks where organization_id = :org and id = :id "
    "on conflict (organization_id, agent_id, block_id) do nothing"
)
MESSAGE_ARRAYS = ("ids", "roles", "types", "flags", "runs", "steps", "groups", "times", "searches", "bodies")
"""Parameters with one element a message."""
_NEW_AGENT = ("org", "agent", "name", "embedder")
_APPEND = sa.text(
    "select memory.append_messages(p_org => :org, p_conversation => :conversation, p_agent => :agent, "
    "p_first => :first, p_ids => cast(:ids as text[]), "
    "p_roles => cast(:roles as smallint[]), p_types => cast(:types as integer[]), "
    "p_flags => cast(:flags as smallint[]), p_runs => cast(:runs as text[]), p_steps => cast(:steps as text[]), "
    "p_groups => cast(:groups as text[]), p_times => cast(:times as timestamptz[]), "
    "p_searches => cast(:searches as text[]), p_bodies => cast(:bodies as bytea[]))"
)
_ADVANCE = sa.text(
    "update memory.conversations set next_seq = next_seq + :n, message_count = message_count + :n "
    "where organization_id = :org and id = :conversation"
)
_MEMORIES = f"{MEMORY_ROW} {call('memory.memories_of', 'org', 'agents', 'blocks')} r"
_PROVISION_AGENT = (
    f"{MEMORY_ROW} {call('memory.provision_agent', *_NEW_AGENT, 'blocks', 'attached', *MESSAGE_ARRAYS)} r"
)
_WINDOW = sa.text("select r.message_ids from memory.memories_of(:org, array[:conversation], false) r")
_CONTEXT = sa.text(
    "select memory.window_of(c), c.message_count, (select a.passage_count from memory.archive_agents l "
    "join memory.archives a on a.organization_id = l.organization_id and a.id = l.archive_id "
    "where l.organization_id = c.organization_id and l.agent_id = c.agent_id), c.has_folders "
    "from memory.conversations c where c.organization_id = :org and c.id = :conversation and c.agent_id = :agent"
)
_BLOCKS_OF_CONVERSATION = sa.text(
    f'select {BLOCK_COLUMNS} from memory.blocks_of(:org, :agent, :conversation) b order by b.label collate "C"'
)
_OPENING = sa.text(
    "select m.body from memory.conversations c left join memory.messages m "
    "on m.organization_id = c.organization_id and m.conversation_id = c.id and m.seq = c.first_seq "
    "where c.organization_id = :org and c.id = :conversation and c.agent_id = :agent"
)
_SET_EMBEDDER = sa.text("update memory.agents set embedder = :embedder where organization_id = :org and id = :agent")
_REEMBED_OWN = sa.text(
    "update memory.archives a set former_embedders = array_remove(array_append("
    "array_remove(a.former_embedders, a.embedder), nullif(a.embedder, '')), :embedder), "
    "embedder = :embedder, dimensions = null, generation = a.generation + 1, "
    "waiting_since = clock_timestamp(), tried_at = null, failure_reason = '', failure = '' "
    "where a.organization_id = :org and a.owner_agent_id = :agent and a.embedder <> :embedder"
)
# In this order: steps are found by their messages, and both by the agent's conversations.
_REMOVE_AGENT = (
    # First, as whoever indexes messages does. Then what search keeps, or each message would be taken out of that.
    "select from memory.conversations where organization_id = :org and agent_id = :agent order by id for update",
    "update memory.search_scopes set gone = true where organization_id = :org and owner_id = :agent",
    "delete from memory.committed_steps where organization_id = :org and run_id in "
    "(select distinct run_id from memory.messages where organization_id = :org and conversation_id in "
    "(select id from memory.conversations where organization_id = :org and agent_id = :agent) and run_id is not null)",
    "delete from memory.messages where organization_id = :org and conversation_id in "
    "(select id from memory.conversations where organization_id = :org and agent_id = :agent)",
    "delete from memory.conversation_blocks where organization_id = :org and conversation_id in "
    "(select id from memory.conversations where organization_id = :org and agent_id = :agent)",
    "delete from memory.conversations where organization_id = :org and agent_id = :agent",
    "delete from memory.agent_blocks where organization_id = :org and agent_id = :agent",
    "delete from memory.archive_agents where organization_id = :org and agent_id = :agent",
    "delete from memory.folder_agents where organization_id = :org and agent_id = :agent",
    "delete from memory.archives a where a.organization_id = :org and a.owner_agent_id = :agent and not exists "
    "(select from memory.archive_agents l where l.organization_id = :org and l.archive_id = a.id)",
    "update memory.archives set owner_agent_id = null where organization_id = :org and owner_agent_id = :agent",
    "delete from memory.agents where organization_id = :org and id = :agent",
)
# In this order: steps are found by their messages, and the copies of blocks by their links.
_REMOVE_CONVERSATION = (
    "delete from memory.committed_steps where organization_id = :org and run_id in (select distinct run_id from "
    "memory.messages where organization_id = :org and conversation_id = :conversation and run_id is not null)",
    "delete from memory.messages where organization_id = :org and conversation_id = :conversation",
    "delete from memory.blocks b using memory.conversation_blocks l where l.organization_id = :org and "
    "l.conversation_id = :conversation and b.organization_id = :org and b.id = l.block_id",
    "delete from memory.conversations where organization_id = :org and id = :conversation and agent_id = :agent",
)


class Provisions:
    """What is made when an agent or a conversation is, and removed with it."""

    def __init__(self, db: Database, late: LateConversations | None = None) -> None:
        self._db = db
        self._late = late or LateConversations()

    async def provision_agent(
        self, actor: Actor, request: pb.ProvisionAgentRequest, blocks: Sequence[Block]
    ) -> pb.AgentMemory:
        """Make an agent's memory, with these new blocks, unless it exists."""
        values = {
            "org": actor.organization_id,
            "agent": request.agent_id,
            "name": request.agent_name,
            "embedder": request.embedding,
            "blocks": json.dumps([block_values(block) for block in blocks], default=datetime.isoformat),
            "attached": [*(block.id for block in blocks), *request.block_ids],
            **message_columns(request.messages),
        }
        try:
            rows = await self._hot(_PROVISION_AGENT, values)
        except UniqueViolation as error:
            if error.table != "agent_blocks":
                raise
            raise BlockLabelTaken(f"two blocks of agent {request.agent_id} have one label") from error
        self._late.note(actor.organization_id, request.agent_id)
        return memories_of(rows)[request.agent_id]

    async def _hot(self, statement: str, values: Mapping[str, Any]) -> list[Row]:
        try:
            return await retry(lambda: self._db.hot(statement, values))
        except (psycopg.Error, UniqueViolation) as error:
            refused = _refusal(error)
            if refused is None:
                raise
            raise refused from error

    async def set_embedder(self, actor: Actor, agent_id: str, embedder: str) -> None:
        """Set what embeds an agent's archive; one made for it is embedded anew."""
        values = {"org": actor.organization_id, "agent": agent_id, "embedder": embedder}
        async with self._db.begin() as tx:
            if (await tx.execute(_SET_EMBEDDER, values)).rowcount == 0:
                raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)
            if embedder:
                await tx.execute(_REEMBED_OWN, values)

    async def provision_conversation(
        self, actor: Actor, request: pb.ProvisionConversationRequest
    ) -> pb.ProvisionConversationResponse:
        """Make a conversation unless it exists."""
        made = await retry(lambda: self._provision_conversation(actor.organization_id, request))
        self._late.note(actor.organization_id, request.conversation_id)
        return made

    async def _provision_conversation(
        self, org: str, new: pb.ProvisionConversationRequest
    ) -> pb.ProvisionConversationResponse:
        async with self._db.begin() as tx:
            await _require_agent(tx, org, new.agent_id)
            if await self._make_conversation(tx, org, new.agent_id, new.conversation_id, new.messages):
                labels: Sequence[str] = new.isolated_block_labels
                if new.source_conversation_id:
                    await self._copy_context(tx, org, new)
                    labels = [*labels, *(await own_labels(tx, org, new.source_conversation_id))]
                for label in dict.fromkeys(labels):
                    await self._isolate(tx, org, new, label)
            blocks = await tx.execute(
                sa.text(
                    "select block_id from memory.conversation_blocks where organization_id = :org "
                    'and conversation_id = :conversation order by label collate "C"'
                ),
                {"org": org, "conversation": new.conversation_id},
            )
            isolated = [row[0] for row in blocks]
            window = await tx.execute(_WINDOW, {"org": org, "conversation": new.conversation_id})
            return pb.ProvisionConversationResponse(isolated_block_ids=isolated, message_ids=window.scalar_one())

    async def _isolate(self, tx: Connection, org: str, new: pb.ProvisionConversationRequest, label: str) -> None:
        found = await tx.execute(
            sa.text(
                f"select {BLOCK_COLUMNS} from memory.blocks_of(:org, :agent, :conversation) b where b.label = :label"
            ),
            {
                "org": org,
                "agent": new.agent_id,
                "conversation": new.source_conversation_id or new.conversation_id,
                "label": label,
            },
        )
        row = found.one_or_none()
        if row is None:
            raise BlockNotFound(f"agent {new.agent_id} has no block '{label}'", label=label)
        # Derived, so that a repeat finds the copy that it made before.
        copy = derived_id("block", org, new.conversation_id, label)
        await insert_block(tx, org, block_of((copy, *row[1:])))
        await tx.execute(
            sa.text(
                "insert into memory.conversation_blocks (organization_id, conversation_id, block_id, label) "
                "values (:org, :conversation, :id, :label)"
            ),
            {"org": org, "conversation": new.conversation_id, "id": copy, "label": label},
        )

    async def _copy_context(self, tx: Connection, org: str, new: pb.ProvisionConversationRequest) -> None:
        copies = await context_copies(tx, org, new)
        place = {"org": org, "conversation": new.conversation_id, "agent": new.agent_id}
        # Search finds what they are copies of, and would show everything twice.
        columns = await asyncio.to_thread(message_columns, copies)
        flags = [flag | FLAG_COPY for flag in columns["flags"]]
        found = {**columns, "flags": flags, "searches": [""] * len(copies)}
        await tx.execute(_APPEND, {**place, "first": len(new.messages) + 1, **found})
        await tx.execute(_ADVANCE, {**place, "n": len(copies)})
        await tx.execute(KEEP_SUMMARY, place)

    async def deprovision_agent(self, actor: Actor, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        await self._remove(_REMOVE_AGENT, {"org": actor.organization_id, "agent": agent_id})

    async def deprovision_conversation(self, actor: Actor, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation and its messages."""
        values = {"org": actor.organization_id, "agent": agent_id, "conversation": conversation_id}
        await self._remove(_REMOVE_CONVERSATION, values)

    async def _remove(self, statements: Sequence[str], values: dict[str, Any]) -> None:
        async def unit() -> None:
            async with self._db.begin() as tx:
                for statement in statements:
                    await tx.execute(sa.text(statement), values)

        await retry(unit)

    async def reset_conversation(self, actor: Actor, request: pb.ResetConversationRequest) -> None:
        """Forget the messages and begin with these, or with the first one."""
        await retry(lambda: self._reset(actor.organization_id, request))
        self._late.note(actor.organization_id, request.conversation_id)

    async def _reset(self, org: str, reset: pb.ResetConversationRequest) -> None:
        messages = reset.messages
        values: dict[str, Any] = {"org": org, "agent": reset.agent_id, "conversation": reset.conversation_id}
        async with self._db.begin() as tx:
            found = await tx.execute(
                sa.text(
                    "select next_seq, first_seq, fence from memory.conversations where organization_id = :org and "
                    "id = :conversation and agent_id = :agent for no key update"
                ),
                values,
            )
            row = found.one_or_none()
            if row is None or 0 < reset.fence < row[2]:
                status = Status.NO_CONVERSATION if row is None else Status.FENCED
                raise owner_refusal(status, reset.agent_id, reset.conversation_id, fence=row[2] if row else 0)
            # A repeat of this call: the first one has forgotten and written already.
            if messages and await _is_there(tx, org, messages[0].id):
                return
            first = row[0] if messages else row[1]
            await tx.execute(
                sa.text(
                    "with gone as (delete from memory.messages where organization_id = :org and "
                    "conversation_id = :conversation and seq <> :first returning organization_id, id, created_at, seq) "
                    "insert into memory.tombstones (organization_id, id, created_at, seq) select * from gone "
                    "on conflict do nothing"
                ),
                {**values, "first": first},
            )
            await self._append(tx, values, first, messages)
            await tx.execute(
                sa.text(
                    "update memory.conversations set next_seq = next_seq + :n, first_seq = :first, "
                    "window_seq = :first, summary_seq = null, message_count = :count, "
                    "fence = greatest(fence, cast(:fence as bigint)) "
                    "where organization_id = :org and id = :conversation"
                ),
                {**values, "n": len(messages), "first": first, "count": max(len(messages), 1), "fence": reset.fence},
            )

    async def get(self, actor: Actor, agent_id: str, conversation_id: str) -> pb.GetContextResponse:
        """Return the context, changing nothing."""
        values = {"org": actor.organization_id, "agent": agent_id, "conversation": conversation_id}
        async with self._db.connect() as conn:
            row = (await conn.execute(_CONTEXT, values)).one_or_none()
            if row is None:
                raise owner_refusal(Status.NO_CONVERSATION, agent_id, conversation_id, fence=0)
            blocks = [block_of(found) for found in await conn.execute(_BLOCKS_OF_CONVERSATION, values)]
        directories = await directories_of(self._db, actor.organization_id, agent_id) if row[3] else None
        return pb.GetContextResponse(
            blocks=blocks,
            messages=map(bytes, row[0]),
            message_count=row[1],
            passage_count=row[2] or 0,
            directories=directories,
        )

    async def find_opening(self, actor: Actor, agent_id: str, conversation_id: str) -> Message | None:
        """Return the first message of a conversation, if it has one."""
        values = {"org": actor.organization_id, "agent": agent_id, "conversation": conversation_id}
        async with self._db.connect() as conn:
            row = (await conn.execute(_OPENING, values)).one_or_none()
        if row is None:
            raise owner_refusal(Status.NO_CONVERSATION, agent_id, conversation_id, fence=0)
        return None if row[0] is None else Message.FromString(bytes(row[0]))

    async def update_message(self, actor: Actor, conversation_id: str, message: Message) -> None:
        """Write a message that search does not read in the place of what it was."""
        body = message.SerializeToString()
        values = {"org": actor.organization_id, "conversation": conversation_id, "id": message.id, "body": body}
        async with self._db.begin() as tx:
            await tx.execute(
                sa.text(
                    # The conversation first, as all others lock, since a trigger writes it after the message.
                    "with held as materialized (select c.id from memory.conversations c where c.organization_id = :org "
                    "and c.id = :conversation for no key update) update memory.messages m set body = :body from held "
                    "where m.organization_id = :org and m.conversation_id = held.id and m.id = :id"
                ),
                values,
            )

    async def list_memories(self, actor: Actor, request: pb.ListAgentMemoriesRequest) -> list[pb.AgentMemory]:
        """Return what agents keep, in the order asked for."""
        org, agent_ids = actor.organization_id, list(request.agent_ids)
        values = {"org": org, "agents": agent_ids, "blocks": not request.without_blocks}
        found = memories_of(await self._db.hot(_MEMORIES, values))
        if request.with_folders:
            for agent_id, folder in await self._folders_of(actor, list(found)):
                found[agent_id].folders.append(folder)
        if request.with_identities:
            async with self._db.connect() as conn:
                for row in await conn.execute(identities_of_agents(actor, list(found))):
                    found[row[-1]].identities.append(identity_of(actor, row[:-1]))
        if request.with_directories and len(agent_ids) == 1 and (memory := found.get(agent_ids[0])) and memory.folders:
            memory.directories.CopyFrom(await directories_of(self._db, org, memory.agent_id))
        return [found[agent_id] for agent_id in agent_ids if agent_id in found]

    async def _folders_of(self, actor: Actor, agent_ids: Sequence[str]) -> list[tuple[str, Folder]]:
        linked = sa.and_(
            folder_agents.c.organization_id == folders.c.organization_id, folder_agents.c.folder_id == folders.c.id
        )
        query = (
            folder_query(actor)
            .add_columns(folder_agents.c.agent_id)
            .join(folder_agents, linked)
            .where(folder_agents.c.agent_id.in_(agent_ids))
            .order_by(folder_agents.c.attached_at.desc(), folder_agents.c.folder_id)
        )
        async with self._db.connect() as conn:
            return [(row[-1], folder_of(actor, row[:-1])) for row in await conn.execute(query)]

    async def attach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Attach a block."""
        try:
            async with self._db.begin() as tx:
                await _require_agent(tx, actor.organization_id, agent_id)
                await _link(tx, actor.organization_id, agent_id, block_id)
        except UniqueViolation as error:
            raise BlockLabelTaken(
                f"agent {agent_id} has another block of that label", agent_id=agent_id, block_id=block_id
            ) from error

    async def detach_block(self, actor: Actor, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        async with self._db.begin() as tx:
            await _require_agent(tx, actor.organization_id, agent_id)
            await tx.execute(
                sa.text(
                    "delete from memory.agent_blocks "
                    "where organization_id = :org and agent_id = :agent and block_id = :id"
                ),
                {"org": actor.organization_id, "agent": agent_id, "id": block_id},
            )

    async def _make_conversation(
        self, tx: Connection, org: str, agent_id: str, conversation_id: str, messages: Sequence[Message]
    ) -> bool:
        place = {"org": org, "conversation": conversation_id, "agent": agent_id}
        made = await tx.execute(
            sa.text(
                "insert into memory.conversations (organization_id, id, agent_id, has_folders) "
                "values (:org, :conversation, :agent, exists (select from memory.folder_agents l "
                "where l.organization_id = :org and l.agent_id = :agent)) on conflict (organization_id, id) do nothing"
            ),
            place,
        )
        if made.rowcount == 0:
            return False
        await self._append(tx, place, 1, messages)
        await tx.execute(_ADVANCE, {**place, "n": len(messages)})
        return True

    async def _append(self, tx: Connection, place: Mapping[str, Any], first: int, messages: Sequence[Message]) -> None:
        if messages:
            values = {**place, "first": first, **message_columns(messages)}
            await tx.execute(_APPEND, values)


def message_columns(messages: Sequence[Message], run_id: str = "") -> dict[str, list[Any]]:
    """Return the columns of messages, one list each, by the names of MESSAGE_ARRAYS.

    Raises:
        InvalidArgument: a message has no id or time.
    """
    if not all(message.id and message.HasField("created_at") for message in messages):
        raise InvalidArgument("each message needs an id and created_at", field="messages")
    return {
        "ids": [message.id for message in messages],
        "roles": [message.role for message in messages],
        "types": [types_of(message) for message in messages],
        "flags": [flags_of(message) for message in messages],
        "runs": [message.run_id or run_id or None for message in messages],
        "steps": [message.step_id or None for message in messages],
        "groups": [message.group_id or None for message in messages],
        "times": [time_of(message.created_at) for message in messages],
        "searches": [search_text(message) for message in messages],
        "bodies": [message.SerializeToString() for message in messages],
    }


def _refusal(error: psycopg.Error | UniqueViolation) -> AppError | None:
    """Return the error that a hot statement's stands for, unless its caller knows better."""
    if isinstance(error, UniqueViolation):
        ours = error.table == "messages"
        return IdempotencyConflict("a message with one of these ids exists already") if ours else None
    match error.sqlstate:
        case "LM001":
            return MessageNotFound("the window begins at a message that the conversation does not have")
        case "LM002":
            block_id = error.diag.message_primary or ""
            return BlockNotFound(f"there is no block {block_id}", block_id=block_id)
        case _:
            return None


async def insert_block(tx: Connection, org: str, block: Block, request_hash: bytes = b"") -> bool:
    """Insert a block with its first history row; say whether it was new."""
    values = {"org": org, **block_values(block), "request_hash": request_hash or None}
    made = await tx.execute(_INSERT_BLOCK, values)
    await tx.execute(_INSERT_HISTORY, {"org": org, "id": block.id})
    return made.rowcount == 1


async def _link(tx: Connection, org: str, agent_id: str, block_id: str) -> None:
    values = {"org": org, "agent": agent_id, "id": block_id}
    made = await tx.execute(_LINK, values)
    if made.rowcount == 1:
        return
    known = await tx.execute(sa.text("select from memory.blocks where organization_id = :org and id = :id"), values)
    if known.one_or_none() is None:
        raise BlockNotFound(f"there is no block {block_id}", block_id=block_id)


async def _is_there(tx: Connection, org: str, message_id: str) -> bool:
    found = await tx.execute(
        sa.text("select from memory.messages where organization_id = :org and id = :id"), {"org": org, "id": message_id}
    )
    return found.one_or_none() is not None


async def _require_agent(tx: Connection, org: str, agent_id: str) -> None:
    found = await tx.execute(
        sa.text("select from memory.agents where organization_id = :org and id = :agent for share"),
        {"org": org, "agent": agent_id},
    )
    if found.one_or_none() is None:
        raise AgentNotFound(f"there is no agent {agent_id}", agent_id=agent_id)
