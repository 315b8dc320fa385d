"""Texts that wait to be embedded. These are system statements: they span organizations and carry each row's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pgvector import HalfVector

from letta.llm.v1.embedding_service_pb2 import EmbedResponse
from letta.memory.v1.file_pb2 import FileStatus
from letta_common.errors import EmbeddingDimensionChanged
from letta_memory.domain.embeddings import Failure, PendingText, dimension_changed, with_turn_before
from letta_postgres.db import Database

_ARCHIVES_AT_ONCE = 16  # few, so that one look stays short whatever number of archives waits
_BYTES_AT_ONCE = 4 << 20  # of text, so that a look takes little memory however long the passages are
# Archives come in turn, those first that were not looked at for longest; one whose embedder makes other vectors than
# before is looked at seldom.
_PASSAGES = f"""
with due as (
  select a.organization_id, a.id from memory.archives a
  where a.waiting_since is not null and (a.failure_reason <> '{EmbeddingDimensionChanged.reason}'
    or a.tried_at < clock_timestamp() - interval '10 minutes')
  order by a.tried_at nulls first limit {_ARCHIVES_AT_ONCE} for update skip locked),
turn as (
  update memory.archives a set tried_at = clock_timestamp() from due d
  where a.organization_id = d.organization_id and a.id = d.id
  returning a.organization_id, a.id, a.embedder, a.generation, a.waiting_since),
found as (
  select t.*, p.id as passage_id, p.text,
    sum(octet_length(p.text)) over (order by p.place, t.organization_id, t.id, p.id) - octet_length(p.text) as before
  from turn t left join lateral (
    select w.id, w.text, row_number() over () as place from (
      (select p.id, p.text from memory.passages p
       where p.organization_id = t.organization_id and p.archive_id = t.id and p.pending limit %b::integer)
      union
      (select p.id, p.text from memory.passages p
       where p.organization_id = t.organization_id and p.archive_id = t.id and p.generation < t.generation
       limit %b::integer)) w limit %b::integer) p on true)
select 'passage', f.organization_id, coalesce(f.passage_id, ''), f.embedder, coalesce(f.text, ''), f.id, f.waiting_since
from found f where f.passage_id is null or f.before < {_BYTES_AT_ONCE}
"""
_MESSAGES = """
with recursive owners as (
  (select t.organization_id from memory.search_texts t where t.pending order by t.organization_id limit 1)
  union all
  select (select t.organization_id from memory.search_texts t where t.pending and t.organization_id > o.organization_id
          order by t.organization_id limit 1)
  from owners o where o.organization_id is not null),
picked as (
  select o.organization_id from owners o where o.organization_id is not null order by random() limit %b::integer)
select 'message', s.organization_id, t.scope || ':' || t.place, '', t.search, '', null::timestamptz,
  coalesce(t.before, '')
from picked s cross join lateral (
  select t.scope, t.place, m.search, (
    select b.search from memory.messages b
    where b.organization_id = t.organization_id and b.conversation_id = t.conversation_id and b.seq < t.seq
      and b.seq >= t.seq - 4 and b.search <> '' order by b.seq desc limit 1) as before
  from memory.search_texts t
  join memory.messages m
    on m.organization_id = t.organization_id and m.conversation_id = t.conversation_id and m.seq = t.seq
  where t.organization_id = s.organization_id and t.pending
  limit greatest(1, %b::integer / (select count(*) from picked))) t
"""
_DONE = """
with counted as (
  update memory.search_scopes s set due = true where s.organization_id = %b and s.owner_id = %b)
update memory.archives a set waiting_since = null, former_embedders = '{}', failure_reason = '', failure = ''
where a.organization_id = %b and a.id = %b and a.waiting_since = %b::timestamptz
"""
_NAMED = """
update memory.archives a set embedder = %b, dimensions = %b::integer
where a.organization_id = %b and a.id = any(%b::text[]) and a.embedder in ('', %b) and a.dimensions is null
"""
_SETTLE = """
with settled as (
  update memory.passages p set embedder = a.embedder, pending = false, generation = a.generation
  from unnest(%b::text[], %b::extensions.halfvec[]) v (id, vector), memory.archives a
  where p.organization_id = %b and p.id = v.id
    and a.organization_id = p.organization_id and a.id = p.archive_id and a.embedder = %b and a.dimensions = %b::integer
  returning p.organization_id, p.archive_id, p.scope, p.place, p.embedder, v.vector),
stored as (
  update memory.search_texts t set embedding = s.vector, model = memory.model_of(s.embedder, s.vector),
    cell = least(t.cell, -1)
  from settled s where t.organization_id = s.organization_id and t.scope = s.scope and t.place = s.place)
select archive_id from settled
"""
_CHANGED = """
select a.id, a.dimensions from memory.archives a
where a.organization_id = %b and a.id = any(%b::text[]) and a.embedder = %b and a.dimensions <> %b::integer
"""
_FAILED = """
update memory.archives a set failure_reason = %b, failure = %b
where a.organization_id = %b and a.id = any(%b::text[])
"""
# Files whose chunks all have their vectors now; an archive that is no folder's has none.
_COMPLETED = f"""
update memory.files f set status = {FileStatus.FILE_STATUS_COMPLETED}, updated_at = now()
where f.organization_id = %b and f.folder_id = any(%b::text[]) and f.deleted_at is null
  and f.status = {FileStatus.FILE_STATUS_EMBEDDING} and not exists (
    select from memory.passages p where p.organization_id = f.organization_id and p.file_id = f.id and p.pending)
"""
_SETTLE_MESSAGES = """
with settled as (
  update memory.search_texts t set embedding = v.vector, model = memory.model_of(%b, v.vector), pending = false,
    cell = least(t.cell, -1)
  from (select split_part(w.id, ':', 1)::integer as scope, split_part(w.id, ':', 2)::integer as place,
    w.vector from unnest(%b::text[], %b::extensions.halfvec[]) w (id, vector)) v
  where t.organization_id = %b and t.scope = v.scope and t.place = v.place
  returning t.organization_id, t.scope)
-- Until it is counted, each search makes the mean of the vectors itself.
update memory.search_scopes s set due = true
where (s.organization_id, s.scope) in (select organization_id, scope from settled)
  and s.model = 0 and s.text_count >= 32
"""


class SqlPendingStore:
    """Texts that wait to be embedded, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list_pending(self, limit: int) -> list[PendingText]:
        """Return some texts that wait, of archives and organizations in turn."""
        found: list[PendingText] = []
        for *row, since in await self._db.hot(_PASSAGES, (limit, limit, limit)):
            text = PendingText(*row)
            if text.id:
                found.append(text)
            # A row without a passage: nothing of the archive waits any more.
            else:
                await self._complete(text.organization_id, [text.archive_id])
                await self._db.hot(_DONE, (*[text.organization_id, text.archive_id] * 2, since))
        messages = await self._db.hot(_MESSAGES, (limit, limit))
        return [*found, *(_message(row) for row in messages)]

    async def settle(self, texts: Sequence[PendingText], vectors: EmbedResponse) -> None:
        """Store the vectors of texts of one organization, which then wait no more.

        Raises:
            EmbeddingDimensionChanged: the embedder made vectors of another dimension than an archive has.
        """
        pairs = [(text, found.values) for text, found in zip(texts, vectors.embeddings, strict=True)]
        org = texts[0].organization_id
        if messages := [pair for pair in pairs if pair[0].kind == "message"]:
            await self._db.hot(_SETTLE_MESSAGES, (vectors.model, *_columns(messages), org))
        passages = [pair for pair in pairs if pair[0].kind == "passage"]
        if not passages:
            return
        archives = sorted({text.archive_id for text, _ in passages})
        size, model = len(passages[0][1]), vectors.model
        # Before _SETTLE, which compares the archive's embedder and dimension with these.
        await self._db.hot(_NAMED, (model, size, org, archives, texts[0].embedder))
        rows = await self._db.hot(_SETTLE, (*_columns(passages), org, model, size))
        await self._complete(org, sorted({row[0] for row in rows}))
        left = sorted(set(archives) - {row[0] for row in rows})
        for archive_id, dimensions in await self._db.hot(_CHANGED, (org, left, model, size)) if left else ():
            raise dimension_changed(model, size, archive_id, dimensions)

    async def _complete(self, organization_id: str, archive_ids: Sequence[str]) -> None:
        """Say of files whose chunks all have their vectors that they are complete."""
        folders = [archive_id for archive_id in archive_ids if archive_id.startswith("source-")]
        if folders:
            await self._db.hot(_COMPLETED, (organization_id, folders))

    async def fail(self, texts: Sequence[PendingText], failure: Failure) -> None:
        """Note why texts of one organization are not embedded yet."""
        archives = sorted({text.archive_id for text in texts if text.archive_id})
        if failure.archive_id:
            archives = [failure.archive_id]
        if archives:
            await self._db.hot(_FAILED, (failure.reason, failure.message, texts[0].organization_id, archives))


def _columns(pairs: Sequence[tuple[PendingText, Sequence[float]]]) -> tuple[list[str], list[HalfVector]]:
    return [text.id for text, _ in pairs], [HalfVector(list(vector)) for _, vector in pairs]


def _message(row: Sequence[Any]) -> PendingText:
    """Return a message that waits, with what was said before it where both are short."""
    kind, organization_id, place, embedder, text, archive_id, _, before = row
    return PendingText(kind, organization_id, place, embedder, with_turn_before(before, text), archive_id)
