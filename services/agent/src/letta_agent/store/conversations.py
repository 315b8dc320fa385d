"""Conversations in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from letta.agent.v1 import conversation_service_pb2 as pb
from letta_agent.domain.agents.conversations import (
    Conversation,
    ListConversationsRequest,
    StoredConversation,
)
from letta_agent.domain.agents.records import Stage
from letta_agent.domain.journal.records import ACTIVE, RunStatus, StopReason
from letta_agent.store.tables import conversations, queue, runs
from letta_common.actor import Actor
from letta_common.errors import ConversationNotFound
from letta_common.values.paging import Page
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page

# Keysets compare with <, which nulls are not part of, so what never happened has a time as well.
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_THREAD = sa.and_(
    queue.c.organization_id == conversations.c.organization_id, queue.c.conversation_id == conversations.c.id
)
_COLUMNS = (
    conversations.c.definition,
    conversations.c.isolated_block_ids,
    conversations.c.isolated_labels,
    conversations.c.request_id,
    conversations.c.state,
    queue.c.last_message_at,
    conversations.c.request_hash,
)
_CANCELLED = {
    "status": int(RunStatus.RUN_STATUS_CANCELLED),
    "stop_reason": int(StopReason.STOP_REASON_CANCELLED),
    "cancel_requested": True,
}
_ORDERS: dict[int, sa.ColumnElement[Any]] = {
    pb.CONVERSATION_ORDER_BY_LAST_RUN_COMPLETION: sa.func.coalesce(
        queue.c.last_run_completion, sa.literal(_NEVER, sa.DateTime(timezone=True))
    ),
    pb.CONVERSATION_ORDER_BY_LAST_MESSAGE_AT: sa.func.coalesce(
        queue.c.last_message_at, sa.literal(_NEVER, sa.DateTime(timezone=True))
    ),
}


class SqlConversationStore:
    """Conversations of organizations."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, stored: StoredConversation) -> bool:
        """Store a new conversation; False when one was stored for the same request."""
        made = stored.conversation
        row = _row(made) | {
            "organization_id": actor.organization_id,
            "id": made.id,
            "agent_id": made.agent_id,
            "isolated_labels": list(stored.isolated_labels),
            "request_id": stored.request_id or None,
            "request_hash": stored.request_hash or None,
            "state": int(stored.stage),
            "created_by_id": made.created_by_id,
            "created_at": made.created_at.ToDatetime(tzinfo=UTC),
        }
        try:
            async with self._db.begin() as conn:
                await conn.execute(sa.insert(conversations).values(**row))
        except UniqueViolation as error:
            # Any other constraint is a fault and no repeat.
            if error.constraint == "conversations_request_id":
                return False
            raise
        return True

    async def get_by_request(self, actor: Actor, request_id: str) -> StoredConversation:
        """Return the conversation that a request made. Raises ConversationNotFound."""
        return _stored(await self._one(actor, conversations.c.request_id == request_id, request_id))

    async def get(self, actor: Actor, conversation_id: str) -> Conversation:
        """Return one conversation that is ready. Raises ConversationNotFound."""
        there = sa.and_(conversations.c.id == conversation_id, conversations.c.state == Stage.READY)
        return _stored(await self._one(actor, there, conversation_id)).conversation

    async def list_conversations(
        self, actor: Actor, wanted: ListConversationsRequest, page: Page
    ) -> list[Conversation]:
        """Return a page of conversations that are ready."""
        mine = conversations.c.organization_id == actor.organization_id
        query = self._query().where(mine, conversations.c.state == Stage.READY)
        if wanted.agent_id:
            query = query.where(conversations.c.agent_id == wanted.agent_id)
        if wanted.summary_search:
            query = query.where(conversations.c.summary.icontains(wanted.summary_search, autoescape=True))
        keyset = Keyset(at=_ORDERS.get(wanted.order_by, conversations.c.created_at), id=conversations.c.id, scope=mine)
        async with self._db.connect() as conn:
            return [_stored(row).conversation for row in await fetch_page(conn, query, page, keyset)]

    async def update(self, actor: Actor, conversation: Conversation) -> None:
        """Write a conversation that is ready. Raises ConversationNotFound."""
        await self._change(actor, conversation.id, Stage.READY, **_row(conversation))

    async def finish(self, actor: Actor, conversation_id: str, isolated_block_ids: Sequence[str]) -> None:
        """Mark a conversation as ready."""
        values = {"state": int(Stage.READY), "isolated_block_ids": list(isolated_block_ids)}
        await self._change(actor, conversation_id, Stage.MAKING, **values)

    async def begin_removal(self, actor: Actor, conversation_id: str) -> None:
        """Take a conversation out of every list. Raises ConversationNotFound."""
        # The request id is given up, so that the same request makes a new conversation.
        await self._change(actor, conversation_id, Stage.READY, state=int(Stage.REMOVING), request_id=None)

    async def delete(self, actor: Actor, conversation_id: str) -> None:
        """Remove a conversation; runs in it that have not ended are cancelled."""
        mine = actor.organization_id
        async with self._db.begin() as conn:
            left = sa.and_(runs.c.conversation_id == conversation_id, runs.c.status.in_(ACTIVE))
            agent = sa.select(conversations.c.agent_id).where(self._is(actor, conversation_id)).scalar_subquery()
            ended = sa.update(runs).where(runs.c.organization_id == mine, runs.c.agent_id == agent, left)
            # Before the conversation goes, whose row tells which agent's runs these are.
            await conn.execute(ended.values(**_CANCELLED, completed_at=sa.func.clock_timestamp()))
            thread = sa.and_(queue.c.organization_id == mine, queue.c.conversation_id == conversation_id)
            await conn.execute(sa.delete(queue).where(thread))
            await conn.execute(sa.delete(conversations).where(self._is(actor, conversation_id)))

    async def list_unfinished(self, before: datetime, limit: int) -> list[tuple[Actor, StoredConversation]]:
        """Return conversations of all organizations that were left half made or half removed."""
        query = self._query().add_columns(conversations.c.organization_id, conversations.c.created_by_id)
        left = query.where(conversations.c.state != Stage.READY, conversations.c.updated_at < before).limit(limit)
        async with self._db.connect() as conn:
            rows = [tuple(row) for row in await conn.execute(left)]
        return [(Actor(organization_id, user_id or ""), _stored(row)) for *row, organization_id, user_id in rows]

    async def _change(self, actor: Actor, conversation_id: str, stage: Stage, **values: Any) -> None:
        there = sa.and_(self._is(actor, conversation_id), conversations.c.state == stage)
        async with self._db.begin() as conn:
            done = await conn.execute(sa.update(conversations).where(there).values(**values))
        if done.rowcount != 1:
            raise _no_conversation(conversation_id)

    async def _one(self, actor: Actor, condition: sa.ColumnElement[bool], name: str) -> Sequence[Any]:
        mine = conversations.c.organization_id == actor.organization_id
        async with self._db.connect() as conn:
            row = (await conn.execute(self._query().where(mine, condition))).first()
        if row is None:
            raise _no_conversation(name)
        return tuple(row)

    def _query(self) -> sa.Select[Any]:
        return sa.select(*_COLUMNS).select_from(conversations.outerjoin(queue, _THREAD))

    def _is(self, actor: Actor, conversation_id: str) -> sa.ColumnElement[bool]:
        mine = conversations.c.organization_id == actor.organization_id
        return sa.and_(mine, conversations.c.id == conversation_id)


def _row(conversation: Conversation) -> dict[str, Any]:
    return {
        "summary": conversation.summary if conversation.HasField("summary") else None,
        "definition": conversation.SerializeToString(),
        "last_updated_by_id": conversation.last_updated_by_id,
        "updated_at": conversation.updated_at.ToDatetime(tzinfo=UTC),
    }


def _stored(row: Sequence[Any]) -> StoredConversation:
    definition, isolated_ids, labels, request_id, stage, last_message_at, request_hash = row
    conversation = Conversation.FromString(definition)
    # The column is the truth: the definition was stored before memory had made the copies.
    del conversation.isolated_block_ids[:]
    conversation.isolated_block_ids.extend(isolated_ids)
    if last_message_at is not None:
        conversation.last_message_at.FromDatetime(last_message_at)
    return StoredConversation(conversation, tuple(labels), request_id or "", Stage(stage), bytes(request_hash or b""))


def _no_conversation(conversation_id: str) -> ConversationNotFound:
    return ConversationNotFound(f"conversation {conversation_id} not found", conversation_id=conversation_id)
