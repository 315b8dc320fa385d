"""What archives keep: by age, by number, each text once, and what is used."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from letta.memory.v1.archive_pb2 import DEDUPLICATION_SKIP
from letta.memory.v1.archive_service_pb2 import CreateArchiveRequest
from letta.memory.v1.passage_service_pb2 import NewPassage, SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.errors import DatabaseUnavailable
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_memory.clients.embeddings import NoEmbedder
from letta_memory.domain.archival.uses import PassageUses
from letta_memory.domain.archives import Archives
from letta_memory.domain.passages import Passages
from letta_memory.domain.pruning import PruneOptions, Pruner
from letta_memory.store.archival.uses import SqlUseStore
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pruning import SqlPruneStore
from letta_postgres.db import Database

DAY, HOUR = timedelta(seconds=86_400), timedelta(hours=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


class SetClock:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.time = START

    def now(self) -> datetime:
        return self.time

    def monotonic_ns(self) -> int:
        return 0


class Shelf:
    """An organization of its own with an archive, and a clock."""

    def __init__(self, db: Database) -> None:
        self.db, self.clock = db, SetClock()
        self.actor = Actor(new_id("org"), "user-ann")
        self.store, self.archives = SqlPassageStore(db), SqlArchiveStore(db)
        self.uses = PassageUses(SqlUseStore(db), self.clock)
        self.passages = Passages(self.store, self.archives, NoEmbedder(), self.clock, self.uses)
        self.pruning = SqlPruneStore(db)
        self.pruner = Pruner(self.pruning, self.clock, PruneOptions())
        self.rules = Archives(self.archives, NoEmbedder(), self.clock)

    async def archive(self, **more: Any) -> str:
        return (await self.rules.create(self.actor, CreateArchiveRequest(name="a", **more), b"")).id

    async def write(self, archive_id: str, *texts: str, **more: Any) -> Any:
        new = [NewPassage(text=text, **more) for text in texts]
        return await self.passages.create(self.actor, archive_id, new, request_id="", request_hash=b"")

    async def found(self, *archive_ids: str, query: str = "") -> list[str]:
        asked = SearchPassagesRequest(archive_ids=archive_ids, query=query, limit=1000)
        return sorted(hit.passage.text for hit in await self.passages.search(self.actor, asked, embeddings=False))

    async def listed(self, archive_id: str) -> list[str]:
        page = Page(limit=1000, ascending=True)
        found = await self.store.list_passages(self.actor, archive_id, page, containing="", now=self.clock.now())
        return sorted(passage.text for passage in found)

    async def rows(self, archive_id: str) -> tuple[int, int]:
        """Return how many rows an archive has, and how many it counts."""
        [(number, counted)] = await self.db.hot(
            "select (select count(*) from memory.passages p where p.organization_id = a.organization_id "
            "and p.archive_id = a.id), a.passage_count from memory.archives a "
            "where a.organization_id = %b and a.id = %b",
            (self.actor.organization_id, archive_id),
        )
        return number, counted


@pytest.fixture
async def shelf(database_url):
    db = await Database.open(database_url, schema="memory")
    yield Shelf(db)
    await db.close()


async def test_what_is_too_old_is_gone_from_the_moment_on_and_removed_later(shelf):
    place, other = await shelf.archive(max_age=DAY), await shelf.archive()
    await shelf.write(place, "red one", "red two")
    await shelf.write(other, "red other")
    shelf.clock.time += DAY
    await shelf.write(place, "red three")
    assert await shelf.found(place, query="red") == ["red one", "red three", "red two"]

    shelf.clock.time += timedelta(microseconds=1)
    for found in (await shelf.found(place, query="red"), await shelf.found(place), await shelf.listed(place)):
        assert found == ["red three"]
    assert await shelf.found(place, query="ed on") == [], "nor by a part of its text"
    assert await shelf.found(place, other, query="red") == ["red other", "red three"]
    assert await shelf.found(place, other) == ["red other", "red three"]
    assert await shelf.rows(place) == (3, 3), "the rows are still there"

    await shelf.pruner.prune()
    assert (await shelf.rows(place), await shelf.rows(other)) == ((1, 1), (1, 1))
    assert await shelf.found(place, query="red") == ["red three"]


async def test_what_is_too_old_takes_no_place_among_the_best(shelf):
    place = await shelf.archive(max_age=DAY)
    await shelf.write(place, *(f"red {number}" for number in range(200)))
    shelf.clock.time += timedelta(days=2)
    await shelf.write(place, "a long text that says of many other things that something was red once upon a time")

    assert len(await shelf.found(place, query="red")) == 1


async def test_the_newest_are_kept_and_writes_remove_what_is_too_much(shelf):
    place = await shelf.archive(max_passages=3)
    for number in range(5):
        await shelf.write(place, f"red {number}")
    for found in (await shelf.found(place, query="red"), await shelf.found(place), await shelf.listed(place)):
        assert found == ["red 2", "red 3", "red 4"]
    assert await shelf.rows(place) == (3, 3)


async def test_a_batch_that_is_too_much_is_answered_and_its_last_are_kept(shelf):
    place = await shelf.archive(max_passages=3)
    written = await shelf.write(place, *(f"red {number}" for number in range(5)))

    assert len(written.rows) == 5
    assert await shelf.found(place, query="red") == await shelf.listed(place) == ["red 2", "red 3", "red 4"]
    await shelf.pruner.prune()
    assert await shelf.rows(place) == (3, 3)


async def test_a_bound_that_comes_later_or_goes_binds_at_once(shelf):
    place = await shelf.archive()
    await shelf.write(place, *(f"red {number}" for number in range(5)))
    changed = await shelf.rules.update(shelf.actor, place, {"max_passages": 2})
    assert changed.max_passages == 2
    assert await shelf.listed(place) == ["red 3", "red 4"]
    changed = await shelf.rules.update(shelf.actor, place, {"max_passages": None})
    assert not changed.HasField("max_passages")
    assert len(await shelf.listed(place)) == 5, "nothing was removed yet"


async def test_archives_are_pruned_a_batch_at_a_time_each_by_one_replica(shelf):
    shelf.clock.time += timedelta(days=400)
    await shelf.pruner.prune()
    places = [await shelf.archive(max_age=DAY) for _ in range(2)]
    for place in places:
        await shelf.write(place, *(str(number) for number in range(7)))
    shelf.clock.time += timedelta(days=400)
    now = shelf.clock.now()
    gone = []
    while (removed := await shelf.pruning.prune_archive(now, 3)) is not None:
        gone.append(removed)
    assert sorted(filter(None, gone)) == [1, 1, 3, 3, 3, 3]

    shelf.clock.time += timedelta(days=1)
    for place in places:
        await shelf.write(place, *(str(number) for number in range(7)))
    shelf.clock.time += timedelta(days=400)
    await asyncio.gather(*(shelf.pruner.prune() for _ in range(3)))
    assert [await shelf.rows(place) for place in places] == [(0, 0), (0, 0)]


async def test_a_text_that_is_there_is_skipped_and_the_one_that_stands_is_answered(shelf):
    place = await shelf.archive(deduplication=DEDUPLICATION_SKIP)
    first = await shelf.write(place, "a", "b", tags=["first"])
    again = await shelf.write(place, "c", "b", "c", "a", tags=["second"])

    assert (list(first.repeats), list(again.repeats)) == ([], [1, 2, 3])
    ids = [passage.id for passage in again.rows]
    assert ids == [ids[0], first.rows[1].id, ids[0], first.rows[0].id]
    assert [list(passage.tags) for passage in again.rows] == [["second"], ["first"], ["second"], ["first"]]
    assert await shelf.rows(place) == (3, 3)


async def test_concurrent_repeats_are_written_once(shelf):
    place = await shelf.archive(deduplication=DEDUPLICATION_SKIP)
    written = await asyncio.gather(*(shelf.write(place, "the same", f"own {n}") for n in range(8)))

    assert len({each.rows[0].id for each in written}) == 1
    assert sorted(list(each.repeats) for each in written) == [[]] + [[0]] * 7
    assert await shelf.rows(place) == (9, 9)


async def test_archives_skip_what_they_have_themselves_and_only_where_they_say_so(shelf):
    plain, place = await shelf.archive(), await shelf.archive(deduplication=DEDUPLICATION_SKIP)
    await shelf.write(plain, "a", "a")
    assert list((await shelf.write(place, "a")).repeats) == []
    assert await shelf.rows(plain) == (2, 2)

    await shelf.rules.update(shelf.actor, plain, {"deduplication": DEDUPLICATION_SKIP})
    assert list((await shelf.write(plain, "a")).repeats) == [0], "what was there before counts"
    assert await shelf.rows(plain) == (2, 2)


async def test_a_repeat_of_what_is_not_kept_any_more_is_written(shelf):
    place = await shelf.archive(deduplication=DEDUPLICATION_SKIP, max_age=DAY)
    await shelf.write(place, "a")
    shelf.clock.time += timedelta(days=2)
    assert list((await shelf.write(place, "a")).repeats) == []
    assert await shelf.found(place) == ["a"]
    assert list((await shelf.write(place, "a")).repeats) == [0]


async def test_a_repeated_request_is_answered_as_before_where_texts_are_skipped(shelf):
    place = await shelf.archive(deduplication=DEDUPLICATION_SKIP)
    new = [NewPassage(text="a"), NewPassage(text="a")]
    made = [
        await shelf.passages.create(shelf.actor, place, new, request_id="key", request_hash=b"hash") for _ in range(2)
    ]
    assert made[0] == made[1]
    assert list(made[0].repeats) == [1]


async def kept(shelf: Shelf, place: str, after: timedelta) -> list[str]:
    """Return what an archive keeps when the background came by some time after the start."""
    shelf.clock.time = START + after
    await shelf.uses.flush()
    await shelf.pruner.prune()
    return await shelf.listed(place)


async def noted(shelf: Shelf) -> int:
    statement = "select count(*) from memory.passage_uses where organization_id = %b"
    [(number,)] = await shelf.db.hot(statement, (shelf.actor.organization_id,))
    return int(number)


async def test_what_no_search_gave_for_so_long_goes_and_the_rest_stays(shelf: Shelf) -> None:
    place, other = await shelf.archive(unused_after=DAY), await shelf.archive()
    for each in (place, other):
        await shelf.write(each, "red one", "blue two")
    shelf.clock.time = START + 20 * HOUR
    assert await shelf.found(place, query="red") == ["red one"]

    assert await kept(shelf, place, DAY) == ["blue two", "red one"]
    assert await kept(shelf, place, 25 * HOUR) == ["red one"]
    assert await shelf.rows(place) == (1, 1)
    assert await kept(shelf, place, 44 * HOUR) == ["red one"]
    assert await kept(shelf, place, 45 * HOUR) == []
    assert await shelf.listed(other) == ["blue two", "red one"], "off by default"
    assert await noted(shelf) == 0, "what is gone is not noted any more"


async def test_a_search_writes_nothing_and_what_is_behind_it_writes_once(shelf: Shelf) -> None:
    place, other = await shelf.archive(unused_after=DAY), await shelf.archive()
    for each in (place, other):
        await shelf.write(each, "red one", "red two")
    for _ in range(3):
        await shelf.found(place, query="red")
        await shelf.found(other, query="red")

    assert await noted(shelf) == 0
    assert (await shelf.uses.flush(), await noted(shelf), await shelf.uses.flush()) == (2, 2, 0)


async def test_what_a_list_showed_is_used(shelf: Shelf) -> None:
    place = await shelf.archive(unused_after=DAY)
    await shelf.write(place, "red one")
    await shelf.db.hot(
        "insert into memory.agents (organization_id, id, name) values (%b, 'agent-1', 'Ada')",
        (shelf.actor.organization_id,),
    )
    await shelf.archives.attach(shelf.actor, "agent-1", place)
    shelf.clock.time = START + 20 * HOUR
    for page, more in ((Page(limit=10, ascending=True), {}), (Page(limit=10, ascending=True), {"containing": "red"})):
        shelf.clock.time += HOUR
        assert len(await shelf.passages.list_of_agent(shelf.actor, "agent-1", page, **more)) == 1
        assert await shelf.uses.flush() == 1

    assert await kept(shelf, place, 45 * HOUR) == ["red one"]
    assert await kept(shelf, place, 47 * HOUR) == []


async def test_a_text_that_is_written_again_and_skipped_is_used(shelf: Shelf) -> None:
    place = await shelf.archive(unused_after=DAY, deduplication=DEDUPLICATION_SKIP)
    await shelf.write(place, "red one")
    shelf.clock.time = START + 20 * HOUR
    await shelf.write(place, "red one")

    assert await kept(shelf, place, 25 * HOUR) == ["red one"]


async def test_uses_count_from_when_that_is_switched_on(shelf: Shelf) -> None:
    place = await shelf.archive()
    await shelf.write(place, "red one")
    shelf.clock.time = START + 10 * DAY
    changed = await shelf.rules.update(shelf.actor, place, {"unused_after": DAY})
    assert changed.unused_after.ToTimedelta() == DAY
    shelf.clock.time += HOUR
    await shelf.rules.update(shelf.actor, place, {"unused_after": 2 * DAY})

    assert await kept(shelf, place, 12 * DAY) == ["red one"]
    assert await kept(shelf, place, 12 * DAY + HOUR) == [], "a change does not begin anew"
    await shelf.write(place, "red two")
    await shelf.rules.update(shelf.actor, place, {"unused_after": None})
    assert await kept(shelf, place, 90 * DAY) == ["red two"]


async def test_what_cannot_be_written_is_tried_again(shelf: Shelf) -> None:
    class Away:
        down = True

        def __init__(self) -> None:
            self.got: list[str] = []

        async def note_uses(self, uses: Any) -> set[tuple[str, str]]:
            if self.down:
                raise DatabaseUnavailable("away")
            self.got += [key.passage_id for key in uses]
            return {(key.organization_id, key.archive_id) for key in uses}

    store = Away()
    uses = PassageUses(store, shelf.clock)
    written = await shelf.write(await shelf.archive(), "a", "b")
    uses.note(written.rows)
    with pytest.raises(DatabaseUnavailable):
        await uses.flush()
    store.down = False

    assert await uses.flush() == 2
    uses.note(written.rows)
    assert await uses.flush() == 0, "the archive is known to keep what nobody uses"
    assert store.got == [row.id for row in written.rows]


async def test_uses_of_what_is_gone_are_forgotten(shelf: Shelf) -> None:
    place = await shelf.archive(unused_after=DAY)
    written = await shelf.write(place, "a")
    shelf.uses.note(written.rows)
    await shelf.store.delete(shelf.actor, place, written.rows[0].id)

    assert (await shelf.uses.flush(), await noted(shelf)) == (1, 0)
