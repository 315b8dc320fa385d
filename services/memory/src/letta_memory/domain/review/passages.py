"""Looks for passages that say the same, as they arrive: each is compared with those before it, a bounded number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from letta.memory.v1.memory_suggestion_pb2 import (
    MEMORY_SUGGESTION_KIND_MERGE_PASSAGES,
    MEMORY_SUGGESTION_STATE_OPEN,
    MemorySuggestion,
    SuggestedPassage,
    SuggestionScores,
)
from letta.memory.v1.passage_pb2 import Passage
from letta_common.clock import Clock
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of, time_of
from letta_memory.domain.review.duplicates import compare, digest_of

_PASSAGES_AT_ONCE = 32  # few, so that a lease of a minute is enough by far
_PATIENCE = timedelta(minutes=10)  # how long a passage waits for its vector before words alone decide


@dataclass(frozen=True, slots=True)
class ArchiveReview:
    """An archive to look through, whoever it belongs to; what is written carries the claim."""

    organization_id: str
    archive_id: str
    place: int
    claim: int
    room: int
    """Suggestions that may still be made."""


@dataclass(frozen=True, slots=True)
class ReviewedPassage:
    """A passage as it is compared."""

    place: int
    passage: Passage
    waits_since: datetime | None = None
    """When it was written, while it waits for its vector."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage that has many words of another one, and the cosine of their vectors where both have one."""

    other: ReviewedPassage
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of comparing passages."""

    place: int
    digests: Mapping[str, bytes] = field(default_factory=dict)
    """By the ids of the passages."""
    suggestions: Sequence[tuple[MemorySuggestion, bytes]] = ()
    """With the digests of their contents."""


class PassageReviewStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def claim_archives(self) -> list[ArchiveReview]:
        """Return archives to look through that nobody else looks through, and keep others from them for a while."""
        ...

    async def list_unreviewed(self, review: ArchiveReview, limit: int) -> list[tuple[ReviewedPassage, list[Candidate]]]:
        """Return the next passages of an archive, each with those before it that have many of its words."""
        ...

    async def list_same(self, review: ArchiveReview, digests: Sequence[bytes]) -> dict[bytes, ReviewedPassage]:
        """Return passages that have these digests, of each the newest."""
        ...

    async def settle(self, review: ArchiveReview, compared: Compared) -> bool:
        """Store what came of it; False when the claim is not the present one any more, and nothing is stored."""
        ...

    async def close(self, review: ArchiveReview) -> None:
        """Note that nothing is left to look through, if that is so."""
        ...


class PassageReviewer:
    """Compares new passages with those before them."""

    def __init__(self, store: PassageReviewStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def turn(self) -> bool:
        """Look through a part of some archives; say whether there may be more at once."""
        more = False
        for review in await self._store.claim_archives():
            more = await self._look_through(review) or more
        return more

    async def _look_through(self, review: ArchiveReview) -> bool:
        if review.room <= 0:
            await self._store.settle(review, Compared(review.place))
            await self._store.close(review)
            return False
        found = await self._store.list_unreviewed(review, _PASSAGES_AT_ONCE)
        compared = await self._compare(review, found)
        if not await self._store.settle(review, compared):
            return False
        if len(found) == _PASSAGES_AT_ONCE and compared.place > review.place:
            return True
        await self._store.close(review)
        return False

    async def _compare(
        self, review: ArchiveReview, found: Sequence[tuple[ReviewedPassage, list[Candidate]]]
    ) -> Compared:
        digests = {each.passage.id: digest_of(each.passage.text) for each, _ in found}
        same = await self._store.list_same(review, [*digests.values()])
        made: list[tuple[MemorySuggestion, bytes]] = []
        place, done = review.place, {}
        for each, near in found:
            if len(made) == review.room or self._waits(each):
                break
            digest = digests[each.passage.id]
            twin = same.get(digest)
            known = {each.place, *(candidate.other.place for candidate in near)}
            others = [*near, Candidate(twin, None)] if twin is not None and twin.place not in known else near
            if (pair := best_pair(each, others)) is not None:
                made.append(self._suggestion(review, *pair))
            place, done[each.passage.id] = each.place, digest
            same[digest] = each
        return Compared(place, done, made)

    def _waits(self, each: ReviewedPassage) -> bool:
        return each.waits_since is not None and self._clock.now() - each.waits_since < _PATIENCE

    def _suggestion(
        self, review: ArchiveReview, older: Passage, newer: Passage, scores: SuggestionScores
    ) -> tuple[MemorySuggestion, bytes]:
        passages = [
            SuggestedPassage(passage_id=each.id, text=each.text, created_at=each.created_at) for each in (older, newer)
        ]
        contents = sorted(digest_of(each.text) for each in (older, newer))
        made = MemorySuggestion(
            id=new_id("suggestion"),
            kind=MEMORY_SUGGESTION_KIND_MERGE_PASSAGES,
            state=MEMORY_SUGGESTION_STATE_OPEN,
            archive_id=review.archive_id,
            passages=passages,
            scores=scores,
            created_at=stamp_of(self._clock.now()),
        )
        return made, hashlib.sha256(b"\0".join([b"merge", review.archive_id.encode(), *contents])).digest()


def best_pair(
    reviewed: ReviewedPassage, candidates: Sequence[Candidate]
) -> tuple[Passage, Passage, SuggestionScores] | None:
    """Return the passage and that of the candidates that says the same best, the older first; None without one."""
    best: tuple[Passage, Passage, SuggestionScores] | None = None
    for candidate in candidates:
        # Of two passages the newer one is that whose event is later, as when they are merged.
        pair = sorted((reviewed, candidate.other), key=lambda each: (time_of(each.passage.created_at), each.place))
        older, newer = (each.passage for each in pair)
        why = compare(older.text, newer.text, candidate.similarity)
        if why is not None and (best is None or why.word_overlap > best[2].word_overlap):
            best = older, newer, why
    return best
