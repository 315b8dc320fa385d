"""Suggestions and what is looked for, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from letta.memory.v1.memory_review_service_pb2 import ListMemorySuggestionsRequest
from letta.memory.v1.memory_suggestion_pb2 import (
    MEMORY_SUGGESTION_KIND_CORRECT_BLOCK,
    AgentReviewPolicy,
    ArchiveReviewPolicy,
    BlockCorrection,
    MemorySuggestion,
    SuggestedPassage,
    SuggestionScores,
)
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ArchiveNotFound
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_memory.domain.review.suggestions import SuggestionStatus, unknown_suggestion
from letta_memory.store.tables import agent_blocks, agents, archive_agents, archives, keyset, suggestions
from letta_postgres.db import Database, retry
from letta_postgres.keyset import fetch_page
from letta_postgres.statements import call

_OWN = ("id", "kind", "state", "archive_id", "agent_id", "block_id", "created_at", "decided_at", "decided_by_id")
_SCORES = ("same_text", "word_overlap", "similarity")
_CORRECTION = ("block_version", "line_number", "line", "replacement", "relation", "message_ids", "message_text")
_PASSAGES = ("passage_ids", "passage_texts", "passage_times")
_COLUMNS = [suggestions.c[name] for name in (*_OWN, *_SCORES, *_CORRECTION, *_PASSAGES)]
_TEXTS = sa.func.array_to_string(suggestions.c.passage_texts, "")
_DECIDE = f"select {call('memory.decide_suggestion', 'org', 'user', 'id', 'accept', 'now')}"
_ARCHIVE_POLICY = [archives.c[name] for name in ("suggest_duplicates", "most_open")]
_AGENT_POLICY = [agents.c[name] for name in ("suggest_corrections", "most_open")]


class SqlSuggestionStore:
    """Suggestions in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list_suggestions(
        self, actor: Actor, wanted: ListMemorySuggestionsRequest, page: Page
    ) -> list[MemorySuggestion]:
        """Return a page of suggestions."""
        query = sa.select(*_COLUMNS).where(_mine(actor), *_conditions(actor, wanted))
        keys = keyset(suggestions, "created_at", actor.organization_id, _mine(actor), _TEXTS)
        async with self._db.connect() as conn:
            return [_suggestion(row) for row in await fetch_page(conn, query, page, keys)]

    async def get(self, actor: Actor, suggestion_id: str) -> MemorySuggestion:
        """Return one suggestion."""
        async with self._db.connect() as conn:
            query = sa.select(*_COLUMNS).where(_mine(actor), suggestions.c.id == suggestion_id)
            row = (await conn.execute(query)).one_or_none()
        if row is None:
            raise unknown_suggestion(suggestion_id)
        return _suggestion(row)

    async def decide(self, actor: Actor, suggestion_id: str, *, accept: bool, now: datetime) -> SuggestionStatus:
        """Do what a suggestion proposes, all of it or nothing, or dismiss it; say what came of it."""
        values = {
            "org": actor.organization_id,
            "user": actor.user_id,
            "id": suggestion_id,
            "accept": accept,
            "now": now,
        }
        [(status,)] = await retry(lambda: self._db.hot(_DECIDE, values))
        return SuggestionStatus(status)

    async def get_archive_policy(self, actor: Actor, archive_id: str) -> ArchiveReviewPolicy:
        """Return what is looked for in an archive."""
        async with self._db.connect() as conn:
            row = (await conn.execute(sa.select(*_ARCHIVE_POLICY).where(_archive(actor, archive_id)))).one_or_none()
        return _archive_policy(archive_id, row)

    async def update_archive_policy(
        self, actor: Actor, archive_id: str, changes: Mapping[str, Any]
    ) -> ArchiveReviewPolicy:
        """Change what is looked for in an archive; what was written before is looked through too."""
        # Also where nothing changes, so that there is always something to set.
        values = {"review_due": archives.c.suggest_duplicates, **changes}
        if "suggest_duplicates" in changes:
            values["review_due"] = changes["suggest_duplicates"]
        change = sa.update(archives).where(_archive(actor, archive_id)).values(**values).returning(*_ARCHIVE_POLICY)
        async with self._db.begin() as tx:
            row = (await tx.execute(change)).one_or_none()
        return _archive_policy(archive_id, row)

    async def get_agent_policy(self, actor: Actor, agent_id: str) -> AgentReviewPolicy:
        """Return what is looked for in the messages of an agent."""
        async with self._db.connect() as conn:
            row = (await conn.execute(sa.select(*_AGENT_POLICY).where(_agent(actor, agent_id)))).one_or_none()
        return _agent_policy(agent_id, row)

    async def update_agent_policy(self, actor: Actor, agent_id: str, changes: Mapping[str, Any]) -> AgentReviewPolicy:
        """Change what is looked for in the messages of an agent."""
        if not changes:
            return await self.get_agent_policy(actor, agent_id)
        change = sa.update(agents).where(_agent(actor, agent_id)).values(**changes).returning(*_AGENT_POLICY)
        async with self._db.begin() as tx:
            row = (await tx.execute(change)).one_or_none()
        return _agent_policy(agent_id, row)


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return suggestions.c.organization_id == actor.organization_id


def _archive(actor: Actor, archive_id: str) -> sa.ColumnElement[bool]:
    mine = archives.c.organization_id == actor.organization_id
    return sa.and_(mine, sa.not_(archives.c.of_folder), archives.c.id == archive_id)


def _agent(actor: Actor, agent_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(agents.c.organization_id == actor.organization_id, agents.c.id == agent_id)


def _conditions(actor: Actor, wanted: ListMemorySuggestionsRequest) -> list[sa.ColumnElement[bool]]:
    """Return the conditions of a filter."""
    table = suggestions.c
    pairs = (
        (table.archive_id, wanted.archive_id),
        (table.block_id, wanted.block_id),
        (table.kind, wanted.kind),
        (table.state, wanted.state),
    )
    conditions: list[sa.ColumnElement[bool]] = [column == value for column, value in pairs if value]
    if wanted.agent_id:
        archive = sa.select(archive_agents.c.archive_id).where(
            archive_agents.c.organization_id == actor.organization_id, archive_agents.c.agent_id == wanted.agent_id
        )
        attached = sa.select(agent_blocks.c.block_id).where(
            agent_blocks.c.organization_id == actor.organization_id, agent_blocks.c.agent_id == wanted.agent_id
        )
        own = table.agent_id == wanted.agent_id
        conditions.append(sa.or_(own, table.archive_id.in_(archive), table.block_id.in_(attached)))
    return conditions


def _archive_policy(archive_id: str, row: Sequence[Any] | None) -> ArchiveReviewPolicy:
    if row is None:
        raise ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
    return ArchiveReviewPolicy(archive_id=archive_id, suggest_duplicates=row[0], most_open=row[1])


def _agent_policy(agent_id: str, row: Sequence[Any] | None) -> AgentReviewPolicy:
    if row is None:
        raise AgentNotFound(f"Agent with ID {agent_id} not found", agent_id=agent_id)
    return AgentReviewPolicy(agent_id=agent_id, suggest_corrections=row[0], most_open=row[1])


def _suggestion(row: Sequence[Any]) -> MemorySuggestion:
    own, scores = len(_OWN), len(_OWN) + len(_SCORES)
    correction = scores + len(_CORRECTION)
    found = MemorySuggestion(
        **dict(zip(_OWN, row[:own], strict=True)),
        scores=SuggestionScores(**dict(zip(_SCORES, row[own:scores], strict=True))),
        passages=[
            SuggestedPassage(passage_id=id, text=text, created_at=stamp_of(time))
            for id, text, time in zip(*row[correction:], strict=True)
        ],
    )
    if found.kind == MEMORY_SUGGESTION_KIND_CORRECT_BLOCK:
        found.correction.MergeFrom(BlockCorrection(**dict(zip(_CORRECTION, row[scores:correction], strict=True))))
    return found
