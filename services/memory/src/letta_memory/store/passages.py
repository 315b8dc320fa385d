"""Passages in PostgreSQL: a write and a search are one statement each."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import BytesValue
from pgvector import HalfVector

from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1.passage_pb2 import Passage, PassageOrigin, PassageRecord
from letta.memory.v1.passage_service_pb2 import (
    PassageRanks,
    PassageSearchResult,
    SearchPassagesRequest,
    TagMatchMode,
)
from letta.memory.v1.search_order_pb2 import SearchOrder
from letta_common.actor import Actor
from letta_common.errors import AgentNotFound, ArchiveNotFound, PassageNotFound
from letta_common.values.ids import derived_id
from letta_common.values.paging import Page
from letta_common.values.repeats import another_request
from letta_common.values.times import optional_time, time_of
from letta_memory.domain.embeddings import embedding_config
from letta_memory.domain.passages import PassageScope, WriteResult
from letta_memory.store.files.folders import require_folder
from letta_memory.store.tables import ListKeyset, archive_agents, files, folders, keyset, passages, search_texts
from letta_postgres.compiled import Compiled
from letta_postgres.db import Database, retry
from letta_postgres.keyset import fetch_page
from letta_postgres.statements import call

_NAMES = (
    "id",
    "archive_id",
    "text",
    "tags",
    "metadata",
    "created_by_id",
    "last_updated_by_id",
    "created_at",
    "updated_at",
    "file_id",
)
_ORIGIN = tuple(field.name for field in PassageOrigin.DESCRIPTOR.fields)
ORIGINS = tuple(f"origin_{name}" for name in _ORIGIN)
# A vector comes as pgvector writes it in binary: its text costs six times as much to read.
_COLUMNS = [
    *(passages.c[name] for name in _NAMES),
    *(passages.c[name] for name in ORIGINS),
    passages.c.embedder,
    sa.select(sa.func.extensions.halfvec_send(search_texts.c.embedding))
    .where(
        search_texts.c.organization_id == passages.c.organization_id,
        search_texts.c.scope == passages.c.scope,
        search_texts.c.place == passages.c.place,
    )
    .scalar_subquery()
    .label("embedding"),
]
_FIELDS = ", ".join(f"(r.passage).{name}" for name in (*_NAMES, *ORIGINS, "embedder"))
VECTOR = "extensions.halfvec_send(r.embedding)"
_PLACE = ("org", "user", "agent", "archive", "new_archive", "now", "embedder")
_ROWS = ("ids", "texts", "metadata", "tags", "times", "vectors", "origins")
_WRITE = (
    f"select r.status, r.archive_embedder, r.existing, {_FIELDS}, {VECTOR} "
    f"from {call('memory.write_passages', *_PLACE, *_ROWS, 'request_hash')} r"
)
_QUESTION = ("query", "vectors", "embedders", "embeddings")
_FILTERS = ("tags", "all", "from", "to", "newest", "limit", "now")
_SEARCH = (
    "select r.score, r.word_place, r.meaning_place, r.word_score, r.meaning_score, r.approximate_words, "
    f"{_FIELDS}, {VECTOR} "
    f"from {call('memory.search_passages', 'org', 'archives', *_QUESTION, *_FILTERS)} r"
)
_DELETE = f"select {call('memory.delete_passage', 'org', 'archive', 'id')}"
_RANKS = ("word_rank", "meaning_rank", "word_score", "meaning_score", "approximate_words")
_NO_ARCHIVE, _NO_AGENT, _OTHER_REQUEST = 1, 2, 3


class SqlPassageStore:
    """Passages in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self,
        actor: Actor,
        place: PassageScope,
        passages: Sequence[Passage],
        *,
        embedder: str,
        request_hash: bytes,
        now: datetime,
    ) -> WriteResult:
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
            "ids": [passage.id for passage in passages],
            "texts": [passage.text for passage in passages],
            "metadata": [passage.metadata for passage in passages],
            "tags": [json.dumps(list(passage.tags)) for passage in passages],
            "times": [time_of(passage.created_at) for passage in passages],
            "vectors": [HalfVector(list(passage.embedding)) if passage.embedding else None for passage in passages],
            "origins": [origin_text(passage) for passage in passages],
            "request_hash": request_hash or None,
        }
        rows = await retry(lambda: self._db.hot(_WRITE, values))
        status = rows[0][0]
        if status == _NO_AGENT:
            raise AgentNotFound(f"Agent with ID {place.agent_id} not found", agent_id=place.agent_id)
        if status == _NO_ARCHIVE:
            raise _no_archive(place.archive_id)
        if status == _OTHER_REQUEST:
            raise another_request()
        existing = [number for number, row in enumerate(rows) if row[2]]
        return WriteResult([_passage(actor, row[3:]) for row in rows], existing, embedder=rows[0][1])

    async def delete(self, actor: Actor, archive_id: str, passage_id: str) -> None:
        """Remove a passage."""
        values = {"org": actor.organization_id, "archive": archive_id, "id": passage_id}
        [(status,)] = await retry(lambda: self._db.hot(_DELETE, values))
        if status == _NO_ARCHIVE and archive_id:
            raise _no_archive(archive_id)
        if status:
            raise PassageNotFound(f"the archive has no passage {passage_id}", passage_id=passage_id)

    async def list_passages(
        self, actor: Actor, archive_id: str, page: Page, *, containing: str, now: datetime
    ) -> list[Passage]:
        """Return a page of the passages that an archive keeps."""
        query, keys = _kept(actor.organization_id, archive_id, now)
        if containing:
            query = query.where(passages.c.text.icontains(containing, autoescape=True))
        async with self._db.connect() as conn:
            return [_passage(actor, row) for row in await fetch_page(conn, query, page, keys)]

    async def first_of_agent(self, actor: Actor, agent_id: str, page: Page, *, now: datetime) -> list[Passage]:
        """Return the first page of an agent's passages, which is what screens ask for; none also without the agent."""
        rows = await _first_page(page).run(self._db, org=actor.organization_id, agent=agent_id, now=now)
        return [_passage(actor, row) for row in (rows[::-1] if page.backwards else rows)]

    async def list_of_folder(self, actor: Actor, folder_id: str, page: Page) -> list[Passage]:
        """Return a page of the chunks of a folder's files, with the names of these."""
        scope = sa.and_(passages.c.organization_id == actor.organization_id, passages.c.archive_id == folder_id)
        name = sa.select(folders.c.name + "/" + files.c.name).where(
            files.c.organization_id == passages.c.organization_id,
            files.c.id == passages.c.file_id,
            folders.c.organization_id == passages.c.organization_id,
            folders.c.id == passages.c.archive_id,
        )
        query = sa.select(*_COLUMNS, name.scalar_subquery().label("file_name")).where(scope)
        keys = keyset(passages, "created_at", actor.organization_id, scope, passages.c.text)
        async with self._db.connect() as conn:
            await require_folder(conn, actor, folder_id)
            rows = await fetch_page(conn, query, page, keys)
        found = [(_passage(actor, row[:-1]), row[-1]) for row in rows]
        for passage, file_name in found:
            passage.file_name = file_name
        return [passage for passage, _ in found]

    async def search(
        self,
        actor: Actor,
        archive_ids: Sequence[str],
        query: SearchPassagesRequest,
        questions: Sequence[EmbedResponse],
        *,
        embeddings: bool,
        now: datetime,
    ) -> list[PassageSearchResult]:
        """Return what fits best: the newest where the query is empty, and by words alone without its vectors."""
        values = {
            "org": actor.organization_id,
            "archives": list(archive_ids),
            "query": query.query.replace("\0", ""),
            "vectors": [HalfVector(list(question.embeddings[0].values)) for question in questions],
            "embedders": [question.model for question in questions],
            "tags": list(query.tags) or None,
            "all": query.tag_match_mode == TagMatchMode.TAG_MATCH_MODE_ALL,
            "from": optional_time(query, "start_date"),
            "to": optional_time(query, "end_date"),
            "newest": query.order == SearchOrder.SEARCH_ORDER_NEWEST,
            "limit": query.limit,
            "embeddings": embeddings,
            "now": now,
        }
        return [_result(actor, row) for row in await self._db.hot(_SEARCH, values)]


def _kept(org: Any, archive: Any, now: Any) -> tuple[sa.Select[Any], ListKeyset]:
    """Return the query of the passages that an archive keeps, and what pages it, by values or by parameters."""
    scope = sa.and_(passages.c.organization_id == org, passages.c.archive_id == archive)
    since = sa.select(sa.func.memory.kept_since(org, archive, now)).scalar_subquery()
    place = sa.select(sa.func.memory.kept_place(org, archive)).scalar_subquery()
    query = sa.select(*_COLUMNS).where(scope, passages.c.created_at >= since, passages.c.place >= place)
    return query, keyset(passages, "created_at", org, scope, passages.c.text)


@functools.lru_cache(maxsize=64)
def _first_page(page: Page) -> Compiled:
    org = sa.bindparam("org", type_=sa.Text)
    links = archive_agents.c
    linked = sa.select(links.archive_id).where(links.organization_id == org, links.agent_id == sa.bindparam("agent"))
    query, keys = _kept(org, linked.scalar_subquery(), sa.bindparam("now", type_=sa.DateTime(timezone=True)))
    return Compiled(keys.narrow(query, page))


def _passage(actor: Actor, row: Sequence[Any]) -> Passage:
    plain, origin, (embedder, vector) = row[: len(_NAMES)], row[len(_NAMES) : -2], row[-2:]
    embedding = components_of(vector) if vector else ()
    passage = Passage(
        organization_id=actor.organization_id,
        embedding=embedding,
        embedding_config=embedding_config(embedder, len(embedding)),
        origin=origin_of(origin),
        **dict(zip(_NAMES, plain, strict=True)),
    )
    if passage.HasField("file_id"):
        # The archive of a folder has the folder's id, and callers know the folder alone.
        passage.folder_id = passage.archive_id
        passage.ClearField("archive_id")
    return passage


def components_of(vector: bytes) -> Sequence[float]:
    """Return the components of a stored vector as messages hold them, without a Python float for each."""
    import numpy as np  # a service that is asked for no vector starts without it

    packed = np.frombuffer(vector, dtype=">f2", offset=4).astype("<f4").tobytes()  # four bytes say how many there are
    # On the wire, packed numbers are bytes like any others.
    return Embedding.FromString(BytesValue(value=packed).SerializeToString()).values


def origin_of(said: Sequence[Any]) -> PassageOrigin | None:
    """Return the origin that a row says; None where it says nothing."""
    return PassageOrigin(**dict(zip(_ORIGIN, said, strict=True))) if any(said) else None


def origin_text(passage: Passage | PassageRecord) -> str:
    """Return the origin as the statement reads it: a JSON object of what is said, empty where nothing is."""
    said = {field.name: value for field, value in passage.origin.ListFields()}
    return json.dumps(said) if said else ""


def _result(actor: Actor, row: Sequence[Any]) -> PassageSearchResult:
    score, *why, passage = row[0], *row[1:6], row[6:]
    ranks = PassageRanks(**dict(zip(_RANKS, why, strict=True)))
    return PassageSearchResult(passage=_passage(actor, passage), score=score, ranks=ranks)


def _no_archive(archive_id: str) -> ArchiveNotFound:
    return ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
