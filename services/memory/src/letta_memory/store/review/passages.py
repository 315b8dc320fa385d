"""Comparing passages. These are system statements: they span organizations and carry each row's own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from letta.memory.v1.memory_suggestion_pb2 import MEMORY_SUGGESTION_KIND_MERGE_PASSAGES, MemorySuggestion
from letta.memory.v1.passage_pb2 import Passage
from letta_common.values.times import stamp_of, time_of
from letta_memory.domain.review.passages import ArchiveReview, Candidate, Compared, ReviewedPassage
from letta_postgres.db import Database
from letta_postgres.statements import call

_ARCHIVES_AT_ONCE = 8
KEPT_CHARACTERS = 10_000
"""Of the text of a passage, in a suggestion."""
_CLAIM = f"""
insert into memory.archive_reviews as r (organization_id, archive_id, claim, leased_until)
select d.organization_id, d.id, 1, clock_timestamp() + interval '60 seconds' from (
  select a.organization_id, a.id from memory.archives a
  where a.review_due and not exists (
    select from memory.archive_reviews x
    where x.organization_id = a.organization_id and x.archive_id = a.id and x.leased_until > clock_timestamp())
  order by random() limit {_ARCHIVES_AT_ONCE}) d
on conflict (organization_id, archive_id)
  do update set claim = r.claim + 1, leased_until = excluded.leased_until where r.leased_until < clock_timestamp()
returning r.organization_id, r.archive_id, r.place, r.claim, (
  select a.most_open - (
    select count(*) from memory.suggestions x
    where x.organization_id = a.organization_id and x.archive_id = a.id and x.state = 1
      and x.kind = {MEMORY_SUGGESTION_KIND_MERGE_PASSAGES})
  from memory.archives a where a.organization_id = r.organization_id and a.id = r.archive_id)
"""
_UNREVIEWED = f"select * from {call('memory.list_similar', 'org', 'archive', 'after', 'most')}"
_SAME = """
select distinct on (d.digest) d.digest, p.place, p.id, p.text, p.created_at from memory.passage_digests d
join memory.passages p
  on p.organization_id = d.organization_id and p.archive_id = d.archive_id and p.id = d.passage_id
where d.organization_id = %b and d.archive_id = %b and d.digest = any(%b::bytea[]) order by d.digest, p.place desc
"""
_SETTLE = f"select {call('memory.settle_review', 'org', 'archive', 'claim', 'place', 'digest_ids', 'digests', 'new')}"
_CLOSE = f"select {call('memory.close_review', 'org', 'archive')}"


class SqlPassageReviewStore:
    """Passages to compare, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def claim_archives(self) -> list[ArchiveReview]:
        """Return archives to look through that nobody else looks through, and keep others from them for a while."""
        return [ArchiveReview(*row) for row in await self._db.hot(_CLAIM)]

    async def list_unreviewed(self, review: ArchiveReview, limit: int) -> list[tuple[ReviewedPassage, list[Candidate]]]:
        """Return the next passages of an archive, each with those before it that have many of its words."""
        values = {
            "org": review.organization_id,
            "archive": review.archive_id,
            "after": review.place,
            "most": limit,
        }
        found: dict[int, tuple[ReviewedPassage, list[Candidate]]] = {}
        for place, id, text, created_at, waiting, written_at, *other, similarity in await self._db.hot(
            _UNREVIEWED, values
        ):
            reviewed = ReviewedPassage(place, _passage(id, text, created_at), written_at if waiting else None)
            _, candidates = found.setdefault(place, (reviewed, []))
            if other[1] is not None:
                candidates.append(Candidate(ReviewedPassage(other[0], _passage(*other[1:])), similarity))
        return list(found.values())

    async def list_same(self, review: ArchiveReview, digests: Sequence[bytes]) -> dict[bytes, ReviewedPassage]:
        """Return passages that have these digests, of each the newest."""
        rows = await self._db.hot(_SAME, (review.organization_id, review.archive_id, list(digests)))
        return {row[0]: ReviewedPassage(row[1], _passage(*row[2:])) for row in rows}

    async def settle(self, review: ArchiveReview, compared: Compared) -> bool:
        """Store what came of it; False when the claim is not the present one any more, and nothing is stored."""
        org = review.organization_id
        values = {
            "org": org,
            "archive": review.archive_id,
            "claim": review.claim,
            "place": compared.place,
            "digest_ids": list(compared.digests),
            "digests": list(compared.digests.values()),
            "new": json.dumps([suggestion_row(org, *each) for each in compared.suggestions]),
        }
        [(done,)] = await self._db.hot(_SETTLE, values)
        return bool(done)

    async def close(self, review: ArchiveReview) -> None:
        """Note that nothing is left to look through, if that is so."""
        await self._db.hot(_CLOSE, {"org": review.organization_id, "archive": review.archive_id})


def _passage(id: str, text: str, created_at: datetime) -> Passage:
    return Passage(id=id, text=text, created_at=stamp_of(created_at))


def suggestion_row(organization_id: str, made: MemorySuggestion, digest: bytes) -> dict[str, Any]:
    """Return a suggestion as the JSON of its row."""
    scores, correction = made.scores, made.correction
    row: dict[str, Any] = {
        "organization_id": organization_id,
        "digest": _hex(digest),
        "passage_ids": [each.passage_id for each in made.passages],
        "passage_texts": [each.text[:KEPT_CHARACTERS] for each in made.passages],
        "passage_hashes": [_hex(hashlib.sha256(each.text.encode()).digest()) for each in made.passages],
        "passage_times": [time_of(each.created_at).isoformat() for each in made.passages],
        "same_text": scores.same_text,
        "message_ids": list(correction.message_ids),
        "created_at": time_of(made.created_at).isoformat(),
    }
    row |= {name: getattr(made, name) for name in ("id", "kind", "state")}
    row |= {name: getattr(made, name) for name in ("archive_id", "agent_id", "block_id") if made.HasField(name)}
    known = ("word_overlap", "similarity")
    row |= {name: getattr(scores, name) for name in known if scores.HasField(name)}  # type: ignore[arg-type]
    if made.HasField("correction"):
        told = ("block_version", "line_number", "line", "replacement", "relation", "message_text")
        row |= {name: getattr(correction, name) for name in told}
    return row


def _hex(value: bytes) -> str:
    return f"\\x{value.hex()}"
