"""Looks for messages of users that say otherwise than the blocks of their agents."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from letta.common.v1.message_pb2 import Message
from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.memory_suggestion_pb2 import (
    MEMORY_SUGGESTION_KIND_CORRECT_BLOCK,
    MEMORY_SUGGESTION_STATE_OPEN,
    BlockCorrection,
    MemorySuggestion,
)
from letta_common.clock import Clock
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of, time_of
from letta_memory.domain.review.statements import Fact, Statement, contradicted, facts_of, statements_of

_MESSAGES_AT_ONCE = 100  # few, so that a lease of a minute is enough by far
LONGEST_MESSAGE = 4_000
"""Characters of the longest text in which a user speaks of himself; longer ones are documents."""
LONGEST_BLOCK = 20_000
"""Characters of the longest block that is read line by line."""
_LABELS = frozenset({"human", "user"})
"""Blocks that tell of the user; others may tell of anybody."""


@dataclass(frozen=True, slots=True)
class ConversationReview:
    """A conversation to look through, whoever it belongs to; what is written carries the claim."""

    organization_id: str
    conversation_id: str
    agent_id: str
    reviewed: int
    """Number of the last message that was compared."""
    last: int
    """Number of the last message there is."""
    claim: int
    wanted: bool
    """The agent's policy asks for it."""


@dataclass(frozen=True, slots=True)
class Told:
    """A message of a user with what it says of him, and its number in the conversation."""

    seq: int
    message: Message
    statements: Sequence[Statement]


@dataclass(frozen=True, slots=True)
class Corrections:
    """What came of comparing messages up to one with blocks."""

    seq: int
    stated: Sequence[str] = ()
    """What users told of, as `block/relation`."""
    suggestions: Sequence[tuple[MemorySuggestion, bytes]] = ()
    """With the digests of their contents."""


class CorrectionStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def claim_conversations(self) -> list[ConversationReview]:
        """Return conversations that nobody else looks through, and keep others from them for a while."""
        ...

    async def list_user_messages(self, review: ConversationReview, limit: int) -> list[tuple[int, Message]]:
        """Return the next messages of users, each with its number."""
        ...

    async def list_blocks(self, review: ConversationReview) -> list[Block]:
        """Return the blocks that the conversation sees."""
        ...

    async def has_stood(self, review: ConversationReview, fact_of: tuple[str, str], at: datetime) -> bool:
        """Say whether a block, by its id, had a line at a time."""
        ...

    async def settle(self, review: ConversationReview, found: Corrections) -> bool:
        """Store what came of it; False when the claim is not the present one any more, and nothing is stored."""
        ...


class CorrectionReviewer:
    """Compares what users say of themselves with what blocks say of them."""

    def __init__(self, store: CorrectionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def turn(self) -> bool:
        """Look through a part of some conversations; say whether there may be more at once."""
        more = False
        for review in await self._store.claim_conversations():
            more = await self._look_through(review) or more
        return more

    async def _look_through(self, review: ConversationReview) -> bool:
        if not review.wanted:
            await self._store.settle(review, Corrections(review.last))
            return False
        messages = await self._store.list_user_messages(review, _MESSAGES_AT_ONCE)
        full = len(messages) == _MESSAGES_AT_ONCE
        seq = messages[-1][0] if full else review.last
        # In a thread: a hundred messages that somebody made hard to read take seconds.
        told = await asyncio.to_thread(_told, messages)
        blocks = await self._store.list_blocks(review) if told else []
        corrections = await self._corrections(review, seq, told, blocks)
        return await self._store.settle(review, corrections) and full

    async def _corrections(
        self, review: ConversationReview, seq: int, told: Sequence[Told], blocks: Sequence[Block]
    ) -> Corrections:
        stated, made = [], []
        for block in blocks:
            if block.label not in _LABELS or len(block.value) > LONGEST_BLOCK:
                continue
            for fact in await asyncio.to_thread(_facts, block):
                said = [
                    (each.message, one) for each in told for one in each.statements if one.relation == fact.relation
                ]
                if not said:
                    continue
                stated.append(f"{block.id}/{fact.relation}")
                # What was said last counts: a user may take back what he said.
                message, statement = said[-1]
                if not contradicted(statement, fact):
                    continue
                if await self._store.has_stood(review, (block.id, fact.line), time_of(message.created_at)):
                    ids = [other.id for other, one in said if one.value == statement.value]
                    made.append(self._suggestion(review, block, fact, statement, ids))
        return Corrections(seq, stated, made)

    def _suggestion(
        self, review: ConversationReview, block: Block, fact: Fact, statement: Statement, message_ids: Sequence[str]
    ) -> tuple[MemorySuggestion, bytes]:
        correction = BlockCorrection(
            block_version=block.version,
            line_number=fact.line_number,
            line=fact.line,
            replacement=fact.replaced(statement.value),
            relation=fact.relation,
            message_ids=message_ids,
            message_text=statement.sentence,
        )
        made = MemorySuggestion(
            id=new_id("suggestion"),
            kind=MEMORY_SUGGESTION_KIND_CORRECT_BLOCK,
            state=MEMORY_SUGGESTION_STATE_OPEN,
            agent_id=review.agent_id,
            block_id=block.id,
            correction=correction,
            created_at=stamp_of(self._clock.now()),
        )
        content = ("correct", block.id, fact.line, statement.value.casefold())
        return made, hashlib.sha256("\0".join(content).encode()).digest()


def _facts(block: Block) -> list[Fact]:
    return list(facts_of(block.value))


def _told(messages: Sequence[tuple[int, Message]]) -> list[Told]:
    return [Told(seq, message, found) for seq, message in messages if (found := _statements(message))]


def _statements(message: Message) -> list[Statement]:
    """Return what a user says of himself; nothing of speakers that are named, who may be anybody."""
    if message.name or message.is_automated:
        return []
    return [found for text in _texts(message) for found in statements_of(text)]


def _texts(message: Message) -> Iterator[str]:
    for part in message.parts:
        if part.WhichOneof("part") == "text" and len(part.text.text) <= LONGEST_MESSAGE:
            yield part.text.text
