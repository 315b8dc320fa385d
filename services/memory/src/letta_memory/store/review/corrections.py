"""Comparing messages with blocks. These are system statements: they span organizations and carry each row's own."""

from __future__ import annotations

import json
from datetime import datetime

from letta.common.v1.message_pb2 import Message, MessageRole
from letta.memory.v1.block_pb2 import Block
from letta_memory.domain.review.corrections import ConversationReview, Corrections
from letta_memory.store.review.passages import suggestion_row
from letta_memory.store.rows import BLOCK_COLUMNS, block_of
from letta_postgres.db import Database
from letta_postgres.statements import call

_CONVERSATIONS_AT_ONCE = 16
_CLAIM = f"""
update memory.search_positions p set claim = p.claim + 1, leased_until = clock_timestamp() + interval '60 seconds'
from (
  select x.organization_id, x.conversation_id from memory.search_positions x
  where x.seq > x.reviewed and x.leased_until < clock_timestamp()
  limit {_CONVERSATIONS_AT_ONCE} for update skip locked) d
join memory.conversations c on c.organization_id = d.organization_id and c.id = d.conversation_id
join memory.agents g on g.organization_id = c.organization_id and g.id = c.agent_id
where p.organization_id = d.organization_id and p.conversation_id = d.conversation_id
returning p.organization_id, p.conversation_id, c.agent_id, p.reviewed, p.seq, p.claim, g.suggest_corrections
"""
# Copies in a fork have no text for search; their originals are compared.
_MESSAGES = f"""
select m.seq, m.body from memory.messages m
where m.organization_id = %b and m.conversation_id = %b and m.seq > %b::bigint and m.seq <= %b::bigint
  and m.role = {MessageRole.MESSAGE_ROLE_USER} and m.search <> ''
order by m.seq limit %b::integer
"""
_BLOCKS = f"select {BLOCK_COLUMNS} from memory.blocks_of(%b, %b, %b)"
_STOOD = """
select %b = any(string_to_array(h.value, E'\\n')) from memory.block_history h
where h.organization_id = %b and h.block_id = %b and h.created_at <= %b::timestamptz order by h.version desc limit 1
"""
_NAMES = ("org", "agent", "conversation", "claim", "seq", "stated", "new")
_SETTLE = f"select {call('memory.settle_corrections', *_NAMES)}"


class SqlCorrectionStore:
    """Messages to compare with blocks, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def claim_conversations(self) -> list[ConversationReview]:
        """Return conversations that nobody else looks through, and keep others from them for a while."""
        return [ConversationReview(*row) for row in await self._db.hot(_CLAIM)]

    async def list_user_messages(self, review: ConversationReview, limit: int) -> list[tuple[int, Message]]:
        """Return the next messages of users, each with its number."""
        place = (review.organization_id, review.conversation_id, review.reviewed, review.last, limit)
        return [(seq, Message.FromString(body)) for seq, body in await self._db.hot(_MESSAGES, place)]

    async def list_blocks(self, review: ConversationReview) -> list[Block]:
        """Return the blocks that the conversation sees."""
        place = (review.organization_id, review.agent_id, review.conversation_id)
        return [block_of(row) for row in await self._db.hot(_BLOCKS, place)]

    async def has_stood(self, review: ConversationReview, fact_of: tuple[str, str], at: datetime) -> bool:
        """Say whether a block, by its id, had a line at a time."""
        block_id, line = fact_of
        rows = await self._db.hot(_STOOD, (line, review.organization_id, block_id, at))
        return bool(rows and rows[0][0])

    async def settle(self, review: ConversationReview, found: Corrections) -> bool:
        """Store what came of it; False when the claim is not the present one any more, and nothing is stored."""
        org = review.organization_id
        values = {
            "org": org,
            "agent": review.agent_id,
            "conversation": review.conversation_id,
            "claim": review.claim,
            "seq": found.seq,
            "stated": list(found.stated),
            "new": json.dumps([suggestion_row(org, *each) for each in found.suggestions]),
        }
        [(done,)] = await self._db.hot(_SETTLE, values)
        return bool(done)
