"""Texts that wait to be embedded. These are system statements: they span organizations and carry each row's own."""

from __future__ import annotations

from collections.abc import Sequence

from pgvector import HalfVector

from letta_common.db import Database
from letta_memory.domain.embeddings import PendingText, Vectors

_PENDING = """
(select 'passage', p.organization_id, p.id, a.embedder, p.text
 from memory.passages p join memory.archives a on a.organization_id = p.organization_id and a.id = p.archive_id
 where p.pending limit %b)
union all
(select 'message', m.organization_id, m.id, '', m.search from memory.messages m where m.pending limit %b)
limit %b
"""
_ARCHIVES = """
update memory.archives a set embedder = %b, dimensions = %b::integer
from memory.passages p
where p.organization_id = any(%b::text[]) and p.id = any(%b::text[])
  and a.organization_id = p.organization_id and a.id = p.archive_id and a.embedder in ('', %b)
"""
_PASSAGES = """
update memory.passages p set embedding = v.vector::extensions.halfvec, embedder = %b, pending = false
from unnest(%b::text[], %b::text[], %b::text[]) v (organization_id, id, vector), memory.archives a
where p.organization_id = v.organization_id and p.id = v.id
  and a.organization_id = p.organization_id and a.id = p.archive_id and a.embedder = %b
"""
_MESSAGES = """
update memory.messages m set embedding = v.vector::extensions.halfvec, embedder = %b, pending = false
from unnest(%b::text[], %b::text[], %b::text[]) v (organization_id, id, vector)
where m.organization_id = v.organization_id and m.id = v.id
"""


class SqlPendingStore:
    """Texts that wait to be embedded, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def pending(self, limit: int) -> list[PendingText]:
        """Return some texts that wait."""
        return [PendingText(*row) for row in await self._db.hot(_PENDING, (limit, limit, limit))]

    async def settle(self, texts: Sequence[PendingText], vectors: Vectors) -> None:
        """Store the vectors of texts, which then wait no more."""
        pairs = list(zip(texts, vectors.values, strict=True))
        for kind, statement in (("passage", _PASSAGES), ("message", _MESSAGES)):
            mine = [(text, vector) for text, vector in pairs if text.kind == kind]
            if not mine:
                continue
            organizations = [text.organization_id for text, _ in mine]
            ids = [text.id for text, _ in mine]
            if kind == "passage":
                dimensions = len(mine[0][1])
                await self._db.hot(_ARCHIVES, (vectors.model, dimensions, organizations, ids, texts[0].embedder))
            lists = (organizations, ids, [HalfVector(list(vector)).to_text() for _, vector in mine])
            tail = (vectors.model,) if kind == "passage" else ()
            await self._db.hot(statement, (vectors.model, *lists, *tail))
