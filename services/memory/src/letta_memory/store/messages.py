"""The history of conversations in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from pgvector import HalfVector

from letta.llm.v1.embedding_service_pb2 import EmbedResponse
from letta.memory.v1.message_service_pb2 import SearchMode, SearchStoredMessagesRequest, StoredMessageResult
from letta.memory.v1.search_order_pb2 import SearchOrder
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ConversationNotFound, MessageNotFound
from letta_common.values.paging import Page
from letta_common.values.times import optional_time
from letta_memory.domain.messages import FLAG_COPY, FLAG_ERROR, MessageFilter, MessageHit, MessageScope
from letta_memory.store.tables import agents, conversations, keyset, messages
from letta_postgres.connections import Connection
from letta_postgres.db import Database
from letta_postgres.keyset import fetch_page
from letta_postgres.statements import call

_FILTERS = ("agent", "conversation", "roles", "types")
_QUESTION = ("query", "vectors", "embedders", "mode", "from", "to", "newest", "limit")
_PLACES = ("score", "word_place", "meaning_place", "word_score", "meaning_score", "approximate_words")
_WHY = ("score", "word_rank", "meaning_rank", "word_score", "meaning_score", "approximate_words")
_FIELDS = ", ".join(f"r.{name}" for name in (*_PLACES, "agent_id", "conversation_id", "body"))
_SEARCH = f"select {_FIELDS} from {call('memory.search_messages', 'org', *_FILTERS, *_QUESTION)} r"


class SqlMessageStore:
    """The history of conversations in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def get(self, actor: Actor, message_id: str) -> bytes:
        """Return one message."""
        query = sa.select(messages.c.body).where(_mine(actor), messages.c.id == message_id)
        async with self._db.connect() as conn:
            body = (await conn.execute(query)).scalar_one_or_none()
        if body is None:
            raise MessageNotFound(f"there is no message {message_id}", message_id=message_id)
        return bytes(body)

    async def list_messages(
        self, actor: Actor, scope: MessageScope, wanted: MessageFilter, page: Page
    ) -> Sequence[bytes]:
        """Return a page of messages: by position in a conversation, by time across them."""
        async with self._db.connect() as conn:
            # Of most agents it is the only conversation, whose order says more than times do.
            if (
                scope.agent_id
                and not scope.conversation_id
                and await _has_one_conversation(conn, actor, scope.agent_id)
            ):
                scope = replace(scope, conversation_id=scope.agent_id)
            mine = sa.and_(_mine(actor), *_within(scope))
            query = sa.select(messages.c.body).where(mine, *_conditions(wanted))
            if scope.everywhere:
                query = query.where(messages.c.flags.op("&")(FLAG_COPY) == 0)
            # Times of one conversation may be equal, positions never are; across conversations only times compare.
            at = "created_at" if scope.everywhere else "seq"
            keys = keyset(messages, at, actor.organization_id, mine, messages.c.body)
            rows = await fetch_page(conn, query, page, keys)
        # Only an empty page asks whether the conversation exists, so that all others ask once.
        if not rows and (scope.conversation_id or scope.agent_id):
            await self._require_conversation(actor, scope)
        return [bytes(row[0]) for row in rows]

    async def search(
        self, actor: Actor, query: SearchStoredMessagesRequest, question: EmbedResponse | None, *, types: int
    ) -> list[MessageHit]:
        """Return what fits best."""
        values = {
            "org": actor.organization_id,
            "agent": query.agent_id or None,
            "conversation": query.conversation_id or None,
            "roles": list(query.roles) or None,
            "types": types or None,
            "query": query.query.replace("\0", ""),  # Postgres takes no NUL in a text
            "vectors": [HalfVector(list(question.embeddings[0].values))] if question else [],
            "embedders": [question.model] if question else [],
            "mode": query.search_mode or SearchMode.SEARCH_MODE_HYBRID,
            "from": optional_time(query, "start_date"),
            "to": optional_time(query, "end_date"),
            "newest": query.order == SearchOrder.SEARCH_ORDER_NEWEST,
            "limit": query.limit,
        }
        return [_hit(row) for row in await self._db.hot(_SEARCH, values)]

    async def _require_conversation(self, actor: Actor, scope: MessageScope) -> None:
        """Tell an empty list from one that does not exist. Raises AgentNotFound, ConversationNotFound."""
        conditions = [
            conversations.c.organization_id == actor.organization_id,
            conversations.c.id == (scope.conversation_id or scope.agent_id),
        ]
        if scope.agent_id:
            conditions.append(conversations.c.agent_id == scope.agent_id)
        async with self._db.connect() as conn:
            if (await conn.execute(sa.select(conversations.c.id).where(*conditions))).one_or_none() is not None:
                return
            if scope.agent_id:
                await _require_agent(conn, actor, scope.agent_id)
        text = f"there is no conversation {scope.conversation_id}"
        raise ConversationNotFound(text, conversation_id=scope.conversation_id)


def _hit(row: Sequence[Any]) -> MessageHit:
    *why, agent_id, conversation_id, body = row
    scores = {name: value for name, value in zip(_WHY, why, strict=True) if value is not None}
    found = StoredMessageResult(message=bytes(body), conversation_id=conversation_id, **scores)
    return MessageHit(found, agent_id)


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return messages.c.organization_id == actor.organization_id


def _within(scope: MessageScope) -> list[sa.ColumnElement[bool]]:
    pairs = (
        (messages.c.conversation_id, scope.conversation_id),
        (messages.c.agent_id, scope.agent_id),
        (messages.c.run_id, scope.run_id),
        (messages.c.step_id, scope.step_id),
    )
    return [column == value for column, value in pairs if value]


def _conditions(wanted: MessageFilter) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.types:
        conditions.append(messages.c.types.op("&")(wanted.types) != 0)
    if wanted.group_id:
        conditions.append(messages.c.group_id == wanted.group_id)
    if not wanted.include_errors:
        conditions.append(messages.c.flags.op("&")(FLAG_ERROR) == 0)
    return conditions


async def _has_one_conversation(conn: Connection, actor: Actor, agent_id: str) -> bool:
    """Say whether an agent has its default conversation alone."""
    mine = (conversations.c.organization_id == actor.organization_id, conversations.c.agent_id == agent_id)
    more = sa.select(sa.exists().where(*mine, conversations.c.id != agent_id))
    return not (await conn.execute(more)).scalar_one()


async def _require_agent(conn: Connection, actor: Actor, agent_id: str) -> None:
    query = sa.select(agents.c.id).where(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)
    if (await conn.execute(query)).one_or_none() is None:
        raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)
