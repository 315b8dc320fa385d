"""Passages in PostgreSQL: a write and a search are one statement each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from pgvector import HalfVector

from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ArchiveNotFound, PassageNotFound
from letta_common.values.ids import derived_id
from letta_common.values.paging import Page
from letta_common.values.repeats import another_request
from letta_memory.domain.passages import (
    Passage,
    PassageDraft,
    PassageHit,
    PassageQuery,
    PassageScope,
    QueryVector,
    Written,
)
from letta_memory.store.tables import keyset, passages
from letta_postgres.db import Database, retry
from letta_postgres.keyset import fetch_page
from letta_postgres.statements import call

PASSAGE_COLUMNS = (
    "id",
    "archive_id",
    "text",
    "tags",
    "metadata",
    "created_by_id",
    "last_updated_by_id",
    "created_at",
    "updated_at",
    "embedding",
    "embedder",
)
_COLUMNS = [passages.c[name] for name in PASSAGE_COLUMNS]
_FIELDS = ", ".join(f"(r.passage).{name}" for name in PASSAGE_COLUMNS)
_PLACE = ("org", "user", "agent", "archive", "new_archive", "now", "embedder")
_ROWS = ("ids", "texts", "metadata", "tags", "times", "vectors")
_WRITE = (
    f"select r.status, r.archive_embedder, {_FIELDS} "
    f"from {call('memory.write_passages', *_PLACE, *_ROWS, 'request_hash')} r"
)
_FILTERS = ("tags", "all", "from", "to", "limit")
_SEARCH = (
    f"select r.score, r.word_place, r.meaning_place, {_FIELDS} "
    f"from {call('memory.search_passages', 'org', 'archive', 'query', 'vector', 'embedder', *_FILTERS)} r"
)
_DELETE = sa.text(
    "with gone as (delete from memory.passages where organization_id = :org and archive_id = :archive and id = :id "
    "returning organization_id, id, created_at), counted as (update memory.archives a "
    "set passage_count = passage_count - 1 from gone where a.organization_id = :org and a.id = :archive) "
    "insert into memory.tombstones (organization_id, id, created_at) select * from gone "
    "on conflict (organization_id, id) do update set deleted_at = now()"
)
_NO_ARCHIVE, _NO_AGENT, _OTHER_REQUEST = 1, 2, 3


class SqlPassageStore:
    """Passages in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self, actor: Actor, place: PassageScope, drafts: Sequence[PassageDraft], *, embedder: str, now: datetime
    ) -> Written:
        """Store passages once for each id; make an agent's archive."""
        org = actor.organization_id
        values = {
            "org": org,
            "user": actor.user_id,
            "agent": place.agent_id,
            "archive": place.archive_id or None,
            "new_archive": derived_id("archive", org, place.agent_id),
            "now": now,
            "embedder": embedder,
            "ids": [draft.id for draft in drafts],
            "texts": [draft.text for draft in drafts],
            "metadata": [draft.metadata for draft in drafts],
            "tags": [json.dumps(draft.tags) for draft in drafts],
            "times": [draft.created_at for draft in drafts],
            "vectors": [None if draft.vector is None else HalfVector(list(draft.vector)) for draft in drafts],
            "request_hash": next((draft.request_hash for draft in drafts if draft.request_hash), None),
        }
        rows = await retry(lambda: self._db.hot(_WRITE, values))
        status = rows[0][0]
        if status == _NO_AGENT:
            raise AgentNotFound(f"Agent with ID {place.agent_id} not found", agent_id=place.agent_id)
        if status == _NO_ARCHIVE:
            raise _no_archive(place.archive_id)
        if status == _OTHER_REQUEST:
            raise another_request()
        return Written(tuple(passage_of(row[2:]) for row in rows), rows[0][1])

    async def delete(self, actor: Actor, archive_id: str, passage_id: str) -> None:
        """Remove a passage."""
        values = {"org": actor.organization_id, "archive": archive_id, "id": passage_id}
        async with self._db.begin() as tx:
            if (await tx.execute(_DELETE, values)).rowcount == 1:
                return
            known = await tx.execute(
                sa.text("select from memory.archives where organization_id = :org and id = :archive"), values
            )
            if archive_id and known.one_or_none() is None:
                raise _no_archive(archive_id)
        raise PassageNotFound(f"the archive has no passage {passage_id}", passage_id=passage_id)

    async def list_passages(self, actor: Actor, archive_id: str, page: Page, *, containing: str) -> list[Passage]:
        """Return a page of passages."""
        scope = sa.and_(passages.c.organization_id == actor.organization_id, passages.c.archive_id == archive_id)
        query = sa.select(*_COLUMNS).where(scope)
        if containing:
            query = query.where(passages.c.text.icontains(containing, autoescape=True))
        keys = keyset(passages, "created_at", actor.organization_id, scope, passages.c.text)
        async with self._db.connect() as conn:
            return [passage_of(tuple(row)) for row in await fetch_page(conn, query, page, keys)]

    async def search(
        self, actor: Actor, archive_id: str, query: PassageQuery, question: QueryVector
    ) -> list[PassageHit]:
        """Return what fits best."""
        values = {
            "org": actor.organization_id,
            "archive": archive_id,
            "query": query.text.replace("\0", ""),
            "vector": None if question.vector is None else HalfVector(list(question.vector)),
            "embedder": question.embedder,
            "tags": list(query.tags) or None,
            "all": query.match_all_tags,
            "from": query.start,
            "to": query.end,
            "limit": query.limit,
        }
        return [PassageHit(passage_of(row[3:]), *row[:3]) for row in await self._db.hot(_SEARCH, values)]


def passage_of(row: tuple[Any, ...]) -> Passage:
    """Build a passage from its columns, in the order of PASSAGE_COLUMNS."""
    vector = row[9]
    embedding = None if vector is None else tuple(vector.to_list())
    return Passage(*row[:3], tuple(row[3] or ()), *row[4:9], embedding, row[10])  # type: ignore[call-arg]


def _no_archive(archive_id: str) -> ArchiveNotFound:
    return ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
