"""Who compares passages has them alone for a while, and writes nothing when that is over."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from letta.memory.v1.archive_pb2 import Archive
from letta.memory.v1.memory_review_service_pb2 import ListMemorySuggestionsRequest
from letta.memory.v1.passage_pb2 import Passage
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_memory.domain.passages import PassageScope
from letta_memory.domain.review.passages import PassageReviewer
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pruning import SqlPruneStore
from letta_memory.store.review.passages import SqlPassageReviewStore
from letta_memory.store.review.suggestions import SqlSuggestionStore
from letta_postgres.db import Database
from tests.support.databases import Databases

ANN = Actor("org-a", "user-ann")
_EXPIRE = "update memory.archive_reviews set leased_until = now() where organization_id = 'org-a'"


@pytest.fixture
async def db(databases: Databases) -> Any:
    made = await Database.open(databases.clone({"memory": "letta_memory"}), schema="memory")
    yield made
    await made.close()


async def filled(db: Database, *texts: str) -> str:
    """Make an archive with passages that have no embedder, and so wait for none."""
    now, archive_id = SystemClock().now(), new_id("archive")
    await SqlArchiveStore(db).create(
        ANN, Archive(id=archive_id, name="a", created_at=stamp_of(now), updated_at=stamp_of(now))
    )
    passages = [
        Passage(id=new_id("passage"), text=text, metadata="{}", created_at=stamp_of(now), embedding=[1.0, 0.5])
        for text in texts
    ]
    place = PassageScope(archive_id=archive_id)
    await SqlPassageStore(db).create(ANN, place, passages, embedder="test/words", request_hash=b"", now=now)
    return archive_id


async def found(db: Database) -> list[Any]:
    return await SqlSuggestionStore(db).list_suggestions(ANN, ListMemorySuggestionsRequest(), Page())


async def test_of_two_reviewers_one_has_an_archive(db: Database) -> None:
    await filled(db, "Ann likes tea.", "ann likes tea")
    store = SqlPassageReviewStore(db)
    first, second = await asyncio.gather(store.claim_archives(), store.claim_archives())

    assert len([*first, *second]) == 1
    assert await store.claim_archives() == []


async def test_a_reviewer_that_was_paused_writes_nothing_and_the_next_one_begins_where_it_began(db: Database) -> None:
    archive_id = await filled(db, "Ann likes tea.", "ann likes tea")
    paused, clock = SqlPassageReviewStore(db), SystemClock()

    class Paused(SqlPassageReviewStore):
        async def settle(self, review: Any, compared: Any) -> bool:
            await db.hot(_EXPIRE)
            [other] = await paused.claim_archives()
            assert (other.place, other.claim) == (0, review.claim + 1)
            return await super().settle(review, compared)

    assert await PassageReviewer(Paused(db), clock).turn() is False
    assert await found(db) == []
    await db.hot(_EXPIRE)
    await PassageReviewer(SqlPassageReviewStore(db), clock).turn()
    assert [each.archive_id for each in await found(db)] == [archive_id]
    # Nothing is left to do.
    assert await paused.claim_archives() == []


async def test_what_was_decided_is_forgotten_in_time_but_what_was_dismissed(db: Database) -> None:
    texts = ("Ann likes tea.", "Bob sails boats.", "Eve reads maps.", "Joe bakes bread.")
    await filled(db, *(each for text in texts for each in (text, text.lower())))
    clock = SystemClock()
    await PassageReviewer(SqlPassageReviewStore(db), clock).turn()
    store, made = SqlSuggestionStore(db), await found(db)
    assert len(made) == 4
    await store.decide(ANN, made[0].id, accept=True, now=clock.now())
    await store.decide(ANN, made[1].id, accept=False, now=clock.now())
    await SqlPassageStore(db).delete(ANN, made[2].archive_id, made[2].passages[0].passage_id)
    pruner, later = SqlPruneStore(db), clock.now() + timedelta(minutes=1)

    assert await pruner.prune_suggestions(clock.now() - timedelta(hours=1), 10) == 0
    assert await pruner.prune_suggestions(later, 1) + await pruner.prune_suggestions(later, 10) == 2
    assert {each.id for each in await found(db)} == {made[1].id, made[3].id}


async def test_work_for_a_passage_does_not_grow_with_the_archive(db: Database) -> None:
    await filled(db, *(f"Ann keeps note {number} in the blue drawer." for number in range(300)))
    store = SqlPassageReviewStore(db)
    [review] = await store.claim_archives()
    listed = await store.list_unreviewed(review, 1000)

    assert len(listed) == 300
    assert max(len(near) for _, near in listed) == 5
